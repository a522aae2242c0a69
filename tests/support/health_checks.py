"""A HealthChecker without sockets: a clock that the test advances, connections that the test answers."""

from __future__ import annotations

import json

from forkproxy.config.build.core import Where
from forkproxy.config.build.health_check import HealthCheckConfig, TcpCheck
from forkproxy.stats.groups import HealthCheckStats
from forkproxy.stats.shared import SharedCells
from forkproxy.upstream import health
from forkproxy.upstream.health_check.checker import HealthChecker, Report
from tests.support.fakes import FakeConnection, FakeLoop
from tests.support.playbook import cluster_config, make_cluster

TIMES = {
    "timeout_s": 1.0,
    "interval_s": 10.0,
    "unhealthy_threshold": 2,
    "healthy_threshold": 2,
    "initial_jitter_s": 0.0,
    "interval_jitter_s": 0.0,
    "interval_jitter_percent": 0,
    "no_traffic_interval_s": 60.0,
    "no_traffic_healthy_interval_s": 60.0,
    "unhealthy_interval_s": 20.0,
    "unhealthy_edge_interval_s": 25.0,
    "healthy_edge_interval_s": 15.0,
    "reuse_connection": True,
    "alpn_protocols": None,
    "match_criteria": "",
    "event_logs": (),
    "always_log_failures": False,
    "always_log_success": False,
    "where": Where(),
}


def health_check_config(check=None, **fields):
    """A HealthCheckConfig whose intervals are all different."""
    return HealthCheckConfig(check=check or TcpCheck(), **{**TIMES, **fields})


class Rig(Report):
    """A cluster of ``endpoints`` and its checker. ``connections``: those made, by endpoint; ``told``: what was reported."""

    def __init__(self, check=None, *, endpoints=1, traffic=True, flags=None, make=None, cluster=None, **fields):
        options = {name: fields.pop(name) for name in ("finalize", "matches_service") if name in fields}
        self.loop = FakeLoop()
        self.cluster = cluster or make_cluster(cluster_config(endpoints=endpoints))
        for each in self.cluster.endpoints:
            self.cluster.set_health_flags(each.address, set=health.FAILED_ACTIVE_HC if flags is None else flags)
        self.connections = []
        self.told = []
        self.lines = []
        cells = SharedCells()
        cell = cells.common("traffic", "cluster.up")
        cell.set(int(traffic))
        self.checker = HealthChecker(
            self.cluster,
            health_check_config(check, **fields),
            HealthCheckStats(),
            transport=None,
            traffic=cell,
            sinks=(self.lines.append,),
            **options,
        )
        self.checker.connect = self._connect
        self.refuse = None

    def start(self, *, is_known=False):
        self.checker.start(self.loop, self, is_known=is_known)
        self.loop.settle()
        return self

    def _connect(self, endpoint):
        if self.refuse:
            raise self.refuse
        connection = FakeConnection(self.loop, endpoint.socket_address)
        connection.endpoint = endpoint
        self.connections.append(connection)
        return connection

    # -- Report

    def on_flags(self, checker, endpoint, flags):
        self.told.append((endpoint.address, health.names(flags)))

    def on_round(self, checker):
        self.told.append("round")

    def on_passed(self, checker, endpoint):
        self.told.append(("passed", endpoint.address))

    # -- what the test asks and does

    @property
    def last(self):
        """The newest connection."""
        return self.connections[-1]

    @property
    def stats(self):
        """The figures that are not zero."""
        stats = self.checker.stats
        return {name: getattr(stats, name) for name in type(stats).fields if getattr(stats, name)}

    def flags(self, index=0):
        """What stands against an endpoint."""
        return health.names(self.cluster.endpoints[index].health_flags)

    def events(self):
        """The events logged since the last call: (name, value)."""
        found = []
        for line in self.lines:
            event = json.loads(line)
            for fixed in ("health_checker_type", "host", "cluster_name", "timestamp", "locality"):
                del event[fixed]
            found += event.items()
        self.lines.clear()
        return found

    def due_s(self):
        """In how many seconds something is due."""
        return round(self.loop.next_deadline() - self.loop.now, 6)

    # a TCP check without payload

    def succeed(self):
        """The connection under way is made."""
        self.last.connect()

    def fail(self):
        """The connection under way is refused."""
        self.last.peer_closes()
