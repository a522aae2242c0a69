"""The supervisor as the admin pages see it (admin/context.py), and the socket they are served on."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from forkproxy import __version__, log
from forkproxy.admin import context
from forkproxy.admin.certificates import certificates_of
from forkproxy.admin.context import (
    AdminAccess,
    CertificatesView,
    ClusterView,
    EndpointView,
    ListenerView,
    MemoryView,
    OutlierView,
    WorkerView,
)
from forkproxy.admin.figures import AdminFigures
from forkproxy.admin.server import AdminServer
from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.config.build.core import AddressConfig
from forkproxy.net import address as addresses
from forkproxy.net.address import SocketAddress, normalise
from forkproxy.net.loop import Loop
from forkproxy.net.sockets import listening_socket
from forkproxy.stats import slab as cells
from forkproxy.stats.counters import Registry, Snapshot
from forkproxy.stats.groups import EndpointStats
from forkproxy.stats.tags import TagExtractor
from forkproxy.supervisor.figures import memory_of, memory_of_one
from forkproxy.supervisor.inheritance import Likeness, are_alike, likeness, listening_socket_of, remove_path
from forkproxy.supervisor.listening import refusal, socket_address
from forkproxy.upstream import health
from forkproxy.upstream.cluster import Cluster
from forkproxy.upstream.endpoint import Endpoint
from forkproxy.upstream.health_check.checker import checked_address
from forkproxy.upstream.outlier_detection import Detector
from forkproxy.worker import statistics

if TYPE_CHECKING:
    from forkproxy.supervisor.supervisor import Supervisor

ADMIN_BACKLOG = 128
MEMORY_AGE_S = 1.0
"""So old the memory in /stats may be: finding it out is a walk over all pages of all processes."""

_log = log.get_logger("admin")


class SupervisorContext:
    """Implements AdminContext; every method reads the supervisor or leaves an intention with it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.config_loaded_at = datetime.now(UTC)
        self._certificates_of: BootstrapConfig | None = None
        self._first_end: datetime | None = None
        self._memory = MemoryView(0, 0, 0)
        self._memory_at = -inf

    # What is

    def has_too_many_connections(self) -> bool:
        """The global limit of connections is reached, and the admin keeps it."""
        run = self._supervisor.generations.running
        return not run.bootstrap.admin.ignore_global_conn_limit and run.generation.has_too_many_connections()

    @property
    def bootstrap(self) -> BootstrapConfig:
        """The configuration in force."""
        return self._supervisor.generations.running.bootstrap

    @property
    def registry(self) -> Registry:
        """All statistics."""
        return self._supervisor.registry

    @property
    def last_refusal(self) -> tuple[str, datetime] | None:
        """Why and when the last reload was refused."""
        reloads = self._supervisor.reloads
        return (reloads.last_refusal, reloads.refused_at) if reloads.last_refusal else None

    @property
    def state(self) -> str:
        """Envoy's word for the supervisor's phase."""
        phase = self._supervisor.phase
        if phase == "starting":
            return context.INITIALIZING
        # Drained listeners leave it LIVE, as in Envoy: who wants requests to go elsewhere first fails the health check.
        if phase == "stopping" or self._supervisor.generations.fails_health_check:
            return context.DRAINING
        return context.LIVE

    @property
    def uptime_s(self) -> float:
        """Seconds since the supervisor started."""
        return monotonic() - self._supervisor.started_at

    @property
    def version(self) -> str:
        """As /server_info shows it."""
        return f"forkproxy/{__version__}"

    @property
    def command_line_options(self) -> Mapping[str, object]:
        """What the command line said."""
        return self._supervisor.options.command_line

    def refresh(self, done: Callable[[], None]) -> None:
        """Have the workers flush."""
        self._supervisor.fleet.refresh(done)

    def snapshot(self) -> Snapshot:
        """All statistics."""
        supervisor = self._supervisor
        workers = supervisor.fleet.workers()
        supervisor.figures.update(
            state=self.state,
            uptime_s=self.uptime_s,
            workers=[slot.number for slot in supervisor.fleet.lasting_slots()],
            connections=sum(worker.connections for worker in workers),
            version=self.bootstrap.server_version or 0,
        )
        snapshot = supervisor.registry.read(supervisor.slabs())
        for cluster in supervisor.generations.running.generation.clusters.values():
            if cluster.config.type != "STATIC":
                name_by_address(snapshot.hidden, cluster)
        return snapshot

    def before_statistics(self) -> None:
        """Ends the interval where ``stats_flush_on_admin`` says so."""
        now = monotonic()
        if now - self._memory_at >= MEMORY_AGE_S:
            self._memory, self._memory_at = self.memory(), now
        memory = self._memory
        self._supervisor.figures.update_rare(
            allocated=memory.allocated,
            heap_size=memory.heap_size,
            physical_size=memory.total_physical_bytes,
            first_certificate_ends=self._first_certificate_ends(),
        )
        if self.bootstrap.stats_flush_on_admin:
            self._supervisor.registry.end_interval(self._supervisor.slabs())

    def _first_certificate_ends(self) -> datetime | None:
        bootstrap = self.bootstrap
        if self._certificates_of is not bootstrap:
            self._certificates_of = bootstrap
            contexts = self.certificates() or ()
            ends = [each.expiration_time for tls in contexts for each in (*tls.authorities, *tls.chain)]
            self._first_end = min(ends, default=None)
        return self._first_end

    def tag_extractor(self) -> TagExtractor:
        """Made anew each time: Prometheus asks seldom, and the rules need more memory than it is worth to keep them."""
        return statistics.tag_extractor(self.bootstrap.stats)

    def histogram_buckets(self) -> Callable[[str], Sequence[float]]:
        """By the configuration in force."""
        return statistics.buckets_of(self.bootstrap.stats)

    def clusters(self) -> Sequence[ClusterView]:
        """Clusters with the endpoints they have now."""
        live = self._supervisor.generations.running.generation.clusters
        detectors = self._supervisor.outliers.detectors
        return [
            ClusterView(
                name=cluster.name,
                stat_name=cluster.stat_name,
                endpoints=endpoint_views(live[cluster.name], detectors.get(cluster.name)),
                default_thresholds=cluster.circuit_breakers.default,
                high_thresholds=cluster.circuit_breakers.high,
                outliers=outlier_view(detectors.get(cluster.name)),
                eds_service_name=cluster.eds.service_name if cluster.eds is not None else "",
            )
            for cluster in self.bootstrap.clusters
        ]

    def listeners(self) -> Sequence[ListenerView]:
        """Listeners with the addresses they really have."""
        supervisor = self._supervisor
        bound: dict[str, list[AddressConfig]] = {}
        for (name, _index), binding in supervisor.generations.running.bindings.items():
            bound.setdefault(name, []).append(supervisor.fleet.sockets.bound_address(binding))
        return [ListenerView(name, first, tuple(more)) for name, (first, *more) in bound.items()]

    def workers(self) -> Sequence[WorkerView]:
        """All worker processes."""
        now = monotonic()
        return [
            WorkerView(
                slot=worker.slot.number,
                pid=worker.pid,
                cpu=worker.slot.cpu,
                generation=worker.run.number,
                state=worker.state if worker.state != "hung" else "stopped",
                connections=worker.connections,
                accepted=int(worker.slab.cells[cells.ACCEPTED]),
                requests=int(worker.slab.cells[cells.REQUESTS]),
                uptime_s=now - worker.started_at,
                heartbeat_age_s=worker.heartbeat_age_s(),
                requests_per_s=worker.requests_per_s,
                memory_bytes=memory_of_one(worker.pid),
            )
            for worker in self._supervisor.fleet.workers()
        ]

    def certificates(self) -> Sequence[CertificatesView] | None:
        """Of all TLS contexts."""
        return certificates_of(self.bootstrap.listeners, self.bootstrap.clusters)

    def memory(self) -> MemoryView:
        """Of the supervisor and all workers."""
        pids = [os.getpid(), *(worker.pid for worker in self._supervisor.fleet.workers())]
        anonymous, proportional = memory_of(pids)
        return MemoryView(allocated=anonymous, heap_size=anonymous, total_physical_bytes=proportional)

    def log_levels(self) -> Mapping[str, str]:
        """By component."""
        return log.levels()

    # What can be done

    def set_log_level(self, logger: str | None, level: str) -> None:
        """Here and in all workers."""
        log.set_level(level, logger or "")
        self._supervisor.fleet.tell({"op": "log_level", "level": level, "component": logger or ""})

    def fail_health_check(self) -> None:
        """From now on /ready says DRAINING, and responses ask their clients to close."""
        self._supervisor.set_health_check(failed=True)

    def pass_health_check(self) -> None:
        """/ready tells the truth again."""
        self._supervisor.set_health_check(failed=False)

    def reset_counters(self) -> None:
        """Counters start again from zero."""
        self._supervisor.registry.reset_counters(self._supervisor.slabs())

    def reopen_logs(self) -> None:
        """As SIGUSR1 does."""
        self._supervisor.want("reopen_logs")

    def drain_listeners(self, *, graceful: bool, skip_exit: bool, inbound_only: bool) -> None:
        """Stop accepting, now or after the drain time."""
        self._supervisor.draining.request(graceful=graceful, skip_exit=skip_exit, inbound_only=inbound_only)

    def quit(self) -> None:
        """As SIGTERM does."""
        self._supervisor.want("stop")

    def log_access(self, access: AdminAccess) -> None:
        """One line in the admin's access logs."""
        self._supervisor.admin_log.write(access)


class AdminService:
    """The admin address, bound and served; may move on a reload."""

    def __init__(self, loop: Loop, supervisor_context: SupervisorContext) -> None:
        self._loop = loop
        self._context = supervisor_context
        self._sock: socket.socket | None = None
        self._server: AdminServer | None = None
        self._address: AddressConfig | None = None
        self._inherited: tuple[Likeness, socket.socket] | None = None

    def inherit(self, inherited: tuple[Likeness, int] | None) -> None:
        """A predecessor's address and socket, for ``bind`` to use."""
        if inherited is not None:
            self._inherited = inherited[0], listening_socket_of(inherited[1])

    def inheritance(self) -> tuple[Likeness, int] | None:
        """Address and descriptor for a successor."""
        if self._sock is None or self._address is None:
            return None
        return likeness(self._address), self._sock.fileno()

    def bind(self, address: AddressConfig | None) -> socket.socket | None:
        """A socket for ``address``; None when it is the present one. CannotBind when it cannot be had."""
        if address == self._address or address is None:
            return None
        if self._inherited is not None and are_alike(self._inherited[0], likeness(address)):
            sock, self._inherited = self._inherited[1], None
            return sock
        try:
            return listening_socket(
                socket_address(address),
                backlog=ADMIN_BACKLOG,
                reuse_port=False,
                ipv4_compat=address.ipv4_compat,
                pipe_mode=address.pipe_mode,
            )
        except OSError as error:
            raise refusal(address, error, whose="admin") from None

    def serve(self, address: AddressConfig | None, sock: socket.socket | None, address_path: str = "") -> None:
        """Serve on what ``bind`` returned for ``address``."""
        if sock is None and address == self._address:
            return
        self.stop()
        self._address = address
        if sock is None:
            return
        self._sock = sock
        figures = AdminFigures(self._context.registry)
        refuses = self._context.has_too_many_connections
        self._server = AdminServer(self._loop, self._context, [sock], refuses, figures)
        self._server.start()
        shown = _text(address, sock)
        _log.info("admin", address=shown)
        if address_path:
            try:
                Path(address_path).write_text(shown)
            except OSError as error:
                _log.error("the admin's address cannot be written", path=address_path, reason=error.strerror)

    def close_unused(self) -> None:
        """The predecessor's address is not used any more."""
        if self._inherited is not None:
            likeness_of_it, sock = self._inherited
            self._inherited = None
            sock.close()
            path = likeness_of_it.get("pipe_path", "")
            if path and not path.startswith("@"):
                remove_path(path)

    def leave(self) -> None:
        """The address is another's: answer what has been asked, and leave the path alone."""
        self._address = None
        self.stop()

    def stop(self) -> None:
        """Answer what has been asked, and close."""
        if self._server is not None and self._sock is not None:
            self._server.stop()
            self._loop.close_later(self._sock)
            path = self._address.pipe_path if self._address is not None else ""
            if path and not path.startswith("@"):
                Path(path).unlink(missing_ok=True)
        self._server = self._sock = self._address = None


def _text(address: AddressConfig | None, sock: socket.socket) -> str:
    name = normalise(sock.getsockname())
    if isinstance(name, tuple):
        return str(AddressConfig(host=name[0], port=name[1]))
    return str(address)


def name_by_address(hidden: dict[str, int], cluster: Cluster) -> None:
    """Add the figures of a DNS cluster's endpoints under their addresses: they are counted by slot, since no address was known
    when the cells were laid out."""
    prefix = f"cluster.{cluster.stat_name}.endpoint."
    for endpoint, slot in cluster.endpoint_slots():
        address = addresses.text(endpoint.socket_address)
        for field in EndpointStats.fields:
            hidden[f"{prefix}{address}.{field}"] = hidden.get(f"{prefix}slot_{slot}.{field}", 0)


def outlier_view(detector: Detector | None) -> OutlierView | None:
    """What outlier detection knows of a cluster as a whole."""
    if detector is None:
        return None
    external, local = detector.external, detector.local
    return OutlierView(external.mean, external.threshold, local.mean, local.threshold)


def endpoint_views(cluster: Cluster, detector: Detector | None = None) -> tuple[EndpointView, ...]:
    """A cluster's endpoints as they are now: of the file, of DNS, of EDS."""
    records = detector.records if detector is not None else {}
    rates = {address: (record.external.rate, record.local.rate) for address, record in records.items()}
    return tuple(
        EndpointView(
            address=_address_config(endpoint.socket_address),
            hostname=endpoint.hostname,
            weight=endpoint.weight,
            health_flags=health.names(endpoint.health_flags),
            region=endpoint.config.region,
            zone=endpoint.config.zone,
            sub_zone=endpoint.config.sub_zone,
            priority=endpoint.config.priority,
            success_rate=rates.get(endpoint.address, (-1.0, -1.0))[0],
            local_success_rate=rates.get(endpoint.address, (-1.0, -1.0))[1],
            check_port=_check_port(endpoint),
            check_hostname=endpoint.config.check_hostname,
            canary=endpoint.is_canary,
        )
        for endpoint in cluster.endpoints
    )


def _check_port(endpoint: Endpoint) -> int:
    checked = checked_address(endpoint)
    return checked[1] if checked != endpoint.socket_address and isinstance(checked, tuple) else 0


def _address_config(address: SocketAddress) -> AddressConfig:
    if isinstance(address, str):
        return AddressConfig(pipe_path=addresses.text(address))
    return AddressConfig(host=address[0], port=address[1])
