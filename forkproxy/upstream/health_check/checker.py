"""The health checker of one cluster: a session for each endpoint that is to be checked, and what all sessions share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from forkproxy.config.build.health_check import HealthCheckConfig, HttpCheck, RedisCheck, TcpCheck
from forkproxy.net.address import SocketAddress
from forkproxy.net.connection import Connection
from forkproxy.net.loop import Loop
from forkproxy.stats.group import StatGroup
from forkproxy.stats.groups import HealthCheckStats, RedisHealthCheckStats
from forkproxy.stats.shared import CommonCell
from forkproxy.upstream.health_check.event_log import EventLog
from forkproxy.upstream.health_check.http_probe import Finalize, HttpProbe
from forkproxy.upstream.health_check.redis_probe import RedisProbe
from forkproxy.upstream.health_check.session import CHECKED_FLAGS, Probe, Session
from forkproxy.upstream.health_check.tcp_probe import TcpProbe

if TYPE_CHECKING:
    from forkproxy.upstream.cluster import Cluster
    from forkproxy.upstream.endpoint import Endpoint
    from forkproxy.upstream.transports import Transport

_TYPES = {HttpCheck: "HTTP", TcpCheck: "TCP", RedisCheck: "REDIS"}
CONNECTION_BUFFER_BYTES = 1 << 20


class HealthChecker:
    """Made in the supervisor, where it opens nothing; ``start``ed in the process that checks.

    ``groups``: what a check may count on: ``stats``, and what the transport counts.

    ``traffic``: says, over all processes and reloads, whether the cluster ever had a connection for traffic. ``sinks`` take
    event log lines. ``finalize`` and ``matches_service`` are what the configuration says of HTTP checks, compiled.
    """

    def __init__(
        self,
        cluster: Cluster,
        config: HealthCheckConfig,
        stats: HealthCheckStats,
        *,
        transport: Transport,
        traffic: CommonCell,
        sinks: Sequence[Callable[[bytes], None]] = (),
        finalize: Finalize | None = None,
        matches_service: Callable[[bytes], bool] | None = None,
        transport_stats: StatGroup | None = None,
        redis_stats: RedisHealthCheckStats | None = None,
    ) -> None:
        self.cluster = cluster
        self.config = config
        self.stats = stats
        self.redis_stats = redis_stats
        self.groups = [group for group in (stats, transport_stats, redis_stats) if group is not None]
        self.finalize = finalize
        self.matches_service = matches_service
        self.loop: Loop = None  # type: ignore[assignment]  # set by start()
        self.events = EventLog(_TYPES[type(config.check)], cluster.name, sinks, self._wall)
        self.sessions: dict[Endpoint, Session] = {}
        self._transport = transport
        self._traffic = traffic
        self._is_dirty = False
        self._report: Report | None = None
        self._waiting = 0
        self._round_told = False

    def __repr__(self) -> str:
        return f"<HealthChecker {self.cluster.name} {len(self.sessions)} endpoints>"

    def start(self, loop: Loop, report: Report, *, is_known: bool) -> None:
        """Check the endpoints that the cluster has, and those that it gets from now on.

        ``is_known``: their flags are the result of checks in an earlier process, not what every endpoint begins with.
        """
        self.loop = loop
        self._report = report
        self._round_told = is_known
        self.cluster.on_membership_change = self._on_membership_change
        self._add(self.cluster.endpoints, is_known=is_known)

    def _on_membership_change(self, _cluster: Cluster, added: list[Endpoint], removed: list[Endpoint]) -> None:
        for endpoint in removed:
            session = self.sessions.pop(endpoint, None)
            if session is not None:
                session.stop()
                if not session.is_known:
                    self._waiting -= 1
        self._add(added, is_known=False)

    def _add(self, endpoints: Sequence[Endpoint], *, is_known: bool) -> None:
        made = []
        for endpoint in endpoints:
            if endpoint.config.check_disabled:
                continue
            session = Session(self, endpoint, is_known=is_known)
            self.sessions[endpoint] = session
            made.append(session)
            if not is_known:
                self._waiting += 1
        for session in made:
            session.start()
        self.changed()
        self._tell_round()

    def _tell_round(self) -> None:
        # A DNS cluster without an answer yet has no endpoints and no round; the name is waited for elsewhere.
        if (
            not self._round_told
            and not self._waiting
            and (self.cluster.endpoints or self.cluster.config.type == "STATIC")
        ):
            self._round_told = True
            if self._report is not None:
                self._report.on_round(self)

    # -- what came in from outside

    def fail_passively(self, address: str) -> None:
        """A response from this endpoint said x-envoy-immediate-health-check-fail."""
        for session in self._sessions_at(address):
            session.fail_passively()

    def watch_ejected(self, address: str, ejected: bool) -> None:
        """Outlier detection has ejected the endpoint, or has taken it back."""
        for session in self._sessions_at(address):
            session.reports_success = ejected

    def _sessions_at(self, address: str) -> list[Session]:
        # The endpoint of a LOGICAL_DNS cluster moves: its address is not always that of the first day.
        return [session for endpoint, session in self.sessions.items() if endpoint.address == address]

    # -- what sessions say and ask

    def on_result(self, session: Session, *, changed: bool, is_first: bool) -> None:
        """A check is over."""
        self.changed()
        assert self._report is not None
        if changed:
            # Two endpoints of one address share what stands against them; the last word counts.
            self.cluster.set_health_flags(
                session.endpoint.address, set=session.flags, clear=CHECKED_FLAGS & ~session.flags
            )
            self._report.on_flags(self, session.endpoint, session.flags)
        if is_first:
            self._waiting -= 1
            self._tell_round()

    def on_passed(self, endpoint: Endpoint) -> None:
        """An endpoint that outlier detection has ejected is well."""
        assert self._report is not None
        self._report.on_passed(self, endpoint)

    def has_traffic(self) -> bool:
        """Whether the cluster ever had traffic. Envoy counts its Redis checks as such."""
        return isinstance(self.config.check, RedisCheck) or self._traffic.get() != 0

    def changed(self) -> None:
        """A figure has changed."""
        if not self._is_dirty and self._report is not None:
            self._is_dirty = True
            self._report.on_figures(self)

    def figures_written(self) -> None:
        """They are where everybody reads them."""
        self._is_dirty = False

    def make_probe(self, session: Session) -> Probe:
        """What checks the session's endpoint."""
        check = self.config.check
        if isinstance(check, HttpCheck):
            return HttpProbe(self, session, check)
        if isinstance(check, TcpCheck):
            return TcpProbe(self, session, check)
        return RedisProbe(self, session, check)

    def connect(self, endpoint: Endpoint) -> Connection:
        """Start to connect to where the endpoint is checked. OSError when it fails on the spot."""
        address = checked_address(endpoint)
        sock = self.cluster.open_socket(address)
        matcher = self.cluster.matcher
        matched = matcher.check_transport(endpoint.config, self.config.match_criteria) if matcher is not None else None
        connection = (matched or self._transport)(self.loop, sock, address, CONNECTION_BUFFER_BYTES)
        connection.start_connecting()
        return connection

    def host_of(self, endpoint: Endpoint, configured: str) -> str:
        """The Host of a check: the endpoint's own for checks, else the check's, else the cluster's name."""
        return endpoint.config.check_hostname or configured or self.cluster.name

    def _wall(self) -> float:
        return self.loop.wall()


class Report:
    """Who is told what health checkers find out. By default it goes nowhere."""

    def on_flags(self, checker: HealthChecker, endpoint: Endpoint, flags: int) -> None:
        """The flags of active health checking (CHECKED_FLAGS) that stand against an endpoint are others than before."""

    def on_round(self, checker: HealthChecker) -> None:
        """Every endpoint of the cluster has had a result."""

    def on_passed(self, checker: HealthChecker, endpoint: Endpoint) -> None:
        """An endpoint that outlier detection has ejected is well."""

    def on_figures(self, checker: HealthChecker) -> None:
        """Figures have changed; not told again before ``figures_written``."""


def checked_address(endpoint: Endpoint) -> SocketAddress:
    """Where an endpoint is checked: at its own address but for what its HealthCheckConfig says otherwise."""
    config = endpoint.config
    own = endpoint.socket_address
    host = config.check_host
    if host.startswith(("/", "@")):
        return "\0" + host[1:] if host.startswith("@") else host
    if isinstance(own, str):
        return (host, config.check_port) if host else own
    return (host or own[0], config.check_port or own[1])
