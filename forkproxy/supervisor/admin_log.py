"""The admin's access logs: one line per answered request, in every configured file."""

from __future__ import annotations

from forkproxy.access_log.sinks import FileSink
from forkproxy.admin import access_log
from forkproxy.admin.context import AdminAccess
from forkproxy.config.build.bootstrap import AdminConfig
from forkproxy.net.loop import Loop
from forkproxy.stats.groups import FilesystemStats

FLUSH_INTERVAL_S = 1.0


class AdminLog:
    """Files by path; which ones they are may change on a reload."""

    def __init__(self, loop: Loop, stats: FilesystemStats) -> None:
        self._loop = loop
        self._stats = stats
        self._sinks: dict[str, FileSink] = {}

    def use(self, config: AdminConfig) -> None:
        """Write to the logs of ``config`` from now on."""
        paths = {entry.path for entry in config.access_logs if entry.path}
        for path in self._sinks.keys() - paths:
            self._sinks.pop(path).close()
        for path in paths - self._sinks.keys():
            sink = self._sinks[path] = FileSink(path, flush_interval_s=FLUSH_INTERVAL_S, stats=self._stats)
            sink.start(self._loop)

    def write(self, access: AdminAccess) -> None:
        """One line in each."""
        if self._sinks:
            line = access_log.line(access)
            for sink in self._sinks.values():
                sink.write(line)
                sink.sync_stats()

    def reopen(self) -> None:
        """Open the files again under their names."""
        for sink in self._sinks.values():
            sink.reopen()

    def close(self) -> None:
        """Write what waits, and close."""
        for sink in self._sinks.values():
            sink.close()
        self._sinks.clear()
