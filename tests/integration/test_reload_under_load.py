"""Every kind of change is rolled out under load, one after another: no request fails, and a long download ends intact."""

import contextlib
import http.client
import json
import os
import socket
import ssl

import pytest

from forkproxy.supervisor.control_socket import ask
from tests.support import bootstrap as b
from tests.support.forkproxy import Forkproxy
from tests.support.load import HttpLoad
from tests.support.proxy import free_ports
from tests.support.supervised import until
from tests.support.upstream import ScriptedUpstream
from tests.support.x509_authority import leaf

RELOADS = 12
PATIENCE_S = 30.0
BODY = os.urandom(1 << 20) * 24
WORKERS = (2, 3, 1)


class Proxy(Forkproxy):
    """forkproxy whose file decides how many workers there are, and does not hurry long connections."""

    def command(self):
        command = super().command()
        at = command.index("--concurrency")
        del command[at : at + 2]
        command[command.index("--drain-time-s") + 1] = "600"
        return command

    def ask(self, op):
        return ask(self.directory / "control.sock", {"op": op}, PATIENCE_S)


class Site:
    """What the proxy is to do in step ``n``: each step changes a route, a cluster, a port, a certificate and the workers."""

    def __init__(self, directory):
        names = ("main", "tls", "admin", "here", "there", "extra")
        self.upstreams = [ScriptedUpstream() for _ in range(3)]
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.ports |= {f"up{number}": upstream.port for number, upstream in enumerate(self.upstreams)}
        self.upstreams[2].script([(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY,)])
        self._directory = directory
        self.certificates = [self._certificate(number) for number in range(2)]

    def _certificate(self, number):
        made = leaf(f"certificate-{number}.example")
        (self._directory / f"{number}.pem").write_bytes(made.pem)
        (self._directory / f"{number}-key.pem").write_bytes(made.key_pem)
        return ssl.PEM_cert_to_DER_cert(made.pem.decode())

    def config(self, n):
        """The file of step ``n``."""
        routes = [
            {"match": {"path": "/step"}, "direct_response": {"status": 200, "body": {"inline_string": str(n)}}},
            b.route("/big", "big", action={"timeout": "0s"}),
            b.route("/", f"step_{n}"),
        ]
        hcm = b.hcm({"virtual_hosts": [b.vhost(*routes)]}, access_log=[])
        tls = b.tls_downstream()
        (files,) = tls["typed_config"]["common_tls_context"]["tls_certificates"]
        files["certificate_chain"]["filename"] = f"{self._directory}/{n % 2}.pem"
        files["private_key"]["filename"] = f"{self._directory}/{n % 2}-key.pem"
        listeners = [
            {"name": "tls", "address": b.port("tls"), "filter_chains": [{"filters": [hcm], "transport_socket": tls}]},
            {"name": "moves", "address": b.port(self.moved_to(n)), "filter_chains": [{"filters": [hcm]}]},
        ]
        if self.has_extra(n):
            listeners.append({"name": "extra", "address": b.port("extra"), "filter_chains": [{"filters": [hcm]}]})
        clusters = [b.cluster(f"step_{n}", f"up{n % 2}"), b.cluster("big", "up2")]
        own = {"concurrency": WORKERS[n % 3]}
        return b.render(b.bootstrap([hcm], clusters, more_listeners=listeners, forkproxy=own), self.ports)

    @staticmethod
    def moved_to(n):
        return "here" if n % 2 else "there"

    @staticmethod
    def has_extra(n):
        return n % 3 == 0

    def get(self, port, context=None):
        """(what /step answers on a listener, the certificate it shows)."""
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", self.ports[port]), timeout=PATIENCE_S))
            shown = None
            if context is not None:
                sock = stack.enter_context(context.wrap_socket(sock))
                shown = sock.getpeercert(binary_form=True)
            sock.sendall(b"GET /step HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            answer = http.client.HTTPResponse(sock)
            answer.begin()
            return answer.read().decode(), shown

    def close(self):
        for upstream in self.upstreams:
            upstream.stop()


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.close()


@pytest.fixture
def proxy(site, tmp_path):
    running = Proxy(site.config(1), admin_port=site.ports["admin"], directory=tmp_path)
    running.start()
    yield running
    running.close()


class Download:
    """A client that takes its time: what it has not asked for waits in the proxy and in the upstream."""

    def __init__(self, port):
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._sock.sendall(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n")
        self._answer = http.client.HTTPResponse(self._sock)
        self._answer.begin()
        self.got = b""

    def take(self, size):
        self.got += self._answer.read(size)

    def take_the_rest(self):
        self.got += self._answer.read()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._answer.close()
        self._sock.close()


def assert_live(proxy, site, n, context):
    """Everything that step ``n`` changed is in force, and what it took away is gone."""
    until(lambda: site.get("main") == (str(n), None))
    assert site.get("tls", context) == (str(n), site.certificates[n % 2])
    assert site.get(site.moved_to(n)) == (str(n), None)
    gone = [site.moved_to(n + 1)] + ([] if site.has_extra(n) else ["extra"])
    for port in gone:
        until(lambda port=port: is_closed(site, port))
    if site.has_extra(n):
        assert site.get("extra") == (str(n), None)
    clusters = proxy.admin("/clusters")[1].decode()
    assert f"step_{n}::" in clusters
    assert f"step_{n - 1}::" not in clusters
    until(lambda: len(serving(proxy, n)) == WORKERS[n % 3])


def is_closed(site, port):
    # Until its last worker has closed it, a listener that goes answers as before; it resets nobody.
    try:
        site.get(port)
    except ConnectionRefusedError:
        return True
    return False


def serving(proxy, n):
    """The slots whose ready worker runs generation ``n``."""
    workers = proxy.ask("status")["workers"]
    return {entry["slot"] for entry in workers if entry["state"] == "ready" and entry["generation"] == n}


def test_every_change_is_rolled_out_and_no_request_fails(proxy, site):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    main = site.ports["main"]
    with (
        Download(main) as download,
        HttpLoad(main, count=16, path="/step") as answered_here,
        HttpLoad(main, count=16) as proxied,
    ):
        for n in range(2, 2 + RELOADS):
            proxy.config_path.write_text(site.config(n))
            outcome = proxy.ask("reload")
            assert outcome["ok"], outcome
            assert_live(proxy, site, n, context)
            download.take(256 * 1024)
            done = proxied.done
            until(lambda n=n, done=done: b"%d" % n in answered_here.answers and proxied.done > done + 16)
        download.take_the_rest()
    assert answered_here.failures == []
    assert proxied.failures == []
    assert download.got == BODY
    assert json.loads(proxy.admin("/server_info")[1])["state"] == "LIVE"
