"""Envoy's command operators: what each one reads of a stream.

An operator is compiled to an ``Item``: a Python expression over the stream ``s`` with every value from the
configuration bound to a name, never written into the source. ``formatter`` puts the expressions of a line into one
function.

Operators that Envoy has and that have no meaning here yet are in ``UNSUPPORTED``: a configuration that uses one is
refused with kind "unsupported"; a name that Envoy does not know is an error with a suggestion. Verdicts and values
were asked of Envoy 1.40.
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import json
import os
import socket
import sys
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from forkproxy.access_log import metadata_operators, tls_operators
from forkproxy.access_log.time_format import DEFAULT, DEFAULT_LOCAL, compile_time
from forkproxy.config.build.core import Where
from forkproxy.config.problems import ConfigError, Problem
from forkproxy.config.values import frozen
from forkproxy.http import response_flags
from forkproxy.http.sent_headers import WRITTEN_LATE, sent_headers
from forkproxy.net import address as addresses

BYTES = "bytes"
"""The expression gives bytes, or ABSENT when there is nothing to tell."""
INT = "int"
"""It gives an int, always."""
MAYBE_INT = "maybe_int"
"""It gives an int or None."""
VALUE = "value"
"""It gives None or any value that JSON has."""

ABSENT = "ABSENT"
"""Stands in an expression for what a missing value is there: the formatter binds it."""


@frozen
class Item:
    """``source``: the expression; ``bound``: the names it uses, besides ``s``, ``q`` (request headers) and ``r``
    (response headers).
    """

    kind: str
    source: str
    bound: Mapping[str, object]
    max_length: int | None = None


class Names:
    """Makes names for bound values that no other value of the same line has."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self) -> str:
        self._count += 1
        return f"c{self._count}"


def _error(where: Where, message: str, hint: str = "") -> ConfigError:
    return ConfigError(where.path, where.line, where.column, message, hint)


# Readers that are more than an expression. Each gives None for "nothing to tell".


def underscored(text: str) -> bytes | None:
    """Details and reasons are one word in a log: blanks become underscores."""
    return text.replace(" ", "_").encode() if text else None


def milliseconds(start: float, end: float) -> int | None:
    """Whole milliseconds between two times of the loop's clock; None when one was never reached (0.0)."""
    # A tenth of a microsecond more: 0.25 s are not to become 249 ms by the last bit of a float.
    return int((end - start) * 1000 + 1e-4) if start and end else None


def _duration(stream: Any) -> int:
    return milliseconds(stream.start, stream.end or stream.connection.loop.now) or 0


def _address(text: str) -> bytes | None:
    return text.encode() if text else None


def _without_port(text: str) -> bytes | None:
    if not text or text.startswith(("/", "@")):
        return _address(text)
    host = text.rpartition(":")[0]
    return host.removeprefix("[").removesuffix("]").encode() or None


def _name_without_port(text: str) -> bytes | None:
    # A host name may come without a port, and an IPv6 address keeps its brackets.
    host, colon, port = text.rpartition(":")
    has_port = colon and port.isdigit() and (":" not in host or host.endswith("]"))
    return (host if has_port else text).encode() or None


def _port(text: str) -> int | None:
    port = text.rpartition(":")[2]
    return int(port) if port.isdigit() and not text.startswith(("/", "@")) else None


def _upstream(stream: Any) -> Any:
    # A connection that was only looked at, because there are too many requests, does not count.
    return stream.upstream_connection if stream.pool_was_ready else None


def _upstream_local(stream: Any) -> str:
    connection = _upstream(stream)
    return addresses.text(connection.local_socket_address()) if connection is not None else ""


def _upstream_remote(stream: Any) -> str:
    connection = _upstream(stream)
    return addresses.text(connection.remote_address) if connection is not None else ""


_ADDRESSES: dict[str, Callable[[Any], str]] = {
    "UPSTREAM_LOCAL": _upstream_local,
    "UPSTREAM_REMOTE": _upstream_remote,
    "DOWNSTREAM_LOCAL": lambda stream: stream.downstream_local_address,
    "DOWNSTREAM_DIRECT_LOCAL": lambda stream: stream.downstream_local_address,
    "DOWNSTREAM_REMOTE": lambda stream: stream.downstream_remote_address,
    "DOWNSTREAM_DIRECT_REMOTE": lambda stream: stream.downstream_direct_remote_address,
}


def _cluster_name(stream: Any) -> bytes | None:
    cluster = stream.cluster
    if cluster is None:
        return None
    # stat_name is the name with ":" replaced, or alt_stat_name, which is what Envoy shows.
    name: str = cluster.name
    return (name if cluster.stat_name == name.replace(":", "_") else cluster.stat_name).encode()


def _attempted(stream: Any, what: str, with_port: bool = True) -> bytes | None:
    """The endpoints that were tried; of an HTTP stream only the last one, and only with a connection, as in Envoy."""
    texts = [getattr(endpoint, what) or endpoint.address for endpoint in stream.attempted_endpoints]
    if with_port:
        return ",".join(texts).encode() or None
    without = _without_port if what == "address" else _name_without_port
    return b",".join([without(text) or b"" for text in texts]) or None


def _handshake_duration(stream: Any) -> int | None:
    done = stream.connection.handshake_done_at
    return int((done - stream.start) * 1000) if done and stream.protocol else None


def _round_trip_ms(connection: Any) -> int:
    """As the kernel has measured it: ``tcpi_rtt`` of struct tcp_info, in microseconds."""
    try:
        info = connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 72)
    except OSError:
        return 0  # closed already, or no TCP
    return int.from_bytes(info[68:72], sys.byteorder) // 1000 if len(info) == 72 else 0


def _header_bytes(lines: Any) -> int:
    return sum(len(name) + len(value) for name, value in lines or ())


def _request_headers_bytes(stream: Any) -> int:
    if not stream.method:
        return _header_bytes(stream.request_headers)
    # A request without Host is refused before it gets a scheme.
    scheme = None if stream.authority is None else stream.scheme
    pseudo = ((7, stream.method or None), (5, stream.path or None), (10, stream.authority), (7, scheme or None))
    return _header_bytes(stream.request_headers) + sum(size + len(value) for size, value in pseudo if value is not None)


def _response_headers_bytes(stream: Any) -> int:
    if stream.response_headers is None:
        return 0
    return _header_bytes(sent_headers(stream)) + len(":status") + len(str(stream.status))


_GRPC_CAMEL = (
    *(
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
    ),
    *("ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable"),
    *("DataLoss", "Unauthenticated"),
)
GRPC_NAMES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
_GRPC_OF_HTTP = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}


def grpc_status(stream: Any) -> int | None:
    """The gRPC status of a gRPC request: from the trailers, else the headers, else by the HTTP status.

    None when it is not gRPC.
    """
    for name, value in stream.request_headers:
        if name == b"content-type":
            if value != b"application/grpc" and not value.startswith(b"application/grpc+"):
                return None
            break
    else:
        return None
    return response_grpc_status(stream)


def response_grpc_status(stream: Any) -> int | None:
    """The same of any response, whatever was asked: what access log filters go by."""
    for lines in (stream.response_trailers, stream.response_headers):
        for name, value in lines or ():
            if name == b"grpc-status":
                return int(value) if value.isdigit() else None
    return _GRPC_OF_HTTP.get(stream.status, 2) if stream.status else None


def _grpc_name(names: tuple[str, ...]) -> Callable[[Any], bytes | None]:
    def read(stream: Any) -> bytes | None:
        status = grpc_status(stream)
        if status is None:
            return None
        return names[status].encode() if status < len(names) else b"%d" % status

    return read


def first(lines: Any, name: bytes) -> bytes | None:
    """The first value of a header or trailer."""
    for key, value in lines or ():
        if key == name:
            return bytes(value)
    return None


def _original_path(stream: Any) -> bytes | None:
    return first(stream.request_headers, b"x-envoy-original-path")


_FLAG_TEXTS: dict[tuple[int, bool], bytes] = {}


def flags_text(flags: int, long: bool) -> bytes:
    """Names of the response flags; "-" for none, in JSON too. Few sets occur, so each is written once."""
    text = _FLAG_TEXTS.get((flags, long))
    if text is None:
        table = response_flags.LONG if long else response_flags.SHORT
        text = _FLAG_TEXTS[flags, long] = (response_flags.names(flags, table) or "-").encode()
    return text


# Operators without parameters: kind and expression.

_PLAIN: dict[str, tuple[str, str]] = {
    "PROTOCOL": (BYTES, "(s.protocol or ABSENT)"),
    "RESPONSE_CODE": (INT, "s.status"),
    "RESPONSE_FLAGS": (BYTES, "(flags_text(s.response_flags, False) if s.response_flags else b'-')"),
    "RESPONSE_FLAGS_LONG": (BYTES, "(flags_text(s.response_flags, True) if s.response_flags else b'-')"),
    "BYTES_RECEIVED": (INT, "s.bytes_received"),
    "BYTES_SENT": (INT, "s.bytes_sent"),
    "DURATION": (INT, "(int((s.end - s.start) * 1000 + 1e-4) if s.end else duration(s))"),
    "REQUEST_DURATION": (MAYBE_INT, "milliseconds(s.start, s.request_complete)"),
    "REQUEST_TX_DURATION": (MAYBE_INT, "milliseconds(s.start, s.upstream_last_tx)"),
    "RESPONSE_DURATION": (MAYBE_INT, "milliseconds(s.start, s.upstream_first_rx)"),
    "RESPONSE_TX_DURATION": (MAYBE_INT, "milliseconds(s.upstream_first_rx, s.downstream_last_tx)"),
    "CONNECTION_TERMINATION_DETAILS": (BYTES, "(s.connection_termination_details.encode() or ABSENT)"),
    "UPSTREAM_TRANSPORT_FAILURE_REASON": (BYTES, "(underscored(s.upstream_transport_failure_reason) or ABSENT)"),
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON": (BYTES, "(underscored(s.connection.transport_failure_reason) or ABSENT)"),
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": (INT, "s.attempt_count"),
    "UPSTREAM_HOST": (BYTES, "(s.endpoint.address.encode() if s.endpoint is not None else ABSENT)"),
    "UPSTREAM_HOST_NAME": (
        BYTES,
        "((s.endpoint.hostname or s.endpoint.address).encode() if s.endpoint is not None else ABSENT)",
    ),
    "UPSTREAM_HOST_NAME_WITHOUT_PORT": (
        BYTES,
        "(name_without_port(s.endpoint.hostname or s.endpoint.address) if s.endpoint is not None else ABSENT)",
    ),
    "UPSTREAM_HOSTS_ATTEMPTED": (BYTES, "(attempted(s, 'address') or ABSENT)"),
    "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT": (BYTES, "(attempted(s, 'address', False) or ABSENT)"),
    "UPSTREAM_HOST_NAMES_ATTEMPTED": (BYTES, "(attempted(s, 'hostname') or ABSENT)"),
    "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT": (BYTES, "(attempted(s, 'hostname', False) or ABSENT)"),
    "UPSTREAM_CONNECTION_IDS_ATTEMPTED": (
        BYTES,
        "(b'%d' % s.upstream_connection.id if upstream(s) is not None else ABSENT)",
    ),
    "UPSTREAM_CLUSTER": (BYTES, "(cluster_name(s) or ABSENT)"),
    "UPSTREAM_CLUSTER_RAW": (BYTES, "(s.cluster.name.encode() if s.cluster is not None else ABSENT)"),
    "UPSTREAM_CONNECTION_ID": (INT, "(s.upstream_connection.id if upstream(s) is not None else 0)"),
    # HTTP/1 is what the upstream side speaks.
    "UPSTREAM_PROTOCOL": (BYTES, "(b'HTTP/1.1' if upstream(s) is not None and s.protocol else ABSENT)"),
    "UPSTREAM_DETECTED_CLOSE_TYPE": (BYTES, "(s.upstream_close_type or ABSENT)"),
    "UPSTREAM_LOCAL_CLOSE_REASON": (BYTES, "(underscored(s.upstream_local_close_reason) or ABSENT)"),
    "DOWNSTREAM_DETECTED_CLOSE_TYPE": (BYTES, "s.downstream_close_type"),
    "DOWNSTREAM_LOCAL_CLOSE_REASON": (BYTES, "(underscored(s.downstream_local_close_reason) or ABSENT)"),
    "DOWNSTREAM_HANDSHAKE_DURATION": (MAYBE_INT, "handshake_duration(s)"),
    "DOWNSTREAM_CX_RTT": (INT, "round_trip_ms(s.connection)"),
    "UPSTREAM_CONNECTION_POOL_READY_DURATION": (MAYBE_INT, "(s.meters and s.meters.pool_ready_ms)"),
    **{
        f"{side.upper()}_{what}_BYTES_{way.upper()}": (INT, f"(s.meters.{side}_{figure}_{way}() if s.meters else 0)")
        for side in ("downstream", "upstream")
        for what, figure in (("WIRE", "wire"), ("HEADER", "header"), ("DECOMPRESSED_HEADER", "header"))
        for way in ("received", "sent")
    },
    "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED": (
        INT,
        "(s.meters.upstream_decompressed_received() if s.meters else 0)",
    ),
    "CONNECTION_ID": (INT, "s.connection.id"),
    "STREAM_ID": (BYTES, "(ABSENT if s.request_id is None else q.get(b'x-request-id') or s.request_id or ABSENT)"),
    "UNIQUE_ID": (BYTES, "str(uuid4()).encode()"),
    "ROUTE_NAME": (BYTES, "(s.route is not None and s.route.name.encode() or ABSENT)"),
    "VIRTUAL_CLUSTER_NAME": (BYTES, "(s.tally is not None and s.tally.virtual_cluster or ABSENT)"),
    "REQUEST_HEADERS_BYTES": (INT, "request_headers_bytes(s)"),
    "RESPONSE_HEADERS_BYTES": (INT, "response_headers_bytes(s)"),
    "RESPONSE_TRAILERS_BYTES": (INT, "header_bytes(s.response_trailers)"),
    "GRPC_STATUS_NUMBER": (MAYBE_INT, "grpc_status(s)"),
    # No address of an internal listener, no QUIC, no tracing: as in an Envoy without them.
    "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID": (BYTES, "b''"),
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID": (BYTES, "b''"),
    "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID": (BYTES, "(b'' if upstream(s) is not None else ABSENT)"),
    "LOCAL_REPLY_BODY": (BYTES, "s.local_reply_body"),
    "CUSTOM_FLAGS": (BYTES, "b''"),
    "BYTES_RETRANSMITTED": (INT, "0"),
    "PACKETS_RETRANSMITTED": (INT, "0"),
    "ROUNDTRIP_DURATION": (MAYBE_INT, "None"),
    "TRACE_ID": (BYTES, "ABSENT"),
    "SPAN_ID": (BYTES, "ABSENT"),
    "TLS_JA3_FINGERPRINT": (BYTES, "ABSENT"),
    "TLS_JA4_FINGERPRINT": (BYTES, "ABSENT"),
}

READERS: dict[str, object] = {
    "flags_text": flags_text,
    "duration": _duration,
    "milliseconds": milliseconds,
    "underscored": underscored,
    "cluster_name": _cluster_name,
    "request_headers_bytes": _request_headers_bytes,
    "response_headers_bytes": _response_headers_bytes,
    "header_bytes": _header_bytes,
    "grpc_status": grpc_status,
    "uuid4": uuid.uuid4,
    "name_without_port": _name_without_port,
    "first": first,
    "sent_headers": sent_headers,
    "attempted": _attempted,
    "upstream": _upstream,
    "handshake_duration": _handshake_duration,
    "round_trip_ms": _round_trip_ms,
}
"""The functions that expressions call, by the names they call them."""

STATIC = ("FILTER_CHAIN_NAME", "LISTENER_NAME", "ACCESS_LOG_TYPE")
"""Operators whose value belongs to the place of the log, not to the stream; the log's owner gives it."""

UNSUPPORTED = frozenset(
    (
        "CEL",
        "TYPED_CEL",
        # ssl does not tell the group of a key exchange, nor which of our certificates a connection has used.
        "DOWNSTREAM_TLS_GROUP",
        "UPSTREAM_TLS_GROUP",
        *(
            f"DOWNSTREAM_LOCAL_{what}"
            for what in ("DNS_SAN", "EMAIL_SAN", "IP_SAN", "OTHERNAME_SAN", "SUBJECT", "URI_SAN")
        ),
        *(f"UPSTREAM_LOCAL_{what}" for what in ("DNS_SAN", "IP_SAN", "URI_SAN")),
        # Nobody counts how often and how long routes are looked up.
        "ROUTE_RESOLUTION_COUNT",
        "ROUTE_RESOLUTION_TIME_US",
    )
)

NEEDS_METERS = frozenset(
    (
        *(
            f"{side}_{what}_BYTES_{way}"
            for side in ("DOWNSTREAM", "UPSTREAM")
            for what in ("WIRE", "HEADER", "DECOMPRESSED_HEADER")
            for way in ("RECEIVED", "SENT")
        ),
        "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    )
)
"""Operators whose figures the request path keeps only where a format asks for them (``http.meters``)."""

_needed: set[str] = set()


@contextlib.contextmanager
def noting_needs() -> Iterator[set[str]]:
    """The set gets the names of ``NEEDS_METERS`` that formats ask for while they are compiled inside."""
    global _needed
    before, _needed = _needed, set()
    try:
        yield _needed
    finally:
        before |= _needed
        _needed = before


# Operators that take parameters. Each gets (name, argument or None, max length, where, a maker of names).

Build = Callable[[str, "str | None", "int | None", Where, Names], Item]


def _bytes_item(
    names: Names, read: Callable[[Any], bytes | None], of: str = "s", max_length: int | None = None
) -> Item:
    """An item that calls ``read`` with the expression ``of`` and takes None, not b"", for absent."""
    function, value = names(), names()
    return Item(BYTES, f"(ABSENT if ({value} := {function}({of})) is None else {value})", {function: read}, max_length)


_PSEUDO = {"method", "path", "authority", "scheme"}
_HEADER_OPERATORS = {
    "REQ": "REQ",
    "REQUEST_HEADER": "REQ",
    "STREAM_INFO_REQ": "REQ",
    "RESP": "RESP",
    "RESPONSE_HEADER": "RESP",
    "TRAILER": "TRAILER",
    "RESPONSE_TRAILER": "TRAILER",
}


def _headers(name: str, argument: str | None, max_length: int | None, where: Where, names: Names) -> Item:
    """%REQ(A?B):N%, %RESP%, %TRAILER%, and their other names: the first value of A, else of B."""
    original, name = name, _HEADER_OPERATORS[name]
    if not argument:
        raise _error(where, f"{original} requires parameters")
    wanted = argument.split("?")
    if len(wanted) > 2:
        raise _error(where, f"more than 1 alternative header specified in token: {argument}")
    source = "ABSENT"
    bound: dict[str, object] = {}
    for header in reversed(wanted):
        key = header.lower()
        pseudo = key.removeprefix(":") if key.startswith(":") else "authority" if key == "host" else ""
        if name == "REQ" and pseudo in _PSEUDO:
            # An empty Host field is there; a request without one has None.
            source = (
                f"({source} if s.authority is None else s.authority)"
                if pseudo == "authority"
                else f"(s.{pseudo} or {source})"
            )
        elif name == "RESP" and key == ":status":
            source = f"(b'%d' % s.status if s.status else r.get(b':status', {source}))"
        else:
            constant = names()
            bound[constant] = key.encode()
            if name == "TRAILER" or (name == "RESP" and key.encode() in WRITTEN_LATE):
                value = names()
                lines = "s.response_trailers" if name == "TRAILER" else "sent_headers(s)"
                source = f"({source} if ({value} := first({lines}, {constant})) is None else {value})"
            else:
                source = f"{'q' if name == 'REQ' else 'r'}.get({constant}, {source})"
    return Item(BYTES, source, bound, max_length)


def _without_query(argument: str | None, max_length: int | None, where: Where, names: Names) -> Item:
    """%REQ_WITHOUT_QUERY(A?B):N%, of the formatter extension: %REQ% without what begins with a question mark."""
    if not argument:
        raise _error(where, "REQ_WITHOUT_QUERY requires parameters")
    item = _headers("REQ", argument, None, where, names)
    value = names()
    source = f"(ABSENT if ({value} := {item.source.replace(ABSENT, 'None')}) is None else {value}.partition(b'?')[0])"
    return Item(BYTES, source, item.bound, max_length)


def _time(name: str, argument: str | None, _max_length: int | None, where: Where, names: Names) -> Item:
    if argument is not None and "\n" in argument:
        raise _error(where, "invalid header configuration. Format string contains newline.")
    local = name.endswith("_LOCAL")
    constant = names()
    render = compile_time(argument or (DEFAULT_LOCAL if local else DEFAULT), local=local)
    if name.startswith("START"):
        return Item(BYTES, f"{constant}(s)", {constant: _start_text(render)})
    return Item(BYTES, f"{constant}(s.connection.loop.wall())", {constant: render})


def _start_text(render: Callable[[float], bytes]) -> Callable[[Any], bytes]:
    """The start as text. Requests that were read in one pass of the loop share one float: they share the text too."""
    last_start: float | None = None
    last_text = b""

    def start_text(stream: Any) -> bytes:
        nonlocal last_start, last_text
        start: float = stream.start
        if start is not last_start:
            last_start = start
            last_text = render(stream.wall_start)
        return last_text

    return start_text


_POINTS = {
    "DS_RX_BEG": "start",
    "DS_RX_END": "request_complete",
    "US_TX_BEG": "upstream_first_tx",
    "US_TX_END": "upstream_last_tx",
    "US_RX_BEG": "upstream_first_rx",
    "US_RX_END": "upstream_last_rx",
    "DS_TX_BEG": "downstream_first_tx",
    "DS_TX_END": "downstream_last_tx",
}
_CONNECTION_POINTS = ("US_CX_BEG", "US_CX_END", "US_HS_END")
_PRECISIONS = {"ms": 1e3, "us": 1e6, "ns": 1e9}


def _common_duration(name: str, argument: str | None, _max_length: int | None, where: Where, names: Names) -> Item:
    if not argument:
        raise _error(where, f"{name} requires parameters")
    parts = argument.split(":")
    if len(parts) not in (2, 3):
        raise _error(where, f"Invalid common duration configuration: {argument}.", "START:END:ms, us or ns")
    precision = parts[2] if len(parts) == 3 else "ms"
    if precision not in _PRECISIONS:
        raise _error(where, f"Invalid common duration precision: {precision}.", "ms, us or ns")
    for point in parts[:2]:
        if point in _CONNECTION_POINTS:
            raise _unsupported(where, f"{name} with the time point {point}", ", ".join(_POINTS))
    # A point of another name is one that a filter has set, of which there are none.
    begin, end = (_POINTS.get(point, "") for point in parts[:2])
    scale = _PRECISIONS[precision]
    if not begin or not end:
        return Item(MAYBE_INT, "None", {})

    def read(stream: Any) -> int | None:
        left, right = getattr(stream, begin), getattr(stream, end)
        return int((right - left) * scale + 1e-4) if left and right >= left else None

    constant = names()
    return Item(MAYBE_INT, f"{constant}(s)", {constant: read})


def _environment(name: str, argument: str | None, max_length: int | None, where: Where, names: Names) -> Item:
    if not argument:
        raise _error(where, f"{name} requires parameters")
    constant = names()
    value = os.environb.get(argument.encode(), b"-")
    return Item(BYTES, constant, {constant: value[:max_length]})


def _hostname(_name: str, _argument: str | None, _max_length: int | None, _where: Where, names: Names) -> Item:
    constant = names()
    return Item(BYTES, constant, {constant: socket.gethostname().encode() or b"-"})


def _details(_name: str, argument: str | None, _max_length: int | None, _where: Where, _names: Names) -> Item:
    if argument == "ALLOW_WHITESPACES":
        return Item(BYTES, "(s.details.encode() or ABSENT)", {})
    return Item(BYTES, "(underscored(s.details) or ABSENT)", {})  # Envoy takes any other word, and ignores it


def _path(name: str, argument: str | None, max_length: int | None, where: Where, names: Names) -> Item:
    query, _, which = (argument or "").partition(":")
    if query not in ("", "WQ", "NQ"):
        raise _error(where, f"invalid {name} option: '{query}', only 'WQ'/'NQ' are allowed")
    if which not in ("", "ORIG", "PATH", "ORIG_OR_PATH"):
        raise _error(where, f"invalid {name} option: '{which}', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed")

    def read(stream: Any) -> bytes | None:
        path = None if which == "PATH" else _original_path(stream)
        if path is None and which != "ORIG":
            path = stream.path or None
        return path.partition(b"?")[0] if path is not None and query == "NQ" else path

    return _bytes_item(names, read, "s", max_length)


def _query_param(name: str, argument: str | None, max_length: int | None, where: Where, names: Names) -> Item:
    if not argument:
        raise _error(where, f"{name} requires parameters")
    wanted = argument.encode()

    def read(stream: Any) -> bytes | None:
        for pair in stream.path.partition(b"#")[0].partition(b"?")[2].split(b"&"):
            key, _, value = pair.partition(b"=")
            if urllib.parse.unquote_to_bytes(key) == wanted:
                return urllib.parse.unquote_to_bytes(value)
        return None

    return _bytes_item(names, read, "s", max_length)


def _query_params(name: str, argument: str | None, max_length: int | None, where: Where, names: Names) -> Item:
    # Envoy 1.40 decodes nothing for DECODED either.
    if argument not in (None, "", "ORIG", "DECODED"):
        raise _error(where, f"invalid {name} option: '{argument}', only 'ORIG'/'DECODED' are allowed")

    def read(stream: Any) -> bytes | None:
        return bytes(stream.path).partition(b"#")[0].partition(b"?")[2] or None

    return _bytes_item(names, read, "s", max_length)


def _metadata(
    name: str, argument: str | None, max_length: int | None, where: Where, names: Names, static: Mapping[str, Any]
) -> Item:
    """%DYNAMIC_METADATA(NAMESPACE:KEY:KEY):N% and its kin, and %METADATA(KIND:NAMESPACE:KEY):N%."""
    if not argument and name != "METADATA":
        raise _error(where, f"{name} requires parameters")
    kind, path = _METADATA_OPERATORS[name], argument or ""
    if not kind:
        kind, _, path = path.partition(":")
        if kind in metadata_operators.PLACES and metadata_operators.PLACES[kind] not in static:
            raise _unsupported(where, f"{name}({kind}) here")
        if kind not in metadata_operators.PLACES and kind not in metadata_operators.SOURCES:
            raise _error(where, f"{kind} is not supported type of metadata")
    constant = names()
    return Item(VALUE, f"{constant}(s)", {constant: metadata_operators.metadata_reader(kind, path, static)}, max_length)


_METADATA_OPERATORS = {
    "METADATA": "",
    "DYNAMIC_METADATA": "DYNAMIC",
    "CLUSTER_METADATA": "CLUSTER",
    "UPSTREAM_METADATA": "UPSTREAM_HOST",
}


def _filter_state(_name: str, argument: str | None, max_length: int | None, where: Where, names: Names) -> Item:
    constant = names()
    try:
        read = metadata_operators.filter_state_reader(argument)
    except ValueError as error:
        raise _error(where, str(error)) from None
    return Item(VALUE, f"{constant}(s)", {constant: read}, max_length)


def _upstream_filter_state(name: str, argument: str | None, max_length: int | None, where: Where, names: Names) -> Item:
    """Checked as the other one; nothing here leaves a state on the upstream side."""
    _filter_state(name, argument, max_length, where, names)
    return Item(BYTES, "ABSENT", {})


def _coalesce(
    argument: str | None, max_length: int | None, where: Where, names: Names, static: Mapping[str, Any]
) -> Item:
    """%COALESCE({"operators": ["A", {"command": "B", "param": "…", "max_length": N}]})%: the first that is there."""
    if not argument:
        raise _error(where, "COALESCE requires parameters")
    try:
        config = json.loads(argument)
    except ValueError as error:
        raise _error(where, f"COALESCE: failed to parse JSON configuration: {error}") from None
    operators = config.get("operators") if isinstance(config, dict) else None
    if operators is None:
        raise _error(where, "COALESCE: JSON configuration must contain 'operators' array")
    if not isinstance(operators, list):
        raise _error(where, "COALESCE: 'operators' must be an array")
    if not operators:
        raise _error(where, "COALESCE: 'operators' array must not be empty")
    found = names()
    bound: dict[str, object] = {}
    source = "None"
    for index, operator in reversed(list(enumerate(operators))):
        item = build(*_coalesced(operator, index, where), where, names, static)
        bound.update(item.bound)
        source = f"({found} if ({found} := {_value_or_none(item)}) is not None else {source})"
    return Item(VALUE, source, bound, max_length)


def _value_or_none(item: Item) -> str:
    source = item.source.replace(ABSENT, "None")
    if item.max_length is None:
        return source
    return f"{'cut_value' if item.kind == VALUE else 'cut_or_none'}({source}, {item.max_length})"


def _coalesced(operator: Any, index: int, where: Where) -> tuple[str, str | None, int | None]:
    def wrong(what: str) -> ConfigError:
        return _error(where, f"COALESCE: failed to parse operator at index {index}: {what}")

    command, parameter, length = operator, None, None
    if isinstance(operator, dict):
        command = operator.get("command")
        parameter = operator.get("param")
        length = operator.get("max_length")
        if not isinstance(command, str):
            raise wrong("operator object must have 'command' field")
        if parameter is not None and not isinstance(parameter, str):
            raise wrong("'param' field must be a string")
        if length is not None and (not isinstance(length, int) or length is True):
            raise wrong("'max_length' field must be an integer")
        if length is not None and length <= 0:
            raise wrong("'max_length' must be a positive integer")
    elif not isinstance(operator, str):
        raise wrong("operator entry must be either a string (command name) or an object with 'command' field")
    if command not in SUPPORTED and command not in UNSUPPORTED:
        raise wrong(f"unknown command: '{command}'")
    return command, parameter, length


def _server_name(name: str, argument: str | None, _max_length: int | None, where: Where, names: Names) -> Item:
    which, _, host = (argument or "").partition(":")
    if which not in ("", "SNI_ONLY", "SNI_FIRST", "HOST_FIRST"):
        raise _error(where, f"invalid {name} option: '{which}', only 'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST' are allowed")
    if host not in ("", "ORIG_OR_HOST", "HOST", "ORIG"):
        raise _error(where, f"invalid {name} option: '{host}', only 'ORIG_OR_HOST'/'HOST'/'ORIG' are allowed")

    def authority(stream: Any) -> bytes | None:
        original = None if host == "HOST" else first(stream.request_headers, b"x-envoy-original-host")
        if original is None and host != "ORIG":
            found: bytes | None = stream.authority
            return found
        return original

    def read(stream: Any) -> bytes | None:
        sni = stream.connection.requested_server_name.encode()
        if which == "HOST_FIRST":
            return authority(stream) or sni or None
        return sni or (authority(stream) if which == "SNI_FIRST" else b"") or None

    return _bytes_item(names, read)


def _grpc(name: str, argument: str | None, _max_length: int | None, where: Where, names: Names) -> Item:
    if argument in (None, "", "CAMEL_STRING"):
        return _bytes_item(names, _grpc_name(_GRPC_CAMEL))
    if argument == "SNAKE_STRING":
        return _bytes_item(names, _grpc_name(GRPC_NAMES))
    if argument == "NUMBER":
        return Item(MAYBE_INT, "grpc_status(s)", {})
    raise _error(where, f"{name} only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: {argument}")


def _certificate_validity(name: str, argument: str | None, _max_length: int | None, where: Where, names: Names) -> Item:
    field = "not_before" if name.endswith("_START") else "not_after"
    read = tls_operators.validity(field, argument or "%Y-%m-%dT%H:%M:%S.000Z")
    return _bytes_item(names, read, "s.connection.tls" if name.startswith("DOWN") else _UPSTREAM_TLS)


_UPSTREAM_TLS = "(s.upstream_connection and s.upstream_connection.tls)"


def _address_without_port(
    name: str, argument: str | None, _max_length: int | None, _where: Where, names: Names
) -> Item:
    """With a number: the network of so many bits that the address is in. Envoy takes any other word, and ignores it."""
    read = _ADDRESSES[name.removesuffix("_ADDRESS_WITHOUT_PORT")]
    if argument and argument.isdecimal():
        bits = int(argument)
        return _bytes_item(names, lambda stream: _network(_without_port(read(stream)), bits))
    return _bytes_item(names, lambda stream: _without_port(read(stream)))


def _network(address: bytes | None, bits: int) -> bytes | None:
    try:
        ip = ipaddress.ip_address((address or b"").decode())
    except ValueError:
        return address  # a path
    return str(ipaddress.ip_network((ip, min(bits, ip.max_prefixlen)), strict=False)).encode()


_WITH_PARAMETERS: dict[str, tuple[Build, bool]] = {
    **dict.fromkeys(_HEADER_OPERATORS, (_headers, True)),
    "START_TIME": (_time, False),
    "START_TIME_LOCAL": (_time, False),
    "EMIT_TIME": (_time, False),
    "EMIT_TIME_LOCAL": (_time, False),
    "COMMON_DURATION": (_common_duration, False),
    "ENVIRONMENT": (_environment, True),
    "RESPONSE_CODE_DETAILS": (_details, False),
    "PATH": (_path, True),
    "QUERY_PARAM": (_query_param, True),
    "QUERY_PARAMS": (_query_params, True),
    "FILTER_STATE": (_filter_state, True),
    "UPSTREAM_FILTER_STATE": (_upstream_filter_state, True),
    "REQUESTED_SERVER_NAME": (_server_name, False),
    "GRPC_STATUS": (_grpc, False),
    **{
        f"{side}_PEER_CERT_V_{end}": (_certificate_validity, False)
        for side in ("DOWNSTREAM", "UPSTREAM")
        for end in ("START", "END")
    },
    **{f"{side}_ADDRESS_WITHOUT_PORT": (_address_without_port, False) for side in _ADDRESSES},
}
"""Name → (builder, whether a length may follow)."""


def _tls_readers() -> dict[str, tuple[str, tls_operators.Read]]:
    both = {**tls_operators.CONNECTION, **tls_operators.PEER}
    return {
        **{f"DOWNSTREAM_{name}": ("s.connection.tls", read) for name, read in both.items()},
        **{f"DOWNSTREAM_{name}": ("s.connection.tls", read) for name, read in tls_operators.DOWNSTREAM_PEER.items()},
        **{f"UPSTREAM_{name}": (_UPSTREAM_TLS, read) for name, read in both.items()},
        "UPSTREAM_SERVER_NAME": (_UPSTREAM_TLS, tls_operators.server_name),
    }


_TLS = _tls_readers()

SUPPORTED = frozenset(
    (
        *_PLAIN,
        *_WITH_PARAMETERS,
        *_TLS,
        *STATIC,
        *_METADATA_OPERATORS,
        "COALESCE",
        "HOSTNAME",
        *(f"{side}_ADDRESS" for side in _ADDRESSES),
        *(f"{side}_PORT" for side in _ADDRESSES),
    )
)


def _unsupported(where: Where, what: str, hint: str = "") -> ConfigError:
    message = f"forkproxy does not implement the command operator {what}"
    return ConfigError.of([Problem("unsupported", where.path, where.line, where.column, message, hint)])


def build(
    name: str,
    argument: str | None,
    max_length: int | None,
    where: Where,
    names: Names,
    static: Mapping[str, Any],
) -> Item:
    """Compile one operator. ``static`` has the values of ``STATIC`` operators, and the metadata of the log's place.

    Raises ConfigError, of kind "unsupported" where Envoy knows better.
    """
    if argument is not None and any(character in argument for character in "\n\r\0"):
        raise _error(where, "invalid header configuration. Format string contains newline.")
    with_parameters = _WITH_PARAMETERS.get(name)
    if max_length is not None and (name in _NO_LENGTH or (with_parameters is not None and not with_parameters[1])):
        raise _error(where, f"{name} does not allow length to be specified.")
    if with_parameters is not None:
        return with_parameters[0](name, argument, max_length, where, names)
    if name in _METADATA_OPERATORS:
        return _metadata(name, argument, max_length, where, names, static)
    if name == "REQ_WITHOUT_QUERY" and name in static.get("formatters", ()):
        return _without_query(argument, max_length, where, names)
    if name == "COALESCE":
        return _coalesce(argument, max_length, where, names, static)
    return _build_plain(name, argument, max_length, where, names, static)


_NO_LENGTH = ("CLUSTER_METADATA", "UPSTREAM_METADATA")


def _build_plain(
    name: str, argument: str | None, max_length: int | None, where: Where, names: Names, static: Mapping[str, Any]
) -> Item:
    if name in UNSUPPORTED:
        raise _unsupported(where, name)
    if name not in SUPPORTED:
        close = difflib.get_close_matches(name, sorted(SUPPORTED | UNSUPPORTED), 1)
        raise _error(
            where, f"not supported field in access log format: {name}", f"did you mean {close[0]}?" if close else ""
        )
    if argument or max_length is not None:
        raise _error(where, f"{name} does not take any parameters or length")
    if name in NEEDS_METERS:
        _needed.add(name)
    plain = _PLAIN.get(name)
    if plain is not None:
        return Item(*plain, {})
    if name in _TLS:
        of, read = _TLS[name]
        return _bytes_item(names, read, of)
    if name in STATIC:
        if name not in static:
            raise _unsupported(where, f"{name} here")
        constant = names()
        return Item(BYTES, f"({constant} or ABSENT)", {constant: static[name].encode()})
    if name == "HOSTNAME":
        return _hostname(name, argument, max_length, where, names)
    side, _, what = name.rpartition("_")
    text = _ADDRESSES[side]
    if what == "ADDRESS":
        return _bytes_item(names, lambda stream: _address(text(stream)))
    constant = names()
    return Item(MAYBE_INT, f"{constant}(s)", {constant: lambda stream: _port(text(stream))})
