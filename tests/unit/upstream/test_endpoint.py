"""Endpoints and the places of their figures."""

from forkproxy.stats.groups import EndpointStats
from forkproxy.upstream.endpoint import Endpoint, ResolvedEndpoint, StatSlots, stat_prefix


def slots(number):
    return StatSlots([EndpointStats() for _ in range(number)])


def assigned(table, *listed):
    return dict(zip(listed, [slot for slot, _ in table.assign(list(listed))], strict=True))


def test_an_address_keeps_its_slot_while_it_is_listed():
    table = slots(3)
    first = assigned(table, "a", "b")
    assert assigned(table, "b", "a") == first
    assert assigned(table, "c", "b")["b"] == first["b"]


def test_no_two_addresses_share_a_slot_while_there_is_room():
    table = slots(4)
    for listed in ("ab", "bcd", "dcea", "aebc", "xyza"):
        found = assigned(table, *listed)
        assert len(set(found.values())) == len(listed)


def test_beyond_the_capacity_the_last_slot_is_shared():
    table = slots(2)
    found = assigned(table, *"abcd")
    assert [found[name] for name in "abcd"] == [0, 1, 1, 1]
    assert table.assign(["a"])[0][1] is table.assign(["a"])[0][1]


def test_every_process_assigns_alike():
    one, two = slots(3), slots(3)
    for listed in ("abc", "cd", "edc", "abe", "f", "gfa"):
        assert assigned(one, *listed) == assigned(two, *listed)


def test_an_address_that_is_listed_twice_counts_in_one_place():
    assert [slot for slot, _ in slots(3).assign(["a", "a"])] == [0, 0]


def test_an_endpoint_and_its_text():
    pools = []
    made = Endpoint(
        ResolvedEndpoint(("::1", 80), hostname="h", weight=3),
        EndpointStats(),
        lambda made: pools.append(made) or "pool",
    )
    assert (made.address, made.hostname, made.weight, made.pool, pools) == ("[::1]:80", "h", 3, "pool", [made])
    assert repr(made) == "<Endpoint [::1]:80 weight=3 active=0>"


def test_the_prefix_of_a_slot():
    assert stat_prefix("up", 3) == "cluster.up.endpoint.3"
