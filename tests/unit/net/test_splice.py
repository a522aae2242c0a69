"""Pipes and their pool; one direction spliced between two real sockets, with everything that may come between."""

import contextlib
import errno
import gc
import os
import socket
import struct
import weakref

import pytest

from forkproxy.net import splice as module
from forkproxy.net.connection import LOCAL_CLOSE, RECV_BYTES, REMOTE_RESET, Connection
from forkproxy.net.splice import (
    IDLE_S,
    MAX_IDLE_PIPES,
    MINIMUM_PIPE_BYTES,
    PIPE_BYTES,
    RETRY_S,
    Pipe,
    PipePool,
    Splice,
)
from forkproxy.net.timers import Timers
from tests.support.live_loop import socket_pair

SMALL = 200_000
"""A socket's buffer in the kernel, each side: TCP over loopback, with its segments of 64 KiB, stalls with much less."""


@pytest.fixture
def timers():
    return Timers()


@pytest.fixture
def pool(timers):
    pool = PipePool(timers)
    yield pool
    pool.close()


class Mortal(Connection):
    """Can be asked whether it is gone."""

    __slots__ = ("__weakref__",)


class Joined:
    """``writer`` → source → splice → sink → ``reader``; the owner does what tcp_proxy does."""

    def __init__(self, loop, family="tcp", high_watermark=1 << 20, sndbuf=0):
        self.loop = loop
        self.source, self.read, self.writer = socket_pair(loop, family, Mortal)
        self.sink, self.sent, self.reader = socket_pair(loop, family, Mortal, buffer_limit_bytes=high_watermark)
        if sndbuf:
            self.sink.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
            self.reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, sndbuf)
        self.moved = 0
        self.pauses = 0
        self.held_at_pause = 0
        self.source.half_close = self.sink.half_close = True
        self.source.on_data = self.copied
        self.source.on_end = self.sink.end_write
        self.sink.on_above_high_watermark = self.pause
        self.sink.on_below_low_watermark = self.source.resume_reading
        self.copies = []
        self.splice = Splice(self.source, self.sink, self.count)
        self.splice.start()
        self.source.start()
        self.sink.start()

    def count(self, size):
        self.moved += size

    def copied(self, data):
        self.copies.append(len(data))
        self.sink.write(data)

    def pause(self):
        self.pauses += 1
        self.held_at_pause = self.sink.out_bytes
        self.source.pause_reading()

    def read_all(self, size):
        """``size`` bytes at the reader, the loop running meanwhile."""
        self.reader.setblocking(False)
        got = bytearray()

        def enough():
            while len(got) < size:
                try:
                    part = self.reader.recv(1 << 20)
                except BlockingIOError:
                    return False
                if not part:
                    break
                got.extend(part)
            return True

        self.loop.run_until(enough)
        return bytes(got)

    def push(self, blob):
        """The writer sends all of ``blob``, the loop running; True once it is with the kernel."""
        self.writer.setblocking(False)
        rest = [memoryview(blob)]

        def done():
            try:
                rest[0] = rest[0][self.writer.send(rest[0]) :]
            except BlockingIOError:
                return False
            return not rest[0]

        return done

    def block(self):
        """Fill the sink's pipe: the reader takes nothing. The number of bytes on their way."""
        blob = os.urandom(1 << 20) * 16
        self.writer.setblocking(False)
        sent = 0
        while not self.source.read_pauses:
            with contextlib.suppress(BlockingIOError):
                sent += self.writer.send(blob[sent:])
            self.loop.passes(2)
        return blob[:sent]

    def close(self):
        for sock in (self.writer, self.reader):
            sock.close()
        for connection in (self.source, self.sink):
            connection.abort()
        self.loop.passes(1)


@pytest.fixture
def join(loop):
    made = []

    def make(**arguments):
        made.append(Joined(loop, **arguments))
        return made[-1]

    yield make
    for joined in made:
        joined.close()
    assert loop.pipes.in_use == 0, "a pipe was not given back"


# -- pipes


def test_a_pipe_is_large_and_does_not_block():
    pipe = Pipe()
    assert pipe.capacity == PIPE_BYTES
    with pytest.raises(BlockingIOError):
        os.read(pipe.read_fd, 1)
    assert not os.get_inheritable(pipe.read_fd)
    pipe.close()


def test_a_pipe_that_was_given_back_is_taken_again(pool):
    pipe = pool.take(0.0)
    assert pool.in_use == 1
    pool.give(pipe, 0.0)
    assert pool.in_use == 0
    assert pool.take(0.0) is pipe
    pool.discard(pipe)
    assert pool.in_use == 0
    other = pool.take(0.0)
    assert other is not pipe
    pool.give(other, 0.0)
    pool.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(other.read_fd)


def test_the_pool_is_bounded(pool, monkeypatch):
    monkeypatch.setattr(module, "MAX_PIPES", MAX_IDLE_PIPES + 2)
    pipes = [pool.take(0.0) for _ in range(MAX_IDLE_PIPES + 2)]
    assert pool.take(0.0) is None
    for pipe in pipes:
        pool.give(pipe, 0.0)
    closed = [pipe for pipe in pipes if not os.path.exists(f"/proc/self/fd/{pipe.read_fd}")]
    assert len(closed) == 2


def test_idle_pipes_go_when_nothing_is_transferred(pool, timers):
    first, second = pool.take(0.0), pool.take(0.0)
    pool.give(first, 10.0)
    pool.give(second, 12.0)
    timers.run_due(10.0 + IDLE_S)
    assert pool.take(13.0) is second, "the last use counts"
    timers.run_due(12.0 + IDLE_S)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first.read_fd)
    os.fstat(second.read_fd)  # in use
    pool.give(second, 20.0)
    timers.run_due(20.0 + IDLE_S)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(second.read_fd)


def test_without_descriptors_there_is_no_pipe_and_no_hurry(pool, monkeypatch):
    calls = []

    def pipe2(flags):
        calls.append(flags)
        raise OSError(errno.EMFILE, "EMFILE")

    monkeypatch.setattr(os, "pipe2", pipe2)
    assert pool.take(100.0) is None
    assert pool.take(100.0 + RETRY_S / 2) is None
    assert len(calls) == 1
    monkeypatch.undo()
    pool.discard(pool.take(100.0 + RETRY_S))


def test_a_pipe_that_the_kernel_made_small_is_none(pool, monkeypatch):
    class Small(Pipe):
        __slots__ = ()

        def __init__(self):
            super().__init__()
            self.capacity = MINIMUM_PIPE_BYTES - 1

    monkeypatch.setattr(module, "Pipe", Small)
    assert pool.take(1.0) is None
    assert pool.in_use == 0


def test_a_pipe_over_the_limit_stays_as_it_was_made(monkeypatch):
    def fcntl(fd, command, *value):
        if command == module.fcntl.F_SETPIPE_SZ:
            raise PermissionError(errno.EPERM, "EPERM")
        return 65536

    monkeypatch.setattr(module.fcntl, "fcntl", fcntl)
    pipe = Pipe()
    assert pipe.capacity == 65536
    pipe.close()


# -- bytes


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_everything_arrives_counted_and_in_order(loop, join, family):
    joined = join(family=family)
    blob = os.urandom(1 << 20) * 5
    got = bytearray()
    done = joined.push(blob)
    joined.reader.setblocking(False)

    def finished():
        done()
        with contextlib.suppress(BlockingIOError):
            got.extend(joined.reader.recv(1 << 20))
        return len(got) == len(blob)

    loop.run_until(finished)
    assert got == blob
    assert joined.copies == []
    assert joined.moved == joined.source.bytes_received == joined.sink.bytes_sent == len(blob)
    assert joined.sink.out_bytes == joined.splice.piped == 0
    assert loop.pipes.in_use == 0, "an idle connection holds no pipe"


def test_bytes_in_user_space_leave_first(loop, join):
    joined = join(sndbuf=SMALL)
    head = b"h" * (1 << 20)
    joined.sink.write(head)
    joined.writer.sendall(b"tail")
    loop.passes(5)
    assert joined.copies == [4], "nothing enters the pipe while bytes wait before it"
    assert joined.read_all(len(head) + 4) == head + b"tail"
    joined.writer.sendall(b"more")
    assert joined.read_all(4) == b"more"
    assert joined.copies == [4], "and then it does again"


def test_what_is_written_behind_the_pipe_leaves_after_it(loop, join):
    joined = join(sndbuf=SMALL)
    blob = joined.block()
    joined.sink.write(b"last")
    joined.source.pause_reading()
    got = joined.read_all(joined.moved + 4)
    assert got == blob[: joined.moved] + b"last"


@pytest.mark.parametrize("high_watermark", [1000, 200_000, 1 << 20, 8 << 20, 0])
def test_a_slow_reader_pauses_the_source_at_the_mark(loop, join, high_watermark):
    joined = join(high_watermark=high_watermark, sndbuf=SMALL)
    blob = joined.block()
    limit = min(PIPE_BYTES, max(high_watermark or PIPE_BYTES, RECV_BYTES))
    assert min(limit, high_watermark or limit) <= joined.held_at_pause <= limit
    # Nothing is read while nobody takes it, unless the kernel has taken half of it all the same: then the source was read
    # again, and may be paused again by now.
    before, pauses = joined.moved + sum(joined.copies), joined.pauses
    loop.passes(5)
    is_paused_still = joined.source.read_pauses and joined.pauses == pauses
    assert joined.moved + sum(joined.copies) == before or not is_paused_still
    # Half of it taken: the source is read again, and all arrives.
    assert joined.read_all(len(blob)) == blob
    assert joined.source.read_pauses == 0
    assert joined.moved + sum(joined.copies) == len(blob)


def test_the_source_is_not_read_again_before_half_of_the_pipe_is_gone(loop, join):
    joined = join(high_watermark=8 << 20, sndbuf=SMALL)
    joined.block()
    left = []

    def resume():
        left.append(joined.sink.out_bytes)
        joined.source.resume_reading()

    joined.sink.on_below_low_watermark = resume
    while joined.source.read_pauses:
        joined.reader.recv(RECV_BYTES)
        loop.passes(1)
    assert left[0] <= PIPE_BYTES // 2


def test_a_low_mark_is_a_mark_and_as_much_as_copying_reads_is_read_over_it(loop, join):
    joined = join(high_watermark=1000, family="unix")
    joined.writer.sendall(b"x" * 1001)
    loop.run_until(lambda: joined.moved)
    assert (joined.moved, joined.pauses) == (1001, 1)
    assert joined.source.read_pauses == 0, "it has left in the same pass"
    joined.writer.sendall(b"x" * 30_000)
    loop.run_until(lambda: joined.moved > 1001)
    assert (joined.moved, joined.pauses) == (31_001, 2)


def test_an_owner_that_does_not_pause_gets_copies_behind_the_full_pipe(loop, join):
    joined = join(high_watermark=RECV_BYTES, sndbuf=SMALL)
    joined.sink.on_above_high_watermark = joined.sink.on_below_low_watermark = lambda: None
    blob = os.urandom(1 << 20)
    done = joined.push(blob)
    loop.run_until(lambda: done() and joined.source.bytes_received == len(blob))
    assert joined.copies
    assert joined.read_all(len(blob)) == blob


def test_behind_a_pipe_whose_places_are_taken_bytes_are_copied(loop, join, monkeypatch):
    # A pipe has 256 places, and a small segment may take a whole one: it refuses long before its megabyte.
    joined = join(sndbuf=SMALL)

    def one_place(source, target, count, flags):
        if source == joined.source.fd and joined.splice.piped:
            raise BlockingIOError
        return os.splice(source, target, min(count, 100_000), flags=flags)

    monkeypatch.setattr(module, "splice", one_place)
    blob = joined.block()
    assert joined.copies, "the mark is reached all the same"
    assert joined.sink.out_bytes > PIPE_BYTES
    assert joined.read_all(len(blob)) == blob


def test_thin_reads_go_back_to_copying_and_what_is_in_the_pipe_still_leaves(loop, join):
    joined = join()
    for _ in range(module.THIN_READS):
        joined.writer.sendall(b"1234")
        assert joined.read_all(4) == b"1234"
    assert joined.copies == []
    joined.writer.sendall(b"5678")
    assert joined.read_all(4) == b"5678"
    assert joined.copies == [4]
    joined.splice.start()
    for _ in range(module.THIN_READS):
        joined.writer.sendall(b"9")
        assert joined.read_all(1) == b"9"
    assert joined.copies == [4]


def test_a_thick_read_begins_the_count_anew(loop, join):
    joined = join()
    for size in (1, 1, 1, module.THIN_BYTES, 1, 1, 1):
        joined.writer.sendall(b"x" * size)
        loop.run_until(lambda: joined.source.bytes_received == joined.sink.bytes_sent > 0)
        joined.read_all(size)
    assert joined.copies == []


# -- copying instead


def test_without_a_pipe_bytes_are_copied(loop, join, monkeypatch):
    monkeypatch.setattr(module, "MAX_PIPES", 0)
    joined = join()
    joined.writer.sendall(b"answer")
    assert joined.read_all(6) == b"answer"
    assert (joined.copies, joined.moved) == ([6], 0)


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_where_splice_is_not_to_be_had_bytes_are_copied(loop, join, monkeypatch, error):
    calls = []

    def refused(*arguments, **flags):
        calls.append(arguments)
        raise OSError(error, "refused")

    monkeypatch.setattr(module, "splice", refused)
    joined = join()
    for _ in range(2):
        joined.writer.sendall(b"answer")
        assert joined.read_all(6) == b"answer"
    assert joined.copies == [6, 6]
    assert len(calls) == 1, "it is not tried again"
    assert loop.pipes.in_use == 0


def test_nothing_spliced_is_not_taken_for_the_end(loop, join, monkeypatch):
    # The kernel also says 0 for bytes that it cannot splice.
    monkeypatch.setattr(module, "splice", lambda *arguments, **flags: 0)
    joined = join()
    joined.writer.sendall(b"answer")
    assert joined.read_all(6) == b"answer"
    assert joined.copies == [6]
    assert not joined.source.end_received
    assert loop.pipes.in_use == 0


def test_urgent_data_is_not_the_end(loop, join):
    joined = join()
    joined.writer.send(b"!", socket.MSG_OOB)
    joined.writer.sendall(b"after")
    assert joined.read_all(5) == b"after"
    assert joined.read.events == []


# -- ending


def test_half_close_comes_after_the_last_byte_and_the_other_way_stays_open(loop, join):
    joined = join(sndbuf=SMALL)
    blob = joined.block()
    joined.writer.shutdown(socket.SHUT_WR)
    got = joined.read_all(len(blob) + 1)  # one more than there is: until the end
    assert got == blob
    assert not joined.sink.closed
    joined.reader.setblocking(True)
    joined.reader.sendall(b"back")
    loop.run_until(lambda: joined.sent.data == b"back")
    assert loop.pipes.in_use == 0


def test_a_reset_source_is_told_and_the_sinks_reset_drops_the_pipe(loop, join):
    joined = join(sndbuf=SMALL)
    joined.block()
    assert loop.pipes.in_use == 1
    joined.writer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    joined.writer.close()
    joined.source.resume_reading()
    loop.run_until(lambda: joined.read.events)
    assert joined.read.events == [REMOTE_RESET]
    assert not joined.sink.closed
    joined.sink.reset()
    assert joined.sent.events == [LOCAL_CLOSE]
    assert loop.pipes.in_use == 0
    assert loop.pipes._idle == [], "a pipe with bytes in it is not used again"


def test_a_reset_sink_is_told(loop, join):
    joined = join(sndbuf=SMALL)
    joined.block()
    joined.reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    joined.reader.close()
    loop.run_until(lambda: joined.sent.events)
    assert joined.sent.events == [REMOTE_RESET]
    assert loop.pipes.in_use == 0
    joined.source.resume_reading()
    moved = joined.moved
    loop.run_until(lambda: joined.copies)
    assert joined.moved == moved, "what comes now is read and dropped, by copying"


def test_closing_sends_what_is_in_the_pipe(loop, join):
    joined = join(sndbuf=SMALL)
    blob = joined.block()
    joined.source.abort()
    joined.sink.close()
    moved = joined.moved
    assert joined.read_all(moved + 1) == blob[:moved]
    assert joined.sent.events == [LOCAL_CLOSE]


def test_closing_gives_a_peer_that_takes_nothing_its_time(loop, join):
    joined = join(sndbuf=SMALL)
    joined.block()
    joined.source.abort()
    joined.sink.close(0.05)
    loop.run_until(lambda: joined.sent.events)
    assert joined.sent.events == [LOCAL_CLOSE]
    assert loop.pipes.in_use == 0


def test_progress_gives_a_closing_connection_its_whole_time_again(loop, join):
    joined = join(sndbuf=SMALL)
    joined.block()
    joined.source.abort()
    joined.sink.close(100.0)
    loop.passes(2)
    deadline = joined.sink.close_timer.deadline
    left = joined.sink.out_bytes

    def progress():
        joined.reader.recv(RECV_BYTES)
        return joined.sink.out_bytes < left

    loop.run_until(progress)
    assert joined.sink.close_timer.deadline > deadline


def test_a_closing_sink_takes_no_more(loop, join):
    joined = join(sndbuf=SMALL)
    blob = joined.block()
    joined.sink.close()
    moved = joined.moved
    if moved == len(blob):
        joined.writer.send(b"more")
    joined.source.resume_reading()
    loop.run_until(lambda: joined.copies)
    assert joined.moved == moved
    assert joined.read_all(moved + 1) == blob[:moved]


def test_a_closing_source_is_read_by_copying(loop, join):
    joined = join()
    joined.source.close_lingering(100.0)
    joined.writer.sendall(b"nobody's")
    loop.run_until(lambda: joined.source.bytes_received)
    assert joined.moved == 0
    assert joined.sink.bytes_sent == 0


def test_a_source_does_not_keep_a_sink_that_is_gone(loop, join):
    joined = join()
    joined.source.on_end = lambda: None
    joined.sink.abort()
    loop.passes(1)
    gone = weakref.ref(joined.sink)
    source, writer, reader = joined.source, joined.writer, joined.reader
    joined.__dict__.clear()
    joined.close = lambda: None
    source.on_data = lambda data: None
    gc.collect()
    assert gone() is None
    source.abort()
    writer.close()
    reader.close()
    loop.passes(1)


def test_nothing_is_left_for_the_collector(loop, join):
    joined = join(sndbuf=SMALL)
    joined.block()
    joined.close()
    gone = [weakref.ref(joined.source), weakref.ref(joined.sink)]
    gc.disable()
    try:
        joined.__dict__.clear()
        joined.close = lambda: None
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()
