"""What Envoy refuses although each message is right by itself: names that must be known, or be there only once, filters
that must stand last, settings that exclude each other.

It works on the tree that ``validate`` has normalised (proto names, lists as lists, typed scalars). Every rule was found
by giving real Envoy 1.40 a configuration that breaks it, and so were the cases that look wrong and that Envoy takes:
those are warnings here, or nothing. What needs a file or the environment is found by the builders instead.
"""

from __future__ import annotations

import difflib
import importlib
import ipaddress
import itertools
import re
import socket
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final

from forkproxy.config import registry, uri_template
from forkproxy.config.problems import Kind, Problem, by_place
from forkproxy.config.tree import Node

_CONNECTIONS_MONITOR: Final = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
_CONNECTIONS_NAME: Final = "envoy.resource_monitors.global_downstream_max_connections"
_CONNECTS: Final = frozenset(("connect", "connect-udp"))
_HCM: Final = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_TCP_PROXY: Final = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_ROUTER: Final = "envoy.extensions.filters.http.router.v3.Router"
_URI_TEMPLATE_REWRITE: Final = "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig"
# Terminal or not by their configuration, or in an upstream chain only.
_MAY_BE_TERMINAL: Final = frozenset(
    {
        "",
        "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
        "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
        "envoy.extensions.filters.network.wasm.v3.Wasm",
    }
)
_DNS_CLUSTER: Final = "envoy.extensions.clusters.dns.v3.DnsCluster"
_DOWNSTREAM_TLS: Final = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
_UPSTREAM_TLS: Final = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_TERMINAL_NETWORK: Final = frozenset(
    {
        _HCM,
        _TCP_PROXY,
        "envoy.extensions.filters.network.direct_response.v3.Config",
        "envoy.extensions.filters.network.dubbo_proxy.v3.DubboProxy",
        "envoy.extensions.filters.network.echo.v3.Echo",
        "envoy.extensions.filters.network.generic_proxy.v3.GenericProxy",
        "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
        "envoy.extensions.filters.network.thrift_proxy.v3.ThriftProxy",
    }
)
_TERMINAL_HTTP: Final = frozenset((_ROUTER,))
_MAX_UINT32: Final = 0xFFFF_FFFF
_HEADER_FIELDS: Final = frozenset(
    f"{side}_headers_to_{verb}" for side in ("request", "response") for verb in ("add", "remove")
)
_REWRITES: Final = ("prefix_rewrite", "regex_rewrite", "path_rewrite_policy", "path_rewrite")
_CHECKED_IN_MATCHES: Final = frozenset(("safe_regex", "headers", "query_parameters"))
_CHECKED_IN_ACTIONS: Final = frozenset(
    (*_REWRITES, "weighted_clusters", "request_mirror_policies", "host_rewrite_path_regex", "upgrade_configs")
)


def check(root: Node) -> list[Problem]:
    """Every problem of a validated v3 bootstrap, in the order of the file."""
    return _Check(root).run()


class _Check:
    def __init__(self, root: Node) -> None:
        self._root = root
        self._static = root.get("static_resources")
        self._problems: list[Problem] = []
        self._clusters: dict[str, Node] = {}
        self._has_cds = _at(root, "dynamic_resources", "cds_config") is not None

    def run(self) -> list[Problem]:
        self._bootstrap()
        for path, cluster in _items(self._static, "clusters", "static_resources"):
            self._cluster(cluster, path)
        self._listeners()
        return by_place(self._problems)

    def _add(self, kind: Kind, node: Node, path: str, message: str, hint: str = "") -> None:
        self._problems.append(Problem(kind, path, node.mark.line, node.mark.column, message, hint))

    def _error(self, node: Node, path: str, message: str, hint: str = "") -> None:
        self._add("error", node, path, message, hint)

    # -- the bootstrap itself ------------------------------------------------------------------------------------------

    def _bootstrap(self) -> None:
        for path, cluster in _items(self._static, "clusters", "static_resources"):
            name = cluster.get("name")
            if name is not None:
                self._once(self._clusters, str(name.value), name, f"{path}.name", "cluster")
        local = _at(self._root, "cluster_manager", "local_cluster_name")
        if local is not None and local.value and local.value not in self._clusters:
            self._error(local, "cluster_manager.local_cluster_name", f'local cluster "{local.value}" must be defined')
        flush = self._root.get("stats_flush_on_admin")
        if flush is not None and flush.value and self._root.get("stats_flush_interval") is not None:
            self._error(flush, "stats_flush_on_admin", "excludes stats_flush_interval")
        admin = _at(self._root, "admin", "address")
        if admin is not None:
            self._ip_address(admin, "admin.address")
        self._runtime()
        self._secrets()
        self._resource_monitors()

    def _once(self, seen: dict[str, Node], key: str, node: Node, path: str, what: str) -> None:
        first = seen.setdefault(key, node)
        if first is not node:
            self._error(node, path, f'duplicate {what} "{key}"', f"the first is in line {first.mark.line}")

    def _runtime(self) -> None:
        names: dict[str, Node] = {}
        admin_layers = 0
        for path, layer in _items(self._root.get("layered_runtime"), "layers", "layered_runtime"):
            name = layer.get("name")
            if name is not None:
                self._once(names, str(name.value), name, f"{path}.name", "layer name")
            if layer.get("admin_layer") is not None:
                admin_layers += 1
                if admin_layers > 1:
                    self._error(layer, f"{path}.admin_layer", "at most one admin layer may be specified")
            static = layer.get("static_layer")
            if static is not None:
                self._runtime_values(static, f"{path}.static_layer", "")

    def _runtime_values(self, node: Node, path: str, key: str) -> None:
        for entry in node.entries if node.kind == "map" else ():
            name = f"{key}.{entry.key}" if key else entry.key
            if entry.value.kind == "seq" or entry.value.is_null:
                self._error(entry.value, path, f"invalid runtime entry value for {name}", "a number, string or boolean")
            self._runtime_values(entry.value, path, name)

    def _secrets(self) -> None:
        names: dict[str, Node] = {}
        for path, secret in _items(self._static, "secrets", "static_resources"):
            kinds = [
                k
                for k in ("tls_certificate", "session_ticket_keys", "validation_context", "generic_secret")
                if secret.get(k) is not None
            ]
            name = secret.get("name")
            if not kinds:
                self._error(secret, path, "a secret needs a tls_certificate, validation_context, or another content")
            elif name is not None:
                self._once(names, f"{kinds[0]} {name.value}", name, f"{path}.name", "secret")

    def _resource_monitors(self) -> None:
        names: dict[str, Node] = {}
        for path, monitor in _items(self._root.get("overload_manager"), "resource_monitors", "overload_manager"):
            name = monitor.get("name")
            if name is None:
                continue
            if names.setdefault(str(name.value), name) is not name:
                self._error(name, f"{path}.name", f"Duplicate resource monitor {name.value}")
            elif _message_of(monitor.get("typed_config")) == _CONNECTIONS_MONITOR and name.value != _CONNECTIONS_NAME:
                message = f"Didn't find a registered implementation for '{name.value}'"
                self._error(name, f"{path}.name", message, f"its name is {_CONNECTIONS_NAME}")

    # -- addresses -----------------------------------------------------------------------------------------------------

    def _ip_address(self, address: Node, path: str, hint: str = "") -> None:
        """A socket address without a resolver must be an IP address and have a number for its port."""
        socket_address = address.get("socket_address")
        if socket_address is None or socket_address.get("resolver_name") is not None:
            return
        path = f"{path}.socket_address"
        host = socket_address.get("address")
        if host is not None and not _is_ip(str(host.value)):
            self._error(host, f"{path}.address", f"malformed IP address: {host.value}", hint)
        named = socket_address.get("named_port")
        if named is not None:
            self._error(named, f"{path}.named_port", "an IP address needs port_value")

    # -- clusters ------------------------------------------------------------------------------------------------------

    def _cluster(self, cluster: Node, path: str) -> None:
        kind = self._cluster_kind(cluster)
        assignment = cluster.get("load_assignment")
        endpoints = list(_endpoints(assignment, f"{path}.load_assignment"))
        if kind == "STATIC":
            for where, endpoint in endpoints:
                address = endpoint.get("address")
                if address is None:
                    self._error(endpoint, where, "address must be set")
                else:
                    self._ip_address(address, f"{where}.address", "type: STRICT_DNS or LOGICAL_DNS resolves names")
        elif kind == "LOGICAL_DNS":
            localities = list(_items(assignment, "endpoints", ""))
            if len(localities) != 1 or len(endpoints) != 1:
                self._error(
                    assignment or cluster,
                    f"{path}.load_assignment",
                    "a LOGICAL_DNS cluster must have a single locality with a single endpoint",
                    "STRICT_DNS takes several",
                )
        elif kind == "EDS" and cluster.get("eds_cluster_config") is None:
            self._error(cluster, path, "cannot create an EDS cluster without eds_cluster_config")
        policy = cluster.get("lb_policy")
        if (
            kind == "ORIGINAL_DST"
            and (policy is None or policy.value != "CLUSTER_PROVIDED")
            and cluster.get("load_balancing_policy") is None
        ):
            self._error(policy or cluster, f"{path}.lb_policy", "an ORIGINAL_DST cluster takes CLUSTER_PROVIDED alone")
        if (
            policy is not None
            and policy.value == "CLUSTER_PROVIDED"
            and kind in ("STATIC", "STRICT_DNS", "LOGICAL_DNS")
        ):
            self._error(policy, f"{path}.lb_policy", f"a {kind} cluster provides no load balancer of its own")
        if (
            policy is not None
            and policy.value == "LOAD_BALANCING_POLICY_CONFIG"
            and cluster.get("load_balancing_policy") is None
        ):
            self._error(policy, f"{path}.lb_policy", "load_balancing_policy needs to be set")
        limit = cluster.get("max_requests_per_connection")
        if limit is not None and any(
            _at(options, "common_http_protocol_options", "max_requests_per_connection") is not None
            for options in (cluster, *_values(cluster.get("typed_extension_protocol_options")))
        ):
            self._error(
                limit,
                f"{path}.max_requests_per_connection",
                "common_http_protocol_options has its own max_requests_per_connection: only one of them can be specified",
            )
        transport_socket = cluster.get("transport_socket")
        if transport_socket is not None:
            self._transport_socket(transport_socket, f"{path}.transport_socket", _DOWNSTREAM_TLS, _UPSTREAM_TLS)
            self._upstream_tls(transport_socket.get("typed_config"), f"{path}.transport_socket.typed_config")

    def _cluster_kind(self, cluster: Node) -> str:
        custom = cluster.get("cluster_type")
        if custom is None:
            kind = cluster.get("type")
            return "STATIC" if kind is None else str(kind.value)
        typed = custom.get("typed_config")
        if typed is not None and _message_of(typed) == _DNS_CLUSTER:
            single = typed.get("all_addresses_in_single_endpoint")
            return "LOGICAL_DNS" if single is not None and single.value else "STRICT_DNS"
        name = custom.get("name")
        return cluster_type_by_name.get(str(name.value), "") if name is not None and typed is None else ""

    def _transport_socket(self, node: Node, path: str, wrong: str, right: str) -> None:
        typed = node.get("typed_config")
        if typed is not None and _message_of(typed) == wrong:
            last = right.rpartition(".")[2]
            self._error(typed, f"{path}.typed_config", f"{wrong} cannot stand here", f"{last} belongs here")

    def _upstream_tls(self, context: Node | None, path: str) -> None:
        if context is None or _message_of(context) != _UPSTREAM_TLS:
            return
        common = context.get("common_tls_context")
        certificates = [
            *_items(common, "tls_certificates", ""),
            *_items(common, "tls_certificate_sds_secret_configs", ""),
        ]
        if len(certificates) > 1:
            self._error(context, path, "several TLS certificates are not supported for upstream contexts")
        sni = context.get("sni")
        if sni is not None and "\0" in str(sni.value):
            self._error(sni, f"{path}.sni", "a server name must not hold a NUL byte")
        auto = context.get("auto_sni_san_validation")
        kinds = ("validation_context", "validation_context_sds_secret_config", "combined_validation_context")
        if auto is not None and auto.value and not any(_at(common, kind) is not None for kind in kinds):
            self._error(auto, f"{path}.auto_sni_san_validation", "needs a validation context")

    # -- listeners -----------------------------------------------------------------------------------------------------

    def _listeners(self) -> None:
        names: dict[str, Node] = {}
        addresses: dict[str, str] = {}
        for path, listener in _items(self._static, "listeners", "static_resources"):
            name = listener.get("name")
            if name is not None and name.value:
                first = names.setdefault(str(name.value), name)
                if first is not name:
                    self._add(
                        "warning",
                        name,
                        f"{path}.name",
                        f'the listener "{name.value}" is defined twice',
                        f"the first, in line {first.mark.line}, stays, and this one is left out, as in Envoy",
                    )
            self._listener(listener, path)
            if listener.get("internal_listener") is None:
                self._listener_addresses(listener, path, addresses)

    def _listener_addresses(self, listener: Node, path: str, seen: dict[str, str]) -> None:
        places = [(f"{path}.address", listener.get("address"))]
        places += [
            (f"{where}.address", additional.get("address"))
            for where, additional in _items(listener, "additional_addresses", path)
        ]
        own: dict[str, str] = {}
        for where, address in places:
            if address is None:
                self._error(listener, path, "address is necessary")
                continue
            if address.get("envoy_internal_address") is not None:
                self._error(address, where, "use internal_listener instead of address for internal listeners")
            self._ip_address(address, where)
            text = _address_text(address)
            if text is not None and text in seen:
                self._error(address, where, f"duplicate address {text}: {seen[text]} has it already")
            elif text is not None:
                own[text] = where
        seen.update(own)

    def _listener(self, listener: Node, path: str) -> None:
        chains = list(_items(listener, "filter_chains", path))
        default = listener.get("default_filter_chain")
        protocol = _at(listener, "address", "socket_address", "protocol")
        is_tcp = protocol is None or protocol.value != "UDP"
        others = ("internal_listener", "api_listener", "filter_chain_matcher")
        if is_tcp and not chains and default is None and all(listener.get(name) is None for name in others):
            self._error(listener, path, "no filter chains specified")
        if listener.get("filter_chain_matcher") is None:
            self._chain_matches(chains)
        if default is not None:
            chains.append((f"{path}.default_filter_chain", default))
        for where, chain in chains:
            filters = list(_items(chain, "filters", where))
            self._filter_order(filters, "network", _TERMINAL_NETWORK, _passing("network", _TERMINAL_NETWORK))
            for filter_path, entry in filters:
                self._network_filter(entry.get("typed_config"), f"{filter_path}.typed_config")
            transport_socket = chain.get("transport_socket")
            if transport_socket is not None:
                self._transport_socket(transport_socket, f"{where}.transport_socket", _UPSTREAM_TLS, _DOWNSTREAM_TLS)

    def _chain_matches(self, chains: list[tuple[str, Node]]) -> None:
        """Two chains that match the same connection, by Envoy's measure: one combination of criteria in both."""
        seen: dict[tuple[str, ...], str] = {}
        for path, chain in chains:
            match = chain.get("filter_chain_match") or Node.map(chain.mark)
            where = f"{path}.filter_chain_match"
            for field in ("address_suffix", "suffix_len"):
                unimplemented = match.get(field)
                if unimplemented is not None:
                    self._error(unimplemented, f"{where}.{field}", "Envoy does not implement this field")
            for index, name in _items(match, "server_names", where):
                text = str(name.value)
                if "*" in text.removeprefix("*."):
                    self._error(name, index, 'partial wildcards are not supported in "server_names"')
            for combination in _combinations(match):
                if combination in seen:
                    self._error(match, where, f"matches the same connections as {seen[combination]}")
                    break
                seen[combination] = path

    def _filter_order(
        self, filters: list[tuple[str, Node]], category: str, terminal: frozenset[str], not_terminal: frozenset[str]
    ) -> None:
        """A terminal filter stands last, and the last filter is terminal. Third parties' filters are asked when built."""
        for index, (path, entry) in enumerate(filters):
            message = _message_of(entry.get("typed_config"))
            name = entry.get("name")
            label = f'"{name.value}"' if name is not None else message
            is_last = index == len(filters) - 1
            if message in terminal and not is_last:
                self._error(entry, path, f"the terminal filter {label} must be the last of its {category} filter chain")
            elif is_last and message in not_terminal:
                self._error(
                    entry,
                    path,
                    f"{label} is the last of its {category} filter chain but not a terminal filter",
                    "the router belongs last" if category == "http" else "tcp_proxy or http_connection_manager",
                )

    def _network_filter(self, typed: Node | None, path: str) -> None:
        message = _message_of(typed)
        if typed is None:
            return
        if message == _HCM:
            self._connection_manager(typed, path)
        elif message == _TCP_PROXY:
            self._tcp_proxy(typed, path)

    def _tcp_proxy(self, proxy: Node, path: str) -> None:
        """Envoy takes an unknown cluster here, and closes every connection."""
        places = [(f"{path}.cluster", proxy.get("cluster"))]
        weighted = proxy.get("weighted_clusters")
        places += [
            (f"{where}.name", each.get("name"))
            for where, each in _items(weighted, "clusters", f"{path}.weighted_clusters")
        ]
        for where, cluster in places:
            if cluster is not None and cluster.value not in self._clusters and not self._has_cds:
                self._add(
                    "warning",
                    cluster,
                    where,
                    f'unknown cluster "{cluster.value}": every connection will be closed',
                    _did_you_mean(str(cluster.value), self._clusters),
                )

    # -- HTTP ----------------------------------------------------------------------------------------------------------

    def _connection_manager(self, manager: Node, path: str) -> None:
        self._http_filters(list(_items(manager, "http_filters", path)))
        any_port, matching_port = manager.get("strip_any_host_port"), manager.get("strip_matching_host_port")
        if any_port is not None and any_port.value and matching_port is not None and matching_port.value:
            self._error(any_port, f"{path}.strip_any_host_port", "excludes strip_matching_host_port")
        self._original_ip_detection(manager, path)
        self._upgrades(manager, path)
        for where, upgrade in _items(manager, "upgrade_configs", path):
            self._http_filters(list(_items(upgrade, "filters", where)))
        validator = manager.get("typed_header_validation_config")
        if validator is not None:
            self._error(
                validator, f"{path}.typed_header_validation_config", "header validators are not part of Envoy's binary"
            )
        replies = _at(manager, "local_reply_config")
        if replies is not None:
            for where, mapper in _items(replies, "mappers", f"{path}.local_reply_config"):
                self._header_options(mapper, "headers_to_add", where)
        table = manager.get("route_config")
        if table is not None:
            self._route_table(table, f"{path}.route_config")

    def _original_ip_detection(self, manager: Node, path: str) -> None:
        for where, extension in _items(manager, "original_ip_detection_extensions", path):
            for field in ("use_remote_address", "xff_num_trusted_hops"):
                mixed = manager.get(field)
                if mixed is not None and mixed.value:
                    message = f"Original IP detection extensions and {field} may not be mixed"
                    self._error(mixed, f"{path}.{field}", message)
            typed = extension.get("typed_config")
            trusted = typed.get("xff_trusted_cidrs") if typed is not None else None
            hops = typed.get("xff_num_trusted_hops") if typed is not None else None
            if trusted is not None and hops is not None and hops.value:
                message = "Cannot set both xff_num_trusted_hops and xff_trusted_cidrs"
                self._error(hops, f"{where}.typed_config.xff_num_trusted_hops", message)

    def _http_filters(self, filters: list[tuple[str, Node]]) -> None:
        self._filter_order(filters, "http", _TERMINAL_HTTP, _passing("http", _TERMINAL_HTTP))
        if filters:
            where, last = filters[-1]
            disabled = last.get("disabled")
            if disabled is not None and disabled.value:
                self._error(disabled, f"{where}.disabled", "the last filter of the chain cannot be disabled")

    def _upgrades(self, owner: Node, path: str) -> None:
        """Of a connection manager, or of a route."""
        seen: dict[str, Node] = {}
        for where, upgrade in _items(owner, "upgrade_configs", path):
            kind = upgrade.get("upgrade_type")
            name = str(kind.value).lower() if kind is not None else ""
            if kind is not None:
                self._once(seen, name, kind, f"{where}.upgrade_type", "upgrade type")
            config = upgrade.get("connect_config")
            if config is not None and name not in _CONNECTS:
                self._error(config, f"{where}.connect_config", f'only CONNECT has one, not the upgrade type "{name}"')

    def _route_table(self, table: Node, path: str) -> None:
        flag = table.get("validate_clusters")
        validate_clusters = (flag is None or bool(flag.value)) and not self._has_cds
        if flag is not None and flag.value:
            validate_clusters = True
        self._header_mutations(table, path)
        self._mirrors(table, path, validate_clusters)
        domains: dict[str, Node] = {}
        name = table.get("name")
        for where, virtual_host in _items(table, "virtual_hosts", path):
            self._domains(virtual_host, where, domains, str(name.value) if name is not None else "")
            self._header_mutations(virtual_host, where)
            self._mirrors(virtual_host, where, validate_clusters)
            for route_path, route in _items(virtual_host, "routes", where):
                self._route(route, route_path, validate_clusters)

    def _domains(self, virtual_host: Node, path: str, seen: dict[str, Node], table: str) -> None:
        """Each domain once; the words are Envoy's."""
        for where, domain in _items(virtual_host, "domains", path):
            text = str(domain.value).lower()
            first = seen.setdefault(text, domain)
            if first is domain:
                continue
            hint = f"the first is in line {first.mark.line}"
            if text == "*":
                self._error(
                    domain, where, f"only a single wildcard domain is permitted in route {table}".rstrip(), hint
                )
            else:
                message = (
                    f"only unique values for domains are permitted. Duplicate entry of domain {text} in route {table}"
                )
                self._error(domain, where, message.rstrip(), hint)

    def _route(self, route: Node, path: str, validate_clusters: bool) -> None:
        """Of most routes there is nothing to ask but the cluster's name: whatever else is asked, only where it is said."""
        match, action, redirect = route.get("match"), route.get("route"), route.get("redirect")
        if match is not None and _says(match, _CHECKED_IN_MATCHES):
            self._route_match(match, f"{path}.match")
        if _says(route, _HEADER_FIELDS):
            self._header_mutations(route, path)
        if action is not None:
            if validate_clusters:
                cluster = action.get("cluster")
                if cluster is not None and cluster.value not in self._clusters:
                    self._known(cluster, f"{path}.route.cluster", "cluster")
            if _says(action, _CHECKED_IN_ACTIONS):
                self._route_action(action, f"{path}.route", validate_clusters)
        if (match is not None and match.get("path_match_policy") is not None) or (
            action is not None and action.get("path_rewrite_policy") is not None
        ):
            self._path_policies(route, path)
        if redirect is not None:
            self._regex(_at(redirect, "regex_rewrite", "pattern"), f"{path}.redirect.regex_rewrite.pattern")

    def _path_policies(self, route: Node, path: str) -> None:
        """URI templates: the rewriter needs the matcher, and its variables; a prefix needs a prefix that was matched."""
        policy = _at(route, "match", "path_match_policy")
        if policy is not None:
            for action, message in (
                ("route", "cannot use prefix_rewrite with matcher extension"),
                ("redirect", "cannot use redirect.prefix_rewrite with path_match_policy"),
            ):
                prefix = _at(route, action, "prefix_rewrite")
                if prefix is not None and prefix.value:
                    self._error(prefix, f"{path}.{action}.prefix_rewrite", message)
        rewriter = _at(route, "route", "path_rewrite_policy")
        if rewriter is None:
            return
        where = f"{path}.route.path_rewrite_policy"
        template = _at(policy, "typed_config", "path_template")
        rewrite = _at(rewriter, "typed_config", "path_template_rewrite")
        if template is None or rewrite is None:
            if _message_of(rewriter.get("typed_config")) == _URI_TEMPLATE_REWRITE:
                self._error(
                    rewriter,
                    where,
                    "unable to use envoy.path.rewrite.uri_template.uri_template_rewriter extension without "
                    "envoy.path.match.uri_template.uri_template_matcher extension",
                )
        elif uri_template.lacks_variables(str(template.value), str(rewrite.value)):
            self._error(
                rewrite,
                f"{where}.typed_config.path_template_rewrite",
                f"mismatch between variables in path_match_policy {template.value} and "
                f"path_rewrite_policy {rewrite.value}",
            )

    def _route_match(self, match: Node, path: str) -> None:
        self._regex(match.get("safe_regex"), f"{path}.safe_regex")
        for where, header in _items(match, "headers", path):
            self._regex(header.get("safe_regex_match"), f"{where}.safe_regex_match")
            self._string_matcher(header.get("string_match"), f"{where}.string_match")
        for where, parameter in _items(match, "query_parameters", path):
            self._string_matcher(parameter.get("string_match"), f"{where}.string_match")

    def _string_matcher(self, matcher: Node | None, path: str) -> None:
        if matcher is None:
            return
        self._regex(matcher.get("safe_regex"), f"{path}.safe_regex")
        ignore_case = matcher.get("ignore_case")
        if ignore_case is not None and ignore_case.value and matcher.get("safe_regex") is not None:
            self._error(ignore_case, f"{path}.ignore_case", "has no effect with safe_regex", "(?i) at its start has")

    def _regex(self, matcher: Node | None, path: str) -> None:
        pattern = matcher.get("regex") if matcher is not None else None
        wrong = regex_error(str(pattern.value)) if pattern is not None else None
        if pattern is not None and wrong is not None:
            self._error(pattern, f"{path}.regex", f"not a regular expression: {wrong}", "RE2 syntax")

    def _route_action(self, action: Node, path: str, validate_clusters: bool) -> None:
        weighted = action.get("weighted_clusters")
        if weighted is not None:
            for where, name in self._weighted_clusters(weighted, f"{path}.weighted_clusters"):
                if validate_clusters:
                    self._known(name, where, "weighted cluster")
        self._mirrors(action, path, validate_clusters)
        rewrites = [name for name in _REWRITES if _set(action, name)]
        if len(rewrites) > 1:
            second = action.get(rewrites[1])
            assert second is not None
            self._error(second, f"{path}.{rewrites[1]}", f"excludes {rewrites[0]}")
        self._regex(_at(action, "regex_rewrite", "pattern"), f"{path}.regex_rewrite.pattern")
        self._regex(_at(action, "host_rewrite_path_regex", "pattern"), f"{path}.host_rewrite_path_regex.pattern")
        self._upgrades(action, path)

    def _known(self, name: Node | None, where: str, what: str) -> None:
        if name is not None and name.value and name.value not in self._clusters:
            hint = _did_you_mean(str(name.value), self._clusters)
            self._error(name, where, f'unknown {what} "{name.value}"', hint)

    def _mirrors(self, owner: Node, path: str, validate_clusters: bool) -> None:
        """``request_mirror_policies``, on all three levels."""
        for where, mirror in _items(owner, "request_mirror_policies", path):
            if _set(mirror, "cluster") and _set(mirror, "cluster_header"):
                self._error(mirror, where, "only one of cluster and cluster_header can be specified")
            elif not _set(mirror, "cluster") and not _set(mirror, "cluster_header"):
                self._error(mirror, where, "exactly one of cluster and cluster_header needs to be specified")
            if validate_clusters:
                self._known(mirror.get("cluster"), f"{where}.cluster", "shadow cluster")

    def _weighted_clusters(self, weighted: Node, path: str) -> list[tuple[str, Node | None]]:
        names: list[tuple[str, Node | None]] = []
        total = 0
        for where, cluster in _items(weighted, "clusters", path):
            if _set(cluster, "name") and _set(cluster, "cluster_header"):
                self._error(cluster, where, "only one of name and cluster_header can be specified")
            elif not _set(cluster, "name") and not _set(cluster, "cluster_header"):
                self._error(cluster, where, "one of name and cluster_header needs to be specified")
            names.append((f"{where}.name", cluster.get("name")))
            weight = cluster.get("weight")
            if weight is None:
                self._error(cluster, where, "weight is missing")
            else:
                total += int(weight.value or 0)
            self._header_mutations(cluster, where)
        if total > _MAX_UINT32:
            self._error(weighted, path, f"the sum of the weights exceeds {_MAX_UINT32}")
        if total == 0 and not any(problem.path.startswith(path) for problem in self._problems):
            self._error(weighted, path, "the sum of the weights must be greater than 0")
        return names

    def _header_mutations(self, node: Node, path: str) -> None:
        for side in ("request", "response"):
            self._header_options(node, f"{side}_headers_to_add", path)
            for where, name in _items(node, f"{side}_headers_to_remove", path):
                if _is_pseudo(str(name.value)):
                    self._error(name, where, ":-prefixed or host headers may not be removed")

    def _header_options(self, node: Node, field: str, path: str) -> None:
        for where, option in _items(node, field, path):
            key = _at(option, "header", "key")
            if key is not None and _is_pseudo(str(key.value)):
                self._error(
                    key,
                    f"{where}.header.key",
                    ":-prefixed or host headers may not be modified",
                    "host_rewrite_literal changes the host, prefix_rewrite the path",
                )
            append, action = option.get("append"), option.get("append_action")
            if append is not None and action is not None and action.value != "APPEND_IF_EXISTS_OR_ADD":
                self._error(append, f"{where}.append", "excludes append_action")


cluster_type_by_name: Final = {
    "envoy.cluster.static": "STATIC",
    "envoy.cluster.strict_dns": "STRICT_DNS",
    "envoy.cluster.logical_dns": "LOGICAL_DNS",
    "envoy.cluster.eds": "EDS",
    "envoy.cluster.original_dst": "ORIGINAL_DST",
}
"""Cluster types that Envoy knows by name, without a typed_config."""


def regex_error(pattern: str) -> str | None:
    """What is wrong with ``pattern`` as RE2 (where google-re2 is installed) or as ``re``; None when nothing is."""
    if _re2 is None:
        try:
            re.compile(pattern)
        except re.error as error:
            return str(error)
        return None
    options = _re2.Options()
    options.log_errors = False
    try:
        _re2.compile(pattern, options)
    except _re2.error as error:
        text = error.args[0] if error.args else ""
        return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return None


def _import_re2() -> Any:
    try:
        return importlib.import_module("re2")
    except ImportError:
        return None


_re2: Any = _import_re2()


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f'did you mean "{close[0]}"?' if close else ""


def _at(node: Node | None, *names: str) -> Node | None:
    for name in names:
        if node is None:
            return None
        node = node.get(name)
    return node


def _values(node: Node | None) -> list[Node]:
    """The values of a map."""
    return [entry.value for entry in node.entries] if node is not None and node.kind == "map" else []


def _says(node: Node, names: frozenset[str]) -> bool:
    """Whether one of the fields is there."""
    return not names.isdisjoint([entry.key for entry in node.entries])


def _set(node: Node, name: str) -> bool:
    """Whether a field is there and is not its type's zero value."""
    value = node.get(name)
    return value is not None and (value.kind != "scalar" or bool(value.value))


def _items(node: Node | None, name: str, path: str) -> Iterator[tuple[str, Node]]:
    """(path, item) of a repeated field."""
    items = node.get(name) if node is not None else None
    if items is not None and items.kind == "seq":
        where = f"{path}.{name}" if path else name
        for index, item in enumerate(items.items):
            yield f"{where}[{index}]", item


def _endpoints(assignment: Node | None, path: str) -> Iterator[tuple[str, Node]]:
    """(path, Endpoint) of a load assignment; an ``lb_endpoint`` without an endpoint stands for an empty one."""
    for locality_path, locality in _items(assignment, "endpoints", path):
        for where, lb_endpoint in _items(locality, "lb_endpoints", locality_path):
            if lb_endpoint.get("endpoint_name") is None:
                yield f"{where}.endpoint", lb_endpoint.get("endpoint") or Node.map(lb_endpoint.mark)


@cache
def _passing(category: str, terminal: frozenset[str]) -> frozenset[str]:
    """The filters of the registry that are known not to be terminal; of any other, nobody can tell."""
    known = {extension.v3 for (kind, _), extension in registry.extensions().items() if kind == category}
    return frozenset(known - terminal - _MAY_BE_TERMINAL)


def _message_of(typed: Node | None) -> str:
    url = typed.get("@type") if typed is not None else None
    return (registry.message_name(str(url.value)) or "") if url is not None else ""


def _is_ip(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, text)
    except OSError:
        try:
            ipaddress.IPv6Address(text)
        except ValueError:
            return False
    return True


def _address_text(address: Node) -> str | None:
    """The address as Envoy compares it; None for one that may be there twice (port 0)."""
    pipe = _at(address, "pipe", "path")
    if pipe is not None:
        return str(pipe.value)
    host, port = _at(address, "socket_address", "address"), _at(address, "socket_address", "port_value")
    if host is None or port is None or port.value == 0:
        return None
    protocol = _at(address, "socket_address", "protocol")
    suffix = " (UDP)" if protocol is not None and protocol.value == "UDP" else ""
    namespace = _at(address, "socket_address", "network_namespace_filepath")
    if namespace is not None and namespace.value:
        suffix += f" in {namespace.value}"
    text = str(host.value)
    return f"[{text}]:{port.value}{suffix}" if ":" in text else f"{text}:{port.value}{suffix}"


def _is_pseudo(name: str) -> bool:
    return name.startswith(":") or name.lower() == "host"


def _combinations(match: Node) -> Iterator[tuple[str, ...]]:
    """Every combination of the values of a FilterChainMatch; what is not given stands as "" (any)."""
    lists = [
        [_scalar_text(match, "destination_port")],
        _ranges(match, "prefix_ranges"),
        [str(item.value).lower() for _, item in _items(match, "server_names", "")] or [""],
        [_scalar_text(match, "transport_protocol")],
        [str(item.value) for _, item in _items(match, "application_protocols", "")] or [""],
        _ranges(match, "direct_source_prefix_ranges"),
        [_scalar_text(match, "source_type").replace("ANY", "")],
        _ranges(match, "source_prefix_ranges"),
        [str(item.value) for _, item in _items(match, "source_ports", "")] or [""],
    ]
    return itertools.product(*lists)


def _scalar_text(node: Node, name: str) -> str:
    value = node.get(name)
    return "" if value is None else str(value.value)


def _ranges(match: Node, name: str) -> list[str]:
    texts = []
    for _, item in _items(match, name, ""):
        length = item.get("prefix_len")
        address = _scalar_text(item, "address_prefix")
        try:
            network = ipaddress.ip_network(f"{address}/{length.value if length is not None else 0}", strict=False)
        except ValueError:
            texts.append(f"{address}/{length.value if length is not None else 0}")
        else:
            texts.append(str(network))
    return texts or [""]
