"""Exchanges: what a downstream sends, how the upstream answers, and everything that could be observed.

`talk` and `observe` run one exchange on one proxy, which makes an Observation; `normalise` takes out what may differ between
two runs of the same program (dates, ids, durations, ports), and nothing else. A differential test compares two Observations.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import difflib
import functools
import json
import re
import socket
import ssl
import time
import zlib
from base64 import b64decode

import brotli
import psutil

from forkproxy.filters.http.zstd_compression import zstd
from tests.support import bootstrap, certificates, upstream, wire
from tests.support.proxy import ProxyProcess, free_ports
from tests.support.wire import Downstream

LOG_LIMIT_S = 2.0
CLOSE_LIMIT_S = 1.0
STATS_LIMIT_S = 5.0
UNMOVED = 3
ENDINGS_LIMIT_S = 3.0


@dataclasses.dataclass(frozen=True, slots=True)
class ReadUntil:
    """Read until `marker` arrives."""

    marker: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class ReadResponses:
    """Read until `count` final responses are complete."""

    count: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class ReadToEnd:
    """Read until the proxy closes."""


@dataclasses.dataclass(frozen=True, slots=True)
class UpstreamHas:
    """Wait until `marker` has reached the upstream."""

    marker: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class UpstreamLeft:
    """Wait until the proxy has left every upstream connection."""


@dataclasses.dataclass(frozen=True, slots=True)
class HalfClose:
    """Send a FIN."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reset:
    """Close with a RST; the exchange ends here."""


@dataclasses.dataclass(frozen=True, slots=True)
class Gap:
    """Let what was sent arrive as a packet of its own."""

    seconds: float = 0.02


SendStep = bytes | ReadUntil | ReadResponses | ReadToEnd | UpstreamHas | UpstreamLeft | HalfClose | Reset | Gap


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One conversation.

    send       what the downstream does, in order; after it, `responses` final responses are awaited, then a moment of quiet
    answers    the upstream's script (see tests.support.upstream); the last one repeats
    config     the name of the configuration it runs on
    log_lines  how many access log lines belong to it (a request each; also one for a request that could not be parsed)
    tls_name   the name to ask for, when the listener speaks TLS
    tls_certificate  the downstream's own, of tests.support.certificates
    compare    what a differential test compares: of "downstream", "upstream", "log", "stats", "ending"
    """

    name: str
    send: tuple[SendStep, ...]
    answers: tuple[upstream.Answer, ...] = ()
    config: str = "plain"
    responses: int = 1
    log_lines: int = 1
    compare: tuple[str, ...] = ("downstream", "ending", "upstream", "log", "stats")
    listener: str = "main"
    tls_name: str = ""
    tls_certificate: str = ""
    quiet_s: float = 0.03


@dataclasses.dataclass
class Observation:
    """Everything one exchange did, normalised."""

    downstream: bytes
    ending: str
    upstream: list[tuple[bytes, str]]
    log: list[str]
    stats: dict[str, int]
    stats_before: dict[str, int]
    settled: bool = True

    def lines(self, compare: tuple[str, ...]) -> list[str]:
        """A text form to compare and to show."""
        found = []
        if "downstream" in compare:
            found += ["-- downstream received", *show(self.downstream)]
        if "ending" in compare:
            found += [f"-- downstream connection: {self.ending}"]
        if "upstream" in compare:
            for index, (data, ending) in enumerate(self.upstream):
                found += [f"-- upstream connection {index} received, left {ending}", *show(data)]
        if "log" in compare:
            found += ["-- access log", *self.log]
        if "stats" in compare:
            found += ["-- stats", *(f"{name}: {value}" for name, value in sorted(self.stats.items()))]
        return found


def show(data: bytes) -> list[str]:
    """Bytes as readable lines, one per line on the wire; long runs are folded."""
    text = re.sub(r"(.)\1{80,}", lambda m: f"{m[1]}*{len(m[0])}", data.decode("latin-1"))
    shown = text.encode("latin-1").decode("latin-1").replace("\r\n", "\\r\\n\n")
    return [repr(line)[1:-1].replace("\\\\r\\\\n", "\\r\\n") for line in shown.split("\n")] if data else ["(nothing)"]


PORT = re.compile(rb"@PORT:(\w+)@")
"""In what is sent: the number of that port."""
SESSION = re.compile(rb'((?:set-cookie: sess="|x-session: ))([A-Za-z0-9+/]+=*)')
UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
DATE = re.compile(rb"(?i)(\bdate: )\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")
LOG_TIME = re.compile(rb"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\]")
LOG_DURATIONS = re.compile(rb'(" \d+ \S+ \d+ \d+) \d+ (?:\d+|-) ')
SERVICE_TIME = re.compile(rb"(?i)(x-envoy-upstream-service-time: )\d+")


def local_address() -> str:
    """This machine's address: what Envoy writes into x-forwarded-for when the downstream is on loopback."""
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                return str(address.address)
    return "127.0.0.1"


LOCAL_ADDRESS = local_address()


CHUNK_SIZE = re.compile(rb"(?<=\r\n)[0-9a-f]+\r\n\Z")


CODED = re.compile(rb"content-encoding: (br|zstd)\r\n(?:[^\r]+\r\n)*\r\n([0-9a-f]+)\r\n")
UNPACK = {b"br": brotli.decompress, b"zstd": zstd.decompress}


def unpacked(data: bytes) -> bytes:
    """What is compressed, in plain text: two libraries need not make the same bytes of it."""
    coded = CODED.search(data)
    if coded is not None:
        size = len(coded[2]) + 2
        start, end = coded.end(), coded.end() + int(coded[2], 16)
        try:
            body = b"<" + coded[1] + b" of " + UNPACK[coded[1]](data[start:end]) + b">"
        except (brotli.error, zstd.ZstdError):
            body = data[start - size : end]
        return unpacked(data[: start - size]) + body + unpacked(data[end:])
    start = data.find(b"\x1f\x8b\x08")
    if start < 0:
        return data
    unzip = zlib.decompressobj(31)
    try:
        made = unzip.decompress(data[start:])
    except zlib.error:
        return data
    end = b">" if unzip.eof else b" unfinished>"
    return CHUNK_SIZE.sub(b"<size>\r\n", data[:start]) + b"<gzip of " + made + end + unpacked(unzip.unused_data)


def normalise(data: bytes, ports: dict[str, int]) -> bytes:
    """Take out request ids, dates, durations and the ports of this run, those in a session's base64 too."""
    data = unpacked(data)
    data = SESSION.sub(lambda found: found[1] + b64decode(found[2]), data)
    data = UUID.sub(b"<uuid>", data)
    data = DATE.sub(rb"\1<date>", data)
    data = SERVICE_TIME.sub(rb"\1<ms>", data)
    data = LOG_TIME.sub(b"[<time>]", data)
    data = LOG_DURATIONS.sub(rb"\1 <ms> <ms> ", data)
    if LOCAL_ADDRESS != "127.0.0.1":
        data = data.replace(LOCAL_ADDRESS.encode(), b"<local-address>")
    for name, number in ports.items():
        data = re.sub(rb"\b%d\b" % number, b"<port-%s>" % name.encode(), data)
    return data


# Counters that say what a request did. Gauges and histograms move with time; so do these when a connection idles.
STATS = re.compile(
    r"^(http\.ingress\.|cluster\.|vhost\.|listener\.127\.0\.0\.1_\d+\.|listener\.main\.|http1\.|tcp\."
    r"|[\w-]+\.http_local_rate_limit\.|http_filter_name\.)"
)
STATS_LEFT_OUT = re.compile(
    r"(_active$|\.total_match_count$|\.ssl\.(ciphers|curves|sigalgs|versions|session_reused)|_bytes_buffered|_time$|\.(worker|main_thread)_\d|\.version|_open$"
    r"|update_|upstream_cx_(rx|tx)_bytes_total|downstream_cx_(rx|tx)_bytes_total"
    r"|upstream_cx_(destroy|http1|connect_attempts)|downstream_cx_(destroy|delayed|max)|upstream_cx_total|\.total_compressed_bytes)"
)


def upstream_context() -> ssl.SSLContext:
    """What a scripted upstream serves with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.directory() / "good.pem", certificates.directory() / "good-key.pem")
    return context


def downstream_context(certificate: str = "") -> ssl.SSLContext:
    """What a downstream trusts, and the certificate that it shows."""
    directory = certificates.directory()
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    if certificate:
        context.load_cert_chain(directory / f"{certificate}.pem", directory / f"{certificate}-key.pem")
    return context


class ProxyUnderTest:
    """A started proxy of one configuration with its scripted upstreams. Without ``wait``, it is asked to `await_ready`."""

    def __init__(
        self, kind: type[ProxyProcess], data: bootstrap.Data, *, raw_upstream: bool = False, wait: bool = True
    ) -> None:
        self.raw_upstream = raw_upstream
        names = bootstrap.port_names(data)
        self.upstreams = {
            name: upstream.ScriptedUpstream(raw=raw_upstream, tls=upstream_context() if "tls" in name else None)
            for name in sorted(names)
            if name.startswith("up")
        }
        self.stuck = upstream.StuckUpstream() if "stuck" in names else None
        if self.stuck is not None:
            names = names - {"stuck"}
        free_names = sorted(names - set(self.upstreams))
        self.ports = dict(zip(free_names, free_ports(len(free_names)), strict=True))
        self.ports.update({name: scripted.port for name, scripted in self.upstreams.items()})
        if self.stuck is not None:
            self.ports["stuck"] = self.stuck.port
        self.proxy = kind(bootstrap.render(data, self.ports), admin_port=self.ports["admin"])
        try:
            if wait:
                self.proxy.start()
            else:
                self.proxy.launch()
        except BaseException:
            self.close()
            raise

    def await_ready(self) -> None:
        """Wait until it serves."""
        self.proxy.await_ready()

    def close(self) -> None:
        """Stop the proxy and the upstreams."""
        self.proxy.close()
        for scripted in self.upstreams.values():
            scripted.stop()
        if self.stuck is not None:
            self.stuck.stop()

    def endings(self) -> list[list[bool]]:
        """Of each upstream connection of this exchange, whether one side has left it."""
        return [scripted.endings() for scripted in self.upstreams.values()]

    def stats(self) -> dict[str, int]:
        """Today's counters of interest that have ever counted, the listener's address taken out of the names."""
        found = {}
        for name, value in self.proxy.counters(usedonly=True).items():
            if _is_of_interest(name):
                for port_name, number in self.ports.items():
                    name = name.replace(f"_{number}.", f"_<{port_name}>.")
                found[name] = value
        return found


@functools.cache
def _is_of_interest(name: str) -> bool:
    return STATS.match(name) is not None and STATS_LEFT_OUT.search(name) is None


def stats_difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What was counted in between."""
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


@dataclasses.dataclass
class Talk:
    """What a downstream saw of one exchange, and what is still to be asked for the rest."""

    received: bytes
    ending: str
    local_port: int
    methods: list[bytes]
    log: list[str]
    stats_before: dict[str, int]
    settled: bool


def talk(exchange: Exchange, under_test: ProxyUnderTest) -> Talk:
    """The downstream's part of `exchange`, until it has left and the access log is written."""
    proxy = under_test.proxy
    log_before = len(proxy.access_log())
    stats_before = under_test.stats() if "stats" in exchange.compare else {}
    for index, scripted in enumerate(under_test.upstreams.values()):
        scripted.script(list(exchange.answers) if index == 0 else [])
    methods: list[bytes] = [
        step.split(b" ", 1)[0].lstrip(b"\r\n") for step in exchange.send if isinstance(step, bytes) and b" " in step
    ]
    tls = downstream_context(exchange.tls_certificate) if exchange.tls_name else None
    address = ("127.0.0.1", under_test.ports[exchange.listener])
    with Downstream(address, tls=tls, name=exchange.tls_name) as downstream:
        settled = _converse(exchange, under_test, downstream, methods)
        received, ending, local_port = downstream.received, downstream.ending, downstream.local_port
    log = _await_log(proxy, log_before, exchange.log_lines)
    return Talk(received, ending, local_port, methods, log, stats_before, settled)


def observe(exchange: Exchange, under_test: ProxyUnderTest, talk: Talk) -> Observation:
    """End the exchange upstream. Counters may still be on their way: see `await_stats`."""
    received, methods = talk.received, talk.methods
    seen = [pair for scripted in under_test.upstreams.values() for pair in scripted.settle()]
    if not under_test.raw_upstream:
        received = wire.join_chunks(received, request_methods=methods)
        seen = [(wire.join_chunks(data, request_methods=None), how) for data, how in seen]
    for scripted in under_test.upstreams.values():
        seen += [(b"asked for %s" % str(name).encode(), "handshake") for name in scripted.server_names]
    stats = stats_difference(talk.stats_before, under_test.stats()) if "stats" in exchange.compare else {}
    ports = {**under_test.ports, "downstream": talk.local_port}
    return Observation(
        normalise(received, ports),
        talk.ending,
        [(normalise(data, ports), how) for data, how in seen],
        [normalise(line.encode(), ports).decode() for line in talk.log],
        stats,
        talk.stats_before,
        talk.settled,
    )


def await_endings(oracle: ProxyUnderTest, subject: ProxyUnderTest) -> None:
    """Give both ENDINGS_LIMIT_S to leave the same upstream connections: each does so a little after the downstream has left."""
    deadline = time.monotonic() + ENDINGS_LIMIT_S
    while oracle.endings() != subject.endings() and time.monotonic() < deadline:
        time.sleep(0.005)


def await_stats(played: tuple[tuple[Observation, ProxyUnderTest], ...], alike: bool) -> None:
    """Read the counters of both until they are equal: threads and workers count a little after the downstream has seen it.

    Where they will not be `alike`, until they have not moved for a while.
    """
    (expected, _), (got, _) = played
    deadline = time.monotonic() + STATS_LIMIT_S
    unmoved = 0
    while expected.stats != got.stats and (alike or unmoved < UNMOVED) and time.monotonic() < deadline:
        time.sleep(0.02)
        before = (expected.stats, got.stats)
        for observation, under_test in played:
            observation.stats = stats_difference(observation.stats_before, under_test.stats())
        unmoved = unmoved + 1 if before == (expected.stats, got.stats) else 0


def play_both(
    exchange: Exchange, oracle: ProxyUnderTest, subject: ProxyUnderTest, *, alike: tuple[str, ...]
) -> tuple[Observation, Observation]:
    """Run `exchange` on both at the same time: most of it is waiting. `alike`: in which aspects they should not differ."""
    both = (oracle, subject)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        talks = list(pool.map(talk, (exchange, exchange), both))
        if "upstream" in alike:
            await_endings(oracle, subject)
        expected, got = pool.map(observe, (exchange, exchange), both, talks)
    if "stats" in exchange.compare:
        await_stats(((expected, oracle), (got, subject)), "stats" in alike)
    return expected, got


def _converse(exchange: Exchange, under_test: ProxyUnderTest, downstream: Downstream, methods: list[bytes]) -> bool:
    settled = True
    for step in exchange.send:
        if isinstance(step, bytes):
            downstream.send(PORT.sub(lambda named: b"%d" % under_test.ports[named[1].decode()], step))
        elif isinstance(step, ReadUntil):
            settled &= downstream.read_until(step.marker)
        elif isinstance(step, ReadResponses):
            settled &= downstream.read_responses(step.count, methods)
        elif isinstance(step, ReadToEnd):
            settled &= downstream.read_to_end()
        elif isinstance(step, UpstreamHas):
            settled &= _await_upstream(under_test, step.marker)
        elif isinstance(step, UpstreamLeft):
            settled &= _await_leaving(under_test)
        elif isinstance(step, HalfClose):
            downstream.half_close()
        elif isinstance(step, Reset):
            downstream.reset()
            downstream.ending = "reset here"
            return settled
        elif isinstance(step, Gap):
            time.sleep(step.seconds)
    if exchange.responses:
        settled &= downstream.read_responses(exchange.responses, methods)
    downstream.linger(exchange.quiet_s)
    if downstream.ending == "open" and b"connection: close\r\n" in downstream.received.lower():
        # Announced: it comes when the delayed close timeout is over, or earlier.
        downstream.read_to_end(CLOSE_LIMIT_S)
    return settled


def _await_upstream(under_test: ProxyUnderTest, marker: bytes) -> bool:
    deadline = time.monotonic() + LOG_LIMIT_S
    while time.monotonic() < deadline:
        if any(marker in data for scripted in under_test.upstreams.values() for data in scripted.received()):
            return True
        time.sleep(0.002)
    return False


def _await_leaving(under_test: ProxyUnderTest) -> bool:
    deadline = time.monotonic() + LOG_LIMIT_S
    while time.monotonic() < deadline:
        if all(scripted.all_ended() for scripted in under_test.upstreams.values()):
            return True
        time.sleep(0.002)
    return False


def _await_log(proxy: ProxyProcess, offset: int, count: int) -> list[str]:
    deadline = time.monotonic() + LOG_LIMIT_S
    while True:
        text = proxy.access_log()[offset:]
        lines = text.split("\n")[:-1]
        if len(lines) >= count or time.monotonic() > deadline:
            return [_sorted_json(line) for line in lines]
        time.sleep(0.005)


def _sorted_json(line: str) -> str:
    try:
        return json.dumps(json.loads(line), sort_keys=True)
    except ValueError:
        return line


def difference(compare: tuple[str, ...], expected: Observation, got: Observation) -> str:
    """A readable diff of the aspects in `compare`; empty when both did the same."""
    left, right = expected.lines(compare), got.lines(compare)
    if left == right:
        return ""
    return "\n".join(difflib.unified_diff(left, right, "envoy", "forkproxy", lineterm="", n=100))
