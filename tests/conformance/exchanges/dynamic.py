"""Clusters whose endpoints requests name: ORIGINAL_DST by header, the dynamic forward proxy; and clusters made of clusters."""

from __future__ import annotations

from tests.support.bootstrap import ROUTER, TYPE, Data, bootstrap, cluster, hcm, port, route, vhost
from tests.support.exchange import Exchange

FORWARD_PROXY = "envoy.filters.http.dynamic_forward_proxy"
RBAC = "envoy.filters.http.rbac"
FILTER = TYPE + "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig"
PER_ROUTE = TYPE + "envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig"
AGGREGATE = TYPE + "envoy.extensions.clusters.aggregate.v3.ClusterConfig"
CLUSTER = TYPE + "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"


def original_dst(name: str, **config: object) -> Data:
    return {
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "0.5s",
        "original_dst_lb_config": config,
    }


def provided(name: str, extension: str, type_url: str, **config: object) -> Data:
    return {
        "name": name,
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "0.5s",
        "cluster_type": {"name": extension, "typed_config": {"@type": type_url, **config}},
    }


def by_destination() -> Data:
    routes = [route(f"/{name}", name) for name in ("named", "port", "plain")]
    clusters = [
        original_dst("plain"),
        original_dst("named", use_http_header=True, http_header_name="X-Where"),
        original_dst("port", use_http_header=True, upstream_port_override={"@port": "up"}),
        original_dst("header", use_http_header=True),
    ]
    return bootstrap([hcm({"virtual_hosts": [vhost(*routes, route("/", "header"))]})], clusters)


def forward_proxy(**settings: object) -> Data:
    cache = {"name": "outside", "dns_lookup_family": "V4_ONLY", **settings}

    def rewritten(prefix: str, **config: str) -> Data:
        return route(prefix, "forward", typed_per_filter_config={FORWARD_PROXY: {"@type": PER_ROUTE, **config}})

    routes = [
        rewritten("/literal", host_rewrite_literal="localhost:1"),
        rewritten("/header", host_rewrite_header="X-To"),
        route("/other", "up"),
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
        route("/", "forward"),
    ]
    filters = [
        {"name": FORWARD_PROXY, "typed_config": {"@type": FILTER, "dns_cache_config": cache}},
        {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}},
    ]
    clusters = [
        provided("forward", "envoy.clusters.dynamic_forward_proxy", CLUSTER, dns_cache_config=cache),
        cluster("up", "up"),
    ]
    return bootstrap([hcm({"virtual_hosts": [vhost(*routes)]}, http_filters=filters)], clusters)


def aggregates() -> Data:
    def part(name: str, *statuses: str) -> Data:
        endpoints = [{"endpoint": {"address": port("up")}, "health_status": status} for status in statuses]
        return cluster(name, load_assignment={"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]})

    def whole(name: str, *parts: str) -> Data:
        return provided(name, "envoy.clusters.aggregate", AGGREGATE, clusters=list(parts))

    clusters = [
        part("sound", "HEALTHY"),
        part("sick", "UNHEALTHY"),
        part("gone"),
        part("weak", "DEGRADED"),
        whole("first", "sound", "sick"),
        whole("second", "sick", "sound"),
        whole("missing", "nobody", "sound"),
        whole("empty", "gone"),
        whole("panic", "sick", "gone"),
        whole("degraded", "sick", "weak"),
        whole("nested", "empty", "first"),
    ]
    routes = [route(f"/{each['name']}", each["name"]) for each in clusters if "cluster_type" in each]
    return bootstrap([hcm({"virtual_hosts": [vhost(*routes)]})], clusters)


def guarded() -> Data:
    """The forward proxy, and rules about where it goes."""

    def goes_to(**wanted: object) -> Data:
        matcher = {"@type": TYPE + "envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher", **wanted}
        permission = {"matcher": {"name": "to", "typed_config": matcher}}
        rules = {"policies": {"to": {"permissions": [permission], "principals": [{"any": True}]}}}
        per_route = {"@type": TYPE + "envoy.extensions.filters.http.rbac.v3.RBACPerRoute", "rbac": {"rules": rules}}
        return {"typed_per_filter_config": {RBAC: per_route}}

    here, elsewhere = ({"address_prefix": each, "prefix_len": 8} for each in ("127.0.0.0", "10.0.0.0"))
    routes = [
        route("/ip", "forward", **goes_to(upstream_ip=here)),
        route("/other-ip", "forward", **goes_to(upstream_ip=elsewhere)),
        route("/low-port", "forward", **goes_to(upstream_port_range={"start": 1, "end": 1024})),
        route("/both", "forward", **goes_to(upstream_ip=here, upstream_port_range={"start": 1024, "end": 65536})),
        route(
            "/one-of-both", "forward", **goes_to(upstream_ip=elsewhere, upstream_port_range={"start": 1, "end": 65536})
        ),
        route("/unknown", "up", **goes_to(upstream_ip=here)),
    ]
    cache = {"name": "outside", "dns_lookup_family": "V4_ONLY"}
    saving = {"@type": FILTER, "dns_cache_config": cache, "save_upstream_address": True}
    filters = [
        {"name": FORWARD_PROXY, "typed_config": saving},
        {"name": RBAC, "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.rbac.v3.RBAC"}},
        {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}},
    ]
    clusters = [
        provided("forward", "envoy.clusters.dynamic_forward_proxy", CLUSTER, dns_cache_config=cache),
        cluster("up", "up"),
    ]
    return bootstrap([hcm({"virtual_hosts": [vhost(*routes)]}, http_filters=filters)], clusters)


CONFIGURATIONS = {
    "guarded_forward_proxy": guarded(),
    "original_dst": by_destination(),
    "forward_proxy": forward_proxy(),
    "small_cache": forward_proxy(max_hosts=1),
    "aggregates": aggregates(),
}


def get(name: str, config: str, path: bytes, host: bytes = b"h", lines: bytes = b"", **more: object) -> Exchange:
    """A GET request."""
    head = b"GET " + path + b" HTTP/1.1\r\nhost: " + host + b"\r\n" + lines + b"\r\n"
    return Exchange(name, (head,), config=config, **more)  # type: ignore[arg-type]


def to_destination(
    name: str, value: bytes, path: bytes = b"/", header: bytes = b"x-envoy-original-dst-host"
) -> Exchange:
    return get(name, "original_dst", path, lines=header + b": " + value + b"\r\n")


HERE = b"127.0.0.1:@PORT:up@"

EXCHANGES = [
    to_destination("destination named by a header", HERE),
    to_destination("destination known already", HERE),
    to_destination("destination without a port", b"127.0.0.1"),
    to_destination("destination that is a name", b"localhost:80"),
    to_destination("destination that is garbage", b"%^&"),
    to_destination("destination where nobody listens", b"127.0.0.1:1"),
    get("destination named by nobody", "original_dst", b"/"),
    get("destination of a client that was not redirected", "original_dst", b"/plain"),
    to_destination("destination of a cluster that looks at no header", HERE, b"/plain"),
    to_destination("destination by another header", HERE, b"/named", b"x-where"),
    to_destination("destination with the cluster's port", b"127.0.0.1:1", b"/port"),
    get("forward to an address", "forward_proxy", b"/", HERE),
    get("forward to a name", "forward_proxy", b"/a", b"localhost:@PORT:up@"),
    get("forward to a name in capitals", "forward_proxy", b"/a", b"LOCALHOST:@PORT:up@"),
    get("forward to nowhere", "forward_proxy", b"/", b"nobody.invalid"),
    get("forward to nowhere again", "forward_proxy", b"/", b"nobody.invalid"),
    get("forward to an impossible name", "forward_proxy", b"/", b"a..b:80"),
    get("forward to the host of the route", "forward_proxy", b"/literal", b"elsewhere.example"),
    get(
        "forward to the host of a header", "forward_proxy", b"/header", b"elsewhere.example", b"x-to: " + HERE + b"\r\n"
    ),
    get("forward to the host of an absent header", "forward_proxy", b"/header", HERE),
    *(
        get(f"forward guarded: {path} {host.decode()}", "guarded_forward_proxy", b"/" + path.encode(), host)
        for host in (HERE, b"localhost:@PORT:up@")
        for path in ("ip", "other-ip", "low-port", "both", "one-of-both", "unknown")
    ),
    get("forward with a full cache", "small_cache", b"/", HERE),
    get("forward to one host more", "small_cache", b"/", b"localhost:@PORT:up@"),
    get("forward proxy beside another cluster", "forward_proxy", b"/other", b"nobody.invalid"),
    get("forward proxy beside an answer", "forward_proxy", b"/direct", b"nobody.invalid"),
    Exchange(
        "forward a body that waits for the name",
        (b"POST /b HTTP/1.1\r\nhost: 127.0.0.2:@PORT:up@\r\ncontent-length: 5\r\n\r\nhello",),
        config="forward_proxy",
    ),
    get("aggregate: the first is healthy", "aggregates", b"/first"),
    get("aggregate: the second is healthy", "aggregates", b"/second"),
    get("aggregate: one does not exist", "aggregates", b"/missing"),
    get("aggregate: none has endpoints", "aggregates", b"/empty"),
    get("aggregate: panic", "aggregates", b"/panic"),
    get("aggregate: only degraded ones", "aggregates", b"/degraded"),
    get("aggregate of aggregates", "aggregates", b"/nested"),
]
