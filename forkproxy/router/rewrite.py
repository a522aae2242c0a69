"""What a route writes into the request's path and host, and the Location of a redirect.

The words follow ``RouteAction`` and ``RedirectAction``; the order of what is written is Envoy 1.40's: the host with
x-envoy-original-host and x-forwarded-host first, then the path with x-envoy-original-path. Both come after the header
mutations of the route, so that ``%REQ(:path)%`` there is the path before the rewrite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from forkproxy.config.build.core import Where
from forkproxy.config.build.route import ForwardAction, RedirectAction, RegexRewrite, RouteMatch
from forkproxy.router.header_mutation import CompileFormat, replace
from forkproxy.router.matcher import compile_substitution, compile_template_rewrite

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

PathRewrite = Callable[["Stream"], bytes]
"""From a stream to its new path with its query; empty: the path stays."""
HostRewrite = Callable[["Stream"], bytes]
"""From a stream to its new host; empty: the host stays."""


class Rewrite(Protocol):
    """Changes the stream's path, authority and request headers."""

    def __call__(self, stream: Stream, insert_envoy_headers: bool = True, /) -> None:
        """``insert_envoy_headers`` False (the router's suppress_envoy_headers) leaves the x-envoy-original-…
        headers out.
        """


def query_start(path: bytes) -> int:
    """Where the query or the fragment begins; the length of ``path`` when it has neither."""
    for position, byte in enumerate(path):
        if byte in b"?#":
            return position
    return len(path)


def request_header(stream: Stream, name: bytes) -> bytes:
    """The first value of a request header (or ":path", ":authority", ":method", ":scheme", "host"), b"" when
    missing.
    """
    if name == b":authority" or name == b"host":
        return stream.authority
    if name == b":path":
        return stream.path
    if name == b":method":
        return stream.method
    if name == b":scheme":
        return stream.scheme
    for key, value in stream.request_headers:
        if key == name:
            return value
    return b""


def compile_path_rewrite(
    match: RouteMatch, prefix_rewrite: str, regex_rewrite: RegexRewrite | None, where: Where
) -> PathRewrite | None:
    """By prefix or regular expression; None when the route leaves paths alone."""
    if regex_rewrite is not None:
        return _path_only(compile_substitution(regex_rewrite.regex, regex_rewrite.substitution, where))
    if not prefix_rewrite:
        return None
    new = prefix_rewrite.encode()
    if match.kind == "safe_regex":
        # The regular expression matched the whole path: only the query stays.
        return lambda stream: new + stream.path[query_start(stream.path) :]
    prefix = match.value.lower().encode()
    length = len(prefix)

    def rewrite_prefix(stream: Stream) -> bytes:
        path = stream.path
        # Path parameters, where they are ignored, may stand in the midst of what was matched: then it stays.
        return new + path[length:] if path[:length].lower() == prefix else b""

    return rewrite_prefix


def _path_only(substitute: Callable[[bytes], bytes]) -> PathRewrite:
    """``substitute`` for the path, what comes after it as it is."""

    def rewrite(stream: Stream) -> bytes:
        path = stream.path
        end = query_start(path)
        new = substitute(path[:end])
        return new + path[end:] if new else b""

    return rewrite


def _compile_route_path(
    action: ForwardAction, match: RouteMatch, where: Where, compile_format: CompileFormat
) -> PathRewrite | None:
    if action.path_template_rewrite:
        return _path_only(compile_template_rewrite(match.value, action.path_template_rewrite, where))
    if not action.path_rewrite:
        return compile_path_rewrite(match, action.prefix_rewrite, action.regex_rewrite, where)
    render = compile_format(action.path_rewrite, where)

    def rewrite(stream: Stream) -> bytes:
        path = stream.path
        new = render(stream)
        return new + path[query_start(path) :] if new else b""

    return rewrite


def rewrite_path(stream: Stream, rewrite: PathRewrite, insert_envoy_headers: bool) -> None:
    """Put the new path on the stream and the old one into x-envoy-original-path."""
    path = stream.path
    if path:
        new = rewrite(stream)
        if new:
            if insert_envoy_headers:
                replace(stream.request_headers, b"x-envoy-original-path", path)
            stream.path = new


def rewrite_host(stream: Stream, host: bytes, append_x_forwarded_host: bool, insert_envoy_headers: bool = True) -> None:
    """Make ``host`` the request's authority and keep the old one in x-envoy-original-host (and x-forwarded-host).

    The router calls this itself for ``auto_host_rewrite``, once it knows the endpoint.
    """
    old = stream.authority
    headers = stream.request_headers
    if old:
        if insert_envoy_headers:
            replace(headers, b"x-envoy-original-host", old)
        if append_x_forwarded_host:
            forwarded = b",".join([value for key, value in headers if key == b"x-forwarded-host"])
            # A proxy that sees its own entry last does not repeat it.
            if not forwarded:
                replace(headers, b"x-forwarded-host", old)
            elif forwarded.rpartition(b",")[2] != old:
                replace(headers, b"x-forwarded-host", forwarded + b"," + old)
    stream.authority = host


def _compile_host(action: ForwardAction, where: Where, compile_format: CompileFormat) -> HostRewrite | None:
    """Literal, header, path and format, the first that is set; ``auto_host_rewrite`` is the router's."""
    if action.host_rewrite_literal:
        literal = action.host_rewrite_literal.encode()
        return lambda _stream: literal
    if action.host_rewrite_header:
        header = action.host_rewrite_header.lower().encode()
        return lambda stream: request_header(stream, header)
    if action.host_rewrite_path_regex is not None:
        regex = action.host_rewrite_path_regex
        substitute = compile_substitution(regex.regex, regex.substitution, where)
        return lambda stream: substitute(stream.path[: query_start(stream.path)])
    return compile_format(action.host_rewrite, where) if action.host_rewrite else None


def compile_rewrite(
    action: ForwardAction,
    match: RouteMatch,
    weighted_host: str,
    where: Where,
    compile_path_format: CompileFormat,
    compile_host_format: CompileFormat,
) -> Rewrite | None:
    """Host and path rewrites of a forwarding route; None when it has none (auto_host_rewrite is the router's).

    ``weighted_host`` is the host_rewrite_literal of the weighted cluster: it is written silently and first, so that a
    rewrite of the route's own wins over it.
    """
    path_rewrite = _compile_route_path(action, match, where, compile_path_format)
    append = action.append_x_forwarded_host
    first_host = weighted_host.encode()
    host_rewrite = _compile_host(action, where, compile_host_format)
    if not first_host and host_rewrite is None:
        if path_rewrite is None:
            return None
        only_path = path_rewrite
        return lambda stream, insert_envoy_headers=True, /: rewrite_path(stream, only_path, insert_envoy_headers)

    def rewrite(stream: Stream, insert_envoy_headers: bool = True, /) -> None:
        if first_host:
            stream.authority = first_host
        host = host_rewrite(stream) if host_rewrite is not None else b""
        if host:
            rewrite_host(stream, host, append, insert_envoy_headers)
        if path_rewrite is not None:
            rewrite_path(stream, path_rewrite, insert_envoy_headers)

    return rewrite


def forwarded_proto(stream: Stream) -> bytes:
    """x-forwarded-proto, or the scheme when a filter took it away."""
    return request_header(stream, b"x-forwarded-proto") or stream.scheme


def _without_port(stream: Stream, new_scheme: bytes, new_port: bytes) -> bytes:
    """The request's host for a redirect: its port goes when a new one is given, or when it was the old scheme's
    default.
    """
    host = stream.authority
    colon = host.rfind(b"]:") + 1 or -1 if host.startswith(b"[") else host.rfind(b":")
    if colon < 0:
        return host
    if new_port:
        return host[:colon]
    proto = forwarded_proto(stream)
    if new_scheme != proto and host[colon:] == {b"http": b":80", b"https": b":443"}.get(proto):
        return host[:colon]
    return host


def https_location(stream: Stream) -> bytes:
    """Where ``require_tls`` sends a plain-text request."""
    return b"https://" + stream.authority + stream.path


def compile_redirect(action: RedirectAction, match: RouteMatch, where: Where) -> Callable[[Stream], tuple[int, bytes]]:
    """``RedirectAction``: from a stream to (status, Location).

    A prefix or regex rewrite is also left on the stream, as the log shows.
    """
    scheme = (action.scheme_redirect or ("https" if action.https_redirect else "")).encode()
    port = b":%d" % action.port_redirect if action.port_redirect else b""
    host = action.host_redirect.encode()
    path = action.path_redirect.encode()
    path_has_query = b"?" in path
    strip_query = action.strip_query and not path_has_query
    path_rewrite = compile_path_rewrite(match, action.prefix_rewrite, action.regex_rewrite, where)
    status = action.response_code

    def redirect(stream: Stream) -> tuple[int, bytes]:
        if path_rewrite is not None:
            rewrite_path(stream, path_rewrite, True)
        new_scheme = scheme or stream.scheme
        new_host = host or _without_port(stream, new_scheme, port)
        new_path = stream.path
        if path:
            _, mark, query = new_path.partition(b"?")
            new_path = path if path_has_query else path + mark + query
        if strip_query:
            new_path = new_path.partition(b"?")[0]
        return status, b"".join((new_scheme, b"://", new_host, port, new_path))

    return redirect
