"""Micro benchmarks: parts of the request path, one at a time, in this process and without sockets.

They show where a change costs, not what a request costs: that is the load benchmark's. Every case runs in turn, round after
round; the best round counts, because all that a neighbour can do to a figure is to raise it. Start them with
``scripts/bench --micro``.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

from forkproxy.access_log.formatter import DEFAULT_FORMAT, compile_json, compile_text
from forkproxy.config.build.core import HeaderMutations
from forkproxy.http.filter import HttpFilter
from forkproxy.http.http1 import ClientCodec, ServerCodec, ServerSettings
from forkproxy.net.poller import READ
from tests.support.balancing import balancer, endpoints
from tests.support.playbook import WHERE, Play, route
from tests.unit.access_log.fakes import stream as logged_stream
from tests.unit.router.fakes import FakeStream, entry, option, table, vhost

BATCH_S = 0.02
"""How long one measurement should last: well above what the clock and a time slice blur."""

HEAD = (
    b"GET /ping HTTP/1.1\r\nhost: bench.example\r\nuser-agent: bench/1.0\r\naccept: */*\r\n"
    b"accept-encoding: gzip\r\ncookie: a=b\r\n\r\n"
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\nserver: up\r\n\r\npong"
JSON_FIELDS = {
    "time": "%START_TIME%", "method": "%REQ(:METHOD)%", "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "code": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%", "rx": "%BYTES_RECEIVED%", "tx": "%BYTES_SENT%",
    "duration": "%DURATION%", "host": "%UPSTREAM_HOST%", "agent": "%REQ(USER-AGENT)%",
}  # fmt: skip

Step = Callable[[], object]


def varied_heads(count: int = 1000) -> Iterator[bytes]:
    """Heads that all differ, over and over: no memo of whole heads can help."""
    heads = [
        b"GET /item/%d?session=%d HTTP/1.1\r\nhost: bench.example\r\nuser-agent: bench/%d\r\naccept: */*\r\n"
        b"x-trace: %d\r\ncookie: id=%d; theme=%d\r\n\r\n" % (n, n * 7919, n % 977, n * 104729, n * 31, n % 13)
        for n in range(count)
    ]
    return itertools.cycle(heads)


class Sink:
    """Takes what a codec says."""

    def decode_headers(self, *_: object) -> None: ...

    def decode_data(self, *_: object) -> None: ...

    def decode_complete(self, *_: object) -> None: ...


class Idle(HttpFilter):
    """A filter that looks at the head and has nothing to do."""

    def decode_headers(self, stream: Any, headers: Any, end_stream: bool) -> None:
        return None


def request_codec(heads: Iterator[bytes]) -> Step:
    """One request head."""
    codec = ServerCodec(Sink(), ServerSettings())  # type: ignore[arg-type]
    return lambda: codec.feed(next(heads))


def response_codec() -> Step:
    """One response with a short body."""
    codec = ClientCodec(Sink())  # type: ignore[arg-type]

    def step() -> None:
        codec.expect(False)
        codec.feed(ANSWER)

    return step


def exchange(heads: Iterator[bytes], *filters: HttpFilter, **fields: Any) -> Step:
    """A request and its answer through connection manager, filters, router and pool; the sockets are lists."""
    play = Play(*filters, **fields)
    play.downstream(HEAD)
    play.upstreams[0].send(ANSWER)
    (down, up), loop = (play.downstreams[0].sock, play.upstreams[0].sock), play.loop
    on_down, on_up = loop.handlers[down.fd], loop.handlers[up.fd]

    def step() -> None:
        down.inbox.append(next(heads))
        on_down(READ)
        loop.settle()
        up.inbox.append(ANSWER)
        on_up(READ)
        loop.settle()
        down.outbox = up.outbox = b""
        play.logged.clear()

    return step


def routes(hosts: int, of_each: int) -> Step:
    """One match in a table of ``hosts`` × ``of_each`` routes by prefix."""
    made = table(
        *[
            vhost(*[entry(value=f"/service{j}/") for j in range(of_each)], name=f"v{i}", domains=(f"host{i}.example",))
            for i in range(hosts)
        ]
    )
    asked = [
        FakeStream(b"/service%d/item" % (n * 3 % of_each), b"host%d.example" % (n * 7 % hosts), ()) for n in range(997)
    ]
    streams = itertools.cycle(asked)
    match = made.match
    return lambda: match(next(streams))


def pick(policy: str) -> Step:
    """One choice among ten endpoints, without a hash."""
    return balancer(endpoints("aaaaaaaaaa"), policy=policy).pick


def log_line(compiled: Callable[[Any], bytes]) -> Step:
    """One line of the access log."""
    stream = logged_stream()
    return lambda: compiled(stream)


def mutations() -> HeaderMutations:
    """Two headers each way, one of them with operators."""
    options = (
        option("x-one", "fixed"),
        option("x-two", "%REQ(USER-AGENT)%-%PROTOCOL%", "OVERWRITE_IF_EXISTS_OR_ADD"),
    )
    return HeaderMutations(options, (), options, ())


CASES: dict[str, Callable[[], Step]] = {
    "codec: request": lambda: request_codec(itertools.repeat(HEAD)),
    "codec: varied requests": lambda: request_codec(varied_heads()),
    "codec: response": response_codec,
    "exchange": lambda: exchange(itertools.repeat(HEAD)),
    "exchange: varied": lambda: exchange(varied_heads()),
    "exchange: 3 idle filters": lambda: exchange(itertools.repeat(HEAD), Idle(), Idle(), Idle()),
    "exchange: header mutation": lambda: exchange(itertools.repeat(HEAD), routes=[route(mutations=mutations())]),
    "routes: 2,000": lambda: routes(100, 20),
    "routes: 20,000": lambda: routes(1000, 20),
    "pick: round robin": lambda: pick("ROUND_ROBIN"),
    "pick: least request": lambda: pick("LEAST_REQUEST"),
    "pick: random": lambda: pick("RANDOM"),
    "pick: ring hash": lambda: pick("RING_HASH"),
    "pick: maglev": lambda: pick("MAGLEV"),
    "log: text": lambda: log_line(compile_text(DEFAULT_FORMAT, WHERE)),
    "log: JSON": lambda: log_line(compile_json(JSON_FIELDS, WHERE)),
}


def timed(step: Step, times: int) -> float:
    """Seconds of CPU that ``times`` steps take."""
    rounds = itertools.repeat(None, times)
    begun = time.process_time()
    for _ in rounds:
        step()
    return time.process_time() - begun


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds of CPU per step, by case: the best round, and the median."""
    steps = {name: make() for name, make in CASES.items()}
    batches = {}
    for name, step in steps.items():
        times = 100
        while (taken := timed(step, times)) < BATCH_S:
            times = max(times * 2, int(times * BATCH_S / max(taken, 1e-4)))
        batches[name] = times
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            found[name].append(timed(step, batches[name]) / batches[name] * 1e6)
    return {name: {"us": min(each), "median_us": sorted(each)[len(each) // 2]} for name, each in found.items()}


def show(found: dict[str, dict[str, float]], old: dict[str, dict[str, float]] | None) -> None:
    """A table; with ``old``, how much each has moved."""
    print(f"{'':<28}{'best µs':>10}{'median µs':>11}{'':>4}{'before' if old else '':>8}")
    for name, figures in found.items():
        line = f"{name:<28}{figures['us']:>10.2f}{figures['median_us']:>11.2f}"
        before = (old or {}).get(name)
        if before is not None:
            line += f"{before['us']:>12.2f}  {figures['us'] / before['us'] - 1:+7.1%}"
        print(line)
