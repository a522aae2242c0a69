"""The user's own files (tests/data/seed) on real traffic: only addresses and paths are other than in the files."""

import http.client
import itertools
import re
import socket
import ssl
import sys
import threading
from pathlib import Path

import pytest

from forkproxy.config.load import load
from forkproxy.http import request_id
from forkproxy.stats.counters import Registry
from forkproxy.worker.generation import build_generation
from tests.support import certificates
from tests.support.forkproxy import Forkproxy
from tests.support.live_loop import LiveLoop
from tests.support.proxy import free_ports
from tests.support.upstream import ScriptedUpstream

SEED = Path(__file__).parents[1] / "data" / "seed"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nseed!"
CLUSTER = "cluster.service_webshell"


def moved(name, main, admin, upstream):
    """A seed file's text with its addresses on this machine, and its admin log in the proxy's directory."""
    text = (SEED / name).read_text().replace("/tmp/admin_access.log", "@DIR@/admin_access.log")
    for old, new in (
        (r"port_value: (9000|10000)", main),
        (r"port_value: 9901", admin),
        (r"port_value: (80|443)", upstream),
    ):
        text, count = re.subn(rf"{old}\n", f"port_value: {new}\n", text)
        assert count == 1, old
    text = re.sub(r"address: 172\.16\.129\.\d+", "address: 127.0.0.1", text)
    return text.replace("address: google.com", "address: localhost").replace("0.0.0.0", "127.0.0.1")


class Served:
    """A seed file, served before an upstream of the test's own."""

    def __init__(self, name, *, tls=None, change=lambda text: text):
        self.main, admin = free_ports(2)
        self.upstream = ScriptedUpstream(tls=tls)
        self.upstream.script([(ANSWER,)])
        self.proxy = Forkproxy(change(moved(name, self.main, admin, self.upstream.port)), admin_port=admin)

    def __enter__(self):
        self.proxy.start()
        return self

    def __exit__(self, *exc):
        self.proxy.close()
        self.upstream.stop()

    def get(self, host, path="/"):
        connection = http.client.HTTPConnection("127.0.0.1", self.main, timeout=10)
        try:
            connection.request("GET", path, headers={"host": host})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def seen(self):
        """The heads of the requests that the upstream got, lower-case."""
        return b"".join(self.upstream.received()).lower()


def test_webshell():
    with Served("webshell.v2.yaml") as served:
        assert served.get("webshell.com", "/a?b") == (200, b"seed!")
        assert served.get("other.example")[0] == 404
        seen = served.seen()
        assert seen.startswith(b"get /a?b http/1.1\r\nhost: webshell.com\r\n")
        assert b"\r\nx-request-id: " in seen
        counters = served.proxy.counters(usedonly=True)
        assert counters[f"{CLUSTER}.upstream_rq_200"] == 1
        assert counters[f"{CLUSTER}.upstream_rq_2xx"] == 1
        assert counters[f"{CLUSTER}.upstream_rq_total"] == 1
        assert counters["http.ingress_http.downstream_rq_2xx"] == 1
        assert served.proxy.stop() == 0
        assert "GET /ready" in served.proxy.access_log("admin_access.log")


def test_webshell_tuned_sends_no_request_id_and_counts_no_codes_per_cluster():
    with Served("webshell-tuned.v2.yaml") as served:
        assert served.get("webshell.com") == (200, b"seed!")
        assert b"x-request-id" not in served.seen()
        counters = served.proxy.counters()
        assert counters[f"{CLUSTER}.upstream_rq_total"] == 1
        assert counters["http.ingress_http.downstream_rq_2xx"] == 1
        assert not [name for name in counters if name.startswith(CLUSTER) and re.search(r"_rq_(\dxx|\d+)$", name)]
        assert counters[f"{CLUSTER}.upstream_rq_completed"] == 0
        assert f"{CLUSTER}.upstream_rq_time" not in served.proxy.admin("/stats?usedonly")[1].decode()


def server_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    directory = certificates.directory()
    context.load_cert_chain(directory / "good.pem", directory / "good-key.pem")
    return context


def trusting(authority):
    """``tls_context`` with a CA that the upstream's certificate must come from."""
    ca = f"{certificates.directory()}/{authority}.pem"
    validation = f"common_tls_context: {{validation_context: {{trusted_ca: {{filename: {ca}}}}}}}"
    return lambda text: text.replace("tls_context: { sni:", f"tls_context: {{ {validation}, sni:")


@pytest.mark.parametrize("change", [lambda text: text, trusting("ca")], ids=["as it is", "with its CA"])
def test_google(change):
    with Served("google_com_proxy.v2.yaml", tls=server_context(), change=change) as served:
        assert served.get("anything.example", "/search?q=1") == (200, b"seed!")
        assert served.upstream.server_names == ["www.google.com"]
        assert served.seen().startswith(b"get /search?q=1 http/1.1\r\nhost: www.google.com\r\n")
        counters = served.proxy.counters(usedonly=True)
        assert counters["cluster.service_google.ssl.handshake"] == 1
        assert b"service_google::127.0.0.1:" in served.proxy.admin("/clusters")[1]


def test_google_with_another_ca_is_not_spoken_to():
    with Served("google_com_proxy.v2.yaml", tls=server_context(), change=trusting("other-ca")) as served:
        status, body = served.get("anything.example")
        assert status == 503
        assert b"reset reason: remote connection failure" in body
        assert served.upstream.received() == []


# What the two switches save, counted: lines of Python run per request by this process itself.

PATH = ("connection_manager.py", "router.py", "stream.py", "http_pool.py", "request_id.py", "table.py", "rewrite.py")


class InProcess:
    """A generation of the tuned file in this process, with ``change`` made to its text."""

    def __init__(self, change):
        self.upstream = ScriptedUpstream()
        self.upstream.script([(ANSWER,)])
        text = moved("webshell-tuned.v2.yaml", 0, 0, self.upstream.port).replace("@DIR@/admin_access.log", "/dev/null")
        result = load(change(text), "seed")
        assert result.bootstrap is not None, result.problems
        registry = Registry()
        registry.begin_generation()
        self.generation = build_generation(result.bootstrap, registry, number=1)
        self.codes = self.generation.clusters["service_webshell"].stats.external__upstream_rq
        self.loop = LiveLoop()
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        self.address = listening.getsockname()
        self.generation.start(self.loop, {("listener_0", 0): [listening]})

    def lines_per_request(self, requests=20):
        """The least number of lines that a request cost, of some on one connection."""
        lines = 0

        def trace(frame, event, _argument):
            nonlocal lines
            if not frame.f_code.co_filename.endswith(PATH):
                return None
            lines += event == "line"
            return trace

        answers = []

        def ask():
            connection = http.client.HTTPConnection(*self.address, timeout=10)
            for _ in range(requests):
                connection.request("GET", "/", headers={"host": "webshell.com"})
                answers.append((connection.getresponse().read(), lines))
            connection.close()

        asking = threading.Thread(target=ask)
        before = sys.gettrace()
        sys.settrace(trace)
        asking.start()
        try:
            self.loop.run_until(lambda: len(answers) == requests)
        finally:
            sys.settrace(before)
            asking.join()
        assert {body for body, _ in answers} == {b"seed!"}
        counts = [count for _, count in answers]
        return min(later - earlier for earlier, later in itertools.pairwise(counts))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.generation.drain()
        self.generation.stop()
        self.loop.passes()
        self.loop.close()
        self.upstream.stop()


def with_request_ids(text):
    return text.replace("generate_request_id: false", "generate_request_id: true")


def with_dynamic_stats(text):
    return text.replace("dynamic_stats: false", "dynamic_stats: true")


def test_each_switch_saves_work(monkeypatch):
    made = []
    monkeypatch.setattr(
        "forkproxy.http.connection_manager.make_request_ids", lambda: made.append(1) or request_id.make_request_ids()
    )
    with InProcess(lambda text: text) as tuned:
        fewest = tuned.lines_per_request()
        assert made == []
        assert tuned.codes == {}
    with InProcess(with_request_ids) as ids:
        assert ids.lines_per_request() > fewest
        assert made
        assert ids.codes == {}
    made.clear()
    with InProcess(with_dynamic_stats) as codes:
        assert codes.lines_per_request() > fewest
        assert made == []
        assert codes.codes == {200: 20}
