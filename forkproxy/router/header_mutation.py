"""Adding and removing headers, as virtual hosts, routes, weighted clusters and route configurations ask for it.

Each of those is a *level*. Levels are applied one after the other; within a level headers are removed first, then every
value is computed, then what overwrites is written, then what appends is added (all as Envoy 1.40 does it). A route's
levels are merged when the route is built, into one callable, or None when no level says anything.

Facts that are easy to get wrong:

- overwriting removes every line of that name and puts one new line at the end;
- appending makes a new line, except for the names in ``JOINED_REQUEST_HEADERS`` / ``JOINED_RESPONSE_HEADERS``: Envoy
  keeps those as one value, and the addition is joined to it by a comma;
- an empty value is not written, unless ``keep_empty_value`` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from forkproxy.config.build.core import HeaderMutations, HeaderValueOption, Where
from forkproxy.config.problems import ConfigError

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

Headers = list[tuple[bytes, bytes]]
Format = Callable[["Stream"], bytes]
CompileFormat = Callable[[str, Where], Format]
Apply = Callable[["Stream", Headers], None]

_JOINED_BOTH = (
    "cache-control connection content-encoding content-length content-type keep-alive proxy-connection proxy-status"
    " transfer-encoding upgrade via x-envoy-attempt-count x-envoy-decorator-operation x-request-id"
)

JOINED_REQUEST_HEADERS: frozenset[bytes] = frozenset(
    name.encode()
    for name in (
        _JOINED_BOTH + " accept accept-encoding access-control-request-headers access-control-request-method"
        " access-control-request-private-network authorization expect grpc-accept-encoding grpc-timeout if-match"
        " if-modified-since if-none-match if-range if-unmodified-since origin pragma referer te user-agent"
        " x-client-trace-id x-envoy-downstream-service-cluster x-envoy-downstream-service-node"
        " x-envoy-expected-rq-timeout-ms x-envoy-external-address x-envoy-force-trace"
        " x-envoy-hedge-on-per-try-timeout x-envoy-internal x-envoy-ip-tags x-envoy-is-timeout-retry"
        " x-envoy-max-retries x-envoy-original-host x-envoy-original-path x-envoy-original-url"
        " x-envoy-retriable-header-names x-envoy-retriable-status-codes x-envoy-retry-grpc-on x-envoy-retry-on"
        " x-envoy-upstream-alt-stat-name x-envoy-upstream-rq-per-try-timeout-ms"
        " x-envoy-upstream-rq-timeout-alt-response x-envoy-upstream-rq-timeout-ms"
        " x-envoy-upstream-stream-duration-ms x-forwarded-client-cert x-forwarded-for x-forwarded-host"
        " x-forwarded-port x-forwarded-proto"
    ).split()
)
"""Request headers that Envoy keeps as one value (found by asking Envoy 1.40 about 120 names)."""

JOINED_RESPONSE_HEADERS: frozenset[bytes] = frozenset(
    name.encode()
    for name in (
        _JOINED_BOTH + " access-control-allow-credentials access-control-allow-headers access-control-allow-methods"
        " access-control-allow-origin access-control-expose-headers access-control-max-age age date etag expires"
        " grpc-message grpc-status last-modified location server vary x-envoy-degraded"
        " x-envoy-immediate-health-check-fail x-envoy-ratelimited x-envoy-upstream-canary"
        " x-envoy-upstream-healthchecked-cluster x-envoy-upstream-service-time"
    ).split()
)
"""The same for response headers."""


class _Addition:
    """One ``HeaderValueOption``, compiled: ``value`` is bytes when it is the same for every stream, else a format."""

    __slots__ = ("absent_only", "existing_only", "joined", "keep_empty", "name", "overwrite", "static", "value")

    def __init__(self, option: HeaderValueOption, joined: frozenset[bytes], compile_format: CompileFormat) -> None:
        self.name = option.key.lower().encode()
        _check_modifiable(self.name, "modified", option.where)
        self.static: bytes | None = None
        self.value: Format | None = None
        # Only a "%" that is not doubled begins an operator.
        if "%" in option.value.replace("%%", ""):
            self.value = compile_format(option.value, option.where)
        else:
            self.static = option.value.replace("%%", "%").encode()
        self.keep_empty = option.keep_empty_value
        self.absent_only = option.append_action == "ADD_IF_ABSENT"
        self.existing_only = option.append_action == "OVERWRITE_IF_EXISTS"
        self.overwrite = option.append_action in ("OVERWRITE_IF_EXISTS", "OVERWRITE_IF_EXISTS_OR_ADD")
        self.joined = self.name in joined

    def is_plain(self) -> bool:
        """Whether this always puts the same new line at the end, whatever the headers hold."""
        return self.static is not None and not (self.overwrite or self.absent_only or self.joined)


def _check_modifiable(name: bytes, verb: str, where: Where) -> None:
    if name.startswith(b":") or name == b"host":
        raise ConfigError(
            where.path, where.line, where.column, f":-prefixed or host headers may not be {verb}",
            "use host_rewrite_literal or prefix_rewrite",
        )  # fmt: skip


def _has(headers: Headers, name: bytes) -> bool:
    return any(key == name for key, _ in headers)


def append(headers: Headers, name: bytes, value: bytes) -> None:
    """Append ``value`` to the header that is kept as one value: joined to an existing line by a comma, else a new
    line.
    """
    for position, (key, existing) in enumerate(headers):
        if key == name:
            if value:
                headers[position] = (name, existing + b"," + value if existing else value)
            return
    headers.append((name, value))


def replace(headers: Headers, name: bytes, value: bytes) -> None:
    """Write ``value`` over the first line of that name, in its place; a new line at the end when there is none."""
    for position, (key, _) in enumerate(headers):
        if key == name:
            headers[position] = (name, value)
            return
    headers.append((name, value))


def compile_level(
    options: Sequence[HeaderValueOption],
    remove: Sequence[str],
    joined: frozenset[bytes],
    compile_format: CompileFormat,
    where: Where,
) -> Apply | None:
    """What one level does; None when it is nothing."""
    additions = tuple(_Addition(option, joined, compile_format) for option in options)
    # An empty value that is not kept never does anything.
    additions = tuple(a for a in additions if a.static != b"" or a.keep_empty)
    removed = frozenset(name.lower().encode() for name in remove)
    for name in removed:
        _check_modifiable(name, "removed", where)
    if not additions and not removed:
        return None
    if not removed and all(addition.is_plain() for addition in additions):
        lines = tuple((addition.name, addition.static or b"") for addition in additions)
        return lambda _stream, headers: headers.extend(lines)
    if not additions:

        def apply_removal(_stream: Stream, headers: Headers) -> None:
            headers[:] = [line for line in headers if line[0] not in removed]

        return apply_removal

    def apply(stream: Stream, headers: Headers) -> None:
        if removed:
            headers[:] = [line for line in headers if line[0] not in removed]
        overwrites = []
        appends = []
        # No header changes before every value is known: formats see the headers as they came to this level.
        for addition in additions:
            value = addition.static
            if value is None:
                value = addition.value(stream)  # type: ignore[misc]  # one of the two is always set
                if not value and not addition.keep_empty:
                    continue
            if addition.overwrite:
                if not addition.existing_only or _has(headers, addition.name):
                    overwrites.append((addition.name, value))
            elif not addition.absent_only or not _has(headers, addition.name):
                appends.append((addition.name, value, addition.joined))
        for name, value in overwrites:
            if _has(headers, name):
                headers[:] = [line for line in headers if line[0] != name]
            headers.append((name, value))
        for name, value, is_joined in appends:
            if is_joined:
                append(headers, name, value)
            else:
                headers.append((name, value))

    return apply


def chain(levels: Sequence[Apply | None]) -> Apply | None:
    """One callable for all of them; None for none."""
    steps = tuple(level for level in levels if level is not None)
    if len(steps) < 2:
        return steps[0] if steps else None

    def apply(stream: Stream, headers: Headers) -> None:
        for step in steps:
            step(stream, headers)

    return apply


def compile_request(
    levels: Sequence[tuple[HeaderMutations, Where]], compile_format: CompileFormat
) -> Callable[[Stream], None] | None:
    """One callable that changes ``stream.request_headers`` by all ``levels`` in the order given; None when none
    changes anything.
    """
    apply = chain(
        [
            compile_level(level.request_add, level.request_remove, JOINED_REQUEST_HEADERS, compile_format, where)
            for level, where in levels
            if level.request_add or level.request_remove
        ]
    )
    if apply is None:
        return None
    change = apply
    return lambda stream: change(stream, stream.request_headers)


def compile_response(levels: Sequence[tuple[HeaderMutations, Where]], compile_format: CompileFormat) -> Apply | None:
    """One callable that changes the response headers it is given; None when no level changes anything."""
    apply = chain(
        [
            compile_level(level.response_add, level.response_remove, JOINED_RESPONSE_HEADERS, compile_format, where)
            for level, where in levels
            if level.response_add or level.response_remove
        ]
    )
    if apply is None or not any("%" in option.value for level, _ in levels for option in level.response_add):
        return apply
    change = apply

    def apply_formats(stream: Stream, headers: Headers) -> None:
        # %RESP(…)% reads the stream's headers, and must see what earlier levels wrote.
        stream.response_headers = headers
        change(stream, headers)

    return apply_formats
