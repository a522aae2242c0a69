"""What a proxy tells of its endpoints' health, Envoy and forkproxy alike, and waiting for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from tests.support.proxy import ProxyProcess

PATIENCE_S = 10.0


def wait_for(read: Callable[[], Any], expected: object, patience_s: float = PATIENCE_S) -> None:
    """Read until it is as expected."""
    deadline = time.monotonic() + patience_s
    while (found := read()) != expected:
        assert time.monotonic() < deadline, f"{found!r} instead of {expected!r}"
        time.sleep(0.02)


def flags(proxy: ProxyProcess, cluster: str = "up") -> list[str]:
    """The health_flags of /clusters, endpoint by endpoint in the order of the file."""
    lines = proxy.admin("/clusters")[1].decode().splitlines()
    return [
        line.rpartition("::")[2] for line in lines if line.startswith(cluster + "::") and "::health_flags::" in line
    ]


def counted(proxy: ProxyProcess, prefix: str) -> dict[str, int]:
    """Stats under a prefix that are not zero, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in proxy.counters().items()
        if name.startswith(prefix) and value
    }


def events(proxy: ProxyProcess, name: str, ports: list[int]) -> list[dict[str, Any]]:
    """The lines of a JSON event log, with the time as "time" and ports as their index in ``ports``."""
    found = []
    for line in proxy.access_log(name).splitlines():
        for index, port in enumerate(ports):
            line = line.replace(f'"port_value":{port},', f'"port_value":{index},').replace(
                f"127.0.0.1:{port}", str(index)
            )
        event = json.loads(line)
        event["timestamp"] = "time"
        found.append(event)
    return found
