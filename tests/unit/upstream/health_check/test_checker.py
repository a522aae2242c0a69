"""Where endpoints are checked, and which are."""

import socket

import pytest

from forkproxy.config.build.health_check import TcpCheck
from forkproxy.net.connection import Connection
from forkproxy.stats.groups import HealthCheckStats
from forkproxy.stats.shared import SharedCells
from forkproxy.upstream.endpoint import ResolvedEndpoint
from forkproxy.upstream.health_check.checker import HealthChecker, Report, checked_address
from tests.support.health_checks import Rig, health_check_config
from tests.support.live_loop import LiveLoop
from tests.support.playbook import cluster_config, make_cluster


@pytest.mark.parametrize(
    ("address", "fields", "checked"),
    [
        (("192.0.2.1", 80), {}, ("192.0.2.1", 80)),
        (("192.0.2.1", 80), {"check_port": 81}, ("192.0.2.1", 81)),
        (("192.0.2.1", 80), {"check_host": "192.0.2.9", "check_port": 81}, ("192.0.2.9", 81)),
        (("192.0.2.1", 80), {"check_host": "/run/hc"}, "/run/hc"),
        (("192.0.2.1", 80), {"check_host": "@hc"}, "\0hc"),
        ("/run/x", {}, "/run/x"),
        ("/run/x", {"check_host": "192.0.2.9", "check_port": 81}, ("192.0.2.9", 81)),
    ],
)
def test_where_an_endpoint_is_checked(address, fields, checked):
    cluster = make_cluster(cluster_config(), slots=1)
    cluster.set_endpoints([ResolvedEndpoint(address, **fields)])
    assert checked_address(cluster.endpoints[0]) == checked


def test_an_endpoint_that_is_not_to_be_checked_is_not():
    cluster = make_cluster(cluster_config(), slots=1)
    cluster.set_endpoints([ResolvedEndpoint(("192.0.2.1", 80), check_disabled=True)])
    rig = Rig(cluster=cluster, flags=0).start()
    assert not rig.connections
    assert rig.told == ["round"]


def test_a_cluster_without_endpoints_has_had_its_round():
    cluster = make_cluster(cluster_config(localities=()), slots=1)
    assert Rig(cluster=cluster).start().told == ["round"]


def test_a_dns_cluster_without_an_answer_waits_for_it():
    cluster = make_cluster(cluster_config(type="STRICT_DNS"), slots=1)
    rig = Rig(cluster=cluster).start()
    assert rig.told == []
    cluster.set_endpoints([ResolvedEndpoint(("192.0.2.1", 80))])
    rig.succeed()
    assert rig.told == ["round"]


def test_over_a_real_socket():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        cluster = make_cluster(cluster_config(), slots=1)
        cluster.set_endpoints([ResolvedEndpoint(listening.getsockname())])
        cell = SharedCells().common("traffic", "cluster.up")
        checker = HealthChecker(
            cluster, health_check_config(TcpCheck()), HealthCheckStats(), transport=Connection, traffic=cell
        )
        loop = LiveLoop()
        checker.start(loop, Report(), is_known=False)
        loop.run_until(lambda: checker.stats.success)
        loop.close()
