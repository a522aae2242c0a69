"""The router and clusters that want more than ``pick()``: hashes, metadata, cookies, retries."""

import dataclasses

import pytest

from forkproxy.config.build.core import HeaderMutations, HeaderValueOption, Where
from forkproxy.config.build.hash_policy import HashPolicy
from forkproxy.config.build.load_balancing import LoadBalancingConfig, SubsetConfig, SubsetSelector
from forkproxy.config.build.retry import RetryPolicy
from forkproxy.http.filter import HttpFilter
from tests.support.playbook import endpoint, play, route
from tests.unit.router.fakes import FakeStream

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nhost: a\r\nx-key: %d\r\n\r\n"
MAGLEV = LoadBalancingConfig("MAGLEV", table_size=251)
BY_KEY = (HashPolicy("header", "x-key"),)


def with_endpoints(load_balancing=MAGLEV, number=4, **fields):
    fields.setdefault("hash_policies", BY_KEY)
    return play(
        routes=[route(**fields)],
        cluster={"endpoints": [endpoint(10 + each) for each in range(number)], "load_balancing": load_balancing},
    )


def exchange(p, key):
    p.downstream(GET % key).expect_upstream(GET % key)
    address = p.up.connection.remote_address[0]
    p.upstream(OK).expect_downstream(OK)
    return address


def test_a_key_goes_to_one_endpoint():
    p = with_endpoints()
    first = [exchange(p, key) for key in range(12)]
    assert len(set(first)) > 2
    assert [exchange(p, key) for key in range(12)] == first
    p.expect_quiet()


@pytest.mark.parametrize(("load_balancing", "is_plain"), [(MAGLEV, False), (LoadBalancingConfig(), True)])
def test_a_route_is_plain_as_long_as_its_cluster_asks_for_nothing(load_balancing, is_plain):
    p = with_endpoints(load_balancing)
    found = p.manager.match(FakeStream(b"/", b"a"))
    assert found.is_plain is is_plain
    assert p.cluster.needs_context is not is_plain


def test_nothing_is_hashed_for_others():
    p = with_endpoints(LoadBalancingConfig(), number=1)
    found = p.manager.match(FakeStream(b"/", b"a"))
    found.hash_policy = None  # would raise if it were called
    exchange(p, 1)


def test_a_cookie_is_made_and_comes_with_the_answer():
    policies = (HashPolicy("cookie", "s", ttl_s=5),)
    p = with_endpoints(hash_policies=policies)
    get = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    p.downstream(get).expect_upstream(get).upstream(OK)
    answer = p.down.read()
    assert b'\r\nset-cookie: s="' in answer
    assert b'"; Max-Age=5; HttpOnly\r\n' in answer
    value = answer.partition(b's="')[2][:16]
    first = p.up.connection.remote_address
    again = b"GET / HTTP/1.1\r\nhost: a\r\ncookie: s=%b\r\n\r\n" % value
    p.downstream(again).expect_upstream(again)
    assert p.up.connection.remote_address == first
    p.upstream(OK)
    assert b"set-cookie" not in p.down.read()
    p.expect_quiet()


def test_the_routers_own_answers_bring_no_cookie():
    p = with_endpoints(hash_policies=(HashPolicy("cookie", "s", ttl_s=5),))
    p.cluster.set_endpoints([])
    p.downstream(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    answer = p.down.read()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"set-cookie" not in answer


def test_a_cookie_beside_the_routes_own_headers():
    added = HeaderValueOption("x-added", "1", "APPEND_IF_EXISTS_OR_ADD", False, Where())
    p = with_endpoints(
        hash_policies=(HashPolicy("cookie", "s", ttl_s=0),), mutations=HeaderMutations(response_add=(added,))
    )
    p.downstream(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect_upstream(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").upstream(
        OK
    )
    answer = p.down.read()
    assert answer.index(b"set-cookie") < answer.index(b"x-added: 1")


def retried(predicates, num_retries=3, **fields):
    policy = RetryPolicy(frozenset(("5xx",)), num_retries=num_retries, host_selection_max_attempts=200, **predicates)
    return with_endpoints(retry_policy=policy, **fields)


@pytest.mark.parametrize("load_balancing", [MAGLEV, LoadBalancingConfig(), LoadBalancingConfig("RANDOM")])
def test_retries_go_to_endpoints_not_tried_before(load_balancing):
    p = retried({"avoid_previous_hosts": True}, load_balancing=load_balancing, number=4)
    p.downstream(GET % 5)
    tried = []
    for _ in range(3):
        p.expect_upstream(GET % 5)
        tried.append(p.up.connection.remote_address)
        p.upstream(BUSY).advance(0.3)
    p.expect_upstream(GET % 5)
    tried.append(p.up.connection.remote_address)
    p.upstream(OK).expect_downstream(OK)
    assert len(set(tried)) == 4
    p.expect_quiet()


def test_a_retry_with_the_same_hash_goes_to_the_same_endpoint():
    p = retried({}, number=4)
    p.downstream(GET % 5).expect_upstream(GET % 5)
    first = p.up.connection.remote_address
    p.upstream(BUSY).advance(0.3).expect_upstream(GET % 5)
    assert p.up.connection.remote_address == first


class Labels(HttpFilter):
    """Sets metadata, as header_to_metadata does."""

    def __init__(self, **metadata):
        self.metadata = metadata

    def decode_headers(self, stream, headers, end_stream):
        stream.dynamic_metadata["envoy.lb"] = self.metadata


def test_metadata_of_filters_is_put_over_the_routes():
    members = [
        dataclasses.replace(endpoint(20), metadata='{"stage":"dev","v":1}'),
        dataclasses.replace(endpoint(21), metadata='{"stage":"dev","v":2}'),
        dataclasses.replace(endpoint(22), metadata='{"stage":"prod","v":2}'),
    ]
    subsets = LoadBalancingConfig(
        subset=SubsetConfig(selectors=(SubsetSelector(("stage", "v")), SubsetSelector(("v",))))
    )
    routes = [route(metadata_match={"stage": "dev", "v": 1})]
    get = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    for filters, address in (((), 20), ((Labels(v=2),), 21), ((Labels(stage="prod", v=2.0),), 22)):
        p = play(*filters, routes=routes, cluster={"endpoints": members, "load_balancing": subsets})
        p.downstream(get).expect_upstream(get)
        assert p.up.connection.remote_address[0] == f"192.0.2.{address}"
        p.upstream(OK).expect_downstream(OK)
    p = play(Labels(v=9), routes=routes, cluster={"endpoints": members, "load_balancing": subsets})
    p.downstream(get)
    assert b"no healthy upstream" in p.down.read()
