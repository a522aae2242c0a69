"""Envoy bootstraps for tests, built as plain data: the same text goes to real Envoy and to forkproxy.

`{"@port": NAME}` stands where a port goes that is only known at start; `resolve` puts the numbers in.
"""

from __future__ import annotations

import copy
from typing import Any

import yaml

from tests.support import certificates

Data = dict[str, Any]

TYPE = "type.googleapis.com/"
HCM = TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = TYPE + "envoy.extensions.filters.http.router.v3.Router"
TCP_PROXY = TYPE + "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
FILE_LOG = TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog"

# One JSON object per request: every operator that tells what happened, none that tells when or from which port.
LOG_FIELDS = {
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "protocol": "%PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "transport": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "termination": "%CONNECTION_TERMINATION_DETAILS%",
    "rx": "%BYTES_RECEIVED%",
    "tx": "%BYTES_SENT%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "upstream": "%UPSTREAM_HOST%",
    "route": "%ROUTE_NAME%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
}


def port(name: str) -> Data:
    """A socket address on 127.0.0.1 whose port is chosen at start."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": {"@port": name}}}


def file_log(json_format: Data | None = None, text: str | None = None, path: str = "access.log") -> list[Data]:
    """An access log in the proxy's directory; Envoy's default format without arguments."""
    config: Data = {"@type": FILE_LOG, "path": f"@DIR@/{path}"}
    if json_format is not None:
        config["log_format"] = {"json_format": json_format}
    if text is not None:
        config["log_format"] = {"text_format_source": {"inline_string": text}}
    return [{"name": "envoy.access_loggers.file", "typed_config": config}]


def cluster(name: str, *port_names: str, **more: Any) -> Data:
    """A STATIC cluster of endpoints on 127.0.0.1."""
    return {
        "name": name,
        "connect_timeout": "0.5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": port(p)}} for p in port_names]}],
        },
        **more,
    }


def hcm(route_config: Data, **more: Any) -> Data:
    """An http_connection_manager network filter with the router."""
    filters = more.pop("http_filters", [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}])
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": HCM,
            "stat_prefix": "ingress",
            "route_config": route_config,
            "access_log": file_log(LOG_FIELDS),
            "delayed_close_timeout": "0.05s",
            **more,
            "http_filters": filters,
        },
    }


def tcp_proxy(cluster_name: str, **more: Any) -> Data:
    """A tcp_proxy network filter."""
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {"@type": TCP_PROXY, "stat_prefix": "tcp", "cluster": cluster_name, **more},
    }


def vhost(*routes: Data, name: str = "all", domains: tuple[str, ...] = ("*",), **more: Any) -> Data:
    """A virtual host."""
    return {"name": name, "domains": list(domains), "routes": list(routes), **more}


def route(
    prefix: str, cluster_name: str = "up", *, match: Data | None = None, action: Data | None = None, **more: Any
) -> Data:
    """A route by prefix to a cluster."""
    return {"match": match or {"prefix": prefix}, "route": {"cluster": cluster_name, **(action or {})}, **more}


def bootstrap(
    filters: list[Data], clusters: list[Data], *, more_listeners: list[Data] | None = None, **more: Any
) -> Data:
    """A bootstrap with one listener on port `main` and the admin on port `admin`."""
    return {
        "admin": {"address": port("admin")},
        "static_resources": {
            "listeners": [
                {"name": "main", "address": port("main"), "filter_chains": [{"filters": filters}]},
                *(more_listeners or []),
            ],
            "clusters": clusters,
        },
        **more,
    }


def tls_downstream(*names: str) -> Data:
    """A transport socket that serves these certificates of tests.support.certificates, without names `good`."""
    certificates = [
        {
            "certificate_chain": {"filename": f"@CERTIFICATES@/{name}.pem"},
            "private_key": {"filename": f"@CERTIFICATES@/{name}-key.pem"},
        }
        for name in names or ("good",)
    ]
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificates": certificates},
        },
    }


def tls_upstream(authority: str | None = None, *, sni: str = "", names: tuple[str, ...] = ()) -> Data:
    """A transport socket to an upstream; with `authority`, its certificate is validated, with `names` also its names."""
    context: Data = {"@type": TYPE + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}
    if sni:
        context["sni"] = sni
    if authority:
        validation: Data = {"trusted_ca": {"filename": f"@CERTIFICATES@/{authority}.pem"}}
        if names:
            validation["match_typed_subject_alt_names"] = [
                {"san_type": "DNS", "matcher": {"exact": name}} for name in names
            ]
        context["common_tls_context"] = {"validation_context": validation}
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context}}


def port_names(data: Any) -> set[str]:
    """The names of all ports that `data` refers to."""
    if isinstance(data, dict):
        if "@port" in data:
            return {data["@port"]}
        return set().union(*(port_names(value) for value in data.values()))
    if isinstance(data, list):
        return set().union(*(port_names(value) for value in data))
    return set()


def resolve(data: Any, ports: dict[str, int]) -> Any:
    """A copy of `data` with numbers for port names."""
    if isinstance(data, dict):
        if "@port" in data:
            return ports[data["@port"]]
        return {key: resolve(value, ports) for key, value in data.items()}
    if isinstance(data, list):
        return [resolve(value, ports) for value in data]
    return copy.copy(data)


def render(data: Data, ports: dict[str, int]) -> str:
    """The YAML text of a bootstrap."""
    # libyaml writes a file of 10,000 routes in a tenth of the time, where PyYAML was built with it.
    text = yaml.dump(resolve(data, ports), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
    return text.replace("@CERTIFICATES@", str(certificates.directory())) if "@CERTIFICATES@" in text else text
