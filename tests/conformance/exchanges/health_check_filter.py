"""The health check filter: what a balancer in front of the proxy is told."""

from __future__ import annotations

from tests.conformance.exchanges.filter_configurations import OFF, ROUTER_FILTER, UP, http_filter, on
from tests.support.bootstrap import Data, bootstrap, cluster, hcm, port, route, vhost
from tests.support.exchange import Exchange

NAME = "health"
CHECK = [{"name": ":path", "string_match": {"exact": "/health"}}]


def health(**own: object) -> Data:
    routes = [
        {"match": {"path": "/direct"}, "direct_response": {"status": 200}},
        on(NAME, "/health-off", OFF, match={"prefix": "/", "headers": [{"name": "x-off"}]}),
        route("/"),
    ]
    away = {"socket_address": {"address": "127.0.0.2", "port_value": 9}}
    sick = {"endpoint": {"address": away}, "health_status": "UNHEALTHY"}
    degraded = {"endpoint": {"address": away}, "health_status": "DEGRADED"}
    well = {"endpoint": {"address": port("up")}}
    clusters = [
        UP,
        cluster("half", load_assignment={"cluster_name": "half", "endpoints": [{"lb_endpoints": [sick, well]}]}),
        cluster("none"),
        cluster("worse", load_assignment={"cluster_name": "worse", "endpoints": [{"lb_endpoints": [degraded, well]}]}),
    ]
    config = {"pass_through_mode": False, "headers": CHECK, **own}
    filters = [http_filter(NAME, "health_check.v3.HealthCheck", **config), ROUTER_FILTER]
    table = {"virtual_hosts": [vhost(*routes, domains=("h",))]}
    return bootstrap([hcm(table, http_filters=filters)], clusters, node={"id": "one", "cluster": "mine"})


CONFIGURATIONS = {
    "health": health(),
    "health_through": health(pass_through_mode=True),
    "health_cached": health(pass_through_mode=True, cache_time="3600s"),
    "health_all": health(headers=[]),
    "health_two": health(headers=[*CHECK, {"name": "x-check", "string_match": {"exact": "1"}}]),
    "health_enough": health(
        cluster_min_healthy_percentages={"half": {"value": 50}, "up": {"value": 100}, "none": {"value": 0}}
    ),
    "health_degraded": health(cluster_min_healthy_percentages={"worse": {"value": 100}}),
    "health_fraction": health(cluster_min_healthy_percentages={"half": {"value": 50.9}, "none": {"value": 0.5}}),
    "health_few": health(cluster_min_healthy_percentages={"half": {"value": 51}}),
    "health_empty": health(cluster_min_healthy_percentages={"none": {"value": 1}}),
    "health_unknown": health(cluster_min_healthy_percentages={"nobody": {"value": 0}}),
}


def ask(
    path: str,
    config: str = "health",
    lines: bytes = b"",
    method: bytes = b"GET",
    body: bytes = b"",
    host: bytes = b"h",
    **how: object,
) -> Exchange:
    head = b"%b %b HTTP/1.1\r\nhost: %b\r\n%b\r\n%b" % (method, path.encode(), host, lines, body)
    shown = lines.replace(b"\r\n", b"; ").decode()
    title = f"{config}: {method.decode()} {host.decode()}{path} {shown}".rstrip(" ;")
    return Exchange(title, (head,), config=config, **how)  # type: ignore[arg-type]


SICK = b"HTTP/1.1 503 Service Unavailable\r\nx-envoy-degraded: 1\r\ncontent-length: 4\r\n\r\nsick"
EXCHANGES = [
    ask("/health"), ask("/health?q"), ask("/other"), ask("/direct"), ask("/health", method=b"HEAD"),
    ask("/health", method=b"POST", lines=b"content-length: 5\r\n", body=b"hello"),
    ask("/health", method=b"POST", lines=b"transfer-encoding: chunked\r\n", body=b"2\r\nab\r\n0\r\n\r\n"),
    ask("/health", host=b"nobody"), ask("/health", lines=b"x-off: 1\r\n"),
    ask("/health", lines=b"content-type: application/grpc\r\n"),
    *(ask("/health", f"health_{kind}") for kind in ("enough", "degraded", "fraction", "few", "empty", "unknown")),
    ask("/", "health_all"), ask("/health", "health_two"), ask("/health", "health_two", b"x-check: 1\r\n"),
    ask("/health", "health_through"), ask("/other", "health_through"),
    ask("/health", "health_through", b"x-is: sick\r\n", answers=((SICK,),)),
    ask("/other", "health_cached"),
    ask("/health", "health_cached", b"x-is: sick\r\n", answers=((SICK,),)),
    ask("/health", "health_cached", b"x-is: cached\r\n"), ask("/other", "health_cached", b"x-is: after\r\n"),
]  # fmt: skip
