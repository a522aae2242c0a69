"""Spelling of heads: what is noted, what overrules what. The wire is played beside Envoy."""

from forkproxy.http.codec import NO_SINK
from forkproxy.http.header_case import (
    SpelledHeaders,
    SpellingClientCodec,
    SpellingServerCodec,
    as_it_is,
    respell,
    status_line,
)
from forkproxy.http.headers import proper_case
from forkproxy.http.http1 import ServerSettings


def test_the_first_spelling_counts():
    headers = SpelledHeaders(as_it_is)
    headers.note(b"X-One")
    headers.note(b"x-ONE")
    assert (headers.spell(b"x-one"), headers.spell(b"x-two")) == (b"X-One", b"x-two")
    assert SpelledHeaders(proper_case).spell(b"x-two") == b"X-Two"


def test_what_the_peer_spelled_overrules_the_format():
    spelled = SpelledHeaders(as_it_is)
    spelled.note(b"DATE")
    assert respell([b"date: x:y", b"server: z"], spelled, proper_case) == [b"DATE: x:y", b"server: z"]
    assert respell([b"date: x:y"], [], proper_case) == [b"Date: x:y"]


class Sink:
    """Keeps the headers of messages."""

    def __init__(self):
        self.seen = []

    def decode_headers(self, *arguments):
        self.seen.append(self.codec.headers if len(arguments) == 1 else arguments[1])

    def decode_data(self, data):
        pass

    decode_complete = decode_interim = decode_data


def test_every_request_has_its_own_spelling():
    sink = Sink()
    sink.codec = SpellingServerCodec(sink, ServerSettings(), False)
    sink.codec.feed(
        b"GET / HTTP/1.1\r\nHOST: a\r\nX-A: 1\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nConnection: x-B\r\nx-B: 2\r\n\r\n"
    )
    first, second = sink.seen
    assert (first.spell(b"host"), first.spell(b"x-a"), first.spell(b"x-b")) == (b"HOST", b"X-A", b"x-b")
    assert (second, second.spell(b"host"), second.spell(b"x-b")) == ([], b"host", b"x-B")
    sink.codec.close()


def test_trailers_are_not_noted():
    sink = Sink()
    sink.codec = SpellingServerCodec(sink, ServerSettings(enable_trailers=True), False)
    sink.codec.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-T: 1\r\n\r\n")
    assert sink.seen[0].spell(b"x-t") == b"x-t"


def answered(line, forward=True):
    sink = Sink()
    codec = SpellingClientCodec(sink, 1024, 100, False, forward)
    codec.expect(False)
    codec.feed(b"HTTP/1.1 " + line + b"\r\nContent-LENGTH: 0\r\n\r\n")
    codec.sink = NO_SINK
    headers = sink.seen[0]
    assert headers.spell(b"content-length") == b"Content-LENGTH"
    return status_line(b"HTTP/1.1 299 Unknown\r\n", 299, headers)


def test_reason_phrases():
    assert answered(b"299 My Own") == b"HTTP/1.1 299 My Own\r\n"
    assert answered(b"299 My Own", forward=False) == b"HTTP/1.1 299 Unknown\r\n"
    assert answered(b"299 ") == b"HTTP/1.1 299 Unknown\r\n"
    assert answered(b"299 \xe9") == b"HTTP/1.1 299 Unknown\r\n"
    assert status_line(b"HTTP/1.1 299 Unknown\r\n", 299, []) == b"HTTP/1.1 299 Unknown\r\n"
