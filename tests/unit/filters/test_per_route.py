"""typed_per_filter_config at work: which filters are made, where they are on, and what they find on a route."""

import subprocess
import sys
from dataclasses import replace

import pytest

from forkproxy.config.build.context import PerFilterConfig
from forkproxy.config.build.listener import FilterEntry
from forkproxy.config.build.route import ForwardAction, RouteEntry, RouteMatch, WeightedCluster
from forkproxy.config.problems import ConfigError
from forkproxy.filters.per_route import used_filters
from forkproxy.http.filter import HttpFilter
from tests.support.playbook import NO_MUTATIONS, WHERE, hcm_config, play, route

OFF = PerFilterConfig(disabled=True)
ON = PerFilterConfig()
NAME = "tests.unit.filters.test_per_route:Says"
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


class Says(HttpFilter):
    """Tells the upstream what the route says about it, and leaves a trace in every hook."""

    def __init__(self, name):
        self.name = name
        self.hooks = []

    @classmethod
    def from_config(cls, config, context):
        return cls(context.name)

    def decode_headers(self, stream, headers, end_stream):
        self.hooks.append("decode_headers")
        config = stream.route.per_filter_config.get(self.name) if stream.route else None
        headers.append((b"x-says", repr(config).encode()))

    def decode_data(self, stream, data, end_stream):
        self.hooks.append("decode_data")

    def encode_headers(self, stream, headers, end_stream):
        self.hooks.append("encode_headers")

    def encode_data(self, stream, data, end_stream):
        self.hooks.append("encode_data")

    def on_stream_complete(self, stream):
        self.hooks.append("on_stream_complete")


class Adds(Says):
    def route_config(self, configs, route):
        return sum(config["n"] for config in configs) or None


class Breaks(HttpFilter):
    def route_config(self, configs, route):
        return configs[0]["missing"]


class Raises(HttpFilter):
    def decode_headers(self, stream, headers, end_stream):
        raise ValueError("broken")


def entry(disabled=False, name=NAME):
    return FilterEntry(name, "", {}, WHERE, disabled)


def said(p, request=GET):
    """What the filter told the upstream; "" when it did not run."""
    p.downstream(request)
    [head] = [sent for sent in (peer.read() for peer in p.upstreams) if sent]
    for peer in p.upstreams:
        if not peer.closed:
            p.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", on=p.upstreams.index(peer))
    return head.partition(b"x-says: ")[2].partition(b"\r\n")[0].decode()


def one(per_route=None, host=None, table=None, *, disabled=False, name=NAME):
    """A chain with one such filter, and what each level says about it."""
    levels = [{name: level} if level is not None else {} for level in (per_route, host, table)]
    return play(
        filters=[entry(disabled, name)],
        routes=[route(per_filter_config=levels[0])],
        virtual_host={"per_filter_config": levels[1]},
        per_filter_config=levels[2],
    )


@pytest.mark.parametrize(
    ("per_route", "host", "table", "found"),
    [
        (None, None, None, "None"),
        ({"n": 1}, {"n": 2}, {"n": 3}, "{'n': 1}"),
        (None, {"n": 2}, {"n": 3}, "{'n': 2}"),
        (None, None, {"n": 3}, "{'n': 3}"),
    ],
)
def test_the_most_specific_configuration_counts(per_route, host, table, found):
    levels = [None if each is None else PerFilterConfig(each) for each in (per_route, host, table)]
    assert said(one(*levels)) == found


def test_a_filter_may_make_something_of_all_levels():
    name = "tests.unit.filters.test_per_route:Adds"
    levels = [PerFilterConfig({"n": number}) for number in (1, 20, 300)]
    assert said(one(*levels, name=name)) == "321"
    assert said(one(name=name)) == "None"
    assert said(one(PerFilterConfig({"n": 0}), name=name)) == "None"


@pytest.mark.parametrize(
    ("disabled", "per_route", "host", "table", "runs"),
    [
        (False, OFF, None, None, False),
        (False, None, OFF, None, False),
        (False, None, None, OFF, False),
        (False, ON, OFF, None, True),
        (False, OFF, ON, None, False),
        (False, PerFilterConfig({"n": 1}), OFF, None, True),
        (True, None, None, None, False),
        (True, ON, None, None, True),
        (True, PerFilterConfig({"n": 1}), None, None, True),
        (True, None, None, ON, True),
        (True, None, OFF, ON, False),
        (True, OFF, None, ON, False),
    ],
)
def test_where_a_filter_is_on(disabled, per_route, host, table, runs):
    p = one(per_route, host, table, disabled=disabled)
    assert bool(said(p)) is runs
    says = [each for each in p.manager.chain.filters if isinstance(each, Says)]
    expected = ["decode_headers", "encode_headers", "encode_data", "on_stream_complete"] if runs else []
    assert list(dict.fromkeys(hook for each in says for hook in each.hooks)) == expected


def test_a_switch_without_configuration_leaves_that_of_the_other_levels():
    assert said(one(ON, PerFilterConfig({"n": 2}))) == "{'n': 2}"


def test_bodies_pass_a_filter_that_is_off():
    routes = [route("/off", per_filter_config={NAME: OFF}), route()]
    p = play(filters=[entry()], routes=routes)
    p.downstream(b"POST /off HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n", b"abc")
    p.expect_upstream(b"POST /off HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc")
    p.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    p.expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    assert p.manager.chain.filters[0].hooks == []
    p.downstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n", b"abc")
    assert set(p.manager.chain.filters[0].hooks) == {"decode_headers", "decode_data"}


@pytest.mark.parametrize(("disabled", "runs"), [(False, True), (True, False)])
def test_without_a_route_the_chain_says_whether_it_is_on(disabled, runs):
    p = play(filters=[entry(disabled)], routes=[route("/only", per_filter_config={NAME: ON if disabled else OFF})])
    p.downstream(GET)
    assert bool(p.manager.chain.filters[0].hooks) is runs


def test_weighted_clusters_are_the_most_specific_level():
    choices = (WeightedCluster("up", 1, NO_MUTATIONS, per_filter_config={NAME: PerFilterConfig({"n": 9})}),)
    made = RouteEntry(
        "w",
        RouteMatch("prefix", "/"),
        ForwardAction(weighted_clusters=choices),
        NO_MUTATIONS,
        WHERE,
        {NAME: PerFilterConfig({"n": 1})},
    )
    assert said(play(filters=[entry()], routes=[made])) == "{'n': 9}"


def test_two_filters_of_one_name_are_switched_both():
    p = play(filters=[entry(), entry(disabled=True)], routes=[route("/x", per_filter_config={NAME: ON}), route()])
    assert p.manager.chain.switches == {1: (NAME, True)}
    p = play(filters=[entry(), entry(disabled=True)], routes=[route(per_filter_config={NAME: OFF})])
    assert p.manager.chain.switches == {0: (NAME, False)}


def test_a_filter_that_is_off_everywhere_is_not_imported():
    sys.modules.pop("this", None)
    p = play(filters=[entry(disabled=True, name="this:Zen")], routes=[route(per_filter_config={"other": ON})])
    assert "this" not in sys.modules
    assert len(p.manager.chain.filters) == 1


def test_envoys_filters_are_imported_when_a_file_names_them():
    program = (
        "import sys, forkproxy.worker.generation, forkproxy.config.build.http_connection_manager\n"
        "print([name for name in sys.modules if name.startswith('forkproxy.filters.http.')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_nothing_is_added_where_nothing_is_said():
    p = play(filters=[entry()], routes=[route(), route("/b")])
    chain = p.manager.chain
    assert chain.decode_headers[0][1] == chain.filters[0].decode_headers
    assert len({id(each.per_filter_config) for each in p.filter.routes.all_routes()}) == 1


def test_an_exception_in_a_switched_filter_is_named():
    name = "tests.unit.filters.test_per_route:Raises"
    p = play(filters=[entry(name=name)], routes=[route("/x", per_filter_config={name: OFF}), route()])
    p.downstream(GET)
    assert p.exceptions == [("Raises", "broken")]


def test_the_router_cannot_be_switched_off():
    message = r'the last \(terminal\) filter "router" in the chain cannot be disabled'
    with pytest.raises(ConfigError, match=message):
        play(routes=[route(per_filter_config={"router": OFF})])
    config = hcm_config()
    config = replace(config, http_filters=(replace(config.http_filters[0], disabled=True),))
    with pytest.raises(ConfigError, match=message):
        used_filters(config.http_filters, config.route_table)


def test_a_third_party_that_cannot_use_its_configuration_refuses_the_file():
    name = "tests.unit.filters.test_per_route:Breaks"
    with pytest.raises(ConfigError, match="cannot use what a route says about it: KeyError: 'missing'") as caught:
        one(PerFilterConfig({"n": 1}), name=name)
    assert caught.value.line == WHERE.line
