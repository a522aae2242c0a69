"""A supervisor with a generation that is as small as can be: it answers every connection's bytes with who it is.

Run as a program with a JSON file: ``{"listeners": {"NAME": "IP:PORT" or a path}, "admin": "IP:PORT", "concurrency": N,
"user": USER, "say": TEXT, "fault": FAULT}``, and the supervisor's Options as a JSON object. Faults that tests ask for:
"refuse" (the file is bad), "start" (a worker cannot start), "bind", "die" and "die-in-slot-1" (a worker dies at once), "slow"
(ready only after a second), "no-start" (the program of an upgrade ends at once), "stuck" (its workers are never ready). A
connection that sends "hang" keeps its worker from ever going round its loop again, one that sends "exit N" ends it with that
code.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from forkproxy import log
from forkproxy.config.build.bootstrap import AdminConfig, BootstrapConfig, ForkproxyConfig, NodeConfig, pack
from forkproxy.config.build.core import AddressConfig, Where
from forkproxy.config.build.listener import ListenerConfig
from forkproxy.config.problems import ConfigError
from forkproxy.net.poller import READ
from forkproxy.supervisor.exits import ConfigurationRefused, StartFailed
from forkproxy.supervisor.inheritance import is_successor
from forkproxy.supervisor.options import Options
from forkproxy.supervisor.supervisor import Supervisor


def address(text):
    """ "127.0.0.1:80" or a path as an AddressConfig."""
    if ":" not in text:
        return AddressConfig(pipe_path=text)
    host, _, port = text.rpartition(":")
    return AddressConfig(host=host, port=int(port))


def listener(name, where):
    """A ListenerConfig of which only the address matters."""
    return ListenerConfig(
        name=name, addresses=(address(where),), stat_prefix=name, filter_chains=(), default_filter_chain=None,
        original_dst=False, per_connection_buffer_limit_bytes=0, access_logs=(), tcp_backlog_size=128, freebind=False,
        transparent=False, ignore_global_conn_limit=False, max_connections_to_accept_per_socket_event=1,
        socket_options=(), where=Where(),
    )  # fmt: skip


class EchoGeneration:
    """Answers each piece of data with ``PID GENERATION SAY DATA``; a connection stays until the peer closes it."""

    def __init__(self, settings, number):
        self.settings = settings
        self.number = number
        self.open = {}
        self.listening = {}
        self.clusters = {}
        self.dns_caches = {}
        self.health_checkers = {}
        self.outlier_cells = {}
        self.outlier_log = None
        self.accepted = self.requests = 0
        self.log_paths = ()
        self.listen_addresses = [
            (name, 0, address(where), listener(name, where)) for name, where in settings["listeners"].items()
        ]

    @property
    def connections(self):
        return len(self.open)

    def prepare_slot(self, slot):
        pass

    def start(self, loop, sockets, slot):
        fault = self.settings.get("fault")
        if fault == "start":
            raise ConfigError("a.b", 3, 4, "no such thing")
        if fault == "bind":
            raise OSError(98, "taken")
        if fault == "die":
            os._exit(5)
        if fault == "die-in-slot-1" and slot == 1:
            os._exit(5)
        if fault == "stuck":
            time.sleep(60)
        if fault == "slow":
            time.sleep(1)
        self.loop = loop
        for key, socks in sockets.items():
            for sock in socks:
                self.adopt(key, sock)

    def adopt(self, key, sock):
        self.listening.setdefault(key, []).append(sock)
        self.loop.register(sock.fileno(), READ, lambda _mask: self.accept(sock))

    def balance(self, handover):
        pass

    def keep_in_touch(self, send):
        pass

    def start_outlier_log(self, loop):
        pass

    def stop_outlier_log(self):
        pass

    def reopen_outlier_log(self):
        pass

    def accept(self, sock):
        try:
            connection, _ = sock.accept()
        except BlockingIOError:
            return False
        self.accepted += 1
        connection.setblocking(False)
        self.open[connection.fileno()] = connection
        self.loop.register(connection.fileno(), READ, lambda _mask: self.answer(connection))
        return True

    def answer(self, connection):
        data = connection.recv(65536)
        if data == b"hang":
            while True:
                time.sleep(1)
        if not data:
            del self.open[connection.fileno()]
            self.loop.close_later(connection)
            return
        self.requests += 1
        if data.startswith(b"exit "):
            self.loop.call_later(0.05, lambda: os._exit(int(data[5:])))
        connection.send(f"{os.getpid()} {self.number} {self.settings.get('say', '')} ".encode() + data)

    def sync_stats(self):
        pass

    def set_endpoints(self, cluster, endpoints):
        raise AssertionError("no clusters here")

    @property
    def is_listening(self):
        return bool(self.listening)

    def fail_health_check(self, failed):
        pass

    def drain(self, going=()):
        for key in self.listening.keys() - set(going):
            for sock in self.listening.pop(key):
                self.loop.close_later(sock)

    def stop_listening(self, listeners):
        for key in [key for key in self.listening if key[0] in listeners]:
            self.close_listening(key)

    def drain_connections(self, listeners, since, time_s):
        pass

    def close_listeners(self):
        for key in list(self.listening):
            self.close_listening(key)

    def close_listening(self, key):
        for sock in self.listening.pop(key):
            while self.accept(sock):
                pass
            self.loop.unregister(sock.fileno())
            sock.close()

    def stop(self):
        for connection in self.open.values():
            connection.close()

    def reopen_logs(self):
        pass

    def flush_logs(self):
        pass


def crash_as_successor(path):
    """What tests ask of a program that cannot even begin."""
    if is_successor() and json.loads(Path(path).read_text()).get("fault") == "no-start":
        sys.exit("broken code")


def main(path, **options):
    """Run until stopped; exits with the supervisor's code."""

    def load():
        settings = json.loads(Path(path).read_text())
        if settings.get("fault") == "refuse":
            raise ConfigurationRefused(f"{path}:1:1: refused")
        admin = AdminConfig(address=address(settings["admin"]) if "admin" in settings else None)
        return BootstrapConfig(
            admin=admin, node=NodeConfig(), listeners=(), clusters=(), packed_dump=pack({"settings": settings}), runtime={},
            forkproxy=ForkproxyConfig(concurrency=settings.get("concurrency"), user=settings.get("user")),
        )  # fmt: skip

    log.configure(level="debug")
    supervisor = Supervisor(
        Options(config_path=path, pid_file=Path(path).with_suffix(".pid"), needs_pid_file=True, **options),
        load=load,
        build_generation=lambda bootstrap, _registry, number: EchoGeneration(bootstrap.config_dump["settings"], number),
    )
    try:
        sys.exit(supervisor.run())
    except StartFailed as failed:
        print(failed, file=sys.stderr)
        sys.exit(failed.exit_code)


if __name__ == "__main__":
    crash_as_successor(sys.argv[1])
    main(sys.argv[1], **json.loads(sys.argv[2]))
