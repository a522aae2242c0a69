"""File sinks: when they write, what they do when they cannot, and reopening."""

import errno
import os
import resource

import pytest

from forkproxy.access_log import sinks
from forkproxy.access_log.sinks import FLUSH_BYTES, FileSink, Sinks, check_path
from forkproxy.config.problems import ConfigError
from tests.unit.access_log.fakes import WHERE, FakeLoop


class FakeLog:
    def __init__(self):
        self.events = []

    def error(self, event, **values):
        self.events.append((event, values))


@pytest.fixture
def log(monkeypatch):
    fake = FakeLog()
    monkeypatch.setattr(sinks, "_log", fake)
    return fake


@pytest.fixture
def loop():
    return FakeLoop()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "access.log"


@pytest.fixture
def sink(path, loop):
    made = FileSink(str(path))
    made.start(loop)
    yield made
    made.close()


def test_lines_wait_for_the_flush_interval(sink, path, loop):
    sink.write(b"1\n")
    loop.advance(5)
    sink.write(b"2\n")
    assert path.read_bytes() == b""
    loop.advance(5)
    assert path.read_bytes() == b"1\n2\n"
    assert loop.timers == []
    sink.write(b"3\n")
    loop.advance(10)
    assert path.read_bytes() == b"1\n2\n3\n"
    assert oct(path.stat().st_mode & 0o777) in ("0o644", "0o600", "0o640")


def test_64_kib_are_written_at_once_and_in_one_write(sink, path, loop, monkeypatch):
    writes = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: writes.append(len(data)) or write(fd, data))
    for _ in range(FLUSH_BYTES // 1024):
        sink.write(b"x" * 1023 + b"\n")
    assert writes == [FLUSH_BYTES]
    assert path.stat().st_size == FLUSH_BYTES
    sink.flush()
    loop.advance(100)
    assert writes == [FLUSH_BYTES]


def test_lines_written_before_start_are_kept(path, loop):
    sink = FileSink(str(path))
    sink.write(b"early\n")
    sink.flush()
    assert not path.exists()
    sink.start(loop)
    loop.advance(10)
    sink.close()
    assert path.read_bytes() == b"early\n"


def test_what_is_never_started_is_bounded(path, log):
    sink = FileSink(str(path))
    for _ in range(2048):
        sink.write(b"x" * 1023 + b"\n")
    assert sink.lines_dropped > 0
    assert sink._size <= sinks.MAX_BUFFERED_BYTES + FLUSH_BYTES
    assert "closed" in repr(sink)


def test_reopen_after_rotation(sink, path, loop):
    sink.write(b"old\n")
    rotated = path.with_suffix(".1")
    path.rename(rotated)
    sink.reopen()
    sink.write(b"new\n")
    sink.flush()
    assert rotated.read_bytes() == b"old\n"
    assert path.read_bytes() == b"new\n"


def test_a_failed_reopen_goes_on_with_the_old_file(sink, path, loop, log):
    rotated = path.with_suffix(".1")
    path.rename(rotated)
    path.mkdir()
    sink.reopen()
    sink.write(b"still here\n")
    sink.flush()
    assert rotated.read_bytes() == b"still here\n"
    assert log.events[0][0] == "access log not opened"
    assert log.events[0][1]["reason"] == "Is a directory"


def test_close_writes_what_waits_and_forgets_the_loop(path, loop):
    before = set(os.listdir("/proc/self/fd"))
    sink = FileSink(str(path))
    sink.start(loop)
    sink.write(b"last\n")
    sink.close()
    assert path.read_bytes() == b"last\n"
    assert set(os.listdir("/proc/self/fd")) == before
    assert all(timer.cancelled for timer in loop.timers)
    sink.close()


def test_a_full_disk_drops_counts_and_complains_now_and_then(loop, log):
    sink = FileSink("/dev/full")
    sink.start(loop)
    for _ in range(3):
        sink.write(b"1\n2\n")
        sink.flush()
    assert (sink.lines_dropped, sink.stats.write_failed) == (6, 3)
    told = {"path": "/dev/full", "reason": "No space left on device", "lines_dropped": 2}
    hint = "requests go on without their lines; make room, and writing goes on by itself"
    assert log.events == [("access log lines dropped", {**told, "hint": hint})]
    loop.advance(10)
    sink.write(b"3\n")
    sink.flush()
    assert len(log.events) == 2
    assert log.events[1][1]["lines_dropped"] == 7
    sink.close()


def test_a_line_that_a_full_disk_cut_is_completed_first(sink, path, loop, log, monkeypatch):
    answers = iter([5, errno.ENOSPC])
    write = os.write

    def failing(fd, data):
        answer = next(answers, None)
        if answer is None:
            return write(fd, data)
        if answer == errno.ENOSPC:
            raise OSError(answer, os.strerror(answer))
        return write(fd, data[:answer])

    monkeypatch.setattr(os, "write", failing)
    for line in (b"one\n", b"two\n", b"three\n"):
        sink.write(line)
    sink.flush()
    assert path.read_bytes() == b"one\nt"
    assert sink.lines_dropped == 1
    sink.write(b"four\n")
    sink.flush()
    assert path.read_bytes() == b"one\ntwo\nfour\n"


def test_a_cut_between_lines_leaves_nothing_over(sink, path, loop, log, monkeypatch):
    answers = iter([4, OSError(errno.EDQUOT, "quota")])
    write = os.write

    def failing(fd, data):
        answer = next(answers, None)
        if isinstance(answer, OSError):
            raise answer
        return write(fd, data if answer is None else data[:answer])

    monkeypatch.setattr(os, "write", failing)
    sink.write(b"one\n")
    sink.write(b"two\n")
    sink.flush()
    sink.write(b"three\n")
    sink.flush()
    assert path.read_bytes() == b"one\nthree\n"
    assert sink.lines_dropped == 1


def test_short_writes_are_continued(sink, path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    sink.write(b"0123456789\n")
    sink.flush()
    assert path.read_bytes() == b"0123456789\n"


def test_a_file_size_limit_is_a_full_disk(sink, path, loop, log):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        sink.write(b"0123456\n")
        sink.write(b"abcdefg\n")
        sink.write(b"dropped\n")
        sink.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sink.lines_dropped == 1
    sink.write(b"after\n")
    sink.flush()
    assert path.read_bytes() == b"0123456\nabcdefg\nafter\n"


@pytest.fixture
def slow_output(monkeypatch, loop):
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    monkeypatch.setitem(sinks._OUTPUTS, "/dev/stdout", writing)
    sink = FileSink("/dev/stdout")
    sink.start(loop)
    yield sink, reading
    sink.close()
    os.close(reading)
    os.close(writing)


def read_all(fd):
    data = b""
    while True:
        try:
            piece = os.read(fd, 1 << 20)
        except BlockingIOError:
            return data
        data += piece


def test_standard_output_is_written_at_the_end_of_the_pass(slow_output, loop):
    sink, reading = slow_output
    sink.write(b"1\n")
    sink.write(b"2\n")
    assert len(loop.soon) == 1
    loop.advance(0)
    assert read_all(reading) == b"1\n2\n"
    sink.reopen()
    sink.write(b"3\n")
    loop.advance(0)
    assert read_all(reading) == b"3\n"


def test_a_shared_output_stays_as_it_was(slow_output, loop):
    sink, reading = slow_output
    assert os.get_blocking(sinks._OUTPUTS["/dev/stdout"])
    sink.close()
    os.write(sinks._OUTPUTS["/dev/stdout"], b"still open\n")
    assert read_all(reading) == b"still open\n"


def test_an_output_that_cannot_be_opened_anew_is_used_as_it_is(monkeypatch, loop, tmp_path):
    with open(tmp_path / "out", "wb") as out:
        monkeypatch.setitem(sinks._OUTPUTS, "/dev/stdout", out.fileno())
        sink = FileSink("/dev/stdout")
        sink.start(loop)
        sink.write(b"1\n")
        loop.advance(0)
        sink.close()
        out.write(b"2\n")
    assert (tmp_path / "out").read_bytes() == b"1\n2\n"


def test_a_pipe_gets_whole_lines_that_it_takes_at_once(slow_output, loop, monkeypatch):
    sink, reading = slow_output
    writes = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: writes.append(data) or write(fd, data))
    for number in range(100):
        sink.write(b"%03d%s\n" % (number, b"x" * 200))
    sink.write(b"y" * 5000 + b"\n")
    loop.advance(0)
    assert max(map(len, writes)) <= sinks.PIPE_BUF_BYTES
    assert [data[-1:] for data in writes].count(b"\n") == len(writes) - 1  # the long line has a piece without an end
    assert b"".join(writes) == read_all(reading)


def test_a_named_pipe_without_a_reader_stops_nothing(path, loop, log):
    os.mkfifo(path)
    sink = FileSink(str(path))
    sink.start(loop)
    assert log.events[0][1]["reason"] == os.strerror(errno.ENXIO)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink.reopen()
    for _ in range(200):
        sink.write(b"x" * 999 + b"\n")
    assert len(read_all(reading)) in range(60_000, 70_000)
    sink.close()
    os.close(reading)


def test_an_output_that_is_full_is_tried_again(slow_output, loop, log):
    sink, reading = slow_output
    lines = [b"%06d%s\n" % (number, b"x" * 993) for number in range(300)]
    for line in lines:
        sink.write(line)
    loop.advance(0)
    got = b""
    for _ in range(20):
        got += read_all(reading)
        loop.advance(0.1)
    assert got + read_all(reading) == b"".join(lines)
    assert sink.lines_dropped == 0


def test_an_output_that_stays_full_drops_whole_lines(slow_output, loop, log):
    sink, reading = slow_output
    for number in range(3000):
        sink.write(b"%06d%s\n" % (number, b"x" * 993))
    sink.flush()
    assert sink.lines_dropped > 1000
    got = b""
    for _ in range(60):
        got += read_all(reading)
        loop.advance(0.1)
    assert {len(line) for line in got.split(b"\n")[:-1]} == {999}
    assert got.count(b"\n") + sink.lines_dropped == 3000
    assert log.events[0][1]["reason"] == "its reader is too slow"


def test_a_file_that_cannot_be_opened_in_the_worker_stops_nothing(tmp_path, loop, log):
    sink = FileSink(str(tmp_path / "none" / "a.log"))
    sink.start(loop)
    sink.write(b"1\n")
    sink.flush()
    assert sink.lines_dropped == 1
    assert log.events[0][0] == "access log not opened"
    (tmp_path / "none").mkdir()
    sink.reopen()
    sink.write(b"2\n")
    sink.close()
    assert (tmp_path / "none" / "a.log").read_bytes() == b"2\n"


def test_check_path(tmp_path):
    check_path("/dev/stdout", WHERE)
    check_path(str(tmp_path / "new.log"), WHERE)
    assert not (tmp_path / "new.log").exists()
    for bad, reason in ((tmp_path, "Is a directory"), (tmp_path / "a" / "b", "no directory")):
        with pytest.raises(ConfigError, match=reason) as caught:
            check_path(str(bad), WHERE)
        assert (caught.value.line, caught.value.column) == (9, 5)


def test_a_path_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="Permission denied"):
        check_path(str(tmp_path / "a.log"), WHERE)


def test_logs_of_one_path_share_a_sink(tmp_path, loop):
    made = Sinks(flush_interval_s=1.0)
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    sink = made.get(first, WHERE)
    assert made.get(first, WHERE) is sink
    assert made.get(second, WHERE) is not sink
    made.start(loop)
    sink.write(b"1\n")
    loop.advance(1)
    assert (tmp_path / "a").read_bytes() == b"1\n"
    sink.write(b"2\n")
    made.flush()
    (tmp_path / "a").rename(tmp_path / "a.1")
    made.reopen()
    sink.write(b"3\n")
    made.close()
    assert (tmp_path / "a.1").read_bytes() == b"1\n2\n"
    assert (tmp_path / "a").read_bytes() == b"3\n"


def test_what_is_counted(path, loop):
    sinks = Sinks(flush_interval_s=1.0)
    sink = sinks.get(str(path), WHERE)
    stats = sinks.stats
    sinks.start(loop)
    sink.write(b"1\n")
    sink.write(b"22\n")
    sinks.sync_stats()
    assert (stats.write_buffered, stats.write_total_buffered, stats.write_completed) == (2, 5, 0)
    sink.write(b"3\n")
    loop.advance(1)
    sinks.sync_stats()
    assert (stats.write_buffered, stats.write_total_buffered, stats.write_completed) == (3, 0, 1)
    assert (stats.flushed_by_timer, stats.write_failed, stats.reopen_failed) == (1, 0, 0)
    sinks.close()


def test_failures_are_counted(path, loop, log):
    path.symlink_to("/dev/full")
    sinks = Sinks()
    sink = sinks.get(str(path), WHERE)
    sinks.start(loop)
    sink.write(b"1\n")
    sinks.flush()
    assert (sinks.stats.write_failed, sinks.stats.write_completed) == (1, 0)
    # The disk has room again.
    path.unlink()
    sinks.reopen()
    sink.write(b"2\n")
    sinks.flush()
    assert path.read_bytes() == b"2\n"
    assert (sinks.stats.write_failed, sinks.stats.write_completed) == (1, 1)
    path.unlink()
    path.mkdir()
    sinks.reopen()
    assert sinks.stats.reopen_failed == 1
    sinks.on_lost_log_line()
    assert sinks.stats.write_failed == 2
    sinks.close()
