"""HTTP/1.1 over httptools (llhttp), with every check that it leaves to us.

llhttp refuses by itself: content-length with transfer-encoding, two or listed content-lengths, obs-fold, bare LF and CR,
space before a colon, control characters, bad chunk sizes, unknown methods. It accepts, so this module looks after:
versions other than 1.1 (and RTSP/ICE), missing, repeated or malformed Host, absolute-form, transfer-codings other than one
``chunked``, transfer-encoding on 1.0, high bytes in the target, sizes and counts, trailing white space of values, statuses
below 100, and a second response nobody asked for. (RFC 9110, RFC 9112.)

Facts about llhttp that shape the code
- One feed runs the callbacks of all pipelined messages; there is no pause. The sink queues.
- Header names and values come whole, the target in pieces, trailers through ``on_header`` after the body.
- For a HEAD response its content-length is taken for a body that will follow: such a parser is thrown away after the head.
- ``Connection: upgrade`` and CONNECT end the message at the head with the rest unparsed (HttpParserUpgrade(offset)).

A request that asks for an upgrade, and CONNECT, are the last on their connection, granted or not: what follows the head is handed
on as it is and never parsed, so that it can be nobody's next request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import httptools

from forkproxy.http.codec import NO_SINK, ClientSink, CodecError, ServerSink
from forkproxy.http.headers import Headers, has_token

# What a header is to the codec. 0: nothing special, it goes into the list as it is.
_HOST = 1
_CONTENT_LENGTH = 2
_TRANSFER_ENCODING = 3
_CONNECTION = 4
_DROP = 5
_TE = 6
_UPGRADE = 7
_EXPECT = 8
_FLAGGED = 9  # kept, but the connection manager wants to know that it is there
_UNDERSCORE = 10
_HTTP2_SETTINGS = 11
_CANARY = 12

# Bits of ServerCodec.flags.
HAS_FORWARDED_FOR: Final = 1
HAS_FORWARDED_PROTO: Final = 2
HAS_REQUEST_ID: Final = 4
HAS_ENVOY: Final = 8

CONNECT: Final = b"CONNECT"
REFUSED: Final = b"\0"
"""In ``ServerCodec.upgrade``: asked for in a way that cannot be granted. No header value holds this byte."""

_REQUEST_CODES: dict[bytes, int] = {
    b"host": _HOST,
    b"content-length": _CONTENT_LENGTH,
    b"transfer-encoding": _TRANSFER_ENCODING,
    b"connection": _CONNECTION,
    b"keep-alive": _DROP,
    b"proxy-connection": _DROP,
    b"te": _TE,
    b"upgrade": _UPGRADE,
    b"http2-settings": _HTTP2_SETTINGS,
    b"expect": _EXPECT,
    b"x-request-id": _FLAGGED,
    b"x-forwarded-for": _FLAGGED,
    b"x-forwarded-proto": _FLAGGED,
    b"x-forwarded-client-cert": _FLAGGED,
}
_FLAG_OF: dict[bytes, int] = {
    b"x-request-id": HAS_REQUEST_ID,
    b"x-forwarded-for": HAS_FORWARDED_FOR,
    b"x-forwarded-proto": HAS_FORWARDED_PROTO,
}


def request_flags(headers: Headers) -> int:
    """``ServerCodec.flags`` of these headers."""
    flags = 0
    for name, _ in headers:
        if _request_code(name) == _FLAGGED:
            flags |= _FLAG_OF.get(name, HAS_ENVOY)
    return flags


_RESPONSE_CODES: dict[bytes, int] = {
    b"content-length": _CONTENT_LENGTH,
    b"transfer-encoding": _TRANSFER_ENCODING,
    b"connection": _CONNECTION,
    b"keep-alive": _DROP,
    b"proxy-connection": _DROP,
    b"upgrade": _DROP,
    b"x-envoy-upstream-service-time": _FLAGGED,
    b"x-envoy-upstream-canary": _CANARY,
}

MAX_CONNECTION_TOKENS = 10
"""A request with so many words in its Connection header is refused, as by Envoy."""
# Who nominates these wants to hide where a request comes from.
_NEVER_NOMINATED = frozenset((b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"))

MAX_KNOWN_NAMES = 4096
MAX_KNOWN_LENGTH_BYTES = 128
"""Longer names and authorities are not remembered: a head may be 60 KiB, and thousands of those would be all the memory."""
_Known = dict[bytes, tuple[bytes, int]]


def _request_code(name: bytes) -> int:
    code = _REQUEST_CODES.get(name, 0)
    if not code and name.startswith(b"x-envoy-"):
        return _FLAGGED
    if not code and b"_" in name:
        return _UNDERSCORE
    return code


# As spelled → lower-case, for names that are nothing special, and as spelled → (lower-case, code) for the others. Senders use
# few spellings; an attacker who uses many fills the tables and no more.
_plain_request_names: dict[bytes, bytes] = {}
_plain_response_names: dict[bytes, bytes] = {}
_special_request_names: _Known = {}
_special_response_names: _Known = {}


def _learn(plain: dict[bytes, bytes], special: _Known, name: bytes, lower: bytes, code: int) -> tuple[bytes, int]:
    entry = (lower, code)
    if len(name) <= MAX_KNOWN_LENGTH_BYTES and len(plain) + len(special) < MAX_KNOWN_NAMES:
        if code:
            special[name] = entry
        else:
            plain[name] = lower
    return entry


def _learn_request_name(name: bytes) -> tuple[bytes, int]:
    lower = name.lower()
    return _learn(_plain_request_names, _special_request_names, name, lower, _request_code(lower))


def _learn_response_name(name: bytes) -> tuple[bytes, int]:
    lower = name.lower()
    return _learn(_plain_response_names, _special_response_names, name, lower, _RESPONSE_CODES.get(lower, 0))


_plain_request_name = _plain_request_names.get
_plain_response_name = _plain_response_names.get

_AUTHORITY = re.compile(rb"[!$%&'()*+,\-.0-9:;=@A-Z\[\]_a-z~]*")
"""RFC 3986 section 3.2, with the user information that Envoy lets pass: no space, slash, "?", "#", high or control bytes."""

_URL_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9.-]+|\[([0-9A-Fa-f:.]+)\])(?::([0-9]+))?")


def is_url_authority(value: bytes) -> bool:
    """May ``value`` stand in a URL, or in the target of CONNECT? More is asked of it there than of a Host header."""
    matched = _URL_AUTHORITY.fullmatch(value)
    return matched is not None and int(matched[2] or 0) <= 65535


_valid_authorities: set[bytes] = set()
MAX_KNOWN_AUTHORITIES = 4096


def is_authority(value: bytes) -> bool:
    """May ``value`` stand in a Host header?"""
    if value in _valid_authorities:
        return True
    if _AUTHORITY.fullmatch(value) is None:
        return False
    if len(_valid_authorities) >= MAX_KNOWN_AUTHORITIES:
        _valid_authorities.clear()
    if len(value) <= MAX_KNOWN_LENGTH_BYTES:
        _valid_authorities.add(value)
    return True


def _parser_failure(error: httptools.HttpParserError) -> Exception | None:
    # What a callback raised comes wrapped; None: it is llhttp's own verdict.
    cause = error.__context__
    if isinstance(error, httptools.HttpParserCallbackError) and isinstance(cause, Exception):
        return cause
    return None


_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LOW_VERSION = re.compile(rb"[ \t]HTTP/\d\.\d[ \t]*\r?\n")
_HAS_LENGTH = re.compile(rb"(?im)^content-length[ \t]*:")
_TRANSFER_ENCODING_LINE = re.compile(rb"(?im)^transfer-encoding[ \t]*:[ \t]*([^\r\n]*)")


class ServerSettings:
    """What a server codec is told by the configuration; one object per connection manager."""

    __slots__ = (
        "accept_http_10",
        "allow_absolute_url",
        "allow_chunked_length",
        "default_host_for_http_10",
        "drop_underscores",
        "enable_trailers",
        "ignored_upgrades",
        "keep_expect",
        "max_headers_bytes",
        "max_headers_count",
        "reject_underscores",
    )

    def __init__(
        self,
        *,
        max_headers_bytes: int = 60 * 1024,
        max_headers_count: int = 100,
        accept_http_10: bool = False,
        default_host_for_http_10: bytes = b"",
        allow_absolute_url: bool = True,
        allow_chunked_length: bool = False,
        enable_trailers: bool = False,
        reject_underscores: bool = False,
        drop_underscores: bool = False,
        keep_expect: bool = False,
        ignored_upgrades: Sequence[Callable[[bytes], bool]] = (),
    ) -> None:
        self.max_headers_bytes = max_headers_bytes
        self.max_headers_count = max_headers_count
        self.accept_http_10 = accept_http_10
        self.default_host_for_http_10 = default_host_for_http_10
        self.allow_absolute_url = allow_absolute_url
        self.allow_chunked_length = allow_chunked_length
        self.enable_trailers = enable_trailers
        self.reject_underscores = reject_underscores
        self.drop_underscores = drop_underscores
        self.keep_expect = keep_expect
        self.ignored_upgrades = tuple(ignored_upgrades)
        """Tests of one name in an Upgrade header: as if it were not there."""


def _rtsp_lines(data: bytes) -> frozenset[bytes]:
    # "METHOD target" of the lines that would be RTSP requests.
    if b" RTSP/" not in data:
        return frozenset()
    lines = [line.partition(b" RTSP/") for line in data.split(b"\n")]
    candidates = [before.split() for before, found, _ in lines if found]
    return frozenset([b" ".join(words) for words in candidates if len(words) <= 2])


_PLAIN_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"))
_HTTP_METHODS = frozenset(
    (
        *(b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE", b"PATCH"),
        *(
            b"ACL",
            b"BIND",
            b"CHECKOUT",
            b"COPY",
            b"LINK",
            b"LOCK",
            b"MERGE",
            b"MKACTIVITY",
            b"MKCALENDAR",
            b"MKCOL",
            b"MOVE",
        ),
        *(b"NOTIFY", b"PROPFIND", b"PROPPATCH", b"PURGE", b"REBIND", b"REPORT", b"SEARCH", b"SUBSCRIBE", b"UNBIND"),
        *(b"UNLINK", b"UNLOCK", b"UNSUBSCRIBE"),
    )
)
"""llhttp also knows RTSP's methods, ICE's SOURCE, HTTP/2's PRI and M-SEARCH; Envoy takes none of them."""


class ServerCodec:
    """Reads requests. After ``sink.decode_headers`` the head stands in the attributes until the next message begins.

    ``fresh``: between two messages. ``plain``: HTTP/1.1, origin-form without a fragment, a Host, and no header that the
    connection manager or the framing has to look at. ``upgrade``: the protocol that is asked for, CONNECT for that method, or
    REFUSED; what follows such a head comes through ``decode_data``, without an end.
    """

    __slots__ = (
        "_chunked",
        "_connection_tokens",
        "_content_length",
        "_cut_by_upgrade",
        "_data",
        "_end_told",
        "_head_bytes",
        "_in_head",
        "_line_checked",
        "_nominated",
        "_parser",
        "_rare_seen",
        "_removed",
        "_rtsp_lines",
        "_searched",
        "_settings",
        "_sink",
        "_transfer_encodings",
        "_upgrade_lines",
        "authority",
        "connection_close",
        "connection_keep_alive",
        "dropped_underscores",
        "expect_continue",
        "flags",
        "fresh",
        "has_host",
        "headers",
        "http_10",
        "method",
        "path",
        "plain",
        "upgrade",
    )

    def __init__(self, sink: ServerSink, settings: ServerSettings) -> None:
        self._sink = sink
        self._settings = settings
        self._parser: Any = self._new_parser()  # None once closed
        self._data = b""
        self._searched = b""
        self._rtsp_lines: frozenset[bytes] = frozenset()
        self._line_checked = False
        self.method = b""
        self.dropped_underscores = 0
        self._rare_seen = 2  # 1: nothing but "connection: keep-alive", which says nothing in HTTP/1.1
        self.plain = False
        self._begin()

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        if self._settings.allow_chunked_length:
            parser.set_dangerous_leniencies(lenient_chunked_length=True)
        return parser

    def _begin(self) -> None:
        self.fresh = True
        self._in_head = True
        self._end_told = False
        self._head_bytes = 0
        self._content_length = b""
        self.path = b""
        self.authority = b""
        self.headers: Headers = []
        self.flags = 0
        self.has_host = False
        if self._rare_seen:
            self._forget_rare()

    def _forget_rare(self) -> None:
        # What nearly no head sets.
        self._rare_seen = 0
        self._removed = 0
        self._chunked = False
        self._transfer_encodings = 0
        self._cut_by_upgrade = False
        self._nominated: list[bytes] | None = None
        self._connection_tokens = 0
        self._upgrade_lines = 0  # of Connection that say so, and of Upgrade: for the moment they stand in ``headers``
        self.http_10 = False
        self.connection_close = False
        self.connection_keep_alive = False
        self.expect_continue = False
        self.upgrade = b""

    def close(self) -> None:
        """Break the cycles sink → codec → sink and codec → parser → codec: reference counts then free all of them."""
        self._parser = None
        self._sink = NO_SINK

    # -- bytes in

    def feed(self, data: bytes) -> None:
        """Parse; calls the sink. Raises CodecError, after which the connection can only be answered and closed."""
        if self.fresh:
            # Nearly always a read begins with a request line: look at its end here, once, instead of asking the parser
            # for a version string (which cannot tell RTSP from HTTP anyway).
            end = data.find(b"\r\n")
            self._line_checked = end > 8 and data.startswith(b" HTTP/1.1", end - 9)
            self.fresh = False
            self._data = data
        else:
            self._data = self._data + data if self._in_head else data
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._after_upgrade(data, upgrade.args[0])
        except httptools.HttpParserError as error:
            raise _parser_failure(error) or self._explain(data) from None
        if self.fresh:
            self._data = b""  # an idle connection keeps nothing
            if self._searched:
                self._searched = b""
                self._rtsp_lines = _rtsp_lines(b"")
        # Also behind the head: the bytes since the last of the body, which are trailers and chunk extensions.
        elif self._head_bytes > self._settings.max_headers_bytes:
            raise CodecError("http1.headers_too_large", 431)

    def _explain(self, data: bytes) -> CodecError:
        # llhttp says that it failed; Envoy's words for why are found by looking again. Off the path: the connection ends.
        if not self._in_head:
            return CodecError("http1.codec_error")
        head = data.partition(b"\r\n\r\n")[0]
        first_line = head.partition(b"\n")[0] + b"\n"
        encodings = _TRANSFER_ENCODING_LINE.findall(head)
        if head[:1].isalpha() and _CONTROL.search(head):
            return CodecError("http1.invalid_characters")
        if encodings and _HAS_LENGTH.search(head):
            return CodecError("http1.content_length_and_chunked_not_allowed")
        if encodings and [value.strip().lower() for value in encodings] != [b"chunked"]:
            return CodecError("http1.invalid_transfer_encoding", 501)
        if _LOW_VERSION.search(first_line) and b" HTTP/1.1" not in first_line:
            return CodecError("low_version", 426)
        return CodecError("http1.codec_error")

    def _after_upgrade(self, data: bytes, offset: int) -> None:
        # llhttp stops at the end of a head that asks for another protocol. Where the wish is ignored (h2c, as Envoy does), the
        # message goes on under a fresh parser. If a body follows, that parser is first shown a head of ours with the same
        # framing. A loop: one read may hold a thousand such heads.
        while self._parser is not None:
            if self.upgrade and not self._in_head:
                self._parser = _Unparsed(self)
                if len(data) > offset:
                    self._parser.feed_data(data[offset:])
                return
            self._parser = self._new_parser()
            if not self._in_head:
                self._continue_body()
            data = data[offset:]
            if not data:
                return
            if self.fresh:
                self.fresh = self._line_checked = False
            self._data = data
            self._head_bytes += len(data)
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                offset = upgrade.args[0]
            except httptools.HttpParserError as error:
                raise _parser_failure(error) or self._explain(data) from None

    def _continue_body(self) -> None:
        framing = b"transfer-encoding: chunked" if self._chunked else b"content-length: " + self._content_length
        kept = (self.headers, self.path)
        self._in_head = True
        self._end_told = True  # mutes on_headers_complete
        self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
        self._in_head = self._end_told = self._cut_by_upgrade = False
        self.headers, self.path = kept

    @property
    def body_bytes(self) -> int:
        """What the message's head says of its body; 0 when it does not say."""
        return int(self._content_length or 0)

    def end_body(self) -> None:
        """What was left of the body has been read past this codec (http/request_splice.py): the request is complete."""
        self._parser = self._new_parser()
        self._begin()
        self._sink.decode_complete(None)

    # -- httptools' callbacks

    def on_url(self, target: bytes) -> None:
        """httptools: a piece of the request target."""
        self.fresh = False  # it may have begun behind another message in the same read
        self.path += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header, or one trailer."""
        if value and value[-1] <= 32:
            value = value.rstrip(b" \t")
        lower = _plain_request_name(name)
        if lower is not None:
            self.headers.append((lower, value))
            return
        lower, code = _special_request_names.get(name) or _learn_request_name(name)
        if code == _HOST and self._in_head and not self.has_host:
            self.has_host = True
            self.authority = value
        elif code:
            self._special(code, lower, value)
        else:
            self.headers.append((lower, value))

    def _special(self, code: int, name: bytes, value: bytes) -> None:
        if not self._in_head:
            # A trailer must not name what framing or routing has used (RFC 9110 section 6.5.1).
            if code in (_FLAGGED, _UNDERSCORE):
                self.headers.append((name, value))
            return
        if code == _HOST:
            raise CodecError("http1.duplicate_host")  # the first one is on_header's
        if code == _CONTENT_LENGTH:
            self._content_length = value
            self.headers.append((name, value))
        elif code == _FLAGGED:
            self.flags |= _FLAG_OF.get(name, HAS_ENVOY)
            self.headers.append((name, value))
        else:
            self._rare(code, name, value)

    def _rare(self, code: int, name: bytes, value: bytes) -> None:
        if self._rare_seen < 2:
            if code == _CONNECTION and value == b"keep-alive" and self._line_checked and not self._rare_seen:
                self._rare_seen = 1
                return
            if self._rare_seen:
                self._removed = self._connection_tokens = 1
            self._rare_seen = 2
        self._removed += 1
        if code == _CONNECTION:
            self._connection(value)
        elif code == _TRANSFER_ENCODING:
            self._transfer_encodings += 1
            self._chunked = value.lower() == b"chunked"
        elif code == _TE:
            # Hop by hop, but gRPC needs to know that trailers are understood; nothing else of it is ours to pass on.
            if has_token(value, b"trailers"):
                self.headers.append((b"te", b"trailers"))
        elif code == _UPGRADE:
            self._note_upgrade(name, value)
        elif code == _EXPECT:
            if value.lower() == b"100-continue":
                self.expect_continue = True
                if self._settings.keep_expect:
                    self.headers.append((name, value))
            else:
                self.headers.append((name, value))
        elif code == _UNDERSCORE:
            if self._settings.reject_underscores:
                raise CodecError("http1.unexpected_underscore")
            if self._settings.drop_underscores:
                self.dropped_underscores += 1
            else:
                self.headers.append((name, value))

    def _connection(self, value: bytes) -> None:
        if value == b"close" and not self._connection_tokens:
            self.connection_close = True
            self._connection_tokens = 1
            return
        says_upgrade = False
        for part in value.lower().split(b","):
            token = part.strip(b" \t")
            if token == b"close":
                self.connection_close = True
            elif token == b"keep-alive":
                self.connection_keep_alive = True
            elif token == b"upgrade":
                says_upgrade = True
            elif token and token not in (b"te", b"http2-settings"):
                if self._nominated is None:
                    self._nominated = []
                self._nominated.append(token)
                if token in _NEVER_NOMINATED or token[0] == 58:
                    raise CodecError("http1.connection_header_rejected")
            self._connection_tokens += token != b""
        if self._connection_tokens >= MAX_CONNECTION_TOKENS:
            raise CodecError("http1.connection_header_rejected")
        if says_upgrade:
            self.upgrade = REFUSED  # until the head is complete
            self._note_upgrade(b"connection", value)

    def _note_upgrade(self, name: bytes, value: bytes) -> None:
        self._removed -= 1
        self._upgrade_lines += 1
        self.headers.append((name, value))

    def _settle_upgrade(self) -> None:
        """What the head asks for, now that it is complete. The two headers stay only where something is."""
        lines = [value for name, value in self.headers if name == b"upgrade"]
        is_asked = self.upgrade and bool(lines)
        wanted = self._wanted(b",".join(lines)) if is_asked else None
        if wanted is None:
            self.upgrade = CONNECT if self.method == CONNECT else b""
            self.headers[:] = [header for header in self.headers if header[0] not in (b"connection", b"upgrade")]
            return
        # RFC 9110 section 7.8: not by HTTP/1.0. A body in chunks would lose its framing on the way: no transfer-encoding is
        # passed on. And llhttp must see it as we do, for it is llhttp that stops at the end of the head.
        is_clear = not (self.http_10 or self._chunked or self.method == CONNECT) and self._parser.should_upgrade()
        self.upgrade = (wanted or REFUSED) if is_clear else REFUSED
        if self._nominated is not None or self._upgrade_lines > 2:
            keep = [header for header in self.headers if header[0] not in (b"connection", b"upgrade")]
            self.headers[:] = [(b"connection", b"upgrade"), (b"upgrade", wanted), *keep]

    def _wanted(self, value: bytes) -> bytes | None:
        # None: nothing that is not ignored. h2c: as Envoy, and RFC 9113 section 3.1 has dropped it.
        if value.lower() == b"h2c":
            return None
        tests = self._settings.ignored_upgrades
        if not tests:
            return value
        names = [name.strip(b" \t") for name in value.split(b",")]
        kept = [name for name in names if not any(test(name) for test in tests)]
        if len(kept) == len(names):
            return value
        if not kept:
            return None
        left = b",".join(kept)
        first = [name for name, _ in self.headers].index(b"upgrade")
        rest = [header for header in self.headers[first:] if header[0] != b"upgrade"]
        self.headers[first:] = [(b"upgrade", left), *rest]
        return left

    def _check_connect(self) -> None:
        # RFC 9110 section 9.3.6: CONNECT has no body.
        if self._content_length.strip(b"0"):
            raise CodecError("http1.body_disallowed")
        if self._transfer_encodings:
            raise CodecError("http1.invalid_transfer_encoding", 501)
        if self._content_length:
            self._content_length = b""
            self.headers[:] = [header for header in self.headers if header[0] != b"content-length"]
        self.upgrade = self.upgrade or CONNECT

    def on_headers_complete(self) -> None:
        """httptools: the head is complete."""
        if self._end_told:
            return  # our own head, see _after_upgrade
        self.method = method = self._parser.get_method()
        path = self.path
        if (
            self._line_checked
            and self.has_host
            and not (self._rare_seen > 1 or self.flags or self._content_length)
            and method in _PLAIN_METHODS
            and path[0] == 47
            and 35 not in path
            and path.isascii()
            and self.authority in _valid_authorities
            and len(self.headers) + self._rare_seen < self._settings.max_headers_count
            and self._head_bytes + len(self._data) <= self._settings.max_headers_bytes
        ):
            # Nearly every request without a body: what _judge finds out of it, in one go.
            self._line_checked = self._in_head = False
            self.plain = self._end_told = True
            self._sink.decode_headers(True)
        else:
            self._judge(method)

    def _judge(self, method: bytes) -> None:
        """What kind of head it is that is complete now, and whether it may be one."""
        settings = self._settings
        headers = self.headers
        if self._line_checked:
            self._line_checked = False
        else:
            self._check_version()
        if self._head_bytes + len(self._data) > settings.max_headers_bytes:
            self._check_size()
        if self._rare_seen == 1:
            self._removed = 1
        if len(headers) + self._removed + 1 > settings.max_headers_count:
            self._check_count()
        if self._transfer_encodings:
            self._check_transfer_encoding()
        path = self.path
        if not path.isascii():
            raise CodecError("http1.codec_error")
        plain = self.has_host and self._rare_seen < 2 and not self.flags and 35 not in path
        if path[0] != 47 or method == b"CONNECT":
            plain = False
            self._other_form(path)
        elif self.has_host:
            if self.authority not in _valid_authorities and not is_authority(self.authority):
                raise CodecError("http.invalid_authority")
        elif self.http_10 and settings.default_host_for_http_10:
            self.has_host = True
            self.authority = settings.default_host_for_http_10
        if method not in _HTTP_METHODS:
            raise CodecError("http1.codec_error")
        if self._nominated is not None:
            self._remove_nominated()
        if not plain:
            if self._upgrade_lines:
                self._settle_upgrade()
            if method == CONNECT:
                self._check_connect()
        self.plain = plain
        self._in_head = False
        self._end_told = end_stream = not self._chunked and (
            not self._content_length or self._content_length.strip(b"0") == b""
        )
        if not plain and self.upgrade and self._parser.should_upgrade():
            self._end_told = end_stream = False
        self._sink.decode_headers(end_stream)
        if not end_stream:
            self.headers = []  # from here on it collects trailers
            self._head_bytes = 0
            if not plain and (self._upgrade_lines or method == CONNECT) and self._parser is not None:
                self._cut_by_upgrade = self._parser.should_upgrade()

    def _check_version(self) -> None:
        version = self._parser.get_http_version()
        if self._searched is not self._data:
            # Once per read: a read may hold thousands of requests.
            self._searched = self._data
            self._rtsp_lines = _rtsp_lines(self._data)
        if self._rtsp_lines:
            self._check_rtsp()
        if self.method not in _HTTP_METHODS:
            raise CodecError("http1.codec_error")  # not HTTP at all: the version means nothing
        if version == "1.1":
            return
        if version in ("1.0", "0.9") and self._settings.accept_http_10:
            self.http_10 = True
            self._rare_seen = 2
            if self._transfer_encodings:
                # RFC 9112 section 6.1: a 1.0 sender does not know it, so the framing is in doubt.
                raise CodecError("http1.transfer_encoding_on_http_10")
            return
        raise CodecError("low_version", 426)

    def _check_rtsp(self) -> None:
        # llhttp takes RTSP for HTTP, and its version too. Some line of what was read says RTSP: is it this request's? A body
        # may speak of it; and the method, or a part of it, may have come in an earlier read.
        method, path = self.method, self.path
        for start in range(len(method) + 1):
            if (method[start:] + b" " + path).lstrip() in self._rtsp_lines:
                raise CodecError("http1.codec_error")

    def _check_size(self) -> None:
        # The head as it stands on the wire, but for white space and for the header lines that are not kept.
        lines = len(self.method) + len(self.path) + len("  HTTP/1.1\r\n\r\n")
        if self.has_host:
            lines += len(self.authority) + len("host: \r\n")
        size = lines + sum([len(name) + len(value) + len(": \r\n") for name, value in self.headers])
        if size > self._settings.max_headers_bytes:
            raise CodecError("http1.headers_too_large", 431)

    def _check_count(self) -> None:
        if len(self.headers) + self._removed + self.has_host > self._settings.max_headers_count:
            raise CodecError("http1.too_many_headers", 431)

    def _check_transfer_encoding(self) -> None:
        if self._transfer_encodings > 1 or not self._chunked:
            raise CodecError("http1.invalid_transfer_encoding", 501)
        if self._content_length:
            # Only with allow_chunked_length; transfer-encoding overrides and the length goes (RFC 9112 section 6.3).
            self._content_length = b""
            self.headers[:] = [header for header in self.headers if header[0] != b"content-length"]

    def _other_form(self, target: bytes) -> None:
        # RFC 9112 section 3.2: authority-form for CONNECT only, asterisk-form for OPTIONS only, else absolute-form.
        if self.method == b"CONNECT":
            if not is_url_authority(target) or b":" not in target:
                raise CodecError("http1.invalid_url")
            self.has_host = True
            self.authority = target
            self.path = b""
            return
        if target == b"*":
            if self.method != b"OPTIONS":
                raise CodecError("http1.invalid_url")
        elif self._settings.allow_absolute_url:
            self._absolute_form(target)
            return
        if self.has_host and not is_authority(self.authority):
            raise CodecError("http.invalid_authority")

    def _absolute_form(self, target: bytes) -> None:
        scheme, separator, rest = target.partition(b"://")
        if not separator:
            raise CodecError("http1.invalid_url" if target[:1] == b"*" else "http1.codec_error")
        if scheme.lower() not in (b"http", b"https"):
            raise CodecError("http1.invalid_scheme")
        end = len(rest)
        for delimiter in (b"/", b"?", b"#"):
            position = rest.find(delimiter)
            if 0 <= position < end:
                end = position
        user, _, authority = rest[:end].rpartition(b"@")
        if b"@" in user or not is_url_authority(authority):
            raise CodecError("http1.invalid_url")
        # RFC 9112 section 3.2.2: the target's authority replaces the Host field.
        self.has_host = True
        self.authority = authority
        self.path = rest[end:] or b"/"

    def _remove_nominated(self) -> None:
        nominated = self._nominated or []
        if b"host" in nominated:
            self.has_host = False
        self.headers[:] = [
            header for header in self.headers if header[0] not in nominated or header[0] == b"content-length"
        ]
        for name in nominated:
            self.flags &= ~_FLAG_OF.get(name, 0)

    def on_body(self, data: bytes) -> None:
        """httptools: a piece of the body, chunk framing removed."""
        self._head_bytes = 0
        self._sink.decode_data(data)

    def on_message_complete(self) -> None:
        """httptools: the message is complete; another may follow in the same feed."""
        if self._cut_by_upgrade:
            return  # the head is: its body is still to come, see _after_upgrade
        end_told = self._end_told
        trailers = self.headers
        enable_trailers = self._settings.enable_trailers
        if trailers and not end_told:
            self._check_trailers(trailers)
        self._begin()
        if not end_told:
            self._sink.decode_complete(trailers if enable_trailers and trailers else None)

    def _check_trailers(self, trailers: Headers) -> None:
        settings = self._settings
        if sum([len(name) + len(value) for name, value in trailers]) > settings.max_headers_bytes:
            raise CodecError("http1.headers_too_large", 431)
        if settings.enable_trailers and len(trailers) > settings.max_headers_count:
            raise CodecError("http1.too_many_headers", 431)


class _Unparsed:
    """In a parser's place: what comes is handed on as it is."""

    __slots__ = ("_codec",)

    def __init__(self, codec: ServerCodec) -> None:
        self._codec = codec

    def feed_data(self, data: bytes) -> None:
        """As a parser's."""
        codec = self._codec
        codec._data = b""
        codec._head_bytes = 0
        codec._sink.decode_data(data)


class ClientCodec:
    """Reads responses on one upstream connection, for one request at a time: ``expect`` before each.

    ``sink`` is who the exchange belongs to; whoever sends a request puts himself there. After a feed: ``complete`` says
    that the response has ended, ``reusable`` that the connection may carry another request.
    """

    __slots__ = (
        "_end_told",
        "_fresh",
        "_head_bytes",
        "_head_request",
        "_headers",
        "_interim",
        "_interim_over",
        "_line_checked",
        "_max_headers_bytes",
        "_max_headers_count",
        "_parser",
        "_rare_seen",
        "_start",
        "_transfer_encodings",
        "_waiting",
        "body",
        "chunked",
        "complete",
        "content_length",
        "enable_trailers",
        "expecting",
        "has_service_time",
        "is_canary",
        "reusable",
        "sink",
        "status",
        "told_close",
        "unsolicited",
    )

    def __init__(self, sink: ClientSink, max_headers_bytes: int = 256 * 1024, max_headers_count: int = 100) -> None:
        self.sink = sink
        self._max_headers_bytes = max_headers_bytes
        self._max_headers_count = max_headers_count
        self._parser: Any = httptools.HttpResponseParser(self)  # None once closed
        self._head_request = False
        self._start: bytes | None = None
        """The first bytes of a response that does not begin with "HTTP/1.1 "; None once they are known to be HTTP."""
        self._waiting: Headers | None = None
        """The head of a response whose body is expected in the same read."""
        self.body = b""
        """During ``decode_headers``: the first piece of the body. Who takes it leaves b"", and gets no ``decode_data`` for it."""
        self.enable_trailers = False
        self.expecting = False
        self.unsolicited = False
        self.told_close = False
        self.complete = True
        self.reusable = True
        self.status = 0
        self._rare_seen = True
        self._begin()

    @property
    def limits(self) -> tuple[int, int]:
        """Of a head: bytes, and lines."""
        return self._max_headers_bytes, self._max_headers_count

    def _begin(self) -> None:
        self._headers: Headers = []
        self._fresh = True
        self._end_told = False
        self._head_bytes = 0
        self.content_length = -1
        if self._rare_seen:
            # What not every response sets.
            self._rare_seen = False
            self._interim = self._interim_over = False
            self._transfer_encodings = 0
            self.chunked = False
            self.has_service_time = False
            self.is_canary = False

    def expect(self, head_request: bool) -> None:
        """A request was sent; ``head_request``: it was a HEAD, so that no body follows whatever the head says."""
        self._head_request = head_request
        self.expecting = True
        self.complete = False
        self.reusable = True
        self.status = 0

    def close(self) -> None:
        """Break the cycles, as above."""
        self._parser = None
        self.sink = NO_SINK

    def feed(self, data: bytes) -> None:
        """Parse; calls the sink. Raises CodecError."""
        if not self.expecting:
            self.unsolicited = True
            raise CodecError("unsolicited_response", 502)
        if self._fresh:
            self._line_checked = data.startswith(b"HTTP/1.1 ")
            self._fresh = False
            if not self._line_checked:
                self._start = b""
        if not self._line_checked and self._start is not None:
            self._check_start(data)
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise CodecError("protocol_error", 502) from None
        except httptools.HttpParserError as error:
            if self.complete and not isinstance(error, httptools.HttpParserCallbackError):
                self.unsolicited = True  # the response is whole; what follows it was never asked for
                return
            raise _parser_failure(error) or CodecError("protocol_error", 502) from None
        if self._waiting is not None:
            headers, self._waiting = self._waiting, None
            self.sink.decode_headers(self.status, headers, False)
        elif self.complete and self._head_request:
            self._parser = httptools.HttpResponseParser(self)
            self._begin()
        elif not self.complete and self._head_bytes > self._max_headers_bytes:
            raise CodecError("protocol_error", 502)  # a head, trailers or chunk extensions without end

    def _check_start(self, data: bytes) -> None:
        # llhttp takes RTSP and ICE for HTTP, and skips empty lines; the first bytes may come one by one.
        self._start = start = (self._start or b"") + data[:5]
        if start[:5] != b"HTTP/"[: len(start)]:
            raise CodecError("protocol_error", 502)
        if len(start) >= 5:
            self._start = None

    def finish(self) -> bool:
        """The peer has closed. True when that is how this response ends (RFC 9112 section 6.3, rule 8): it is complete now."""
        if self.complete or not self.status or self.chunked or self.content_length >= 0:
            return False
        self.complete = True
        self.expecting = False
        self.reusable = False
        self.sink.decode_complete(None)
        return True

    def end_body(self) -> None:
        """What was left of the body has been read past this codec (upstream/response_splice.py): the response is complete."""
        self._parser = httptools.HttpResponseParser(self)
        self.complete = True
        self.expecting = False
        self._begin()
        self.sink.decode_complete(None)

    @property
    def is_silent(self) -> bool:
        """Has nothing at all arrived since the request?"""
        return self._fresh

    @property
    def between_messages(self) -> bool:
        """Has nothing of a response arrived yet, or nothing after a 1xx one?"""
        return self._fresh or self._interim_over

    # -- httptools' callbacks

    def on_message_begin(self) -> None:
        """httptools: the first byte of a message."""
        if self.complete:
            self.unsolicited = True
        elif self._interim_over:
            self._interim_over = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header, or one trailer."""
        if value and value[-1] <= 32:
            value = value.rstrip(b" \t")
        lower = _plain_response_name(name)
        if lower is not None:
            self._headers.append((lower, value))
            return
        lower, code = _special_response_names.get(name) or _learn_response_name(name)
        if code:
            self._special(code, lower, value)
        else:
            self._headers.append((lower, value))

    def _special(self, code: int, name: bytes, value: bytes) -> None:
        if self.status or self.complete:
            return  # as a trailer, none of these means anything
        if code == _CONTENT_LENGTH:
            if not value.isdigit():
                raise CodecError("protocol_error", 502)
            self.content_length = int(value)
            self._headers.append((name, value))
        elif code == _CONNECTION:
            if value == b"keep-alive" and self._line_checked:
                return
            if has_token(value, b"close"):
                self.reusable = False
                self.told_close = True
            elif not self._line_checked and has_token(value, b"keep-alive"):
                self._line_checked = True  # 1.0 with keep-alive persists
        else:
            self._rare_seen = True
            if code == _TRANSFER_ENCODING:
                self._transfer_encodings += 1
                self.chunked = value.lower() == b"chunked"
            elif code == _FLAGGED:
                self.has_service_time = True
                self._headers.append((name, value))
            elif code == _CANARY:
                self.is_canary = value == b"true"
                self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """httptools: the head is complete."""
        if self.complete:
            return
        status: int = self._parser.get_status_code()
        headers = self._headers
        if (
            self.content_length > 0
            and not (self._rare_seen or self._head_request)
            and self._line_checked
            and 200 <= status != 204
            and status != 304
            and len(headers) <= self._max_headers_count
            and self._head_bytes <= self._max_headers_bytes
        ):
            # Nearly every response: a body of known length follows, and at least its beginning is here already.
            self.status = status
            self._headers = []
            self._head_bytes = 0
            self._waiting = headers
            return
        if self._transfer_encodings and (self._transfer_encodings > 1 or not self.chunked or self.content_length >= 0):
            raise CodecError("protocol_error", 502)
        if status < 200:
            if status < 100 or status == 101 or self._transfer_encodings or self.content_length > 0:
                raise CodecError("protocol_error", 502)  # nor has any of them a body (RFC 9110 section 15.2)
            self._interim = self._rare_seen = True
            self.sink.decode_interim(status, headers)
            return
        if len(headers) > self._max_headers_count or self._head_bytes > self._max_headers_bytes:
            self._check_size_of(headers)
        if not self._line_checked and self._parser.get_http_version() != "1.1":
            self.reusable = False
            self.told_close = True
        self.status = status
        if self._head_request or self.content_length == 0 or status == 304 or status == 204:
            if status == 204 and (self.chunked or self.content_length > 0):
                raise CodecError("protocol_error", 502)  # RFC 9110 section 8.6, RFC 9112 section 6.1
            self._end_told = True
            if self._head_request:
                self.complete = True
                self.expecting = False
        elif not self.chunked and self.content_length < 0:
            self.reusable = False  # ends by close
        self._headers = []
        self._head_bytes = 0
        self.sink.decode_headers(status, headers, self._end_told)

    def _check_size_of(self, headers: Headers) -> None:
        if len(headers) > self._max_headers_count:
            raise CodecError("protocol_error", 502)
        if sum([len(name) + len(value) for name, value in headers]) > self._max_headers_bytes:
            raise CodecError("protocol_error", 502)

    def on_body(self, data: bytes) -> None:
        """httptools: a piece of the body, chunk framing removed."""
        headers = self._waiting
        if headers is not None:
            self._waiting = None
            self.body = data
            self.sink.decode_headers(self.status, headers, False)
            if not self.body:
                return
            self.body = b""
        elif self._end_told or self.complete:
            self.unsolicited = True
            return
        self._head_bytes = 0
        self.sink.decode_data(data)

    def on_message_complete(self) -> None:
        """httptools: the message is complete."""
        if self._interim:
            self._begin()
            self._fresh = False
            self._interim_over = self._rare_seen = True
            return
        if self.complete:
            return
        end_told = self._end_told
        trailers = self._headers
        if trailers and not end_told:
            self._check_size_of(trailers)
        self.complete = True
        self.expecting = False
        self._begin()
        if not end_told:
            self.sink.decode_complete(trailers if self.enable_trailers and trailers else None)
