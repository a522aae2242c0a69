"""The files of EDS clusters: what they say now, told whenever it changes.

This runs in the child process that resolves names (resolver.py), so that a file of 10,000 endpoints holds up neither the
supervisor nor a worker. ``emit`` is given JSON-ready dicts, as DnsResolver gives them:

``{"op": "endpoints", "cluster": name, "complete": True, "endpoints": [{"address", "hostname", "weight", …}, …]}``
    All endpoints of the cluster, in the fields of ResolvedEndpoint, after the first look and whenever the file was taken.
``{"op": "update", "cluster": name, "results": ["attempt", "success"], "version": "…"}``
    What was counted: "attempt", and "success", "empty", "rejected" or "failure", as Envoy names them.
``{"op": "eds_failure", "cluster": name, "path": path, "reason": text}``
    The file could not be used; the cluster keeps the endpoints it has.

Envoy looks again when something is moved over the file; here the content counts, however it came there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from forkproxy.config.build.cluster import ClusterConfig
from forkproxy.config.discovery import Assignment, Rejected, read_assignment
from forkproxy.config.problems import ConfigError, Problem
from forkproxy.config.tree import MAX_BYTES
from forkproxy.config.values import frozen
from forkproxy.net.loop import Loop
from forkproxy.supervisor.watcher import Watcher
from forkproxy.upstream.cluster import resolved_endpoints
from forkproxy.upstream.dns import Emit

PATIENCE_LOOKS = 2
"""Who writes the file anew all the time is not waited for: unlike a configuration, it stands for itself."""


@frozen
class EndpointFile:
    """The file of one EDS cluster. ``service_name``: what the file must call it."""

    cluster: str
    service_name: str
    path: str


def endpoint_files_of(clusters: Iterable[ClusterConfig]) -> list[EndpointFile]:
    """The files of a configuration's clusters."""
    return [
        EndpointFile(cluster.name, cluster.eds.service_name or cluster.name, cluster.eds.path)
        for cluster in clusters
        if cluster.eds is not None
    ]


class EndpointFiles:
    """Watches all of them; see the module's text."""

    def __init__(self, loop: Loop, files: Iterable[EndpointFile], emit: Emit) -> None:
        self._watched = [_WatchedFile(loop, file, emit) for file in files]

    def start(self) -> None:
        """Tell what the files say, and go on looking."""
        for each in self._watched:
            each.start()


class _WatchedFile:
    def __init__(self, loop: Loop, file: EndpointFile, emit: Emit) -> None:
        self._loop = loop
        self._file = file
        self._emit = emit
        self._watcher = Watcher(file.path, patience=PATIENCE_LOOKS)
        self._timer = loop.timer(self._look)

    def start(self) -> None:
        self._watcher.note()
        if not self._take():
            # Not a warm cluster, but as warm as it gets: Envoy does not wait for a better file either.
            self._tell_endpoints([])
        self._look()

    def _look(self) -> None:
        if self._watcher.has_changed(self._loop.now):
            self._watcher.note()
            self._take()
        self._timer.arm(max(self._watcher.next_look, self._loop.now + 0.01))

    def _take(self) -> bool:
        """Read the file; whether the cluster has its endpoints now."""
        file = self._file
        try:
            with open(file.path, "rb") as opened:
                text = opened.read(MAX_BYTES + 1)
            assignment = read_assignment(text, file.path, file.service_name)
        except OSError as error:
            return self._failed("failure", f"{file.path}: {error.strerror}")
        except ConfigError as error:
            return self._failed("failure", _texts(error.problems, file.path))
        except Rejected as error:
            return self._failed("rejected", _texts(error.problems, file.path))
        return self._accept(assignment)

    def _accept(self, assignment: Assignment) -> bool:
        if assignment.localities is None:
            self._count("success", "empty", version=assignment.version)
            return False
        self._count("success", version=assignment.version)
        self._tell_endpoints([asdict(each) for each in resolved_endpoints(assignment.localities)])
        return True

    def _tell_endpoints(self, endpoints: list[dict[str, object]]) -> None:
        self._emit({"op": "endpoints", "cluster": self._file.cluster, "complete": True, "endpoints": endpoints})

    def _failed(self, result: str, reason: str) -> bool:
        self._count(result)
        self._emit({"op": "eds_failure", "cluster": self._file.cluster, "path": self._file.path, "reason": reason})
        return False

    def _count(self, *results: str, version: str | None = None) -> None:
        self._emit(
            {"op": "update", "cluster": self._file.cluster, "results": ["attempt", *results], "version": version}
        )


def _texts(problems: Iterable[Problem], path: str) -> str:
    return "; ".join(problem.text(path) for problem in problems)
