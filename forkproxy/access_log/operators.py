"""Envoy's command operators: what each one reads of a stream.

An operator is compiled to an ``Item``: a Python expression over the stream ``s`` with every value from the
configuration bound to a name, never written into the source. ``formatter`` puts the expressions of a line into one
function.

Operators that Envoy has and that have no meaning here yet are in ``UNSUPPORTED``: a configuration that uses one is
refused with kind "unsupported"; a name that Envoy does not know is an error with a suggestion. Verdicts and values
were asked of Envoy 1.40.
"""

from __future__ import annotations

import difflib
import os
import socket
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from forkproxy.access_log import tls_operators
from forkproxy.access_log.time_format import DEFAULT, DEFAULT_LOCAL, compile_time
from forkproxy.config.build.core import Where
from forkproxy.config.problems import ConfigError, Problem
from forkproxy.http import response_flags
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


@dataclass(frozen=True, slots=True)
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


def _port(text: str) -> int | None:
    port = text.rpartition(":")[2]
    return int(port) if port.isdigit() and not text.startswith(("/", "@")) else None


def _upstream_local(stream: Any) -> str:
    connection = stream.upstream_connection
    return addresses.text(connection.local_socket_address()) if connection is not None else ""


def _upstream_remote(stream: Any) -> str:
    connection = stream.upstream_connection
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


def _header_bytes(lines: Any) -> int:
    return sum(len(name) + len(value) for name, value in lines or ())


def _request_headers_bytes(stream: Any) -> int:
    pseudo = ((7, stream.method), (5, stream.path), (10, stream.authority), (7, stream.scheme))
    return _header_bytes(stream.request_headers) + sum(size + len(value) for size, value in pseudo if value is not None)


def _response_headers_bytes(stream: Any) -> int:
    if stream.response_headers is None:
        return 0
    return _header_bytes(stream.response_headers) + len(":status") + len(str(stream.status))


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
    "UPSTREAM_CLUSTER": (BYTES, "(cluster_name(s) or ABSENT)"),
    "UPSTREAM_CLUSTER_RAW": (BYTES, "(s.cluster.name.encode() if s.cluster is not None else ABSENT)"),
    "UPSTREAM_CONNECTION_ID": (INT, "(s.upstream_connection.id if s.upstream_connection is not None else 0)"),
    # HTTP/1 is what the upstream side speaks.
    "UPSTREAM_PROTOCOL": (BYTES, "(b'HTTP/1.1' if s.upstream_connection is not None else ABSENT)"),
    "CONNECTION_ID": (INT, "s.connection.id"),
    "STREAM_ID": (BYTES, "(q.get(b'x-request-id') or s.request_id or ABSENT)"),
    "UNIQUE_ID": (BYTES, "str(uuid4()).encode()"),
    "ROUTE_NAME": (BYTES, "(s.route is not None and s.route.name.encode() or ABSENT)"),
    "VIRTUAL_CLUSTER_NAME": (BYTES, "(s.tally is not None and s.tally.virtual_cluster or ABSENT)"),
    "REQUEST_HEADERS_BYTES": (INT, "request_headers_bytes(s)"),
    "RESPONSE_HEADERS_BYTES": (INT, "response_headers_bytes(s)"),
    "RESPONSE_TRAILERS_BYTES": (INT, "header_bytes(s.response_trailers)"),
    "GRPC_STATUS_NUMBER": (MAYBE_INT, "grpc_status(s)"),
    # No address of an internal listener, no QUIC, no tracing: as in an Envoy without them.
    "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID": (BYTES, "b''"),
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
}
"""The functions that expressions call, by the names they call them."""

STATIC = ("FILTER_CHAIN_NAME", "LISTENER_NAME", "ACCESS_LOG_TYPE")
"""Operators whose value belongs to the place of the log, not to the stream; the log's owner gives it."""

UNSUPPORTED = frozenset(
    (
        "CEL",
        "CLUSTER_METADATA",
        "COALESCE",
        "DOWNSTREAM_CX_RTT",
        "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
        "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
        "DOWNSTREAM_DETECTED_CLOSE_TYPE",
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID",
        "DOWNSTREAM_HANDSHAKE_DURATION",
        "DOWNSTREAM_HEADER_BYTES_RECEIVED",
        "DOWNSTREAM_HEADER_BYTES_SENT",
        "DOWNSTREAM_LOCAL_CLOSE_REASON",
        "DOWNSTREAM_LOCAL_DNS_SAN",
        "DOWNSTREAM_LOCAL_EMAIL_SAN",
        "DOWNSTREAM_LOCAL_IP_SAN",
        "DOWNSTREAM_LOCAL_OTHERNAME_SAN",
        "DOWNSTREAM_LOCAL_SUBJECT",
        "DOWNSTREAM_LOCAL_URI_SAN",
        "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
        "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
        "DOWNSTREAM_PEER_CHAIN_SERIALS",
        "DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256",
        "DOWNSTREAM_PEER_ISSUER_SERIAL",
        "DOWNSTREAM_PEER_OTHERNAME_SAN",
        "DOWNSTREAM_TLS_GROUP",
        "DOWNSTREAM_WIRE_BYTES_RECEIVED",
        "DOWNSTREAM_WIRE_BYTES_SENT",
        "FILTER_STATE",
        "REQUEST_HEADER",
        "RESPONSE_HEADER",
        "RESPONSE_TRAILER",
        "ROUTE_RESOLUTION_COUNT",
        "ROUTE_RESOLUTION_TIME_US",
        "STREAM_INFO_REQ",
        "UPSTREAM_CONNECTION_IDS_ATTEMPTED",
        "UPSTREAM_CONNECTION_POOL_READY_DURATION",
        "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
        "UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
        "UPSTREAM_DETECTED_CLOSE_TYPE",
        "UPSTREAM_FILTER_STATE",
        "UPSTREAM_HEADER_BYTES_RECEIVED",
        "UPSTREAM_HEADER_BYTES_SENT",
        "UPSTREAM_HOSTS_ATTEMPTED",
        "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT",
        "UPSTREAM_HOST_NAMES_ATTEMPTED",
        "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT",
        "UPSTREAM_HOST_NAME_WITHOUT_PORT",
        "UPSTREAM_LOCAL_CLOSE_REASON",
        "UPSTREAM_LOCAL_DNS_SAN",
        "UPSTREAM_LOCAL_IP_SAN",
        "UPSTREAM_LOCAL_URI_SAN",
        "UPSTREAM_METADATA",
        "UPSTREAM_PEER_CERT_V_END",
        "UPSTREAM_PEER_CERT_V_START",
        "UPSTREAM_PEER_DNS_SAN",
        "UPSTREAM_PEER_IP_SAN",
        "UPSTREAM_PEER_URI_SAN",
        "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID",
        "UPSTREAM_SERVER_NAME",
        "UPSTREAM_TLS_GROUP",
        "UPSTREAM_WIRE_BYTES_RECEIVED",
        "UPSTREAM_WIRE_BYTES_SENT",
    )
)

# Operators that take parameters. Each gets (name, argument or None, max length, where, a maker of names).

Build = Callable[[str, "str | None", "int | None", Where, Names], Item]


def _bytes_item(
    names: Names, read: Callable[[Any], bytes | None], of: str = "s", max_length: int | None = None
) -> Item:
    """An item that calls ``read`` with the expression ``of`` and takes None, not b"", for absent."""
    function, value = names(), names()
    return Item(BYTES, f"(ABSENT if ({value} := {function}({of})) is None else {value})", {function: read}, max_length)


_PSEUDO = {"method", "path", "authority", "scheme"}


def _headers(name: str, argument: str | None, max_length: int | None, where: Where, names: Names) -> Item:
    """%REQ(A?B):N%, %RESP%, %TRAILER%: the first value of A, else of B."""
    if not argument:
        raise _error(where, f"{name} requires parameters")
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
            if name == "TRAILER":
                value = names()
                source = f"({source} if ({value} := first(s.response_trailers, {constant})) is None else {value})"
                bound["first"] = first
            else:
                source = f"{'q' if name == 'REQ' else 'r'}.get({constant}, {source})"
    return Item(BYTES, source, bound, max_length)


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
_PRECISIONS = {"ms": 1e3, "us": 1e6, "ns": 1e9}


def _common_duration(name: str, argument: str | None, _max_length: int | None, where: Where, names: Names) -> Item:
    if not argument:
        raise _error(where, f"{name} requires parameters")
    parts = argument.split(":")
    if len(parts) != 3 or parts[2] not in _PRECISIONS:
        raise _error(where, f"invalid common duration configuration: {argument}", "START:END:ms, us or ns")
    for point in parts[:2]:
        if point not in _POINTS:
            raise _unsupported(where, f"{name} with the time point {point}", ", ".join(_POINTS))
    begin, end = (_POINTS[point] for point in parts[:2])
    scale = _PRECISIONS[parts[2]]

    def read(stream: Any) -> int | None:
        left, right = getattr(stream, begin), getattr(stream, end)
        return int((right - left) * scale + 1e-4) if left and right else None

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


def _details(name: str, argument: str | None, _max_length: int | None, where: Where, names: Names) -> Item:
    if argument not in (None, "", "ALLOW_WHITESPACES"):
        raise _error(where, f"invalid {name} option: '{argument}'", "only 'ALLOW_WHITESPACES' is allowed")
    if argument:
        return Item(BYTES, "(s.details.encode() or ABSENT)", {})
    return Item(BYTES, "(underscored(s.details) or ABSENT)", {})


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
    if argument not in (None, "", "ORIG"):
        if argument == "DECODED":
            raise _unsupported(where, f"{name}({argument})")
        raise _error(where, f"invalid {name} option: '{argument}', only 'ORIG'/'DECODED' are allowed")

    def read(stream: Any) -> bytes | None:
        return bytes(stream.path).partition(b"#")[0].partition(b"?")[2] or None

    return _bytes_item(names, read, "s", max_length)


def _dynamic_metadata(name: str, argument: str | None, max_length: int | None, where: Where, names: Names) -> Item:
    """%DYNAMIC_METADATA(NAMESPACE:KEY:KEY):N% and %METADATA(DYNAMIC:…):N%."""
    if name == "METADATA":
        kind, _, argument = (argument or "").partition(":")
        if kind in ("CLUSTER", "ROUTE", "UPSTREAM_HOST", "LISTENER", "VIRTUAL_HOST", "LISTENER_FILTER_CHAIN"):
            raise _unsupported(where, f"{name}({kind})", "DYNAMIC is supported")
        if kind != "DYNAMIC":
            raise _error(where, f"{kind} is not supported type of metadata")
    if not argument:
        raise _error(where, f"{name} requires parameters")
    namespace, *keys = argument.split(":")

    def read(stream: Any) -> object:
        value = stream.dynamic_metadata.get(namespace)
        for key in keys:
            if not isinstance(value, dict):
                return None
            value = value.get(key)
        return value

    constant = names()
    return Item(VALUE, f"{constant}(s)", {constant: read}, max_length)


def _server_name(name: str, argument: str | None, _max_length: int | None, where: Where, names: Names) -> Item:
    if argument not in (None, "", "SNI_ONLY", "SNI_FIRST", "HOST_FIRST"):
        raise _error(
            where, f"invalid {name} option: '{argument}', only 'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST' are allowed"
        )

    def read(stream: Any) -> bytes | None:
        sni = stream.connection.requested_server_name.encode()
        if argument == "HOST_FIRST":
            return stream.authority or sni or None
        return sni or (stream.authority if argument == "SNI_FIRST" else b"") or None

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
    field = "notBefore" if name.endswith("_START") else "notAfter"
    return _bytes_item(names, tls_operators.validity(field, argument or "%Y-%m-%dT%H:%M:%S.000Z"), "s.connection.tls")


def _address_without_port(name: str, argument: str | None, _max_length: int | None, where: Where, names: Names) -> Item:
    if argument:
        raise _unsupported(where, f"{name} with a parameter")
    read = _ADDRESSES[name.removesuffix("_ADDRESS_WITHOUT_PORT")]
    return _bytes_item(names, lambda stream: _without_port(read(stream)))


_WITH_PARAMETERS: dict[str, tuple[Build, bool]] = {
    "REQ": (_headers, True),
    "RESP": (_headers, True),
    "TRAILER": (_headers, True),
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
    "DYNAMIC_METADATA": (_dynamic_metadata, True),
    "METADATA": (_dynamic_metadata, True),
    "REQUESTED_SERVER_NAME": (_server_name, False),
    "GRPC_STATUS": (_grpc, False),
    "DOWNSTREAM_PEER_CERT_V_START": (_certificate_validity, False),
    "DOWNSTREAM_PEER_CERT_V_END": (_certificate_validity, False),
    **{f"{side}_ADDRESS_WITHOUT_PORT": (_address_without_port, False) for side in _ADDRESSES},
}
"""Name → (builder, whether a length may follow)."""


def _tls_readers() -> dict[str, tuple[str, tls_operators.Read]]:
    both = {**tls_operators.CONNECTION, **tls_operators.PEER}
    upstream = "(s.upstream_connection and s.upstream_connection.tls)"
    return {
        **{f"DOWNSTREAM_{name}": ("s.connection.tls", read) for name, read in both.items()},
        **{f"DOWNSTREAM_{name}": ("s.connection.tls", read) for name, read in tls_operators.DOWNSTREAM_PEER.items()},
        **{f"UPSTREAM_{name}": (upstream, read) for name, read in both.items()},
    }


_TLS = _tls_readers()

SUPPORTED = frozenset(
    (
        *_PLAIN,
        *_WITH_PARAMETERS,
        *_TLS,
        *STATIC,
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
    static: Mapping[str, str],
) -> Item:
    """Compile one operator. ``static`` has the values of ``STATIC`` operators.

    Raises ConfigError, of kind "unsupported" where Envoy knows better.
    """
    with_parameters = _WITH_PARAMETERS.get(name)
    if with_parameters is not None:
        builder, takes_length = with_parameters
        if max_length is not None and not takes_length:
            raise _error(where, f"{name} does not allow length to be specified.")
        if argument is not None and any(character in argument for character in "\n\r\0"):
            raise _error(where, "invalid header configuration. Format string contains newline.")
        return builder(name, argument, max_length, where, names)
    if name in UNSUPPORTED:
        raise _unsupported(where, name)
    if name not in SUPPORTED:
        close = difflib.get_close_matches(name, sorted(SUPPORTED | UNSUPPORTED), 1)
        raise _error(
            where, f"not supported field in access log format: {name}", f"did you mean {close[0]}?" if close else ""
        )
    if argument or max_length is not None:
        raise _error(where, f"{name} does not take any parameters or length")
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
