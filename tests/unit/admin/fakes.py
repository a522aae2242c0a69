"""A supervisor that is nothing but values."""

from datetime import UTC, datetime

from forkproxy.admin.context import (
    LIVE,
    CertificatesView,
    CertificateView,
    ClusterView,
    EndpointView,
    ListenerView,
    MemoryView,
    WorkerView,
)
from forkproxy.config.build.bootstrap import AdminConfig, BootstrapConfig, ForkproxyConfig, NodeConfig, pack
from forkproxy.config.build.core import AddressConfig
from forkproxy.stats import groups
from forkproxy.stats.counters import Registry
from forkproxy.stats.tags import TagExtractor
from forkproxy.stats.text import default_buckets

HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

CONFIG_DUMP = {
    "node": {"id": "nid"},
    "static_resources": {
        "listeners": [
            {
                "name": "main",
                "filter_chains": [
                    {
                        "filters": [
                            {
                                "name": "hcm",
                                "typed_config": {
                                    "@type": HCM,
                                    "stat_prefix": "in",
                                    "route_config": {"name": "local", "virtual_hosts": []},
                                },
                            }
                        ]
                    }
                ],
            },
            {"name": "tcp", "filter_chains": [{"filters": [{"name": "echo"}]}]},
        ],
        "clusters": [{"name": "web", "connect_timeout": "1s"}, {"name": "db", "connect_timeout": "2s"}],
    },
    "layered_runtime": {
        "layers": [
            {"name": "low", "static_layer": {"a.b": 3, "health_check": {"min_interval": 5}}},
            {"name": "high", "static_layer": {"a": {"b": 4}, "on": True}},
        ]
    },
}


class FakeContext:
    """``done`` lists the actions called; ``refreshes`` holds the callbacks that still wait for their workers."""

    def __init__(self):
        self.registry = Registry()
        self.registry.begin_generation()
        self.bootstrap = BootstrapConfig(
            admin=AdminConfig(),
            node=NodeConfig(id="nid", cluster="nclu", zone="z1"),
            listeners=(),
            clusters=(),
            forkproxy=ForkproxyConfig(),
            packed_dump=pack(CONFIG_DUMP),
            runtime={},
        )
        self.config_loaded_at = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
        self.last_refusal = None
        self.state = LIVE
        self.uptime_s = 23.9
        self.version = "forkproxy/1.2"
        self.command_line_options = {"concurrency": 2, "config_path": "f.yaml"}
        self.levels = {"http": "info", "admin": "info"}
        self.done = []
        self.accesses = []
        self.refreshes = []
        self.refresh_at_once = True
        self.no_certificates = False
        self.endpoints = (
            EndpointView(AddressConfig("127.0.0.1", 8080), hostname="h"),
            EndpointView(AddressConfig("::1", 81), weight=3, zone="z", priority=1, health_flags=("/failed_active_hc",)),
        )

    def local(self, cls, prefix):
        return self.registry.local_group(cls, prefix)

    def refresh(self, done):
        if self.refresh_at_once:
            done()
        else:
            self.refreshes.append(done)

    def snapshot(self):
        return self.registry.read([])

    def before_statistics(self):
        self.done.append("before_statistics")

    def tag_extractor(self):
        return TagExtractor()

    def histogram_buckets(self):
        return default_buckets

    def clusters(self):
        return [ClusterView("web:1", "web_1", self.endpoints), ClusterView("db", "alt", ())]

    def listeners(self):
        return [
            ListenerView("main", AddressConfig("127.0.0.1", 10000), (AddressConfig(pipe_path="/run/x.sock"),)),
            ListenerView("six", AddressConfig("::", 80)),
        ]

    def workers(self):
        return [WorkerView(0, 77, None, 3, "ready", 5, 9, 12, 1.23456, 0.01, 2.5, 1 << 20)]

    def certificates(self):
        if self.no_certificates:
            return None
        certificate = CertificateView(
            "/c.pem",
            "07ab",
            ("localhost",),
            ("127.0.0.1",),
            (),
            datetime(2026, 1, 1, tzinfo=UTC),
            datetime(2126, 1, 1, tzinfo=UTC),
        )
        return [CertificatesView(authorities=(), chain=(certificate,))]

    def memory(self):
        return MemoryView(1000, 2000, 3000)

    def log_levels(self):
        return self.levels

    def set_log_level(self, logger, level):
        for name in self.levels if logger is None else (logger,):
            self.levels[name] = level

    def fail_health_check(self):
        self.done.append("fail")

    def pass_health_check(self):
        self.done.append("pass")

    def reset_counters(self):
        self.done.append("reset_counters")

    def reopen_logs(self):
        self.done.append("reopen_logs")

    def drain_listeners(self, *, graceful, skip_exit, inbound_only):
        self.done.append(("drain", graceful, skip_exit, inbound_only))

    def quit(self):
        self.done.append("quit")

    def log_access(self, access):
        self.accesses.append(access)


def with_some_stats(context):
    server = context.local(groups.ServerStats, "server")
    server.live = 1
    server.initialization_time_ms[22] += 1
    cluster = context.local(groups.ClusterStats, "cluster.web")
    cluster.upstream_rq_total = 7
    endpoint = context.local(groups.EndpointStats, "cluster.web_1.endpoint.127.0.0.1:8080")
    endpoint.cx_total = 4
    endpoint.cx_active = 2
    return context
