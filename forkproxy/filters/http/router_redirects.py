"""Redirects that the router follows by itself (Envoy: "Internal redirects").

The request must have come whole, its body within the buffer limit. It begins anew with the Location's scheme, host and path: as
a stream of its own, with a log line of its own, through all filters and the route table. What cannot be followed goes to the
client.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from forkproxy.config.build.route_policies import InternalRedirectPolicy
from forkproxy.http import recreated
from forkproxy.http.headers import Headers
from forkproxy.http.headers import set_ as set_header
from forkproxy.http.stream import Stream
from forkproxy.net.timers import NEVER
from forkproxy.router.table import Route

if TYPE_CHECKING:
    from forkproxy.filters.http.router import Router

_URL = re.compile(
    rb"([A-Za-z][A-Za-z0-9+.-]*)://(?:[A-Za-z0-9._~!$&'()*+,;=:%-]*@)?((?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?)"
    rb"([/?][!-~]*)?(?:#[!-~]*)?"
)
_FOLLOWED = "internal redirects"


class Followed:
    """What streams that follow each other know: how many redirects there were, and to which routes, by the route they left."""

    __slots__ = ("count", "routes")

    def __init__(self) -> None:
        self.count = 0
        self.routes: dict[str, set[str]] = {}


def follow(router: Router, stream: Stream, status: int, response: Headers) -> Stream | None:
    """The stream that goes on for ``stream``, not begun yet; None when the answer must go to the client."""
    policy: InternalRedirectPolicy = stream.route.policies.internal_redirect
    stats = router.stats
    locations = [value for name, value in response if name == b"location"]
    if not locations:
        return None
    found = _URL.fullmatch(b",".join(locations))
    if found is None or int(found[3] or 0) > 65535:
        stats.passthrough_internal_redirect_bad_location += 1
        return None
    scheme, authority, path = found[1].lower(), found[2], (found[4] or b"/").partition(b"#")[0]
    if not path.startswith(b"/"):
        path = b"/" + path
    was_http = stream.scheme == b"http" or not stream.http.manager.tls
    is_http = scheme == b"http"
    if was_http != is_http and not policy.allow_cross_scheme:
        stats.passthrough_internal_redirect_unsafe_scheme += 1
        return None
    followed: Followed = stream.filter_state.setdefault(_FOLLOWED, Followed())
    if followed.count >= policy.max_redirects:
        stats.passthrough_internal_redirect_too_many_redirects += 1
        return None
    headers = _copied(policy, stream.request_headers, response)
    derived = recreated.derive(stream, stream.method, scheme, authority, path, headers)
    route = derived.route = stream.http.manager.match(derived)
    name = stream.route.name
    _show(stream, route, derived)
    if route is None:
        stats.passthrough_internal_redirect_no_route += 1
        return None
    if not _is_accepted(policy, followed, name, route, was_http, is_http):
        stats.passthrough_internal_redirect_predicate += 1
        return None
    if status == 303 and stream.method not in (b"GET", b"HEAD"):
        derived.method = b"GET"
        headers[:] = [header for header in headers if header[0] != b"content-length"]
    followed.count += 1
    derived.filter_state[_FOLLOWED] = followed
    original = (b"http" if was_http else b"https") + b"://" + stream.authority + stream.path
    set_header(headers, b"x-envoy-original-url", original)
    return derived


def leave(stream: Stream, derived: Stream, status: int, response: Headers, body: bytes) -> None:
    """``stream`` ends with that answer, which nobody gets, and ``derived`` begins."""
    stream.status = status
    stream.response_headers = response
    stream.response_deadline = NEVER
    stream.details = "internal_redirect"
    if stream.method != derived.method:
        body = b""
    stream.method = derived.method
    stream.authority = derived.authority
    stream.path = derived.path
    stream.scheme = derived.scheme
    stream.request_headers = list(derived.request_headers)
    recreated.replace(stream, derived, body)


def _copied(policy: InternalRedirectPolicy, request: Headers, response: Headers) -> Headers:
    headers = copy.copy(request)  # which may know how names were spelled
    for name in policy.headers_to_copy:
        key = name.encode()
        headers[:] = [header for header in headers if header[0] != key]
        headers += [header for header in response if header[0] == key]
    return headers


def _show(stream: Stream, route: Route | None, derived: Stream) -> None:
    # Logs name the route that was looked for last, in Envoy; this stream goes on with its own.
    shown = copy.copy(stream.route)
    shown.name = route.name if route is not None else ""
    stream.route = shown
    cluster: Any = route.find_cluster(derived) if route is not None else None
    stream.cluster = cluster


def _is_accepted(
    policy: InternalRedirectPolicy, followed: Followed, name: str, route: Route, was_http: bool, is_http: bool
) -> bool:
    for predicate in policy.predicates:
        if predicate.kind == "allow_listed_routes":
            if route.name not in predicate.routes:
                return False
        elif predicate.kind == "safe_cross_scheme":
            if was_http and not is_http:
                return False
        else:
            seen = followed.routes.setdefault(name, set())
            if route.name in seen:
                return False
            seen.add(route.name)
    return True
