"""A stream as the router sees it, and short ways to write a route configuration."""

from __future__ import annotations

from forkproxy.config.build.core import HeaderMutations, HeaderValueOption, Where
from forkproxy.config.build.route import (
    DirectResponseAction,
    ForwardAction,
    RedirectAction,
    RouteEntry,
    RouteMatch,
    RouteTableConfig,
    VirtualHost,
)
from forkproxy.http.stream import Stream
from forkproxy.router.table import RouteTable

NO_HEADERS = HeaderMutations()
WHERE = Where("route_config", 7, 3)


class FakeStream(Stream):
    """What the router reads and writes of forkproxy.http.stream.Stream."""

    def __init__(self, path=b"/", authority=b"h.example", headers=(), method=b"GET", scheme=b"http"):
        self.rare = None
        self.path = path
        self.authority = authority
        self.method = method
        self.scheme = scheme
        self.request_headers = [(b"x-forwarded-proto", scheme), *headers]


def option(key, value="added", action="APPEND_IF_EXISTS_OR_ADD", keep_empty=False):
    return HeaderValueOption(key, value, action, keep_empty, WHERE)


def entry(kind="prefix", value="/", action=None, *, name="", mutations=NO_HEADERS, **match):
    return RouteEntry(
        name or value, RouteMatch(kind, value, **match), action or ForwardAction(cluster="up"), mutations, WHERE
    )


def vhost(*routes, name="v", domains=("*",), headers=NO_HEADERS, require_tls="NONE"):
    return VirtualHost(name, tuple(domains), tuple(routes), headers, require_tls, False, False, WHERE)


def compile_fake_format(text, where):
    """Upper-cases, so that a test sees that it went through here; "%NOTHING%" is empty, "%PATH%" is the stream's path."""
    if text == "%NOTHING%":
        return lambda stream: b""
    if text == "%PATH%":
        return lambda stream: stream.path
    if text.startswith("%REQ("):
        name = text[5:-2].encode()
        return lambda stream: b"+".join(v for k, v in stream.request_headers if k == name)
    return lambda stream: text.strip("%").upper().encode()


class NamedCluster(str):
    """A cluster that is only its name."""

    __slots__ = ()
    needs_context = False


def table(*vhosts, clusters=("up", "up2"), headers=NO_HEADERS, **more):
    config = RouteTableConfig("r", tuple(vhosts), headers, **more)
    live = {name: NamedCluster(f"<cluster {name}>") for name in clusters}
    made = RouteTable(config, compile_format=compile_fake_format, cluster_lookup=live.get)
    made.bind()
    return made


def direct(status=200, body=b""):
    return DirectResponseAction(status, body)


def redirect(**fields):
    return RedirectAction(**fields)
