"""forkproxy under test, as its users start it."""

from __future__ import annotations

import importlib.util
import sys

from tests.support.proxy import ProxyProcess


def is_runnable() -> bool:
    """Whether the package can be started at all."""
    return importlib.util.find_spec("forkproxy") is not None and importlib.util.find_spec("forkproxy.cli") is not None


class Forkproxy(ProxyProcess):
    """forkproxy with one worker process."""

    name = "forkproxy"

    def command(self) -> list[str]:
        return [
            sys.executable, "-m", "forkproxy", "run", "-c", str(self.config_path), "--concurrency", "1",
            "-l", "warning", "--drain-time-s", "1", "--file-flush-interval-msec", "20",
            "--pid-file", str(self.directory / "forkproxy.pid"),
        ]  # fmt: skip
