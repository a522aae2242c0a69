"""How long it takes to serve: from the start of the program, and from a reload's signal.

- *start*: seconds from exec to the first answer, of the example (etc/forkproxy.yaml) and of a file of 1,000 clusters and
  10,000 routes in 100 virtual hosts. The program has one CPU for all it does; "CPU s" is what it spent of it till then.
- *reload of the big file*: seconds from SIGHUP until a fresh connection gets an answer of the new configuration.
- *a load over the reload*: latencies at half of the proxy's rate, without a reload and over one, which begins after a
  third of the time. The supervisor, which builds the new generation meanwhile, shares the worker's CPU, or may have another:
  a third one where there is one, else that of generator and upstream. No request may fail.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
import socket
import time

import yaml

from tests.benchmarks import measure as measuring
from tests.benchmarks.cases import Case
from tests.benchmarks.generator import Order, load, running
from tests.benchmarks.ground import Ground
from tests.benchmarks.measure import LoadFailed
from tests.benchmarks.reports import half_load
from tests.benchmarks.table import Column, Table
from tests.benchmarks.targets import Envoy, Forkproxy, Target, TargetFailed
from tests.benchmarks.targets import started as started_target
from tests.support import bootstrap
from tests.support.forkproxy import ROOT
from tests.support.proxy import free_ports

EXAMPLE = ROOT / "etc" / "forkproxy.yaml"
HOSTS = ROUTES = 100
CLUSTERS = 1000
LIMIT_S = 120.0
LOOK_S = 0.002
LOAD_S = 6.0
"""How long the load over a reload lasts at least."""


def big(generation: int) -> bootstrap.Data:
    """The big file. /generation answers with its number."""
    clusters = [bootstrap.cluster(f"cluster{number}", "up", connect_timeout="5s") for number in range(CLUSTERS)]
    hosts = [
        bootstrap.vhost(
            *(bootstrap.route(f"/service{j}/", f"cluster{(i * ROUTES + j) % CLUSTERS}") for j in range(ROUTES)),
            name=f"host{i}",
            domains=(f"host{i}.example",),
        )
        for i in range(HOSTS)
    ]
    told = {
        "match": {"path": "/generation"},
        "direct_response": {"status": 200, "body": {"inline_string": str(generation)}},
    }
    hosts.append(bootstrap.vhost(told, name="told", domains=("generation.example",)))
    return bootstrap.bootstrap([bootstrap.hcm({"virtual_hosts": hosts}, access_log=[])], clusters)


def example() -> bootstrap.Data:
    """The example, with names for its ports."""
    names = {10000: "main", 10001: "answers", 9901: "admin"}

    def named(data: object) -> object:
        if isinstance(data, dict):
            if data.get("port_value") in names:
                return {**data, "port_value": {"@port": names[data["port_value"]]}}
            return {key: named(value) for key, value in data.items()}
        return [named(value) for value in data] if isinstance(data, list) else data

    return named(yaml.safe_load(EXAMPLE.read_text()))  # type: ignore[return-value]


class _Example:
    """The example's file for either program."""

    def data(self) -> bootstrap.Data:
        return example()

    def ports(self) -> dict[str, int]:
        return {**super().ports(), "answers": free_ports(1)[0]}  # type: ignore[misc]


class _Big:
    """The big file for either program; ``generation`` is its number."""

    generation = 1

    def data(self) -> bootstrap.Data:
        return big(self.generation)


class ExampleEnvoy(_Example, Envoy):
    """Envoy with the example."""


class ExampleForkproxy(_Example, Forkproxy):
    """forkproxy with the example."""


class BigEnvoy(_Big, Envoy):
    """Envoy with the big file."""


class BigForkproxy(_Big, Forkproxy):
    """forkproxy with the big file, which it can reload."""

    def write_next(self) -> None:
        """The next generation's file instead of the one that is served."""
        self.generation += 1
        path = self.directory / "bootstrap.yaml"
        beside = path.with_suffix(".new")
        beside.write_text(bootstrap.render(self.data(), self.ports()))
        os.replace(beside, path)

    def reload(self) -> None:
        """Tell the supervisor, and wait until the generation of the file serves."""
        os.kill(self.pid, signal.SIGHUP)
        wait_for(self, "/generation", "generation.example", str(self.generation).encode())


FILES: dict[str, tuple[Case, dict[str, type[Envoy]]]] = {
    "example": (Case("example", body_bytes=5), {"envoy": ExampleEnvoy, "forkproxy": ExampleForkproxy}),
    "big file": (Case("big", path="/service0/item"), {"envoy": BigEnvoy, "forkproxy": BigForkproxy}),
}


def asked(port: int, path: str, host: str) -> bytes:
    """The body of one answer over a fresh connection; empty when there is none or it is not 200."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return body if head.startswith(b"HTTP/1.1 200") else b""
    return b""


def wait_for(target: Target, path: str, host: str, body: bytes = b"") -> None:
    """Until an answer comes (that ``body``, where one is given). TargetFailed when the program ends, or too late."""
    assert target.process is not None
    deadline = time.monotonic() + LIMIT_S
    while True:
        got = asked(target.port, path, host)
        if got and body in (b"", got):
            return
        if target.process.poll() is not None or time.monotonic() > deadline:
            said = (target.directory / "output.txt").read_text(errors="replace")[-1500:]
            raise TargetFailed(f"{target.name} has not answered\n{said}")
        time.sleep(LOOK_S)


def measure(ground: Ground) -> list[Table]:
    """seconds to the first answer, to serve a reloaded big file, and the latencies of a load over the reload"""
    start = Table(
        "start", [Column("seconds", "seconds", 2), Column("cpu_s", "CPU s", 2), Column("pss_mib", "PSS MiB", 1)]
    )
    names = {cls.name for cls in ground.chosen(("envoy", "forkproxy"), start, Case("ping"))}

    def one(cls: type[Envoy], case: Case) -> dict[str, float]:
        target = cls(ground.site, case)
        command = target.command()
        try:
            begun = time.monotonic()
            target.execute(command)
            wait_for(target, case.path, "host0.example")
            seconds = time.monotonic() - begun
            cpu_s = measuring.cpu_seconds(target.pid)
            return {"seconds": seconds, "cpu_s": cpu_s, "pss_mib": measuring.pss_kib(target.pid) / 1024}
        finally:
            target.stop()

    ground.in_turn(
        start,
        {
            f"{file}, {name}": lambda cls=cls, case=case: one(cls, case)
            for file, (case, classes) in FILES.items()
            for name, cls in classes.items()
            if name in names
        },
    )
    return [start, *(_reloads(ground) if "forkproxy" in names else [])]


def _reloads(ground: Ground) -> list[Table]:
    case = FILES["big file"][0]
    reloads = Table("reload of the big file", [Column("seconds", "seconds", 2), Column("cpu_s", "CPU s", 2)])
    over = Table("a load over the reload", [*half_load.LATENCIES, Column("reopened", "reopened")])

    def target(*, apart: bool) -> BigForkproxy:
        made = BigForkproxy(ground.site, case)
        if apart:
            made.worker_cpus = frozenset({ground.site.proxy_cpu})
            made.cpus = {ground.site.proxy_cpu, *(sorted(os.sched_getaffinity(0))[2:] or [ground.site.load_cpu])}
        return made

    def reload() -> dict[str, float]:
        with started_target(big := target(apart=False)):
            load(
                Order(big.port, half_load.WARM_UP_REQUESTS, path=case.path, host="host0.example"), ground.site.load_cpu
            )
            big.write_next()
            begun, before = time.monotonic(), measuring.cpu_seconds(big.pid)
            big.reload()
            return {"seconds": time.monotonic() - begun, "cpu_s": measuring.cpu_seconds(big.pid) - before}

    ground.in_turn(reloads, {"forkproxy": reload})
    if "forkproxy" not in reloads.samples:
        return [reloads]
    try:
        rate = _rate(ground, target(apart=False))
    except (TargetFailed, LoadFailed) as error:
        over.fail("saturation", str(error))
        return [reloads, over]
    seconds = max(ground.duration_s, LOAD_S, 3 * reloads.rows()["forkproxy"]["seconds"])
    over.notes.append(f"{rate:.0f} requests a second for {seconds:.0f} s")
    order = Order(0, math.ceil(rate * seconds), rate, path=case.path, host="host0.example")

    def one(*, apart: bool, reload: bool) -> dict[str, float]:
        with started_target(big := target(apart=apart)):
            return _over(ground, big, order, seconds / 3 if reload else 0.0)

    ground.in_turn(
        over,
        {
            f"{'a' if reload else 'no'} reload, supervisor on {'another' if apart else 'its'} CPU": (
                lambda apart=apart, reload=reload: one(apart=apart, reload=reload)
            )
            for apart in (False, True)
            for reload in (False, True)
        },
    )
    return [reloads, over]


def _rate(ground: Ground, target: Target) -> float:
    lua = target.case.write_lua(ground.site.directory)
    host = Case("big", path=target.case.path, headers=("Host: host0.example",))
    with started_target(target):
        return measuring.measure(target, host, ground.duration_s, lua).rps / 2


def _over(ground: Ground, target: BigForkproxy, order: Order, reload_at_s: float) -> dict[str, float]:
    order = dataclasses.replace(order, port=target.port)
    load(dataclasses.replace(order, requests=half_load.WARM_UP_REQUESTS, rate=0.0), ground.site.load_cpu)
    if reload_at_s:
        target.write_next()
    with running(order, ground.site.load_cpu) as run:
        if reload_at_s:
            time.sleep(reload_at_s)
            target.reload()
        counted = run.result()
    return {**half_load.figures(counted), "reopened": counted.reopened}
