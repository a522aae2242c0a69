"""forkproxy under test, as its users start it."""

from __future__ import annotations

import os
import pathlib
import sys

from tests.support.proxy import ProxyProcess

ROOT = pathlib.Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """An environment in which `python -m forkproxy` is the one of this tree, installed or not.

    Started by root, workers stay root: they write into directories of root's.
    """
    path = os.environ.get("PYTHONPATH")
    user = {"FORKPROXY_USER": "root"} if os.geteuid() == 0 else {}
    return {**os.environ, **user, "PYTHONPATH": os.pathsep.join([str(ROOT), *([path] if path else [])])}


class Forkproxy(ProxyProcess):
    """forkproxy, with one worker process unless a subclass wants more."""

    name = "forkproxy"
    workers = 1

    def environment(self) -> dict[str, str]:
        return environment()

    def command(self) -> list[str]:
        return [
            sys.executable, "-m", "forkproxy", "run", "-c", str(self.config_path), "--concurrency", str(self.workers),
            "-l", "warning", "--drain-time-s", "1", "--file-flush-interval-msec", "20",
            "--pid-file", str(self.directory / "forkproxy.pid"),
        ]  # fmt: skip
