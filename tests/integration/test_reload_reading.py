"""While a process reads the new file, the supervisor goes on. A FIFO in the file's place lets it read for as long as wanted."""

import http.client
import os
import signal
from pathlib import Path

import pytest

from tests.support.forkproxy import Forkproxy
from tests.support.proxy import free_ports, process_name
from tests.support.supervised import until

CONFIG = """
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: {main}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: main
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {word}}}}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"""


class Reading:
    """A proxy that is reading its file again."""

    def __init__(self):
        admin, self.port = free_ports(2)
        self.config = lambda word: CONFIG.format(admin=admin, main=self.port, word=word)
        self.proxy = Forkproxy(self.config("one"), admin_port=admin)

    def begin(self):
        self.proxy.start()
        path = self.proxy.config_path
        path.unlink()
        os.mkfifo(path)
        self.proxy.process.send_signal(signal.SIGHUP)
        until(lambda: self.pid("forkproxy:read"))

    def pid(self, name):
        return next((pid for pid in self.proxy.pids() if process_name(pid) == name), None)

    def answer(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        finally:
            connection.close()


@pytest.fixture
def reading():
    made = Reading()
    try:
        made.begin()
        yield made
    finally:
        made.proxy.stop()
        made.proxy.close()


def test_a_worker_that_dies_meanwhile_is_replaced(reading):
    worker = reading.pid("forkproxy:w0")
    os.kill(worker, signal.SIGKILL)
    until(lambda: reading.pid("forkproxy:w0") not in (None, worker))
    assert reading.answer() == "one"
    reading.proxy.config_path.write_text(reading.config("two"))
    until(lambda: reading.answer() == "two")
    assert reading.pid("forkproxy:read") is None


def test_a_reader_that_dies_refuses_the_reload(reading):
    os.kill(reading.pid("forkproxy:read"), signal.SIGKILL)
    until(lambda: "who read it has died: signal SIGKILL" in reading.proxy.output())
    assert reading.answer() == "one"


def test_a_stop_waits_for_no_reader(reading):
    reader = reading.pid("forkproxy:read")
    reading.proxy.process.send_signal(signal.SIGTERM)
    assert reading.proxy.process.wait(10) == 0
    assert not Path(f"/proc/{reader}").exists()
