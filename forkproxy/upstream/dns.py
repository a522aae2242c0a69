"""Names → addresses for STRICT_DNS and LOGICAL_DNS clusters, once for the whole machine, outside of the workers.

This runs in one child process of the supervisor, on a loop of its own, without threads: every query is a non-blocking
socket. dnspython packs and unpacks the messages and is imported here only, when the first question is asked, so that no
other process carries it.

For the supervisor::

    resolver = DnsResolver(loop, targets_of(bootstrap.clusters), emit)     # in the child, after fork
    resolver.start()                                                       # then loop.run()
    resolver.set_targets(targets)                                          # after a reload: same names keep what they have
    resolver.add(target); resolver.remove(name)                            # hosts of a DNS cache come and go
    resolver.stop()

``emit`` is given JSON-ready dicts:

``{"op": "endpoints", "cluster": name, "complete": bool, "ttl_s": int, "endpoints": [{"host", "ip", "port", "index"}, …]}``
    All addresses of the cluster, when they changed, and once when every name has been answered or has failed for the first
    time (``complete``: the cluster is as ready as it can be). ``index`` counts the configured endpoints over all localities.
    ``ttl_s``: seconds to the next look.
``{"op": "dns_failure", "cluster": name, "host": name, "reason": text, "failures": n, "retry_s": seconds}``
    A resolution failed for the n-th time in a row. The cluster keeps the addresses it has.
``{"op": "update", "cluster": name, "results": ["attempt", "success", "no_rebuild"]}``
    What Envoy counts of every resolution (supervisor/cluster_updates.py).
``{"op": "host", "host": name, "addresses": [ip, …], "results": […], "reason": text}``
    Of a target of type HOST (``add``), after every resolution. ``reason``: why there is no address.

As in Envoy, a name that does not exist or has no records is an answer, not a failure: a STRICT_DNS cluster loses the
endpoints of that name; a LOGICAL_DNS cluster keeps its address.
"""

from __future__ import annotations

import ipaddress
import os
import random
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from forkproxy.config.build.cluster import ClusterConfig
from forkproxy.config.values import frozen
from forkproxy.net.loop import Loop
from forkproxy.net.poller import READ, WRITE
from forkproxy.net.timers import Timer

DNS_PORT = 53
MAX_UDP_BYTES = 65535
NOT_A_NAME = "not a host name"
HOST_NAME = re.compile(r"[A-Za-z0-9._/*-]*")
"""What c-ares, and so Envoy, asks name servers for; they are spared the rest."""
NO_RECORDS = "cares_norecords:DNS_server_returned_answer_with_no_data"
NO_SUCH_NAME = "cares_norecords:Domain_name_not_found"
REFUSALS = {
    "SERVFAIL": "cares_failure:DNS server returned general failure",
    "REFUSED": "cares_failure:DNS server refused query",
    "NOTIMP": "cares_failure:DNS server does not implement requested operation",
    "FORMERR": "cares_failure:DNS server claims query was misformatted",
}
TIMED_OUT = "timed out"
MIN_REFRESH_S = 1.0
"""No name is asked more often than this, whatever the TTL or the configuration says."""

Emit = Callable[[dict[str, Any]], None]


@frozen
class Target:
    """A cluster to resolve. ``hosts``: (name or IP literal, port) of the configured endpoints of all localities, in order.

    ``type``: "STRICT_DNS", "LOGICAL_DNS", or "HOST" for a single host of a DNS cache, whose key is in ``cluster``.
    ``resolvers``: (ip, port) of name servers to ask instead of the system's. ``query_timeout_s``: for all questions of one
    resolution together, 0 for no limit but the resolver's own.
    """

    cluster: str
    type: str
    hosts: tuple[tuple[str, int], ...]
    family: str = "AUTO"
    refresh_s: float = 5.0
    failure_base_s: float = 5.0
    failure_max_s: float = 5.0
    respect_ttl: bool = False
    jitter_s: float = 0.0
    query_timeout_s: float = 0.0
    min_refresh_s: float = 0.0
    resolvers: tuple[tuple[str, int], ...] = ()
    use_tcp: bool = False


def targets_of(clusters: Iterable[ClusterConfig]) -> list[Target]:
    """What is to be resolved of a configuration's clusters."""
    return [
        Target(
            cluster=cluster.name,
            type=cluster.type,
            hosts=tuple((e.address.host, e.address.port) for each in cluster.localities for e in each.endpoints),
            family=cluster.dns_lookup_family,
            refresh_s=cluster.dns_refresh_rate_s,
            failure_base_s=cluster.dns_failure_refresh_base_s,
            failure_max_s=cluster.dns_failure_refresh_max_s,
            respect_ttl=cluster.respect_dns_ttl,
            jitter_s=cluster.dns_jitter_s,
            resolvers=tuple((each.host, each.port or DNS_PORT) for each in cluster.dns_resolvers),
            use_tcp=cluster.use_tcp_for_dns_lookups,
        )
        for cluster in clusters
        if cluster.type in ("STRICT_DNS", "LOGICAL_DNS")
    ]


# -- the system's files


@frozen
class ResolvConf:
    """resolv.conf(5), as far as it concerns us."""

    servers: tuple[tuple[str, int], ...] = (("127.0.0.1", DNS_PORT),)
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout_s: float = 5.0
    attempts: int = 2


def parse_resolv_conf(text: str) -> ResolvConf:
    """Lines that make no sense are passed over, as the C library does."""
    servers: list[tuple[str, int]] = []
    search: tuple[str, ...] = ()
    options = {"ndots": 1, "timeout": 5, "attempts": 2}
    for line in text.splitlines():
        key, *words = line.split("#")[0].split(";")[0].split() or [""]
        if key == "nameserver" and words and _is_ip(words[0].partition("%")[0]):
            servers.append((words[0], DNS_PORT))
        elif key in ("search", "domain"):
            search = tuple(word.strip(".") for word in words if word.strip("."))
        elif key == "options":
            for word in words:
                name, _, value = word.partition(":")
                if name in options and value.isdigit():
                    options[name] = int(value)
    return ResolvConf(
        tuple(servers[:3]) or ResolvConf().servers,
        search,
        min(options["ndots"], 15),
        min(max(options["timeout"], 1), 30),
        min(max(options["attempts"], 1), 5),
    )


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """hosts(5): lower-case name → addresses, in the order of the file."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words and _is_ip(words[0]):
            for name in words[1:]:
                found[name.lower()] = (*found.get(name.lower(), ()), words[0])
    return found


class SystemFiles:
    """/etc/resolv.conf and /etc/hosts, read again when they have changed. A file that cannot be read counts as empty."""

    def __init__(self, resolv_conf: str = "/etc/resolv.conf", hosts: str = "/etc/hosts") -> None:
        self._resolv_path = resolv_conf
        self._hosts_path = hosts
        self._stamps: dict[str, tuple[int, int]] = {}
        self._resolv = ResolvConf()
        self._hosts: dict[str, tuple[str, ...]] = {}

    def resolv_conf(self) -> ResolvConf:
        """What resolv.conf says now."""
        text = self._read_if_changed(self._resolv_path)
        if text is not None:
            self._resolv = parse_resolv_conf(text)
        return self._resolv

    def addresses(self, name: str) -> tuple[str, ...]:
        """What the hosts file says of ``name``; localhost is there even when it is not (RFC 6761 section 6.3)."""
        text = self._read_if_changed(self._hosts_path)
        if text is not None:
            self._hosts = parse_hosts(text)
        name = name.lower().rstrip(".")
        found = self._hosts.get(name, ())
        if not found and (name == "localhost" or name.endswith(".localhost")):
            return ("127.0.0.1", "::1")
        return found

    def _read_if_changed(self, path: str) -> str | None:
        try:
            status = os.stat(path)
            stamp = (status.st_mtime_ns, status.st_ino)
            if self._stamps.get(path) == stamp:
                return None
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            if self._stamps.pop(path, None) is None:
                return None
            return ""
        self._stamps[path] = stamp
        return text


def candidate_names(name: str, conf: ResolvConf) -> list[str]:
    """The absolute names to ask for, in order: the search list of resolv.conf(5)."""
    if name.endswith("."):
        return [name]
    searched = [f"{name}.{domain}." for domain in conf.search]
    return [name + ".", *searched] if name.count(".") >= conf.ndots else [*searched, name + "."]


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _of_family(addresses: Sequence[str], record: str) -> tuple[str, ...]:
    return tuple(each for each in addresses if (":" in each) == (record == "AAAA"))


# -- one question


class Outcome(NamedTuple):
    """An answer (perhaps empty), or why there is none. ``ttl_s``: the smallest on the way to the addresses."""

    addresses: tuple[str, ...] = ()
    ttl_s: int = 0
    failure: str = ""
    exists: bool = True
    """There is such a name, if only with other records."""


class Question:
    """Asks name servers for one record type until one answers: candidates × attempts × servers, UDP, then TCP if truncated.

    ``done(outcome)`` is called once, never from within ``start``.
    """

    def __init__(
        self,
        loop: Loop,
        names: Sequence[str],
        record: str,
        conf: ResolvConf,
        use_tcp: bool,
        done: Callable[[Outcome], None],
    ) -> None:
        self._loop = loop
        self._names = list(names)
        self._record = record
        self._conf = conf
        self._use_tcp = use_tcp
        self._done = done
        self._tries: list[tuple[str, int]] = []
        self._server: tuple[str, int] = conf.servers[0]
        self._failure = ""
        self._sock: socket.socket | None = None
        self._tcp = False
        self._query: Any = None
        self._wire = b""
        self._received = b""
        self._timer: Timer = loop.timer(self._on_timeout)

    def start(self) -> None:
        """Ask."""
        self._loop.call_soon(self._next_name)

    def cancel(self) -> None:
        """Forget it; ``done`` is not called any more."""
        self._done = _ignore
        self._names.clear()
        self._tries.clear()
        self._close()

    def _next_name(self) -> None:
        # Here and not on top: see the module's text.
        import dns.exception
        import dns.message

        while self._names:
            name = self._names.pop(0)
            if not HOST_NAME.fullmatch(name):
                self._failure = f"{NOT_A_NAME}: it has other characters than letters, digits and -._/*"
                continue
            try:
                self._query = dns.message.make_query(name, self._record)
            except dns.exception.DNSException as error:
                self._failure = f"{NOT_A_NAME}: {error}"
                continue
            self._tries = list(self._conf.servers) * self._conf.attempts
            self._next_try()
            return
        self._finish(Outcome(failure=self._failure))

    def _next_try(self) -> None:
        while self._tries:
            self._server = self._tries.pop(0)
            if self._open(self._use_tcp):
                return
        # This name failed, and others of the search list would most likely tell us something wrong: give up.
        self._finish(Outcome(failure=self._failure or "no name server answered"))

    def _open(self, tcp: bool) -> bool:
        self._close()
        self._tcp = tcp
        self._received = b""
        wire: bytes = self._query.to_wire()
        self._wire = len(wire).to_bytes(2) + wire if tcp else wire
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        family = socket.AF_INET6 if ":" in self._server[0] else socket.AF_INET
        try:
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            self._sock = sock
            try:
                # A connected UDP socket takes answers from this server and port only, and reports a closed port.
                sock.connect(self._server)
            except BlockingIOError:
                if not tcp:
                    raise
            if not tcp:
                sock.send(self._wire)
                self._wire = b""
            self._loop.register(sock.fileno(), WRITE if tcp else READ, self._on_event)
        except OSError as error:
            self._failed(error.strerror or str(error))
            return False
        self._timer.arm(self._loop.now + self._conf.timeout_s)
        return True

    def _close(self) -> None:
        self._timer.disarm()
        if self._sock is not None:
            self._loop.close_later(self._sock)
            self._sock = None

    def _failed(self, reason: str) -> None:
        ip, port = self._server
        self._failure = f"{reason} ({ip if port == DNS_PORT else f'{ip}:{port}'})"
        self._close()

    def _on_timeout(self) -> None:
        self._failed(TIMED_OUT)
        self._next_try()

    def _on_event(self, _mask: int) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            if self._wire:
                self._wire = self._wire[sock.send(self._wire) :]
                if not self._wire:
                    self._loop.modify(sock.fileno(), READ)
                return
            data = sock.recv(MAX_UDP_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._failed(error.strerror or str(error))
            self._next_try()
            return
        if not self._tcp:
            self._on_message(data)
            return
        self._received += data
        size = int.from_bytes(self._received[:2])
        if len(self._received) >= 2 + size > 2:
            self._on_message(self._received[2 : 2 + size])
        elif not data:
            self._failed("connection closed")
            self._next_try()

    def _on_message(self, wire: bytes) -> None:
        import dns.exception
        import dns.flags
        import dns.message
        import dns.rcode

        response: Any
        try:
            response = dns.message.from_wire(wire, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError):
            return  # not an answer; the time goes on, and the true one may still come
        if not self._query.is_response(response):
            return
        if response.flags & dns.flags.TC and not self._tcp:
            if not self._open(True):
                self._next_try()
            return
        code = response.rcode()
        if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            self._failed(dns.rcode.to_text(code))
            self._next_try()
            return
        self._close()
        try:
            chain = response.resolve_chaining()
        except dns.exception.DNSException as error:
            self._failed(f"answer makes no sense: {error}")
            self._next_try()
            return
        addresses = tuple(record.to_text() for record in chain.answer or ())
        if addresses or not self._names:
            self._finish(Outcome(addresses, int(chain.minimum_ttl), exists=code == dns.rcode.NOERROR))
        else:
            self._next_name()

    def _finish(self, outcome: Outcome) -> None:
        self._close()
        done = self._done
        self._done = _ignore
        done(outcome)


def _ignore(_outcome: Outcome) -> None:
    pass


_RECORDS = {
    "V4_ONLY": ("A",),
    "V6_ONLY": ("AAAA",),
    "AUTO": ("AAAA", "A"),
    "V4_PREFERRED": ("A", "AAAA"),
    "ALL": ("AAAA", "A"),
}


# -- hosts and clusters


class _Host:
    # One configured endpoint's name, asked again and again.

    def __init__(self, resolver: DnsResolver, cluster: _Cluster, index: int, host: str, port: int) -> None:
        self._resolver = resolver
        self._loop = resolver.loop
        self._cluster = cluster
        self._host = host
        self.index = index
        self.port = port
        self.addresses: tuple[str, ...] = ()
        self.answered = False
        self.next_look_s = 0.0
        self._failures = 0
        self._records: list[str] = []
        self._found: tuple[str, ...] = ()
        self._ttls: list[int] = []
        self._failure = ""
        self._exists = True
        self._question: Question | None = None
        self._timer = self._loop.timer(self.look)
        self._query_timer = self._loop.timer(self._on_query_timeout)

    @property
    def reason(self) -> str:
        """Why there are no addresses, in c-ares' words as Envoy passes them on where it has some."""
        if self._failure.startswith(NOT_A_NAME):
            return "cares_failure:Misformatted_domain_name"
        if self._failure == TIMED_OUT:
            return "resolve_timeout"
        if self._failure:
            return REFUSALS.get(self._failure.partition(" ")[0], self._failure)
        return NO_RECORDS if self._exists else NO_SUCH_NAME

    def look(self) -> None:
        """Resolve now."""
        if _is_ip(self._host) and "%" not in self._host:
            self.addresses = (self._host,)
            self.answered = True
            self._cluster.count("success")
            self._cluster.on_looked()
            return
        self._found = ()
        self._ttls = []
        self._failure = ""
        self._exists = False
        self._records = list(_RECORDS[self._cluster.target.family])
        if self._cluster.target.query_timeout_s:
            self._query_timer.arm(self._loop.now + self._cluster.target.query_timeout_s)
        self._next_record()

    def _on_query_timeout(self) -> None:
        if self._question is not None:
            self._question.cancel()
            self._question = None
        self._records.clear()
        self._failure = self._failure or TIMED_OUT
        self._found = ()
        self._looked(timed_out=True)

    def stop(self) -> None:
        self._timer.cancel()
        self._query_timer.cancel()
        if self._question is not None:
            self._question.cancel()

    def _next_record(self) -> None:
        every = self._cluster.target.family == "ALL"
        while self._records and (every or not self._found):
            record = self._records.pop(0)
            listed = self._resolver.files.addresses(self._host)
            if not listed:
                self._ask(record)
                return
            self._found += _of_family(listed, record)
        self._looked()

    def _ask(self, record: str) -> None:
        target = self._cluster.target
        conf = self._resolver.conf(target)
        self._question = Question(
            self._loop, candidate_names(self._host, conf), record, conf, target.use_tcp, self._on_outcome
        )
        self._question.start()

    def _on_outcome(self, outcome: Outcome) -> None:
        self._question = None
        self._exists = self._exists or outcome.exists
        if outcome.failure:
            self._failure = outcome.failure
        elif outcome.addresses:
            self._found += outcome.addresses
            self._ttls.append(outcome.ttl_s)
        self._next_record()

    def _looked(self, *, timed_out: bool = False) -> None:
        target = self._cluster.target
        self.answered = True
        self._query_timer.disarm()
        before = self.addresses
        # One family's failure does not matter when the other has addresses.
        if self._failure and not self._found:
            self._failures += 1
            self._cluster.count("failure", *(["timeout"] if timed_out else []))
            self.next_look_s = _back_off_s(target, self._failures)
            self._cluster.on_failure(self._host, self._failure, self._failures, self.next_look_s)
        else:
            self._failures = 0
            self.next_look_s = target.refresh_s
            if target.respect_ttl and self._ttls and min(self._ttls):
                self.next_look_s = min(self._ttls)
            if self._found or target.type == "STRICT_DNS":
                self.addresses = tuple(dict.fromkeys(self._found))
                same = sorted(before) == sorted(self.addresses)
                self._cluster.count("success", *(["no_rebuild"] if same else []))
            else:
                self._cluster.count("failure")
            self.next_look_s += random.uniform(0.0, target.jitter_s)
        self.next_look_s = max(self.next_look_s, target.min_refresh_s, self._resolver.min_refresh_s)
        self._timer.arm(self._loop.now + self.next_look_s)
        self._cluster.on_looked()


def _back_off_s(target: Target, failures: int) -> float:
    # As Envoy: exponential between base and max, with full jitter so that many proxies do not ask in step.
    if target.failure_max_s <= target.failure_base_s:
        return target.failure_base_s
    ceiling = min(target.failure_max_s, target.failure_base_s * 2.0 ** min(failures, 30))
    return random.uniform(target.failure_base_s, ceiling)


class _Cluster:
    # A cluster's names, and what was last told of them.

    def __init__(self, resolver: DnsResolver, target: Target) -> None:
        self._resolver = resolver
        self.target = target
        self._hosts = [_Host(resolver, self, i, host, port) for i, (host, port) in enumerate(target.hosts)]
        self._told: list[tuple[int, str]] | None = None
        self._told_complete = False
        self._tells_soon = False
        self._stopped = False
        self._results: list[str] = []

    def start(self) -> None:
        if not self._hosts:
            self.on_looked()
        for host in self._hosts:
            host.look()

    def stop(self) -> None:
        self._stopped = True
        for host in self._hosts:
            host.stop()

    def on_looked(self) -> None:
        """A name has been answered, or has failed."""
        if not self._tells_soon:  # once for all the answers of a pass
            self._tells_soon = True
            self._resolver.loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._tells_soon = False
        if self._stopped:
            return
        if self.target.type == "HOST":
            self._tell_host(self._hosts[0])
            return
        found = [(host.index, address) for host in self._hosts for address in host.addresses]
        complete = all(host.answered for host in self._hosts)
        # Answers come in changing order. For the endpoints as a set that is no change; a LOGICAL_DNS cluster goes to the first.
        same = found == self._told if self.target.type == "LOGICAL_DNS" else sorted(found) == sorted(self._told or [])
        changed = self._told is None or not same
        if not (complete and not self._told_complete) and not (changed and (found or self._told)):
            return
        self._told = found
        self._told_complete = complete
        self._resolver.emit(
            {
                "op": "endpoints",
                "cluster": self.target.cluster,
                "complete": complete,
                "ttl_s": int(min((host.next_look_s for host in self._hosts if host.next_look_s), default=0)),
                "endpoints": [
                    {"host": self.target.hosts[index][0], "ip": ip, "port": self._hosts[index].port, "index": index}
                    for index, ip in found
                ],
            }
        )

    def _tell_host(self, host: _Host) -> None:
        reason = "" if host.addresses else host.reason
        message = {"op": "host", "host": self.target.cluster, "addresses": list(host.addresses), "reason": reason}
        self._resolver.emit({**message, "results": self._results})

    def on_failure(self, host: str, reason: str, failures: int, retry_s: float) -> None:
        """A name could not be resolved, for the n-th time in a row."""
        if self.target.type == "HOST":
            return
        message = {"op": "dns_failure", "cluster": self.target.cluster, "host": host, "reason": reason}
        self._resolver.emit({**message, "failures": failures, "retry_s": round(retry_s, 3)})

    def count(self, *results: str) -> None:
        """A resolution of one of the names is over, with these results."""
        self._results = list(results)
        if self.target.type != "HOST":
            self._resolver.emit({"op": "update", "cluster": self.target.cluster, "results": ["attempt", *results]})


class DnsResolver:
    """Keeps the addresses of DNS clusters up to date; see the module's text.

    ``timeout_s`` and ``attempts`` overrule resolv.conf. ``min_refresh_s`` bounds how often a name is asked.
    """

    def __init__(
        self,
        loop: Loop,
        targets: Iterable[Target],
        emit: Emit,
        *,
        files: SystemFiles | None = None,
        timeout_s: float | None = None,
        attempts: int | None = None,
        min_refresh_s: float = MIN_REFRESH_S,
    ) -> None:
        self.loop = loop
        self.emit = emit
        self.files = files or SystemFiles()
        self.min_refresh_s = min_refresh_s
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._clusters = {target.cluster: _Cluster(self, target) for target in targets}

    def start(self) -> None:
        """Ask for everything now, and keep asking."""
        for cluster in self._clusters.values():
            cluster.start()

    def stop(self) -> None:
        """Ask no more; nothing is emitted after this."""
        for cluster in self._clusters.values():
            cluster.stop()
        self._clusters.clear()

    def add(self, target: Target) -> None:
        """Resolve one more from now on, if it is not resolved already."""
        if target.cluster not in self._clusters:
            self._clusters[target.cluster] = cluster = _Cluster(self, target)
            cluster.start()

    def remove(self, name: str) -> None:
        """Resolve it no more."""
        cluster = self._clusters.pop(name, None)
        if cluster is not None:
            cluster.stop()

    def set_targets(self, targets: Iterable[Target]) -> None:
        """Another configuration: unchanged targets go on, others stop or start."""
        before = self._clusters
        self._clusters = {}
        fresh: list[_Cluster] = []
        for target in targets:
            cluster = before.get(target.cluster)
            if cluster is not None and cluster.target == target:
                del before[target.cluster]
            else:
                cluster = _Cluster(self, target)
                fresh.append(cluster)
            self._clusters[target.cluster] = cluster
        for gone in before.values():
            gone.stop()
        for cluster in fresh:
            cluster.start()

    def conf(self, target: Target) -> ResolvConf:
        """The name servers and search list for a cluster. A resolver of its own has no search list, as in Envoy."""
        conf = self.files.resolv_conf()
        timeout_s = conf.timeout_s if self._timeout_s is None else self._timeout_s
        attempts = conf.attempts if self._attempts is None else self._attempts
        if target.resolvers:
            return ResolvConf(target.resolvers, (), 1, timeout_s, attempts)
        return ResolvConf(conf.servers, conf.search, conf.ndots, timeout_s, attempts)
