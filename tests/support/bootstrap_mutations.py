"""One change each to a bootstrap that is right: what forkproxy must say of it, and whether real Envoy refuses it.

`message` is what config/semantics.py says ("field: message", "" when it has nothing to say). `refused` is Envoy 1.40's
answer. Where the two differ, something else refuses (the builders), or a comment says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tests.support.bootstrap import HCM, ROUTER, TCP_PROXY, TYPE

Data = dict[str, Any]


@dataclass(frozen=True)
class Mutation:
    data: Data
    message: str
    refused: bool


def address(port: int, host: str = "127.0.0.1") -> Data:
    return {"socket_address": {"address": host, "port_value": port}}


def route(cluster: str = "c", **action: Any) -> Data:
    return {"match": {"prefix": "/"}, "route": {"cluster": cluster, **action}}


def weighted(*clusters: Data) -> Data:
    return {"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": list(clusters)}}}


def by_template(path: str, rewrite: str = "", **action: Any) -> Data:
    def policy(kind: str, message: str, field: str, text: str) -> Data:
        typed = {"@type": f"{TYPE}envoy.extensions.path.{kind}.uri_template.v3.UriTemplate{message}", field: text}
        return {"name": kind, "typed_config": typed}

    if rewrite:
        action["path_rewrite_policy"] = policy("rewrite", "RewriteConfig", "path_template_rewrite", rewrite)
    match = {"path_match_policy": policy("match", "MatchConfig", "path_template", path)} if path else {"prefix": "/"}
    return {"match": match, "route": {"cluster": "c", **action}}


def host(*routes: Data, name: str = "v", domains: tuple[str, ...] = ("*",), **more: Any) -> Data:
    return {"name": name, "domains": list(domains), "routes": list(routes) or [route()], **more}


def by_matcher(input_: str, more: Data, routes: list[Data]) -> Data:
    named = {"header_name": "x"} if "Header" in input_ else {"query_param": "x"}
    typed = {"@type": f"{TYPE}envoy.type.matcher.v3.{input_}", **named}
    action = {"name": "a", "typed_config": {"@type": f"{TYPE}envoy.config.route.v3.Route", **route("unknown")}}
    outcome = {"action": action, **more}
    tree = {"input": {"name": "i", "typed_config": typed}, "exact_match_map": {"map": {"1": outcome}}}
    return {"name": "v", "domains": ["*"], "matcher": {"matcher_tree": tree}, "routes": routes}


def router(**more: Any) -> Data:
    return {"name": "router", "typed_config": {"@type": ROUTER}, **more}


def manager(*hosts: Data, filters: list[Data] | None = None, table: Data | None = None, **more: Any) -> Data:
    route_config = {"name": "r", "virtual_hosts": list(hosts) or [host()], **(table or {})}
    typed = {
        "@type": HCM,
        "stat_prefix": "x",
        "route_config": route_config,
        "http_filters": [router()] if filters is None else filters,
        **more,
    }
    return {"name": "hcm", "typed_config": typed}


def tcp(**more: Any) -> Data:
    return {"name": "tcp", "typed_config": {"@type": TCP_PROXY, "stat_prefix": "t", **(more or {"cluster": "c"})}}


def named(name: str, message: str, **more: Any) -> Data:
    return {"name": name, "typed_config": {"@type": f"{TYPE}envoy.extensions.{message}", **more}}


def cluster(*hosts: str, name: str = "c", **more: Any) -> Data:
    endpoints = [{"endpoint": {"address": address(80, each)}} for each in hosts or ("127.0.0.1",)]
    return {"name": name, "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}, **more}


def listener(*filters: Data, name: str = "l", port: int = 10000, **more: Any) -> Data:
    return {
        "name": name,
        "address": address(port),
        "filter_chains": [{"filters": list(filters) or [manager()]}],
        **more,
    }


def bootstrap(listeners: list[Data] | None = None, clusters: list[Data] | None = None, **more: Any) -> Data:
    return {
        "static_resources": {
            "listeners": [listener()] if listeners is None else listeners,
            "clusters": [cluster()] if clusters is None else clusters,
        },
        **more,
    }


def over(*hosts: Data, **more: Any) -> Data:
    return bootstrap([listener(manager(*hosts, **more))])


def chains(*matches: Data) -> Data:
    return bootstrap([listener(filter_chains=[{"filter_chain_match": m, "filters": [tcp()]} for m in matches])])


def text_of(mutation: Mutation) -> str:
    return yaml.safe_dump(mutation.data, sort_keys=False)


CORS = named("cors", "filters.http.cors.v3.Cors")
ECHO = named("echo", "filters.network.echo.v3.Echo")
MONGO = named("mongo", "filters.network.mongo_proxy.v3.MongoProxy", stat_prefix="m")
REGEX = {"match": {"safe_regex": {"regex": "("}}, "route": {"cluster": "c"}}
UPSTREAM = "transport_sockets.tls.v3.UpstreamTlsContext"
HTTP_LAST = 'the terminal filter "router" must be the last of its http filter chain'
LOGICAL = "load_assignment: a LOGICAL_DNS cluster must have a single locality with a single endpoint"


def _all() -> Iterator[tuple[str, str, bool, Data]]:
    yield "base", "", False, bootstrap()
    # names
    yield "unknown cluster", 'cluster: unknown cluster "nope"', True, over(host(route("nope")))
    yield "unknown, not validated", "", False, over(host(route("nope")), table={"validate_clusters": False})
    yield (
        "unknown weighted cluster",
        'name: unknown weighted cluster "nope"',
        True,
        over(host(weighted({"name": "nope", "weight": 1}))),
    )
    yield (
        "unknown mirror",
        'cluster: unknown shadow cluster "nope"',
        True,
        over(host(route(request_mirror_policies=[{"cluster": "nope"}]))),
    )
    # URI templates
    for name, path, rewrite, message, refused in (
        ("template", "/{a}/**", "/{a}", "", False),
        ("template is wrong", "/**/*", "", "", True),  # the builders refuse it
        ("template rewrite is wrong", "/{a}", "/a//b", "", True),  # the same
        (
            "template without the variable",
            "/{a}",
            "/{b}",
            "path_template_rewrite: mismatch between variables in path_match_policy /{a} and path_rewrite_policy /{b}",
            True,
        ),
        (
            "template rewrite alone",
            "",
            "/b",
            "path_rewrite_policy: unable to use envoy.path.rewrite.uri_template."
            "uri_template_rewriter extension without envoy.path.match.uri_template.uri_template_matcher extension",
            True,
        ),
    ):
        yield name, message, refused, over(host(by_template(path, rewrite)))
    yield (
        "template and prefix_rewrite",
        "prefix_rewrite: cannot use prefix_rewrite with matcher extension",
        True,
        over(host(by_template("/a", "", prefix_rewrite="/b"))),
    )
    yield (
        "template and redirect by prefix",
        "prefix_rewrite: cannot use redirect.prefix_rewrite with path_match_policy",
        True,
        over(host({"match": by_template("/a")["match"], "redirect": {"prefix_rewrite": "/b"}})),
    )
    yield (
        "two rewrites of a path",
        "path_rewrite: excludes prefix_rewrite",
        True,
        over(host(route(prefix_rewrite="/a", path_rewrite="/b"))),
    )
    yield "unknown tcp cluster", "", False, bootstrap([listener(tcp(cluster="nope"))])
    yield "duplicate cluster", 'name: duplicate cluster "c"', True, bootstrap(None, [cluster(), cluster()])
    yield "duplicate listener name", "", False, bootstrap([listener(), listener(port=10001)])
    yield (
        "duplicate address",
        "address: duplicate address 127.0.0.1:10000: static_resources.listeners[0].address has it already",
        True,
        bootstrap([listener(), listener(name="m")]),
    )
    yield "any port twice", "", False, bootstrap([listener(port=0), listener(port=0, name="m")])
    yield (
        "duplicate additional address",
        "",
        False,
        bootstrap([listener(additional_addresses=[{"address": address(10000)}])]),
    )
    # the matcher of a virtual host: what is wrong with it the builders say
    for name, input_, more, routes, refused in (
        ("matcher", "HttpRequestHeaderMatchInput", {}, [], False),
        ("matcher of a query parameter", "HttpRequestQueryParamMatchInput", {}, [], True),
        ("matcher that keeps matching", "HttpRequestHeaderMatchInput", {"keep_matching": True}, [], True),
        ("matcher and routes", "HttpRequestHeaderMatchInput", {}, [route()], True),
    ):
        yield name, "", refused, over(by_matcher(input_, more, routes))
    # domains
    yield (
        "duplicate domain",
        "domains[0]: only unique values for domains are permitted. Duplicate entry of domain x in route r",
        True,
        over(host(name="a", domains=("x",)), host(name="b", domains=("X",))),
    )
    yield (
        "two wildcards",
        "domains[0]: only a single wildcard domain is permitted in route r",
        True,
        over(host(name="a"), host(name="b")),
    )
    yield "duplicate virtual host name", "", False, over(host(name="a", domains=("x",)), host(name="a"))
    # weights
    yield (
        "no weight",
        "clusters[0]: weight is missing",
        True,
        over(host(weighted({"name": "c"}))),
    )
    yield (
        "weights of zero",
        "weighted_clusters: the sum of the weights must be greater than 0",
        True,
        over(host(weighted({"name": "c", "weight": 0}))),
    )
    yield (
        "weights too large",
        "weighted_clusters: the sum of the weights exceeds 4294967295",
        True,
        over(host(weighted({"name": "c", "weight": 4294967295}, {"name": "c", "weight": 1}))),
    )
    yield (
        "weight without a name",
        "clusters[0]: one of name and cluster_header needs to be specified",
        True,
        over(host(weighted({"weight": 1}))),
    )
    yield (
        "weight with two names",
        "clusters[0]: only one of name and cluster_header can be specified",
        True,
        over(host(weighted({"name": "c", "cluster_header": "x", "weight": 1}))),
    )
    # the order of filters
    yield "no http filters", "", False, over(filters=[])
    yield "router first", f"http_filters[0]: {HTTP_LAST}", True, over(filters=[router(), router()])
    yield (
        "no router",
        'http_filters[0]: "cors" is the last of its http filter chain but not a terminal filter',
        True,
        over(filters=[CORS]),
    )
    yield (
        "router disabled",
        "disabled: the last filter of the chain cannot be disabled",
        True,
        over(filters=[router(disabled=True)]),
    )
    yield "no network filters", "", False, bootstrap([listener(filter_chains=[{"filters": []}])])
    yield "no filter chains", "listeners[0]: no filter chains specified", True, bootstrap([listener(filter_chains=[])])
    yield (
        "default filter chain only",
        "",
        False,
        bootstrap([listener(filter_chains=[], default_filter_chain={"filters": [tcp()]})]),
    )
    yield (
        "tcp_proxy first",
        'filters[0]: the terminal filter "tcp" must be the last of its network filter chain',
        True,
        bootstrap([listener(tcp(), ECHO)]),
    )
    yield (
        "mongo_proxy last",
        'filters[0]: "mongo" is the last of its network filter chain but not a terminal filter',
        True,
        bootstrap([listener(MONGO)]),
    )
    yield "mongo_proxy before tcp_proxy", "", False, bootstrap([listener(MONGO, tcp())])
    # filter chain matches
    same = "matches the same connections as static_resources.listeners[0].filter_chains[0]"
    yield "two chains for all", f"filter_chain_match: {same}", True, chains({}, {})
    yield (
        "a name in both",
        f"filter_chain_match: {same}",
        True,
        chains({"server_names": ["a", "b"]}, {"server_names": ["B", "c"]}),
    )
    yield (
        "nested ranges",
        "",
        False,
        chains(*({"prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": n}]} for n in (8, 16))),
    )
    yield (
        "one range",
        f"filter_chain_match: {same}",
        True,
        chains(*({"prefix_ranges": [{"address_prefix": f"10.{n}.0.0", "prefix_len": 8}]} for n in (1, 2))),
    )
    yield (
        "partial wildcard",
        'server_names[0]: partial wildcards are not supported in "server_names"',
        True,
        chains({"server_names": ["a*.b"]}),
    )
    yield (
        "unimplemented match",
        "address_suffix: Envoy does not implement this field",
        True,
        chains({"address_suffix": "a"}),
    )
    # addresses
    yield "no address", "listeners[0]: address is necessary", True, bootstrap([{"name": "l", "filter_chains": [{}]}])
    yield (
        "a name for a listener",
        "address: malformed IP address: localhost",
        True,
        bootstrap([listener(address=address(1, "localhost"))]),
    )
    yield (
        "an admin by name",
        "address: malformed IP address: localhost",
        True,
        bootstrap(admin={"address": address(1, "localhost")}),
    )
    yield "IPv6 with a scope", "", False, bootstrap([listener(address=address(1, "fe80::1%lo"))])
    # clusters
    yield "a name for STATIC", "address: malformed IP address: a", True, bootstrap(None, [cluster("a")])
    yield "no endpoints", "", False, bootstrap(None, [{"name": "c"}])
    yield "LOGICAL_DNS without endpoints", LOGICAL, True, bootstrap(None, [{"name": "c", "type": "LOGICAL_DNS"}])
    yield "LOGICAL_DNS with two", LOGICAL, True, bootstrap(None, [cluster("a", "b", type="LOGICAL_DNS")])
    yield "STRICT_DNS with two", "", False, bootstrap(None, [cluster("a", "b", type="STRICT_DNS")])
    yield "STATIC by its name", "", False, bootstrap(None, [cluster(cluster_type={"name": "envoy.cluster.static"})])
    yield (
        "EDS without its configuration",
        "clusters[0]: cannot create an EDS cluster without eds_cluster_config",
        True,
        bootstrap(None, [{"name": "c", "type": "EDS"}]),
    )
    yield (
        "an endpoint without an address",
        "endpoint: address must be set",
        True,
        bootstrap(
            None, [{"name": "c", "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": [{}]}]}}]
        ),
    )
    yield (
        "an endpoint without an address in DNS",
        "",
        False,
        bootstrap(
            None,
            [
                {
                    "name": "c",
                    "type": "STRICT_DNS",
                    "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": {}}]}]},
                }
            ],
        ),
    )
    yield (
        "load balancing of an ORIGINAL_DST cluster",
        "lb_policy: an ORIGINAL_DST cluster takes CLUSTER_PROVIDED alone",
        True,
        bootstrap(None, [{"name": "c", "type": "ORIGINAL_DST"}]),
    )
    yield (
        "load balancing by the cluster",
        "lb_policy: a STATIC cluster provides no load balancer of its own",
        True,
        bootstrap(None, [cluster(lb_policy="CLUSTER_PROVIDED")]),
    )
    yield (
        "load balancing by nothing",
        "lb_policy: load_balancing_policy needs to be set",
        True,
        bootstrap(None, [cluster(lb_policy="LOAD_BALANCING_POLICY_CONFIG")]),
    )
    yield (
        "requests limited twice",
        "max_requests_per_connection: common_http_protocol_options has its own max_requests_per_connection: "
        "only one of them can be specified",
        True,
        bootstrap(
            None,
            [cluster(max_requests_per_connection=1, common_http_protocol_options={"max_requests_per_connection": 1})],
        ),
    )
    yield (
        "TLS of the other side",
        "typed_config: envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext cannot stand here",
        True,
        bootstrap(None, [cluster(transport_socket=named("tls", "transport_sockets.tls.v3.DownstreamTlsContext"))]),
    )
    yield (
        "SAN validation of nothing",
        "auto_sni_san_validation: needs a validation context",
        True,
        bootstrap(None, [cluster(transport_socket=named("tls", UPSTREAM, auto_sni_san_validation=True))]),
    )
    # routes
    yield "regex", "regex: not a regular expression: missing ): (", True, over(host(REGEX))
    yield (
        "case of a regex",
        "ignore_case: has no effect with safe_regex",
        True,
        over(
            host(
                {
                    "match": {
                        "prefix": "/",
                        "headers": [{"name": "x", "string_match": {"safe_regex": {"regex": "a"}, "ignore_case": True}}],
                    },
                    "route": {"cluster": "c"},
                }
            )
        ),
    )
    yield (
        "two rewrites",
        "regex_rewrite: excludes prefix_rewrite",
        True,
        over(host(route(prefix_rewrite="/", regex_rewrite={"pattern": {"regex": "a"}, "substitution": "b"}))),
    )
    yield (
        "an upgrade twice",
        'upgrade_type: duplicate upgrade type "websocket"',
        True,
        over(upgrade_configs=[{"upgrade_type": "websocket"}, {"upgrade_type": "WebSocket"}]),
    )
    yield (
        "an upgrade twice on a route",
        'upgrade_type: duplicate upgrade type "websocket"',
        True,
        over(host(route(upgrade_configs=[{"upgrade_type": "websocket"}, {"upgrade_type": "WebSocket"}]))),
    )
    yield (
        "a tunnel that ends here, but no CONNECT",
        'connect_config: only CONNECT has one, not the upgrade type "websocket"',
        True,
        over(host(route(upgrade_configs=[{"upgrade_type": "websocket", "connect_config": {}}]))),
    )
    yield (
        "a tunnel that ends here",
        "",
        False,
        over(host(route(upgrade_configs=[{"upgrade_type": "CONNECT", "connect_config": {}}]))),
    )
    yield (
        "an upgrade whose filters begin with the router",
        'filters[0]: the terminal filter "router" must be the last of its http filter chain',
        True,
        over(upgrade_configs=[{"upgrade_type": "a", "filters": [router(), router()]}]),
    )
    yield (
        "an upgrade whose router is disabled",
        "disabled: the last filter of the chain cannot be disabled",
        True,
        over(upgrade_configs=[{"upgrade_type": "a", "filters": [router(disabled=True)]}]),
    )
    yield (
        "an upgrade without a type, with a chain",
        "",
        False,
        over(upgrade_configs=[{"filters": [router()]}]),
    )
    yield (
        "two ways to strip the port",
        "strip_any_host_port: excludes strip_matching_host_port",
        True,
        over(strip_any_host_port=True, strip_matching_host_port=True),
    )
    xff = TYPE + "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig"
    detection = {"name": "d", "typed_config": {"@type": xff}}
    for field, value in (("use_remote_address", True), ("xff_num_trusted_hops", 1)):
        yield (
            f"a detector of addresses and {field}",
            f"{field}: Original IP detection extensions and {field} may not be mixed",
            True,
            over(original_ip_detection_extensions=[detection], **{field: value}),
        )
    yield (
        "hops and ranges of trusted proxies",
        "xff_num_trusted_hops: Cannot set both xff_num_trusted_hops and xff_trusted_cidrs",
        True,
        over(
            original_ip_detection_extensions=[
                {"name": "d", "typed_config": {"@type": xff, "xff_num_trusted_hops": 1, "xff_trusted_cidrs": {}}}
            ]
        ),
    )
    yield (
        "host added",
        "key: :-prefixed or host headers may not be modified",
        True,
        over(host(request_headers_to_add=[{"header": {"key": "Host", "value": "b"}}])),
    )
    yield (
        ":path removed",
        "request_headers_to_remove[0]: :-prefixed or host headers may not be removed",
        True,
        over(host(request_headers_to_remove=[":path"])),
    )
    yield (
        "append twice",
        "append: excludes append_action",
        True,
        over(
            host(
                request_headers_to_add=[
                    {"header": {"key": "a", "value": "b"}, "append": True, "append_action": "ADD_IF_ABSENT"}
                ]
            )
        ),
    )
    passing: Data = {"not_health_check_filter": {}}

    def mapped(**option: Any) -> Data:
        options = {"header": {"key": "a", "value": "b"}, **option}
        return over(local_reply_config={"mappers": [{"filter": passing, "headers_to_add": [options]}]})

    yield "a mapper", "", False, mapped(append_action="ADD_IF_ABSENT")
    yield (
        "a mapper appends twice",
        "append: excludes append_action",
        True,
        mapped(append=True, append_action="ADD_IF_ABSENT"),
    )
    yield (
        "a mapper changes the status",
        "key: :-prefixed or host headers may not be modified",
        True,
        mapped(header={"key": ":status", "value": "200"}),
    )
    validator = TYPE + "envoy.extensions.http.header_validators.envoy_default.v3.HeaderValidatorConfig"
    yield (
        "a header validator",
        "typed_header_validation_config: header validators are not part of Envoy's binary",
        True,
        over(typed_header_validation_config={"name": "v", "typed_config": {"@type": validator}}),
    )
    # the bootstrap
    yield (
        "local cluster",
        'local_cluster_name: local cluster "nope" must be defined',
        True,
        bootstrap(cluster_manager={"local_cluster_name": "nope"}),
    )
    yield (
        "flushing twice",
        "stats_flush_on_admin: excludes stats_flush_interval",
        True,
        bootstrap(stats_flush_on_admin=True, stats_flush_interval="1s"),
    )
    yield (
        "runtime layers of one name",
        'name: duplicate layer name "a"',
        True,
        bootstrap(layered_runtime={"layers": [{"name": "a", "static_layer": {}}, {"name": "a", "static_layer": {}}]}),
    )
    yield (
        "two admin layers",
        "admin_layer: at most one admin layer may be specified",
        True,
        bootstrap(layered_runtime={"layers": [{"name": "a", "admin_layer": {}}, {"name": "b", "admin_layer": {}}]}),
    )
    yield (
        "a list in a runtime layer",
        "static_layer: invalid runtime entry value for x.y",
        True,
        bootstrap(layered_runtime={"layers": [{"name": "a", "static_layer": {"x": {"y": [1]}}}]}),
    )


def _resource_monitors() -> Iterator[tuple[str, str, bool, Data]]:
    """name, message, whether it is refused, bootstrap."""
    right = "envoy.resource_monitors.global_downstream_max_connections"
    kind = TYPE + "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"

    def monitors(*names: str) -> Data:
        config = {"@type": kind, "max_active_downstream_connections": 1}
        return bootstrap(
            overload_manager={"resource_monitors": [{"name": name, "typed_config": config} for name in names]}
        )

    yield "a monitor of connections", "", False, monitors(right)
    yield "two monitors of connections", f"name: Duplicate resource monitor {right}", True, monitors(right, right)
    yield (
        "a monitor of another name",
        "name: Didn't find a registered implementation for 'other'",
        True,
        monitors("other"),
    )


def _secrets() -> Iterator[tuple[str, str, bool, Data]]:
    empty = {"name": "s", "validation_context": {}}
    data = bootstrap()
    data["static_resources"]["secrets"] = [empty, empty]
    yield "a secret twice", 'name: duplicate secret "validation_context s"', True, data
    data = bootstrap()
    data["static_resources"]["secrets"] = [{"name": "s"}]
    message = "secrets[0]: a secret needs a tls_certificate, validation_context, or another content"
    yield "a secret without content", message, True, data


MUTATIONS = {
    name: Mutation(data, message, refused)
    for name, message, refused, data in (*_all(), *_secrets(), *_resource_monitors())
}
