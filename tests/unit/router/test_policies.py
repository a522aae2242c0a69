from dataclasses import replace

import pytest

from forkproxy.config.build.core import HeaderMutations
from forkproxy.config.build.route import ForwardAction, RouteTableConfig
from forkproxy.config.build.route_policies import MirrorPolicy, RoutePolicies, VirtualHostPolicies
from forkproxy.router.policies import NO_POLICIES, Mirror
from forkproxy.router.table import RouteTable
from tests.unit.router.fakes import NO_HEADERS, compile_fake_format, entry, option, vhost


def mirror(**fields):
    policy = {
        "cluster": "copy",
        "cluster_header": "",
        "fraction": None,
        "append_suffix": True,
        "host": "",
        "mutations": (),
    }
    return Mirror(MirrorPolicy(**{**policy, **fields}), None, {"copy": "a cluster"}.get)


@pytest.mark.parametrize(
    ("authority", "said"),
    [
        (b"a.example", b"a.example-shadow"),
        (b"a.example:80", b"a.example-shadow:80"),
        (b"[::1]", b"[::1]-shadow"),
        (b"[::1]:80", b"[::1]-shadow:80"),
    ],
)
def test_the_host_of_a_copy(authority, said):
    assert mirror().host_for(authority) == said


def test_the_host_may_stay_or_be_another():
    assert mirror(append_suffix=False).host_for(b"a:80") == b"a:80"
    assert mirror(host="b").host_for(b"a:80") == b"b"


def test_the_cluster_is_looked_up_once_all_are_there():
    bound = mirror()
    assert bound.find_cluster(None) is None
    bound.bind()
    assert bound.find_cluster(None) == "a cluster"


def test_nothing_matters_without_policies():
    assert not NO_POLICIES.matter
    assert not NO_POLICIES.shape_exchange


def test_only_routes_that_ask_for_more_have_policies():
    directs = HeaderMutations(request_add=(option("X-Envoy-Max-Retries", "1"),))
    adds = HeaderMutations(request_add=(option("x-other"),))
    plain, hedged = ForwardAction(cluster="up"), ForwardAction(cluster="up", policies=RoutePolicies(hedges=True))
    routes = [
        entry(action=plain),
        entry(action=plain, mutations=adds),
        entry(action=plain, mutations=directs),
        entry(action=hedged),
        entry(action=plain),
        entry(action=ForwardAction(cluster="up", policies=RoutePolicies(hedges=False))),
    ]
    hedging = replace(vhost(*routes, name="w", domains=("w",)), policies=VirtualHostPolicies(hedges=True))
    config = RouteTableConfig("t", (vhost(*routes), hedging), NO_HEADERS)
    table = RouteTable(config, compile_format=compile_fake_format, cluster_lookup={}.get)
    told = [[route.policies is not None for route in host.routes] for host in table.virtual_hosts]
    assert told == [[False, False, True, True, False, False], [True, True, True, True, True, False]]
