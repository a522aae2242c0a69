"""What a request is to those who limit rates: ``rate_limits`` compiled to one callable that makes a request's descriptors.

A descriptor is a tuple of (key, value) pairs, in bytes; the actions of one ``RateLimit`` make one, or none as soon as one of them
finds nothing (Envoy: "Rate limit", "Actions").
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from forkproxy.config.build.core import Where
from forkproxy.config.build.rate_limit import RateLimit, RateLimitAction
from forkproxy.router.header_mutation import CompileFormat
from forkproxy.router.matcher import StreamTest, all_of, compile_header_matcher, compile_query_matcher, query_of
from forkproxy.router.rewrite import request_header

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

Entry = tuple[bytes, bytes]
Descriptor = tuple[Entry, ...]
Describe = Callable[["Stream"], list[tuple[Descriptor, int]]]
"""A request's descriptors, each with how many tokens the request takes."""
MOST_HITS: Final = 1_000_000_000
Produce = Callable[["Stream"], Entry | bool | None]
"""An action: an entry, None for no descriptor at all, or True for a descriptor without this entry."""


def compile_rate_limits(
    rate_limits: Sequence[RateLimit], service_cluster: bytes, compile_format: CompileFormat | None = None
) -> Describe | None:
    """None when there are none. ``service_cluster``: what "source_cluster" says. ConfigError for a bad expression or format."""
    compiled = [
        (
            tuple(_compile(action, service_cluster, each.where) for action in each.actions),
            each.hits,
            compile_format(each.hits_format, each.where) if each.hits_format and compile_format is not None else None,
        )
        for each in rate_limits
        if not each.at_the_end
    ]
    if not compiled:
        return None

    def describe(stream: Stream) -> list[tuple[Descriptor, int]]:
        found = []
        for actions, hits, format_hits in compiled:
            entries = []
            for produce in actions:
                entry = produce(stream)
                if entry is None:
                    break
                if not isinstance(entry, bool):
                    entries.append(entry)
            else:
                if format_hits is not None:
                    counted = _count(format_hits(stream))
                    if counted is None:
                        continue
                    hits = counted
                found.append((tuple(entries), hits))
        return found

    return describe


def _count(text: bytes) -> int | None:
    """A number of tokens, fractions cut off; None for what is none, or too large."""
    value = text.strip().lower()
    try:
        number = float.fromhex(value.decode("ascii")) if b"0x" in value else float(value)
    except (ValueError, OverflowError):
        return None
    if b"_" in value or number < 0 or number > MOST_HITS:
        return None
    return 0 if number != number else int(number)  # not a number counts as none, in Envoy too


def _compile(action: RateLimitAction, service_cluster: bytes, where: Where) -> Produce:
    key, name, value = action.key.encode(), action.name.encode(), action.value.encode()
    missing: bool | None = action.skip_if_absent or None
    match action.kind:
        case "source_cluster":
            return lambda _stream: (key, service_cluster)
        case "destination_cluster":
            return lambda stream: (key, _cluster_name(stream))
        case "remote_address":
            return lambda stream: _remote_address(stream, key)
        case "masked_remote_address":
            return lambda stream: _masked_address(stream, action)
        case "request_headers":
            return lambda stream: (key, found) if (found := request_header(stream, name)) else missing
        case "query_parameters":
            return lambda stream: (key, found) if (found := _query_parameter(stream, name)) is not None else missing
        case "metadata":
            return lambda stream: (key, found) if (found := _metadata(stream, action) or value) else missing
        case "generic_key":
            return lambda _stream: (key, value)
    tests: list[StreamTest] = [compile_header_matcher(each, where) for each in action.headers]
    tests += [compile_query_matcher(each, where) for each in action.query_parameters]
    test = all_of(tests)
    expected = action.expected
    return lambda stream: (key, value) if (test is None or test(stream)) == expected else None


def _cluster_name(stream: Stream) -> bytes:
    route = stream.route
    if route is None:
        return b""
    return route.cluster_name.encode() or request_header(stream, route.cluster_header)


def _ip(stream: Stream) -> str:
    """The client's address without its port; "" on a unix socket."""
    host, _, port = stream.downstream_remote_address.rpartition(":")
    return host.strip("[]") if port.isdigit() else ""


def _remote_address(stream: Stream, key: bytes) -> Entry | None:
    ip = _ip(stream)
    return (key, ip.encode()) if ip else None


def _masked_address(stream: Stream, action: RateLimitAction) -> Entry | None:
    ip = _ip(stream)
    if not ip:
        return None
    prefix = action.v6_prefix if ":" in ip else action.v4_prefix
    network = ipaddress.ip_network((ip, prefix), strict=False)
    return action.key.encode(), str(network).encode()


def _query_parameter(stream: Stream, name: bytes) -> bytes | None:
    for pair in query_of(stream.path).split(b"&"):
        key, _, value = pair.partition(b"=")
        if unquote_to_bytes(key) == name:
            return unquote_to_bytes(value)
    return None


def _metadata(stream: Stream, action: RateLimitAction) -> bytes:
    """The text there; anything else is nothing, as in Envoy."""
    found: Any = stream.dynamic_metadata.get(action.name)
    for key in action.path:
        found = found.get(key) if isinstance(found, dict) else None
    return found.encode() if isinstance(found, str) else b""
