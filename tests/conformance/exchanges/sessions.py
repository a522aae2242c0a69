"""Stateful sessions: the endpoint that a request names in a cookie or a header."""

from __future__ import annotations

from base64 import b64encode

from tests.support.bootstrap import ROUTER, TYPE, Data, bootstrap, cluster, hcm, port, route, vhost
from tests.support.exchange import Exchange

NAME = "envoy.filters.http.stateful_session"
EXTENSIONS = TYPE + "envoy.extensions."
FILTER = EXTENSIONS + "filters.http.stateful_session.v3.StatefulSession"
PER_ROUTE = EXTENSIONS + "filters.http.stateful_session.v3.StatefulSessionPerRoute"
COOKIE = EXTENSIONS + "http.stateful_session.cookie.v3.CookieBasedSessionState"
HEADER = EXTENSIONS + "http.stateful_session.header.v3.HeaderBasedSessionState"


def cookie(**fields: object) -> Data:
    return {
        "name": "envoy.http.stateful_session.cookie",
        "typed_config": {"@type": COOKIE, "cookie": {"name": "sess", **fields}},
    }


BY_HEADER = {"name": "envoy.http.stateful_session.header", "typed_config": {"@type": HEADER, "name": "X-Session"}}


def own(prefix: str, **config: object) -> Data:
    """A route that says something of its own about sessions."""
    return route(prefix, typed_per_filter_config={NAME: {"@type": PER_ROUTE, **config}})


def sessions() -> Data:
    routes = [
        own("/strict", stateful_session={"session_state": cookie(), "strict": True, "stat_prefix": "tight"}),
        own("/header", stateful_session={"session_state": BY_HEADER}),
        own("/off", disabled=True),
        own(
            "/attributes", stateful_session={"session_state": cookie(attributes=[{"name": "SameSite", "value": "Lax"}])}
        ),
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
        {**own("/any", stateful_session={"session_state": cookie()}), "route": {"cluster": "any"}},
        route("/"),
    ]
    filters = [
        {
            "name": NAME,
            "typed_config": {"@type": FILTER, "stat_prefix": "kept", "session_state": cookie(path="/p")},
        },
        {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}},
    ]
    endpoints = [
        {"endpoint": {"address": port("up")}},
        {
            "endpoint": {"address": {"socket_address": {"address": "127.0.0.2", "port_value": 9}}},
            "health_status": "UNHEALTHY",
        },
    ]
    assignment = {"cluster_name": "up", "endpoints": [{"lb_endpoints": endpoints}]}
    clusters = [
        cluster("up", load_assignment=assignment),
        cluster(
            "any",
            load_assignment=assignment,
            common_lb_config={"override_host_status": {"statuses": ["UNHEALTHY"]}},
        ),
    ]
    return bootstrap([hcm({"virtual_hosts": [vhost(*routes)]}, http_filters=filters)], clusters)


CONFIGURATIONS = {"sessions": sessions()}


def get(name: str, path: bytes, lines: bytes = b"") -> Exchange:
    return Exchange(name, (b"GET " + path + b" HTTP/1.1\r\nhost: h\r\n" + lines + b"\r\n",), config="sessions")


def message(address: bytes, expires: bytes = b"") -> bytes:
    return b64encode(b"\x0a" + bytes((len(address),)) + address + expires)


def with_cookie(value: bytes, name: bytes = b"sess") -> bytes:
    return b"cookie: a=b; " + name + b'="' + value + b'"; c=d\r\n'


SICK = b"127.0.0.2:9"
FUTURE, PAST = b"\x10\x80\x80\x80\x80\x20", b"\x10\x01"

EXCHANGES = [
    get("session: none yet", b"/p"),
    get("session: another path", b"/q"),
    get("session: a path that only begins alike", b"/px"),
    get("session: below the path", b"/p/x?y"),
    get("session: the cookie's attributes", b"/attributes"),
    get("session: an endpoint that is not healthy", b"/p", with_cookie(message(SICK))),
    get("session: an endpoint that is not there", b"/p", with_cookie(message(b"127.0.0.3:9"))),
    get("session: a value of garbage", b"/p", with_cookie(b"%%%")),
    get("session: a message of garbage", b"/p", with_cookie(b64encode(b"\x0a\xff"))),
    get("session: the cookie of another name", b"/p", with_cookie(message(SICK), b"other")),
    get("session: strict, none yet", b"/strict"),
    get("session: strict, and not healthy", b"/strict", with_cookie(message(SICK))),
    get("session: strict, without quotes", b"/strict", b"cookie: sess=" + message(SICK) + b"\r\n"),
    get("session: strict, not expired", b"/strict", with_cookie(message(SICK, FUTURE))),
    get("session: strict, expired", b"/strict", with_cookie(message(SICK, PAST))),
    get("session: strict, the address alone", b"/strict", with_cookie(b64encode(SICK))),
    get("session: in a header", b"/header"),
    get("session: in a header that names nobody", b"/header", b"x-session: " + b64encode(SICK) + b"\r\n"),
    get("session: a cluster that lets unhealthy ones be chosen", b"/any", with_cookie(message(SICK))),
    get("session: switched off", b"/off", with_cookie(message(SICK))),
    get("session: an answer of the proxy's own", b"/direct", with_cookie(message(SICK))),
]
