"""The header_mutation filter: steps in order, levels in order, requests and responses."""

import pytest

from forkproxy.config.build.context import PerFilterConfig
from forkproxy.config.build.header_mutation import build, build_per_route
from forkproxy.config.build.listener import FilterEntry
from forkproxy.config.problems import ConfigError
from tests.support.playbook import WHERE, play, route
from tests.unit.config.build.building import built, value_of

TYPE_NAME = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def append(key, value, action="APPEND_IF_EXISTS_OR_ADD"):
    return f"{{append: {{header: {{key: {key}, value: '{value}'}}, append_action: {action}}}}}"


def mutations(request=(), response=()):
    return f"mutations: {{request_mutations: [{', '.join(request)}], response_mutations: [{', '.join(response)}]}}"


def talk(own, per_route=None, host=None, wins=False, **fields):
    config = value_of(build, TYPE_NAME, f"{{{own}, most_specific_header_mutations_wins: {str(wins).lower()}}}")
    entry = FilterEntry("m", TYPE_NAME, config, WHERE)
    fields.setdefault("routes", [route(per_filter_config=said(per_route))])
    return play(filters=[entry], virtual_host={"per_filter_config": said(host)}, **fields)


def said(text):
    if text is None:
        return {}
    return {"m": PerFilterConfig(value_of(build_per_route, TYPE_NAME + "PerRoute", f"{{{text}}}"))}


def test_requests_and_responses():
    p = talk(mutations([append("x-q", "1"), "{remove: X-Gone}"], [append("x-r", "%RESPONSE_CODE%"), "{remove: x-s}"]))
    p.downstream(b"GET / HTTP/1.1\r\nhost: a\r\nx-gone: 1\r\n\r\n")
    p.expect_upstream(b"GET / HTTP/1.1\r\nhost: a\r\nx-q: 1\r\n\r\n")
    p.upstream(b"HTTP/1.1 200 OK\r\nx-s: 1\r\ncontent-length: 0\r\n\r\n")
    p.expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-r: 200\r\n\r\n")


def test_each_step_sees_the_one_before():
    steps = [append("x-a", "1"), append("x-b", "%REQ(x-a)%"), "{remove: x-a}", append("x-a", "2")]
    talk(mutations(steps)).downstream(GET).expect_upstream(b"GET / HTTP/1.1\r\nhost: a\r\nx-b: 1\r\nx-a: 2\r\n\r\n")


@pytest.mark.parametrize(("wins", "order"), [(False, b"own,route,host"), (True, b"own,host,route")])
def test_levels(wins, order):
    p = talk(mutations([append("accept", "own")]), mutations([append("accept", "route")]),
             mutations([append("accept", "host")]), wins)  # fmt: skip
    p.downstream(GET).expect_upstream(b"GET / HTTP/1.1\r\nhost: a\r\naccept: %b\r\n\r\n" % order)


def test_the_filters_own_where_no_level_says_anything():
    p = talk(mutations([], [append("x-r", "own")]), routes=[route("/only")])
    p.downstream(GET).expect_downstream(b"HTTP/1.1 404 Not Found\r\nx-r: own\r\ncontent-length: 0\r\n\r\n")
    talk(mutations([append("x-q", "own")])).downstream(GET).expect_upstream(
        b"GET / HTTP/1.1\r\nhost: a\r\nx-q: own\r\n\r\n"
    )


def test_nothing_to_do():
    talk("mutations: {}").exchange()


def test_routes_with_the_same_levels_share_what_is_compiled():
    p = talk(mutations([append("x-q", "1")]), host=mutations([append("x-q", "2")]), routes=[route("/a"), route()])
    assert len({id(each.per_filter_config["m"]) for each in p.filter.routes.all_routes()}) == 1


def test_a_format_that_is_wrong_on_a_route_refuses_the_file():
    with pytest.raises(ConfigError):
        talk("mutations: {}", mutations([append("x-q", "%NOBODY(")]))


@pytest.mark.parametrize("name", ["':path'", "Host"])
def test_what_is_not_implemented_is_named(name):
    outcome = built(build, TYPE_NAME, f"{{{mutations([f'{{remove: {name}}}'])}}}")
    assert [said.partition(": ")[2] for said in outcome.unsupported] == [
        f'removing "{name.strip(chr(39)).lower()}" is not implemented'
    ]


@pytest.mark.parametrize("prefix", ["':'", "':met'"])
def test_a_match_that_takes_pseudo_headers_away_is_named(prefix):
    step = f"{{remove_on_match: {{key_matcher: {{prefix: {prefix}}}}}}}"
    with pytest.raises(ConfigError, match="remove_on_match that takes :"):
        talk(mutations([step]))


@pytest.mark.parametrize("key", ["':path'", "host"])
def test_pseudo_headers_are_not_changed(key):
    with pytest.raises(ConfigError, match="may not be modified"):
        talk(mutations([append(key, "/")]))


@pytest.mark.parametrize(
    ("mutation", "message"),
    [
        ("{}", "one of append and remove must be there"),
        ("{remove: a, append: {record: {key: a, value: b}}}", "only one of append and remove may be there"),
        ("{append: {}}", "record is missing"),
        ("{append: {record: {key: a, value: 1}}}", "must be a string"),
        ("{append: {record: {key: a}}}", "must be a string"),
    ],
)
def test_query_mutations_that_say_nothing(mutation, message):
    outcome = built(build, TYPE_NAME, f"{{mutations: {{query_parameter_mutations: [{mutation}]}}}}")
    assert len(outcome.errors) == 1
    assert message in outcome.errors[0]


def test_a_query_stays_well_formed():
    text = "mutations: {query_parameter_mutations: [{append: {record: {key: 'a b&', value: '%REQ(x-in)%'}}}]}"
    p = talk(text)
    p.downstream(b"GET /?c=%20%0d&b HTTP/1.1\r\nhost: a\r\nx-in: x y&=\r\n\r\n")
    p.expect_upstream(b"GET /?a%20b%26=x%20y%26%3D&b=&c=%20%0d HTTP/1.1\r\nhost: a\r\nx-in: x y&=\r\n\r\n")
