"""Addresses and their tags; what goes upstream is played beside Envoy."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import FractionalPercent
from forkproxy.config.build.ip_tagging import IpTaggingConfig, build
from forkproxy.config.build.listener import FilterEntry
from forkproxy.filters.http.ip_tagging import Ranges
from tests.support.playbook import WHERE, play
from tests.unit.config.build.building import value_of

MESSAGE = "envoy.extensions.filters.http.ip_tagging.v3.IPTagging"
NETWORKS = st.tuples(st.ip_addresses(), st.integers(0, 32)).map(
    lambda pair: str(ipaddress.ip_network(pair, strict=False))
)


@given(st.lists(NETWORKS, max_size=8), st.ip_addresses())
def test_an_address_has_the_tags_of_all_ranges_that_it_is_in(networks, address):
    ranges = Ranges([(str(number), [network]) for number, network in enumerate(networks)])
    wanted = [str(number) for number, network in enumerate(networks) if address in ipaddress.ip_network(network)]
    assert ranges.of(str(address)) == wanted


@pytest.mark.parametrize("address", ["", "/run/socket", "1.2.3", "fe80::1%eth0"])
def test_what_is_no_address_has_none(address):
    assert Ranges([("all", ["0.0.0.0/0", "::/0"])]).of(address) == []


def test_a_tag_twice_is_one():
    assert Ranges([("a", ["10.0.0.0/8", "10.1.0.0/16"])]).of("10.1.2.3") == ["a"]


def talk(**fields):
    config = IpTaggingConfig(**{"request_type": "BOTH", "tags": (("all", ("0.0.0.0/0",)),), **fields})
    return play(filters=[FilterEntry("t", MESSAGE, config, WHERE)])


GET = b"GET / HTTP/1.1\r\nhost: a\r\n%b\r\n"


def test_only_requests_of_one_kind():
    for kind, tagged in (("INTERNAL", 0), ("EXTERNAL", 1), ("BOTH", 1)):
        p = talk(request_type=kind).downstream(GET % b"")
        p.expect_upstream(GET % (b"x-envoy-ip-tags: all\r\n" if tagged else b""))
        assert p.manager.chain.filters[0].stats.total == tagged


def test_the_runtime_may_switch_it_off():
    made = value_of(
        build,
        MESSAGE,
        "{ip_tags: [{ip_tag_name: a, ip_list: [{address_prefix: 10.0.0.0, prefix_len: 8}]}]}",
        BuildContext(runtime={"ip_tagging.http_filter_enabled": 0}),
    )
    assert made.enabled.numerator == 0
    talk(enabled=FractionalPercent(0)).downstream(GET % b"").expect_upstream(GET % b"")
