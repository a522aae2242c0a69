"""What changed between Envoy's v2 and v3 beyond package names: one small function per message.

Three tables, in the order in which upgrade.py applies them:

* ``FROM_1_8``: forms that Envoy 1.8.0 took and that the last v2 schema has no field for. Applied before the file is
  validated, so a rule must stand any kind of node: what does not look right is left for the validator to report.
* ``BEFORE``: from v2's deprecated form to the form that v2 and v3 share. Applied to a valid v2 message, before its
  fields are visited, so that what a rule makes is upgraded in turn.
* ``AFTER``: to forms that only v3 has. Applied after the fields were visited.

Fields that keep their number are renamed by the walker, mechanically; they need no rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from forkproxy.config.problems import Kind, Problem
from forkproxy.config.tree import Entry, Mark, Node, Scalar

_HCM = "envoy.config.filter.network.http_connection_manager.v2.HttpConnectionManager"
_HTTP = "envoy.config.filter.http."
_TLS = "envoy.transport_sockets.tls"
_REDIS_CHECKER = "envoy.health_checkers.redis"


class Notes:
    """What a run of the upgrade has to tell, and what its rules tell each other across messages."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.rate_limit_service: Node | None = None
        self.rate_limit_service_used = False
        self.egress_tracing = False

    def warn(self, node: Node, path: str, message: str, hint: str = "") -> None:
        self._add("warning", node, path, message, hint)

    def refuse(self, node: Node, path: str, message: str, hint: str = "") -> None:
        self._add("error", node, path, message, hint)

    def _add(self, kind: Kind, node: Node, path: str, message: str, hint: str) -> None:
        self.problems.append(Problem(kind, path, node.mark.line, node.mark.column, message, hint))


Rule = Callable[[Notes, Node, str], None]


# -- making and moving nodes: what is new takes the mark of what it replaces ---------------------------------------


def scalar(value: Scalar, mark: Mark) -> Node:
    return Node.scalar(value, mark)


def mapping(mark: Mark, **fields: Node | Scalar) -> Node:
    """A mapping node of these fields; plain values become scalars."""
    node = Node.map(mark)
    for key, value in fields.items():
        node.set(key, value if isinstance(value, Node) else scalar(value, mark), mark)
    return node


def sequence(items: list[Node], mark: Mark) -> Node:
    return Node.seq(mark, items)


def typed_config(message: str, content: Node) -> Node:
    """``content``, itself, with the ``@type`` of ``message`` in front."""
    content.remove("@type")
    content.entries.insert(0, Entry("@type", content.mark, scalar("type.googleapis.com/" + message, content.mark)))
    return content


def elements(node: Node) -> list[Node]:
    """The elements of a repeated field; Envoy takes a single value for a list of one."""
    if node.kind == "seq":
        return node.items
    return [] if node.is_null else [node]


def is_true(node: Node | None) -> bool:
    return node is not None and node.kind == "scalar" and str(node.value).lower() == "true"


def field_path(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def text_of(node: Node | None) -> str:
    """A scalar's value as text; nothing for what is absent, null or no scalar."""
    return "" if node is None or node.kind != "scalar" or node.value is None else str(node.value)


def _take(node: Node, key: str) -> Node | None:
    """Remove the field; its value, or None when it was absent or null."""
    entry = node.remove(key)
    return None if entry is None or entry.value.is_null else entry.value


def _child(node: Node, key: str) -> Node | None:
    """The field's value if it is a mapping."""
    value = node.get(key)
    return value if value is not None and value.kind == "map" else None


def _drop(notes: Notes, node: Node, path: str, key: str, why: str) -> None:
    entry = node.remove(key)
    if entry is not None:
        notes.warn(entry.value, field_path(path, key), f"dropped: {why}")


def _rename(node: Node, old: str, new: str) -> None:
    for entry in node.entries:
        if entry.key == old and node.get(new) is None:
            entry.key = new


def _append(node: Node, key: str, items: list[Node], mark: Mark) -> None:
    """Add items at the end of the repeated field ``key``, making it if need be."""
    present = node.get(key)
    before = elements(present) if present is not None else []
    node.set(key, sequence([*before, *items], mark), mark)


# Look-around, back-references and their like: ECMAScript has them, RE2 has not.
_NOT_IN_RE2 = re.compile(r"(?<!\\)(?:\\\\)*(?:\(\?(?:[=!]|<[=!])|\\[1-9])")


def _safe_regex(notes: Notes, regex: Node, path: str) -> Node:
    """v2's regular expressions were ECMAScript's and are RE2's today, which mean the same where both have the form."""
    if _NOT_IN_RE2.search(text_of(regex)):
        message = f'"{text_of(regex)}" needs look-around or a back-reference, which RE2 has not'
        notes.refuse(regex, path, message, "v3 reads regular expressions by RE2's rules: rewrite it")
    return mapping(regex.mark, regex=regex)


def _percentage(numerator: Node, denominator: str = "HUNDRED") -> Node:
    return mapping(numerator.mark, numerator=numerator, denominator=denominator)


# -- Envoy 1.8.0 → the last v2 -------------------------------------------------------------------------------------


def _bootstrap_1_8(notes: Notes, node: Node, path: str) -> None:
    notes.rate_limit_service = _take(node, "rate_limit_service")


def _dynamic_resources_1_8(notes: Notes, node: Node, path: str) -> None:
    _drop(notes, node, path, "deprecated_v1", "the v1 discovery services are gone (clusters name their own eds_config)")


def _rate_limit_service_1_8(notes: Notes, node: Node, path: str) -> None:
    cluster = _take(node, "cluster_name")
    if cluster is not None and node.get("grpc_service") is None:
        envoy_grpc = mapping(cluster.mark, cluster_name=cluster)
        node.set("grpc_service", mapping(cluster.mark, envoy_grpc=envoy_grpc), cluster.mark)
    _drop(notes, node, path, "use_data_plane_proto", "there is only one rate limit protocol today")


def _rate_limit_filter_1_8(notes: Notes, node: Node, path: str) -> None:
    if notes.rate_limit_service is not None and node.get("rate_limit_service") is None:
        node.set("rate_limit_service", notes.rate_limit_service.copy(), notes.rate_limit_service.mark)
        notes.rate_limit_service_used = True


def _hcm_1_8(notes: Notes, node: Node, path: str) -> None:
    _drop(notes, node, path, "bugfix_reverse_encode_order", "encoder filters always run in reverse order")
    for http_filter in elements(node.get("http_filters") or Node.seq(node.mark)):
        if http_filter.kind != "map" or text_of(http_filter.get("name")) not in (
            "envoy.buffer",
            "envoy.filters.http.buffer",
        ):
            continue
        config = _child(http_filter, "config") or _child(http_filter, "typed_config")
        limit = None if config is None else _take(config, "max_request_time")
        if limit is not None and node.get("request_timeout") is None:
            node.set("request_timeout", limit, limit.mark)


def _http_filter_1_8(notes: Notes, node: Node, path: str) -> None:
    _drop(notes, node, path, "type", "the direction of a filter follows from its code since Envoy 1.4")
    _drop(notes, node, path, "deprecated_v1", "the direction of a filter follows from its code since Envoy 1.4")


def _client_cert_details_1_8(notes: Notes, node: Node, path: str) -> None:
    san = _take(node, "san")
    if san is not None and node.get("uri") is None:
        node.set("uri", san, san.mark)


def _network_filter_1_8(notes: Notes, node: Node, path: str) -> None:
    _drop(notes, node, path, "deprecated_v1", "the direction of a filter follows from its code since Envoy 1.4")
    config = _child(node, "config")
    if config is not None and is_true(config.get("deprecated_v1")):
        node.remove("config")
        notes.refuse(
            config,
            field_path(path, "config"),
            "a configuration of API v1 inside v2 (deprecated_v1)",
            'write the filter\'s v2 or v3 fields instead of "value"',
        )


def _tcp_proxy_1_8(notes: Notes, node: Node, path: str) -> None:
    old_routes = _take(node, "deprecated_v1")
    if old_routes is not None:
        notes.refuse(
            old_routes,
            field_path(path, "deprecated_v1"),
            "routes of API v1 by address and port do not exist any more",
            "write one filter chain with a filter_chain_match for each of them",
        )


def _listener_1_8(notes: Notes, node: Node, path: str) -> None:
    _drop(notes, node, path, "bugfix_reverse_write_filter_order", "write filters always run in reverse order")


def _filter_chain_match_1_8(notes: Notes, node: Node, path: str) -> None:
    names = _take(node, "sni_domains")
    if names is not None and node.get("server_names") is None:
        node.set("server_names", names, names.mark)


def _common_tls_context_1_8(notes: Notes, node: Node, path: str) -> None:
    _drop(notes, node, path, "deprecated_v1", "alt_alpn_protocols has no successor")


def _ring_hash_1_8(notes: Notes, node: Node, path: str) -> None:
    _drop(notes, node, path, "deprecated_v1", "the hash is always hash_function (xxHash by default), never std::hash")


def _health_check_1_8(notes: Notes, node: Node, path: str) -> None:
    redis = _child(node, "redis_health_check")
    if redis is not None:
        node.remove("redis_health_check")
        config = typed_config("envoy.config.health_checker.redis.v2.Redis", redis)
        custom = mapping(redis.mark, name=_REDIS_CHECKER, typed_config=config)
        node.set("custom_health_check", custom, redis.mark)


def _health_check_filter_1_8(notes: Notes, node: Node, path: str) -> None:
    endpoint = _take(node, "endpoint")
    if endpoint is not None:
        _append(node, "headers", [mapping(endpoint.mark, name=":path", exact_match=endpoint)], endpoint.mark)


def _percent_1_8(notes: Notes, node: Node, path: str) -> None:
    percent = _take(node, "percent")
    if percent is not None and node.get("percentage") is None:
        node.set("percentage", _percentage(percent), percent.mark)


def _buffer_1_8(notes: Notes, node: Node, path: str) -> None:
    _drop(notes, node, path, "max_request_time", "it is request_timeout of the connection manager today")


def _rbac_per_route_1_8(notes: Notes, node: Node, path: str) -> None:
    if is_true(_take(node, "disabled")):
        node.remove("rbac")


def _authenticated_1_8(notes: Notes, node: Node, path: str) -> None:
    name = _take(node, "name") or _take(node, "user")
    if name is not None and node.get("principal_name") is None:
        node.set("principal_name", mapping(name.mark, exact=name), name.mark)


def _ext_authz_http_1_8(notes: Notes, node: Node, path: str) -> None:
    request_headers = _take(node, "allowed_request_headers")
    to_add = _take(node, "authorization_headers_to_add")
    if request_headers is not None or to_add is not None:
        request = _child(node, "authorization_request") or Node.map(node.mark)
        if request_headers is not None:
            request.set("allowed_headers", _exact_list(request_headers), request_headers.mark)
        if to_add is not None:
            request.set("headers_to_add", to_add, to_add.mark)
        node.set("authorization_request", request, request.mark)
    answer_headers = _take(node, "allowed_authorization_headers")
    if answer_headers is not None:
        response = _child(node, "authorization_response") or Node.map(node.mark)
        for key in ("allowed_upstream_headers", "allowed_client_headers"):
            response.set(key, _exact_list(answer_headers.copy()), answer_headers.mark)
        node.set("authorization_response", response, response.mark)


def _exact_list(names: Node) -> Node:
    patterns = [mapping(name.mark, exact=name) for name in elements(names)]
    return mapping(names.mark, patterns=sequence(patterns, names.mark))


def _route_1_8(notes: Notes, node: Node, path: str) -> None:
    """Headers sat on RouteAction, and were applied before those of Route."""
    action = _child(node, "route")
    if action is None:
        return
    for key in ("request_headers_to_add", "response_headers_to_add", "response_headers_to_remove"):
        moved = _take(action, key)
        if moved is not None:
            own = node.get(key)
            both = elements(moved) + (elements(own) if own is not None else [])
            node.set(key, sequence(both, moved.mark), moved.mark)


def _route_action_1_8(notes: Notes, node: Node, path: str) -> None:
    websocket = _take(node, "use_websocket")
    if websocket is not None and is_true(websocket):
        upgrade = mapping(websocket.mark, upgrade_type="websocket")
        _append(node, "upgrade_configs", [upgrade], websocket.mark)
    _drop(notes, node, path, "websocket_config", "an upgraded stream follows the route's timeouts")


def _route_match_1_8(notes: Notes, node: Node, path: str) -> None:
    runtime = node.get("runtime")
    if runtime is None or runtime.kind != "map":
        return
    node.remove("runtime")
    default = _take(runtime, "default_value") or scalar(0, runtime.mark)
    fraction = mapping(runtime.mark, default_value=_percentage(default))
    key = _take(runtime, "runtime_key")
    if key is not None:
        fraction.set("runtime_key", key, key.mark)
    node.set("runtime_fraction", fraction, runtime.mark)


def _header_matcher_1_8(notes: Notes, node: Node, path: str) -> None:
    regex = is_true(_take(node, "regex"))
    entry = node.remove("value")
    if entry is None:
        return
    if not text_of(entry.value):
        node.set("present_match", scalar(True, entry.value.mark), entry.value.mark)
    else:
        node.set("regex_match" if regex else "exact_match", entry.value, entry.value.mark)


FROM_1_8: dict[str, Rule] = {
    "envoy.api.v2.Cluster.RingHashLbConfig": _ring_hash_1_8,
    "envoy.api.v2.Listener": _listener_1_8,
    "envoy.api.v2.auth.CommonTlsContext": _common_tls_context_1_8,
    "envoy.api.v2.core.HealthCheck": _health_check_1_8,
    "envoy.api.v2.listener.Filter": _network_filter_1_8,
    "envoy.api.v2.listener.FilterChainMatch": _filter_chain_match_1_8,
    "envoy.api.v2.route.HeaderMatcher": _header_matcher_1_8,
    "envoy.api.v2.route.Route": _route_1_8,
    "envoy.api.v2.route.RouteAction": _route_action_1_8,
    "envoy.api.v2.route.RouteMatch": _route_match_1_8,
    "envoy.config.bootstrap.v2.Bootstrap": _bootstrap_1_8,
    "envoy.config.bootstrap.v2.Bootstrap.DynamicResources": _dynamic_resources_1_8,
    "envoy.config.filter.fault.v2.FaultDelay": _percent_1_8,
    _HTTP + "buffer.v2.Buffer": _buffer_1_8,
    _HTTP + "ext_authz.v2.HttpService": _ext_authz_http_1_8,
    _HTTP + "fault.v2.FaultAbort": _percent_1_8,
    _HTTP + "health_check.v2.HealthCheck": _health_check_filter_1_8,
    _HTTP + "rate_limit.v2.RateLimit": _rate_limit_filter_1_8,
    _HTTP + "rbac.v2.RBACPerRoute": _rbac_per_route_1_8,
    "envoy.config.filter.network.rate_limit.v2.RateLimit": _rate_limit_filter_1_8,
    "envoy.config.filter.network.tcp_proxy.v2.TcpProxy": _tcp_proxy_1_8,
    "envoy.config.filter.thrift.rate_limit.v2alpha1.RateLimit": _rate_limit_filter_1_8,
    _HCM: _hcm_1_8,
    _HCM + ".SetCurrentClientCertDetails": _client_cert_details_1_8,
    _HCM.replace("HttpConnectionManager", "HttpFilter"): _http_filter_1_8,
    "envoy.config.ratelimit.v2.RateLimitServiceConfig": _rate_limit_service_1_8,
    "envoy.config.rbac.v2.Principal.Authenticated": _authenticated_1_8,
}

# The fields that those rules take, by message: they tell a v2 file, and may be spelt in camelCase like any other.
FIELDS_OF_1_8: dict[str, tuple[str, ...]] = {
    "envoy.api.v2.Cluster.RingHashLbConfig": ("deprecated_v1",),
    "envoy.api.v2.Listener": ("bugfix_reverse_write_filter_order",),
    "envoy.api.v2.auth.CommonTlsContext": ("deprecated_v1",),
    "envoy.api.v2.core.HealthCheck": ("redis_health_check",),
    "envoy.api.v2.listener.Filter": ("deprecated_v1",),
    "envoy.api.v2.listener.FilterChainMatch": ("sni_domains",),
    "envoy.api.v2.route.HeaderMatcher": ("value", "regex"),
    "envoy.api.v2.route.RouteAction": (
        "request_headers_to_add",
        "response_headers_to_add",
        "response_headers_to_remove",
        "use_websocket",
        "websocket_config",
    ),
    "envoy.api.v2.route.RouteMatch": ("runtime",),
    "envoy.config.bootstrap.v2.Bootstrap": ("rate_limit_service",),
    "envoy.config.bootstrap.v2.Bootstrap.DynamicResources": ("deprecated_v1",),
    "envoy.config.filter.fault.v2.FaultDelay": ("percent",),
    _HTTP + "buffer.v2.Buffer": ("max_request_time",),
    _HTTP + "ext_authz.v2.HttpService": (
        "allowed_request_headers",
        "allowed_authorization_headers",
        "authorization_headers_to_add",
    ),
    _HTTP + "fault.v2.FaultAbort": ("percent",),
    _HTTP + "health_check.v2.HealthCheck": ("endpoint",),
    _HTTP + "rbac.v2.RBACPerRoute": ("disabled",),
    _HCM: ("bugfix_reverse_encode_order",),
    _HCM + ".SetCurrentClientCertDetails": ("san",),
    _HCM.replace("HttpConnectionManager", "HttpFilter"): ("type", "deprecated_v1"),
    "envoy.config.ratelimit.v2.RateLimitServiceConfig": ("cluster_name", "use_data_plane_proto"),
    "envoy.config.rbac.v2.Principal.Authenticated": ("name", "user"),
}


# -- v2's deprecated forms → the forms that v2 and v3 share ----------------------------------------------------------


def _bootstrap(notes: Notes, node: Node, path: str) -> None:
    runtime = _take(node, "runtime")
    if runtime is None or node.get("layered_runtime") is not None:
        return
    mark = runtime.mark
    base = _take(runtime, "base") or Node.map(mark)
    layers = [mapping(mark, name="base", static_layer=base)]
    root = _take(runtime, "symlink_root")
    if root is not None:
        disk = mapping(mark, symlink_root=root)
        subdirectory = _take(runtime, "subdirectory")
        if subdirectory is not None:
            disk.set("subdirectory", subdirectory, subdirectory.mark)
        layers.append(mapping(mark, name="root", disk_layer=disk))
        override = _take(runtime, "override_subdirectory")
        if override is not None:
            disk = mapping(mark, symlink_root=root.copy(), subdirectory=override, append_service_cluster=True)
            layers.append(mapping(mark, name="override", disk_layer=disk))
    layers.append(mapping(mark, name="admin", admin_layer=Node.map(mark)))
    node.set("layered_runtime", mapping(mark, layers=sequence(layers, mark)), mark)


def _node(notes: Notes, node: Node, path: str) -> None:
    _drop(notes, node, path, "build_version", "the version is sent as user_agent_build_version")


def _cluster(notes: Notes, node: Node, path: str) -> None:
    hosts = _take(node, "hosts")
    if hosts is not None and node.get("load_assignment") is not None:
        notes.warn(hosts, field_path(path, "hosts"), "dropped: load_assignment is set and wins")
    elif hosts is not None and elements(hosts):
        endpoints = [
            mapping(address.mark, endpoint=mapping(address.mark, address=address)) for address in elements(hosts)
        ]
        locality = mapping(hosts.mark, lb_endpoints=sequence(endpoints, hosts.mark))
        name = node.get("name")
        assignment = mapping(
            hosts.mark,
            cluster_name="" if name is None else name.copy(),
            endpoints=sequence([locality], hosts.mark),
        )
        node.set("load_assignment", assignment, hosts.mark)
    _tls_context(node, "envoy.api.v2.auth.UpstreamTlsContext")
    policy = node.get("lb_policy")
    if policy is not None and text_of(policy).upper() in ("ORIGINAL_DST_LB", "4"):
        node.set("lb_policy", scalar("CLUSTER_PROVIDED", policy.mark), policy.mark)


def _filter_chain(notes: Notes, node: Node, path: str) -> None:
    _tls_context(node, "envoy.api.v2.auth.DownstreamTlsContext")


def _tls_context(node: Node, message: str) -> None:
    context = _take(node, "tls_context")
    if context is not None and node.get("transport_socket") is None:
        socket = mapping(context.mark, name=_TLS, typed_config=typed_config(message, context))
        node.set("transport_socket", socket, context.mark)


def _certificate_validation(notes: Notes, node: Node, path: str) -> None:
    names = _take(node, "verify_subject_alt_name")
    if names is not None:
        exact = [mapping(name.mark, exact=name) for name in elements(names)]
        _append(node, "match_subject_alt_names", exact, names.mark)
    _drop(notes, node, path, "require_ocsp_staple", "Envoy never honoured it")


def _endpoint_policy(notes: Notes, node: Node, path: str) -> None:
    _drop(notes, node, path, "disable_overprovisioning", "set overprovisioning_factor to 100 instead")


def _http_health_check(notes: Notes, node: Node, path: str) -> None:
    if is_true(_take(node, "use_http2")) and node.get("codec_client_type") is None:
        node.set("codec_client_type", scalar("HTTP2", node.mark), node.mark)
    service = _take(node, "service_name")
    if service is not None and node.get("service_name_matcher") is None:
        node.set("service_name_matcher", mapping(service.mark, prefix=service), service.mark)


def _api_config_source(notes: Notes, node: Node, path: str) -> None:
    api_type = node.get("api_type")
    kind = text_of(api_type).upper()
    if kind in ("", "0", "REST_LEGACY", "UNSUPPORTED_REST_LEGACY"):
        notes.refuse(
            api_type or node,
            field_path(path, "api_type"),
            "REST_LEGACY, the default of 2018, is the discovery service of API v1",
            "set REST or GRPC",
        )
    names = node.get("cluster_names")
    if names is not None and kind in ("GRPC", "DELTA_GRPC", "2", "3"):
        node.remove("cluster_names")
        services = [mapping(name.mark, envoy_grpc=mapping(name.mark, cluster_name=name)) for name in elements(names)]
        if services and node.get("grpc_services") is None:
            node.set("grpc_services", sequence(services, names.mark), names.mark)


def _route_action(notes: Notes, node: Node, path: str) -> None:
    policy = _take(node, "request_mirror_policy")
    if policy is not None and node.get("request_mirror_policies") is None:
        node.set("request_mirror_policies", sequence([policy], policy.mark), policy.mark)


def _request_mirror_policy(notes: Notes, node: Node, path: str) -> None:
    """A key that is absent from the runtime mirrored nothing; its value counted hundredths of a percent."""
    key = _take(node, "runtime_key")
    if key is None or not text_of(key) or node.get("runtime_fraction") is not None:
        return
    fraction = mapping(key.mark, default_value=_percentage(scalar(0, key.mark), "TEN_THOUSAND"), runtime_key=key)
    node.set("runtime_fraction", fraction, key.mark)
    notes.warn(
        key, field_path(path, "runtime_key"), "an integer at this runtime key now counts in percent, not in 1/10000"
    )


def _regex(notes: Notes, node: Node, path: str) -> None:
    """Of RouteMatch and of StringMatcher."""
    regex = _take(node, "regex")
    if regex is not None:
        node.set("safe_regex", _safe_regex(notes, regex, field_path(path, "regex")), regex.mark)


def _query_parameter_matcher(notes: Notes, node: Node, path: str) -> None:
    value = _take(node, "value")
    regex = is_true(_take(node, "regex"))
    if value is None or not text_of(value):
        return
    if regex:
        safe = _safe_regex(notes, value, field_path(path, "value"))
        node.set("string_match", mapping(value.mark, safe_regex=safe), value.mark)
    else:
        node.set("string_match", mapping(value.mark, exact=value), value.mark)


def _cors_policy(notes: Notes, node: Node, path: str) -> None:
    origins = _take(node, "allow_origin")
    if origins is not None:
        exact = [mapping(origin.mark, exact=origin) for origin in elements(origins)]
        _append(node, "allow_origin_string_match", exact, origins.mark)
    patterns = _take(node, "allow_origin_regex")
    if patterns is not None:
        place = field_path(path, "allow_origin_regex")
        regexes = [mapping(each.mark, safe_regex=_safe_regex(notes, each, place)) for each in elements(patterns)]
        _append(node, "allow_origin_string_match", regexes, patterns.mark)
    enabled = _take(node, "enabled")
    if enabled is not None and node.get("filter_enabled") is None:
        share = _percentage(scalar(100 if is_true(enabled) else 0, enabled.mark))
        node.set("filter_enabled", mapping(enabled.mark, default_value=share), enabled.mark)


def _udp_listener(notes: Notes, node: Node, path: str) -> None:
    for key in ("udp_listener_name", "config", "typed_config"):
        _drop(notes, node, path, key, "a UDP listener is named by its address and quic_options")


def _authorization_headers(notes: Notes, node: Node, path: str) -> None:
    """Until Envoy 1.14 these lists of header names ignored case without being told."""
    for key in ("allowed_headers", "allowed_upstream_headers", "allowed_client_headers"):
        names = node.get(key)
        patterns = None if names is None else names.get("patterns")
        for pattern in [] if patterns is None else elements(patterns):
            if (
                pattern.get("ignore_case") is None
                and pattern.get("regex") is None
                and pattern.get("safe_regex") is None
            ):
                pattern.set("ignore_case", scalar(True, pattern.mark), pattern.mark)


def _hcm(notes: Notes, node: Node, path: str) -> None:
    idle = _take(node, "idle_timeout")
    if idle is not None:
        options = _child(node, "common_http_protocol_options") or Node.map(idle.mark)
        if options.get("idle_timeout") is None:
            options.set("idle_timeout", idle, idle.mark)
        node.set("common_http_protocol_options", options, options.mark)


def _hcm_tracing(notes: Notes, node: Node, path: str) -> None:
    operation = _take(node, "operation_name")
    if operation is not None and text_of(operation).upper() in ("EGRESS", "1"):
        notes.egress_tracing = True
    headers = _take(node, "request_headers_for_tags")
    if headers is not None:
        tags = [
            mapping(header.mark, tag=header, request_header=mapping(header.mark, name=header.copy()))
            for header in elements(headers)
        ]
        _append(node, "custom_tags", tags, headers.mark)


def _redis_proxy(notes: Notes, node: Node, path: str) -> None:
    cluster = _take(node, "cluster")
    if cluster is None:
        return
    routes = _child(node, "prefix_routes") or Node.map(cluster.mark)
    if routes.get("catch_all_cluster") is None and routes.get("catch_all_route") is None:
        routes.set("catch_all_route", mapping(cluster.mark, cluster=cluster), cluster.mark)
    node.set("prefix_routes", routes, routes.mark)


def _redis_prefix_routes(notes: Notes, node: Node, path: str) -> None:
    cluster = _take(node, "catch_all_cluster")
    if cluster is not None and node.get("catch_all_route") is None:
        node.set("catch_all_route", mapping(cluster.mark, cluster=cluster), cluster.mark)


def _fault_delay(notes: Notes, node: Node, path: str) -> None:
    node.remove("type")  # it had one value, FIXED, which fixed_delay says


def _zipkin(notes: Notes, node: Node, path: str) -> None:
    version = node.get("collector_endpoint_version")
    if text_of(version).upper() not in ("", "0", "HTTP_JSON_V1"):
        return
    mark = node.mark if version is None else version.mark
    node.set("collector_endpoint_version", scalar("HTTP_JSON", mark), mark)
    place = field_path(path, "collector_endpoint_version")
    notes.warn(version or node, place, "HTTP_JSON_V1 is gone: spans go out as HTTP_JSON, Zipkin's v2")
    endpoint = node.get("collector_endpoint")
    if endpoint is not None and text_of(endpoint) == "/api/v1/spans":
        node.set("collector_endpoint", scalar("/api/v2/spans", endpoint.mark), endpoint.mark)


BEFORE: dict[str, Rule] = {
    "envoy.api.v2.Cluster": _cluster,
    "envoy.api.v2.ClusterLoadAssignment.Policy": _endpoint_policy,
    "envoy.api.v2.auth.CertificateValidationContext": _certificate_validation,
    "envoy.api.v2.core.ApiConfigSource": _api_config_source,
    "envoy.api.v2.core.HealthCheck.HttpHealthCheck": _http_health_check,
    "envoy.api.v2.core.Node": _node,
    "envoy.api.v2.listener.FilterChain": _filter_chain,
    "envoy.api.v2.listener.UdpListenerConfig": _udp_listener,
    "envoy.api.v2.route.CorsPolicy": _cors_policy,
    "envoy.api.v2.route.QueryParameterMatcher": _query_parameter_matcher,
    "envoy.api.v2.route.RouteAction": _route_action,
    "envoy.api.v2.route.RouteAction.RequestMirrorPolicy": _request_mirror_policy,
    "envoy.api.v2.route.RouteMatch": _regex,
    "envoy.config.bootstrap.v2.Bootstrap": _bootstrap,
    "envoy.config.filter.fault.v2.FaultDelay": _fault_delay,
    _HTTP + "ext_authz.v2.AuthorizationRequest": _authorization_headers,
    _HTTP + "ext_authz.v2.AuthorizationResponse": _authorization_headers,
    _HCM: _hcm,
    _HCM + ".Tracing": _hcm_tracing,
    "envoy.config.filter.network.redis_proxy.v2.RedisProxy": _redis_proxy,
    "envoy.config.filter.network.redis_proxy.v2.RedisProxy.PrefixRoutes": _redis_prefix_routes,
    "envoy.config.trace.v2.ZipkinConfig": _zipkin,
    "envoy.type.matcher.StringMatcher": _regex,
}


# -- the forms that only v3 has --------------------------------------------------------------------------------------


def _listener_v3(notes: Notes, node: Node, path: str) -> None:
    old = _take(node, "deprecated_v1")
    bind = None if old is None else old.get("bind_to_port")
    if bind is not None:
        node.set("bind_to_port", bind, bind.mark)
    if notes.egress_tracing and node.get("traffic_direction") is None:
        node.set("traffic_direction", scalar("OUTBOUND", node.mark), node.mark)
    notes.egress_tracing = False


def _header_matcher_v3(notes: Notes, node: Node, path: str) -> None:
    """v2 had no string_match, so that its user cannot be told to prefer it; the same matches by today's name."""
    regex = _take(node, "regex_match")
    if regex is not None:
        safe = _safe_regex(notes, regex, field_path(path, "regex_match"))
        node.set("string_match", mapping(regex.mark, safe_regex=safe), regex.mark)
    for entry in node.entries:
        kind = _HEADER_MATCHES.get(entry.key)
        if kind is not None:
            entry.key = "string_match"
            entry.value = mapping(entry.value.mark, **{kind: entry.value})


_HEADER_MATCHES = {
    "exact_match": "exact",
    "prefix_match": "prefix",
    "suffix_match": "suffix",
    "safe_regex_match": "safe_regex",
}


def _regex_matcher_v3(notes: Notes, node: Node, path: str) -> None:
    """v2 wanted the engine named; there is no other."""
    engine = node.get("google_re2")
    if engine is not None and engine.kind == "map" and not engine.entries:
        node.remove("google_re2")


def _virtual_cluster_v3(notes: Notes, node: Node, path: str) -> None:
    headers = []
    pattern = _take(node, "pattern")
    if pattern is not None:
        match = mapping(pattern.mark, safe_regex=_safe_regex(notes, pattern, field_path(path, "pattern")))
        headers.append(mapping(pattern.mark, name=":path", string_match=match))
    method = _take(node, "method")
    if method is not None and text_of(method).upper() not in ("METHOD_UNSPECIFIED", "0"):
        exact = scalar(_METHODS.get(text_of(method), text_of(method).upper()), method.mark)
        headers.append(mapping(method.mark, name=":method", string_match=mapping(method.mark, exact=exact)))
    if headers:
        _append(node, "headers", headers, node.mark)


# The numbers of envoy.api.v2.core.RequestMethod, which a file may give instead of the names.
_METHODS = dict(
    zip("123456789", ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"), strict=True)
)


def _http_health_check_v3(notes: Notes, node: Node, path: str) -> None:
    receive = node.get("receive")
    if receive is not None and receive.kind == "map":
        node.set("receive", sequence([receive], receive.mark), receive.mark)


def _load_balancing_policy_v3(notes: Notes, node: Node, path: str) -> None:
    name = _take(node, "name")
    config = _take(node, "typed_config")
    if name is not None and node.get("typed_extension_config") is None:
        extension = mapping(name.mark, name=name)
        if config is not None:
            extension.set("typed_config", config, config.mark)
        node.set("typed_extension_config", extension, name.mark)


_GZIP_LEVELS = {"DEFAULT": "DEFAULT_COMPRESSION", "BEST": "BEST_COMPRESSION", "SPEED": "BEST_SPEED"}
_GZIP_STRATEGIES = {"DEFAULT": "DEFAULT_STRATEGY", "HUFFMAN": "HUFFMAN_ONLY"}


def _gzip_v3(notes: Notes, node: Node, path: str) -> None:
    """The gzip filter is a library of the compressor filter today; what is not about gzip moved to the direction."""
    mark = node.mark
    library = Node.map(mark)
    for key, names in (
        ("memory_level", {}),
        ("compression_level", _GZIP_LEVELS),
        ("compression_strategy", _GZIP_STRATEGIES),
        ("window_bits", {}),
    ):
        value = _take(node, key)
        if value is not None:
            renamed = names.get(text_of(value).upper())
            library.set(key, value if renamed is None else scalar(renamed, value.mark), value.mark)
    # `compressor` holds the same fields as the filter itself does, and wins over them.
    shared = _take(node, "compressor") or Node.map(mark)
    direction = Node.map(mark)
    shared_config = Node.map(mark)
    for key, target, new_key in (
        ("runtime_enabled", shared_config, "enabled"),
        ("content_length", shared_config, "min_content_length"),
        ("content_type", shared_config, "content_type"),
        ("disable_on_etag_header", direction, "disable_on_etag_header"),
        ("remove_accept_encoding_header", direction, "remove_accept_encoding_header"),
    ):
        own = _take(node, key)
        value = _take(shared, key) or own
        if value is not None:
            target.set(new_key, value, value.mark)
    if shared_config.entries:
        direction.set("common_config", shared_config, mark)
    if direction.entries:
        node.set("response_direction_config", direction, mark)
    config = typed_config("envoy.extensions.compression.gzip.compressor.v3.Gzip", library)
    node.set("compressor_library", mapping(mark, name="gzip", typed_config=config), mark)


AFTER: dict[str, Rule] = {
    "envoy.api.v2.Listener": _listener_v3,
    "envoy.api.v2.LoadBalancingPolicy.Policy": _load_balancing_policy_v3,
    "envoy.api.v2.core.HealthCheck.HttpHealthCheck": _http_health_check_v3,
    "envoy.api.v2.route.HeaderMatcher": _header_matcher_v3,
    "envoy.api.v2.route.VirtualCluster": _virtual_cluster_v3,
    "envoy.type.matcher.RegexMatcher": _regex_matcher_v3,
    _HTTP + "gzip.v2.Gzip": _gzip_v3,
}

# v2 messages whose successor is not the one that their number and name lead to, with the new name of the extension.
SUCCESSORS = {
    _HTTP + "gzip.v2.Gzip": (
        "envoy.extensions.filters.http.compressor.v3.Compressor",
        "envoy.filters.http.compressor",
    ),
}
