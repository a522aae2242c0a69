"""A filter of forkproxy's that looks at no request: it measures the garbage collector of its worker.

    - name: tests.benchmarks.gc_filter:GcPauses
      typed_config:
        "@type": type.googleapis.com/google.protobuf.Struct
        value: { path: /tmp/pauses.json }

From its start to its drain it notes every collection, and then writes an object to ``path``: ``seconds`` (how long that was),
and for each of the collector's three generations the lengths in seconds, by the clock (``pauses``) and of CPU (``cpu``).
"""

from __future__ import annotations

import array
import gc
import json
import pathlib
import time
from typing import Any

from forkproxy.http.filter import HttpFilter


class GcPauses(HttpFilter):
    """Notes how long each collection keeps the worker."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        # Nothing that the collector would count itself.
        self._pauses = tuple(array.array("d") for _ in range(3))
        self._cpu = tuple(array.array("d") for _ in range(3))
        self._started = 0.0
        self._began = 0.0
        self._began_cpu = 0.0

    @classmethod
    def from_config(cls, config: Any, context: Any) -> GcPauses:
        return cls(pathlib.Path(config["path"]))

    def start(self, worker: Any) -> None:
        self._started = time.perf_counter()
        gc.callbacks.append(self._on_collection)

    def stop(self) -> None:
        gc.callbacks.remove(self._on_collection)
        seconds = time.perf_counter() - self._started
        pauses, cpu = ([list(each) for each in kept] for kept in (self._pauses, self._cpu))
        self._path.write_text(json.dumps({"seconds": seconds, "pauses": pauses, "cpu": cpu}))

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began, self._began_cpu = time.perf_counter(), time.thread_time()
        else:
            self._pauses[info["generation"]].append(time.perf_counter() - self._began)
            self._cpu[info["generation"]].append(time.thread_time() - self._began_cpu)
