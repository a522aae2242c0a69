"""What several admin pages write: addresses, clusters, listeners, certificates, as text lines and as Envoy's JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from forkproxy.admin.context import (
    CertificatesView,
    CertificateView,
    ClusterView,
    EndpointView,
    ListenerView,
    OutlierView,
    WorkerView,
)
from forkproxy.config.build.circuit_breakers import Thresholds
from forkproxy.config.build.core import AddressConfig
from forkproxy.stats.groups import EndpointStats

Json: TypeAlias = dict[str, object]

_ENDPOINT_COUNTERS = sorted(EndpointStats.layout.counters)
_ENDPOINT_GAUGES = sorted(EndpointStats.layout.gauges)

# /clusters names a failed check one way in its text and another in its JSON (HostHealthStatus in admin/v3/clusters.proto).
_HEALTH_FIELDS = {
    "/failed_active_hc": "failed_active_health_check",
    "/failed_outlier_check": "failed_outlier_check",
    "/degraded_active_hc": "failed_active_degraded_check",
    "/pending_dynamic_removal": "pending_dynamic_removal",
    "/pending_active_hc": "pending_active_hc",
    "/excluded_via_immediate_hc_fail": "excluded_via_immediate_hc_fail",
    "/active_hc_timeout": "active_hc_timeout",
}


def address_json(address: AddressConfig) -> Json:
    """An ``config.core.v3.Address``."""
    if address.pipe_path:
        return {"pipe": {"path": address.pipe_path}}
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def endpoint_figures(cluster: ClusterView, endpoint: EndpointView, hidden: Mapping[str, int]) -> dict[str, int]:
    """The endpoint's figures by their short names, all zero before the first connection."""
    prefix = f"cluster.{cluster.stat_name}.endpoint.{endpoint.address}."
    return {name: hidden.get(prefix + name, 0) for name in (*_ENDPOINT_COUNTERS, *_ENDPOINT_GAUGES)}


def clusters_text(clusters: Iterable[ClusterView], hidden: Mapping[str, int]) -> str:
    """/clusters as ``cluster::key::value`` lines."""
    lines: list[str] = []
    for cluster in clusters:
        name = cluster.name
        lines.append(
            f"{name}::observability_name::{cluster.stat_name if cluster.stat_name != _stat_name(name) else name}"
        )
        lines += _outlier_lines(name, cluster.outliers)
        for priority, limits in (("default", cluster.default_thresholds), ("high", cluster.high_thresholds)):
            lines += [f"{name}::{priority}_priority::{key}::{value}" for key, value in _thresholds(limits).items()]
        lines.append(f"{name}::added_via_api::false")
        if cluster.eds_service_name:
            lines.append(f"{name}::eds_service_name::{cluster.eds_service_name}")
        for endpoint in cluster.endpoints:
            figures = endpoint_figures(cluster, endpoint, hidden)
            shown: list[tuple[str, object]] = sorted(figures.items())
            shown += [
                ("hostname", endpoint.hostname),
                ("health_flags", "".join(endpoint.health_flags) or "healthy"),
                ("weight", endpoint.weight),
                ("region", endpoint.region),
                ("zone", endpoint.zone),
                ("sub_zone", endpoint.sub_zone),
                ("canary", str(endpoint.canary).lower()),
                ("priority", endpoint.priority),
                ("success_rate", _number(endpoint.success_rate)),
                ("local_origin_success_rate", _number(endpoint.local_success_rate)),
            ]
            lines += [f"{name}::{endpoint.address}::{key}::{value}" for key, value in shown]
    return "".join(line + "\n" for line in lines)


def _outlier_lines(name: str, outliers: OutlierView | None) -> list[str]:
    if outliers is None:
        return []
    figures = (
        ("success_rate_average", outliers.mean),
        ("success_rate_ejection_threshold", outliers.threshold),
        ("local_origin_success_rate_average", outliers.local_mean),
        ("local_origin_success_rate_ejection_threshold", outliers.local_threshold),
    )
    return [f"{name}::outlier::{key}::{_number(value)}" for key, value in figures]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _outlier_json(outliers: OutlierView | None) -> Json:
    # As in Envoy a threshold that is not above zero is left out.
    found: Json = {}
    if outliers is not None and outliers.threshold > 0:
        found["success_rate_ejection_threshold"] = _percent(outliers.threshold)
    if outliers is not None and outliers.local_threshold > 0:
        found["local_origin_success_rate_ejection_threshold"] = _percent(outliers.local_threshold)
    return found


def _percent(value: float) -> Json:
    return {"value": int(value) if value == int(value) else value} if value else {}


def _stat_name(name: str) -> str:
    return name.replace(":", "_")


def _thresholds(limits: Thresholds) -> dict[str, int]:
    return {
        "max_connections": limits.max_connections,
        "max_pending_requests": limits.max_pending_requests,
        "max_requests": limits.max_requests,
        "max_retries": limits.max_retries,
    }


def clusters_json(clusters: Iterable[ClusterView], hidden: Mapping[str, int]) -> Json:
    """/clusters?format=json: ``admin.v3.Clusters``. As in protobuf's JSON, what is zero is left out."""
    return {
        "cluster_statuses": [
            _filled(
                {
                    "name": cluster.name,
                    **_outlier_json(cluster.outliers),
                    "host_statuses": [_endpoint_json(cluster, endpoint, hidden) for endpoint in cluster.endpoints],
                    "circuit_breakers": {
                        "thresholds": [
                            _thresholds(cluster.default_thresholds),
                            {"priority": "HIGH", **_thresholds(cluster.high_thresholds)},
                        ]
                    },
                    "observability_name": (
                        cluster.stat_name if cluster.stat_name != _stat_name(cluster.name) else cluster.name
                    ),
                    **({"eds_service_name": cluster.eds_service_name} if cluster.eds_service_name else {}),
                }
            )
            for cluster in clusters
        ]
    }


def _endpoint_json(cluster: ClusterView, endpoint: EndpointView, hidden: Mapping[str, int]) -> Json:
    figures = endpoint_figures(cluster, endpoint, hidden)
    counters = [_filled({"value": _text(figures[name]), "name": name}) for name in _ENDPOINT_COUNTERS]
    gauges = [_filled({"type": "GAUGE", "value": _text(figures[name]), "name": name}) for name in _ENDPOINT_GAUGES]
    health: Json = {_HEALTH_FIELDS[flag]: True for flag in endpoint.health_flags if flag in _HEALTH_FIELDS}
    health["eds_health_status"] = _eds_health(endpoint.health_flags)
    status = _filled(
        {
            "address": address_json(endpoint.address),
            "stats": [*counters, *gauges],
            **({"success_rate": _percent(endpoint.success_rate)} if endpoint.success_rate >= 0 else {}),
            "health_status": health,
            "weight": endpoint.weight,
            "hostname": endpoint.hostname,
        }
    )
    status["locality"] = _filled({"region": endpoint.region, "zone": endpoint.zone, "sub_zone": endpoint.sub_zone})
    if endpoint.priority:
        status["priority"] = endpoint.priority
    if endpoint.local_success_rate >= 0:
        status["local_origin_success_rate"] = _percent(endpoint.local_success_rate)
    return status


def _eds_health(flags: Sequence[str]) -> str:
    if "/failed_eds_health" in flags:
        return "UNHEALTHY"
    if "/eds_status_draining" in flags:
        return "DRAINING"
    return "DEGRADED" if "/degraded_eds_health" in flags else "HEALTHY"


def _text(value: int) -> str:
    # 64-bit numbers are strings in protobuf's JSON.
    return str(value) if value else ""


def _filled(message: Json) -> Json:
    return {name: value for name, value in message.items() if value not in ("", 0, [])}


def listeners_text(listeners: Iterable[ListenerView]) -> str:
    """/listeners as ``name::address`` lines."""
    return "".join(
        f"{listener.name}::{address}\n"
        for listener in listeners
        for address in (listener.address, *listener.additional_addresses)
    )


def listeners_json(listeners: Iterable[ListenerView]) -> Json:
    """/listeners?format=json: ``admin.v3.Listeners``."""
    statuses: list[Json] = []
    for listener in listeners:
        status: Json = {"name": listener.name, "local_address": address_json(listener.address)}
        if listener.additional_addresses:
            status["additional_local_addresses"] = [address_json(a) for a in listener.additional_addresses]
        statuses.append(status)
    return {"listener_statuses": statuses} if statuses else {}


def certificates_json(contexts: Iterable[CertificatesView], now: datetime | None = None) -> Json:
    """/certs: ``admin.v3.Certificates``. ``now`` is for tests."""
    moment = now or datetime.now(UTC)
    return {
        "certificates": [
            {
                "ca_cert": [_certificate(certificate, moment) for certificate in tls.authorities],
                "cert_chain": [_certificate(certificate, moment) for certificate in tls.chain],
            }
            for tls in contexts
        ]
    }


def _certificate(certificate: CertificateView, now: datetime) -> Json:
    names = [{"dns": name} for name in certificate.dns_names]
    names += [{"uri": uri} for uri in certificate.uris]
    names += [{"ip_address": ip} for ip in certificate.ip_addresses]
    return {
        "path": certificate.path or "<inline>",
        "serial_number": certificate.serial_number,
        "subject_alt_names": names,
        "days_until_expiration": str(max(0, (certificate.expiration_time - now).days)),
        "valid_from": certificate.valid_from.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "expiration_time": certificate.expiration_time.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def workers_json(workers: Iterable[WorkerView]) -> Json:
    """/workers: one object per process; times in seconds."""
    return {
        "workers": [
            {
                "slot": worker.slot,
                "pid": worker.pid,
                "cpu": worker.cpu,
                "generation": worker.generation,
                "state": worker.state,
                "connections": worker.connections,
                "accepted": worker.accepted,
                "requests": worker.requests,
                "requests_per_s": round(worker.requests_per_s, 1),
                "memory_bytes": worker.memory_bytes,
                "uptime_s": round(worker.uptime_s, 3),
                "heartbeat_age_s": round(worker.heartbeat_age_s, 3),
            }
            for worker in workers
        ]
    }
