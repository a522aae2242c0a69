"""The hash of a request, by which RING_HASH and MAGLEV clusters choose an endpoint: xxHash64, as in Envoy.

``compile_hash_policies`` makes one callable of a route's ``hash_policy``: Stream → hash, None when nothing of it was there.
Hashes are joined by rotating what there is and xoring the next one in. (Envoy: RouteAction.HashPolicy.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import xxhash

from forkproxy.config.build.hash_policy import HashPolicy
from forkproxy.router.filter_state import filter_state_text
from forkproxy.router.matcher import compile_substitution
from forkproxy.router.rewrite import request_header

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

HashMethod = Callable[["Stream"], int | None]

_hash = xxhash.xxh64_intdigest
_WORD: Final = (1 << 64) - 1


def compile_hash_policies(policies: Sequence[HashPolicy], *, cookies: bool = True) -> HashMethod | None:
    """None without any policy. ``cookies`` False: none are made."""
    if not cookies:
        policies = [replace(policy, ttl_s=None) for policy in policies]
    methods = [(_compile(policy), policy.terminal) for policy in policies]
    if not methods:
        return None
    if len(methods) == 1:
        return methods[0][0]

    def hash_of(stream: Stream) -> int | None:
        found: int | None = None
        for method, terminal in methods:
            more = method(stream)
            if more is not None:
                found = more if found is None else (found << 1 & _WORD | found >> 63) ^ more
            if terminal and found is not None:
                break
        return found

    return hash_of


def makes_cookies(policies: Sequence[HashPolicy]) -> bool:
    """Whether a response may get a Set-Cookie."""
    return any(policy.ttl_s is not None for policy in policies)


def ip_hash(address: str) -> int | None:
    """The hash of the IP address in "ip:port"; None for a unix-domain socket."""
    ip, colon, _ = address.rpartition(":")
    if not colon or address.startswith(("/", "@")):
        return None
    return _hash(ip.strip("[]").encode())


def _compile(policy: HashPolicy) -> HashMethod:
    if policy.kind == "header":
        return _header(policy)
    if policy.kind == "cookie":
        return _cookie(policy)
    if policy.kind == "query_parameter":
        return _query_parameter(policy.name.encode())
    if policy.kind == "filter_state":
        return _filter_state(policy.name)
    return lambda stream: ip_hash(stream.downstream_remote_address)


def _header(policy: HashPolicy) -> HashMethod:
    name = policy.name.encode()
    rewrite = compile_substitution(policy.regex, policy.substitution, policy.where) if policy.regex else None
    is_pseudo = name.startswith(b":") or name == b"host"

    def hash_of(stream: Stream) -> int | None:
        if is_pseudo:
            value = request_header(stream, name)
            values = [value] if value is not None else []
        else:
            values = [value for key, value in stream.request_headers if key == name]
        if not values:
            return None
        if rewrite is not None:
            values = [rewrite(value) for value in values]
        # Sorted: in whatever order proxies before this one have left them, the hash is the same.
        found = 0
        for value in sorted(values):
            found = _hash(value, found)
        return found

    return hash_of


def _query_parameter(name: bytes) -> HashMethod:
    def hash_of(stream: Stream) -> int | None:
        path = stream.path
        start = path.find(b"?")
        if start < 0:
            return None
        for pair in path[start + 1 :].split(b"#", 1)[0].split(b"&"):
            key, _, value = pair.partition(b"=")
            if key == name:
                return _hash(value)
        return None

    return hash_of


def _filter_state(key: str) -> HashMethod:
    def hash_of(stream: Stream) -> int | None:
        value = filter_state_text(stream, key)
        return None if value is None else _hash(value)

    return hash_of


def _cookie(policy: HashPolicy) -> HashMethod:
    name = policy.name.encode()
    attributes = "".join(f"; {key}={value}" if value else f"; {key}" for key, value in policy.attributes)
    age = f"; Max-Age={policy.ttl_s}" if policy.ttl_s else ""
    path = f"; Path={policy.path}" if policy.path else ""
    tail = f'"{age}{path}{attributes}; HttpOnly'.encode()

    def hash_of(stream: Stream) -> int | None:
        value = cookie_value(stream, name)
        if not value:
            if policy.ttl_s is None:
                return None
            # The same for all streams of a connection, so that those that race get the same cookie.
            ends = stream.downstream_direct_remote_address + stream.downstream_local_address
            value = b"%016x" % _hash(ends.encode())
            cookie = name + b'="' + value + tail
            if cookie not in stream.set_cookies:
                stream.set_cookies = (*stream.set_cookies, cookie)
        return _hash(value)

    return hash_of


def cookie_value(stream: Stream, name: bytes) -> bytes:
    """The value of the first cookie of this name, without quotes; b"" when there is none."""
    for key, header in stream.request_headers:
        if key == b"cookie":
            for pair in header.split(b";"):
                found, equals, value = pair.lstrip(b" ").partition(b"=")
                if equals and found == name:
                    quoted = len(value) >= 2 and value.startswith(b'"') and value.endswith(b'"')
                    return value[1:-1] if quoted else value
    return b""
