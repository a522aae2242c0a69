"""Messages in pieces, in heaps, too long, and to a peer that does not read."""

import json
import socket

import pytest

from forkproxy.worker.control import Channel, MessageReader, ProtocolError, encode
from tests.support.live_loop import LiveLoop


def test_byte_by_byte():
    reader = MessageReader()
    messages = []
    for byte in b'{"a":1}\n\n{"b":[2]}\n':
        messages += reader.feed(bytes([byte]))
    assert messages == [{"a": 1}, {"b": [2]}]


def test_what_is_encoded_comes_back():
    message = {"op": "x", "text": "line\nbreak", "n": [1.5, None, True]}
    assert MessageReader().feed(encode(message)) == [message]
    assert encode(message).count(b"\n") == 1


@pytest.mark.parametrize("line", [b"{", b"[]", b"1", b"nul", b"\x00", b'{"a":1}{', b"[" * 100000])
def test_what_is_no_message(line):
    with pytest.raises(ProtocolError):
        MessageReader().feed(line + b"\n")


def test_the_limit():
    with pytest.raises(ProtocolError, match="longer than 10 bytes"):
        MessageReader(10).feed(b"x" * 11)


@pytest.fixture
def loop():
    loop = LiveLoop()
    yield loop
    loop.run_once(0.0)
    loop.close()


class End:
    """One end of a channel, and what came in."""

    def __init__(self, loop, sock):
        self.messages = []
        self.reasons = []
        self.channel = Channel(loop, sock, on_message=self.messages.append, on_close=self.reasons.append)


@pytest.fixture
def ends(loop):
    ends = [End(loop, sock) for sock in socket.socketpair()]
    yield ends
    for end in ends:
        end.channel.close()


def test_both_ways(loop, ends):
    ends[0].channel.send({"a": 1})
    ends[1].channel.send({"b": 2})
    loop.run_until(lambda: ends[0].messages and ends[1].messages)
    assert (ends[0].messages, ends[1].messages) == ([{"b": 2}], [{"a": 1}])


def test_more_than_the_socket_takes_waits_in_order(loop, ends):
    sent = [{"n": number, "fill": "x" * 10000} for number in range(200)]
    for message in sent:
        ends[0].channel.send(message)
    loop.run_until(lambda: len(ends[1].messages) == 200)
    assert ends[1].messages == json.loads(json.dumps(sent))


def test_the_end_is_told_once_and_nothing_is_sent_after(loop, ends):
    ends[0].channel.close()
    loop.run_until(lambda: ends[1].reasons)
    assert ends[1].reasons == [""]
    assert ends[0].reasons == []
    ends[1].channel.send({"late": 1})
    assert ends[1].channel.closed


def test_messages_before_the_end_arrive(loop, ends):
    ends[0].channel.send({"last": 1})
    ends[0].channel.close()
    loop.run_until(lambda: ends[1].reasons)
    assert ends[1].messages == [{"last": 1}]


def test_nonsense_ends_the_channel_with_the_reason(loop):
    ours, theirs = socket.socketpair()
    end = End(loop, ours)
    with theirs:
        theirs.sendall(b"nonsense\n")
        loop.run_until(lambda: end.reasons)
    assert end.reasons[0].startswith("not JSON")


def test_a_message_may_close_the_channel(loop):
    ours, theirs = socket.socketpair()
    end = End(loop, ours)
    seen = []

    def once(message):
        seen.append(message)
        end.channel.close()

    end.channel.on_message = once
    with theirs:
        theirs.sendall(b'{"a":1}\n{"b":2}\n')
        loop.run_until(lambda: seen)
        loop.run_once(0.0)
    assert seen == [{"a": 1}]
