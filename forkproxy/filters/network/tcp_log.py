"""Lines about a TCP session that do not wait for its end.

- name: envoy.filters.network.tcp_proxy
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
    access_log: [{name: envoy.access_loggers.file, typed_config: {…}}]
    access_log_options:
      flush_access_log_on_connected: true    # also when upstream is connected
      access_log_flush_interval: 1s          # and every so often
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from forkproxy.config.build.tcp_proxy import TcpProxyConfig
from forkproxy.filters.context import FilterContext
from forkproxy.filters.network.tcp_proxy import TcpProxy, TcpSession
from forkproxy.net.connection import Connection
from forkproxy.net.timers import Timer

Log = Callable[[Any], None]


class LogFlush:
    """The logs that do not wait, of one tcp_proxy."""

    __slots__ = ("interval_s", "on_connected", "periodic")

    def __init__(self, on_connected: Sequence[Log], periodic: Sequence[Log], interval_s: float) -> None:
        self.on_connected = tuple(on_connected)
        self.periodic = tuple(periodic)
        self.interval_s = interval_s


class FlushingTcpSession(TcpSession):
    """A session whose logs do not all wait for its end."""

    __slots__ = ("_flush", "_flush_timer")

    def __init__(self, proxy: TcpProxy, connection: Connection) -> None:
        super().__init__(proxy, connection)
        assert isinstance(proxy.log_flush, LogFlush)
        self._flush = proxy.log_flush
        self._flush_timer: Timer | None = None
        if self._flush.periodic:
            self._flush_timer = self.loop.call_later(self._flush.interval_s, self._again)

    def _again(self) -> None:
        for log in self._flush.periodic:
            log(self)
        self._flush_timer = self.loop.call_later(self._flush.interval_s, self._again)

    def _on_upstream_connected(self) -> None:
        self.connected_at = self.loop.now
        for log in self._flush.on_connected:
            log(self)
        super()._on_upstream_connected()

    def on_close(self, reason: str) -> None:
        """The last line is written now."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        super().on_close(reason)


def install(proxy: TcpProxy, config: TcpProxyConfig, context: FilterContext) -> None:
    """Have ``proxy`` make sessions of this module's kind."""
    options = config.log_options

    def logs(log_type: str) -> list[Log]:
        return [each.log for each in context.access_logs(config.access_logs, log_type)]

    proxy.log_flush = LogFlush(
        logs("TcpUpstreamConnected") if options.on_start else (),
        logs("TcpPeriodic") if options.interval_s else (),
        options.interval_s,
    )
    proxy.session_type = FlushingTcpSession
