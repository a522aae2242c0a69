"""Logs that cannot be written: requests go on, one line says so, and what was lost is counted."""

import fcntl
import os
import subprocess

import pytest

from tests.support import bootstrap as b
from tests.support.forkproxy import Forkproxy
from tests.support.load import HttpLoad
from tests.support.proxy import free_ports
from tests.support.supervised import until

ANSWER = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "answer"}}}


class Proxy(Forkproxy):
    """forkproxy with more options. ``standard_error``: a descriptor in the place of its output file."""

    def __init__(self, *options, access_log="/dev/full"):
        self.ports = dict(zip(("main", "admin"), free_ports(2), strict=True))
        self.options = options
        log = [{"name": "envoy.access_loggers.file", "typed_config": {"@type": b.FILE_LOG, "path": access_log}}]
        hcm = b.hcm({"virtual_hosts": [b.vhost(ANSWER)]}, access_log=log)
        super().__init__(b.render(b.bootstrap([hcm], []), self.ports), admin_port=self.ports["admin"])

    def command(self):
        return [*super().command(), *self.options]


@pytest.fixture
def started():
    running = []

    def start(*options, **more):
        proxy = Proxy(*options, **more)
        running.append(proxy)
        proxy.start()
        return proxy

    yield start
    for proxy in running:
        proxy.close()


def test_a_full_disk_under_the_access_log(started):
    proxy = started()
    with HttpLoad(proxy.ports["main"], count=4) as load:
        until(lambda: load.done > 100 and proxy.counters()["filesystem.write_failed"] > 2)
    assert load.failures == []
    counters = proxy.counters()
    assert counters["filesystem.write_buffered"] >= load.done
    assert counters["filesystem.write_completed"] == 0
    (line,) = [line for line in proxy.output().splitlines() if "access log lines dropped" in line]
    assert 'path=/dev/full reason="No space left on device"' in line
    assert "make room" in line
    assert proxy.stop() == 0


def test_a_full_disk_under_both_logs(started):
    proxy = started("--log-path", "/dev/full", "-l", "info")
    with HttpLoad(proxy.ports["main"], count=4) as load:
        until(lambda: load.done > 100)
    assert load.failures == []
    # The worker's complaint about its access log, and the supervisor's own lines.
    before = proxy.counters()["filesystem.write_failed"]
    os.kill(proxy.pids()[0], 1)
    until(lambda: b'"generation": 2,' in proxy.admin("/workers")[1])
    assert proxy.counters()["filesystem.write_failed"] > before
    assert proxy.stop() == 0


def test_a_standard_error_that_nobody_reads(started, monkeypatch):
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: popen(*a, **{**k, "stderr": writing}))
    proxy = started("-l", "trace", access_log="/dev/null")
    monkeypatch.undo()
    os.close(writing)
    with HttpLoad(proxy.ports["main"], count=2) as load:
        # Every reload writes some lines; nobody takes them.
        while not proxy.counters()["filesystem.write_failed"]:
            done = load.done
            os.kill(proxy.pids()[0], 1)
            until(lambda done=done: load.done > done)
        until(lambda: load.done > done + 10)
    assert load.failures == []
    assert proxy.stop() == 0
    os.close(reading)
