"""Explanations of the route table: that they say what ``match`` does, and why."""

import random
from dataclasses import replace

import pytest

from forkproxy.config.build.core import FractionalPercent, HeaderMatcher, HeaderMutations, QueryParameterMatcher, Where
from forkproxy.config.build.core import StringMatcher as Text
from forkproxy.config.build.match_tree import MatchTree
from forkproxy.config.build.metadata import MetadataMatcher, ValueMatcher
from forkproxy.config.build.route import ForwardAction, RouteMatch, RouteTableConfig, WeightedCluster
from forkproxy.router import explain
from forkproxy.router.explain import loaded
from forkproxy.router.table import RouteTable
from tests.unit.router.fakes import FakeStream, NamedCluster, compile_fake_format, direct, entry, redirect, vhost

NO_HEADERS = HeaderMutations()


def table(*vhosts, dice=None, **more):
    config = RouteTableConfig("r", tuple(vhosts), NO_HEADERS, **more)
    options = {} if dice is None else {"dice": dice}
    made = RouteTable(config, compile_format=compile_fake_format, cluster_lookup=NamedCluster, **options)
    made.bind()
    return made


def told(*routes, path="/", host="h", headers=(), **more):
    stream = FakeStream(path.encode(), host.encode(), headers, **more)
    return explain.explain(table(vhost(*routes)), stream)


def missed(explanation, number=0):
    (criterion,) = explanation.judgements[number].missed
    return criterion.wants, criterion.got, criterion.hint


# The property: what is explained is what is served


HOSTS = ["a.example", "A.example", "b.a.example", "x-bar", "a.example:80", "other", ""]
DOMAINS = ["a.example", "*.example", "*.a.example", "a.*", "*-bar", "a.example:80", "*"]
PATHS = ["/", "/a", "/A", "/a/", "/a/b", "/ab?q=1", "/a?q=1&r=x", "/a/b#f", "*", "/b/a/b", "/a;x=1/b;y"]
VALUES = ["/", "/a", "/a/", "/A", "/a/b", "/b", ""]
REGEXES = ["/a.*", ".*", "/a", "/(a|b)/[ab]", "/b/.*b"]
REQUEST_HEADERS = [
    *((b"x-a", b"1"), (b"x-a", b"2"), (b"x-b", b"dev"), (b"content-type", b"application/grpc")),
    *((b"x-host", b"a.example"), (b"x-host", b"b.a.example")),
]


def some(rng, choices, most=2):
    return tuple(rng.choice(choices) for _ in range(rng.randrange(most + 1)))


def random_text(rng):
    kind = rng.choice(["exact", "prefix", "suffix", "contains", "safe_regex"])
    return Text(kind, rng.choice(["1", "2", "dev", "d", "x"]), rng.random() < 0.3)


def random_header(rng):
    kind = rng.choice(["string", "range", "present"])
    return HeaderMatcher(
        rng.choice(["x-a", "x-b", ":method", "host", "content-type"]),
        kind,
        random_text(rng) if kind == "string" else None,
        *((0, rng.choice([1, 2, 3])) if kind == "range" else (0, 0)),
        present=rng.random() < 0.5,
        invert=rng.random() < 0.3,
        treat_missing_as_empty=rng.random() < 0.2,
    )


def random_match(rng):
    kind = rng.choice(["prefix", "path", "path_separated_prefix", "safe_regex"])
    value = rng.choice(REGEXES if kind == "safe_regex" else VALUES)
    is_bare = rng.random() < 0.5
    query = QueryParameterMatcher(rng.choice("qr"), random_text(rng) if rng.random() < 0.5 else None)
    return RouteMatch(
        kind,
        value,
        rng.random() < 0.8,
        () if is_bare else tuple(random_header(rng) for _ in range(rng.randrange(3))),
        () if is_bare or rng.random() < 0.7 else (query,),
        not is_bare and rng.random() < 0.1,
        FractionalPercent(rng.choice([0, 1, 30, 100]), rng.choice([100, 10_000])) if rng.random() < 0.3 else None,
    )


def random_action(rng):
    kind = rng.randrange(4)
    if kind == 0:
        return direct()
    if kind == 1:
        return redirect(host_redirect="x")
    if kind == 2:
        weights = [rng.choice([0, 1, 3, 10]) for _ in range(3)] + [1]
        clusters = tuple(WeightedCluster(f"w{place}", weight, NO_HEADERS) for place, weight in enumerate(weights))
        return ForwardAction(weighted_clusters=clusters, weighted_header=rng.choice(["", "x-a"]))
    return ForwardAction(cluster="up")


def random_table(rng, number):
    domains = rng.sample(DOMAINS, rng.randrange(1, len(DOMAINS)))
    cut = rng.randrange(len(domains) + 1)
    hosts = []
    for place, names in enumerate((domains[:cut], domains[cut:])):
        matches = [random_match(rng) for _ in range(rng.randrange(7))]
        routes = [
            entry(action=random_action(rng), name=f"{place}.{row}", **as_fields(match))
            for row, match in enumerate(matches)
        ]
        if names:
            hosts.append(
                vhost(*routes, name=str(place), domains=names, require_tls=rng.choice(["NONE", "NONE", "ALL"]))
            )
    return table(
        *hosts,
        dice=loaded(number),
        ignore_port_in_host_matching=rng.random() < 0.3,
        ignore_path_parameters_in_path_matching=rng.random() < 0.2,
        vhost_header=rng.choice(["", "", "", "x-host"]),
    )


def as_fields(match):
    names = ("kind", "value", "case_sensitive", "headers", "query_parameters", "grpc", "runtime_fraction")
    return {name: getattr(match, name) for name in names}


def takes(judgement, number):
    """Whether the route takes the request once the dice have fallen."""
    fraction = judgement.route.config.match.runtime_fraction
    return judgement.matches and (fraction is None or number % fraction.denominator < fraction.numerator)


@pytest.mark.parametrize("seed", range(40))
def test_the_explained_winner_is_the_one_that_match_chooses(seed):
    rng = random.Random(seed)
    for _ in range(10):
        number = rng.randrange(1_000_000)
        made = random_table(rng, number)
        for _ in range(10):
            stream = FakeStream(
                rng.choice(PATHS).encode(),
                rng.choice(HOSTS).encode(),
                some(rng, REQUEST_HEADERS, 3),
                rng.choice([b"GET", b"POST"]),
                rng.choice([b"http", b"https"]),
            )
            served = made.match(stream)
            explanation = explain.explain(made, stream, dice_are_loaded=True)
            assert explanation.chosen in explanation.outcomes, (served, explanation)
            assert explanation.chosen.choice is served
            assert sum(outcome.share for outcome in explanation.outcomes) == pytest.approx(1)
            if served is not None:
                assert explanation.virtual_host is served.virtual_host
                assert explanation.domain in explanation.virtual_host.config.domains
                if served.config is None:
                    continue  # the redirect of require_tls
            first = next((each for each in explanation.judgements if takes(each, number)), None)
            assert (first.route.config if first else None) is (served.config if served else None)
            for judgement in explanation.judgements:
                assert judgement.matches != bool(judgement.missed)


@pytest.mark.parametrize("seed", range(5))
def test_the_shares_are_those_of_all_numbers(seed):
    rng = random.Random(seed)
    hundred = [random_match(rng) for _ in range(4)]
    routes = []
    for row, match in enumerate(hundred):
        fields = as_fields(match) | {"runtime_fraction": FractionalPercent(rng.choice([10, 50]))}
        routes.append(entry(action=direct(200 + row), name=str(row), **fields))
    stream = FakeStream(b"/a/b", b"h", [(b"x-a", b"1")])
    explanation = explain.explain(table(vhost(*routes)), stream)
    possible = {table(vhost(*routes), dice=loaded(number)).match(stream) is not None for number in range(100)}
    assert any(outcome.route is not None for outcome in explanation.outcomes) == (True in possible)
    assert explanation.chosen is None or len(explanation.outcomes) == 1


# Words


@pytest.mark.parametrize(
    ("kind", "value", "path", "hint"),
    [
        ("path", "/Health", "/health", "it differs in upper and lower case"),
        ("path", "/a", "/a/", "the request has a slash at its end"),
        ("path", "/a/", "/a", "the request has no slash at its end"),
        ("prefix", "/a/", "/a", "the request has no slash at its end"),
        ("path", "/a", "/a/b", "path means the whole path: prefix would match"),
        ("path_separated_prefix", "/a", "/ab", "after it the path must end, or go on with a slash"),
        ("path", "/a?b=1", "/a?b=1", "a query is never part of the path: query_parameters match it"),
        ("prefix", "a", "/a", "every path begins with a slash"),
        ("safe_regex", "/a", "/a/b", "it matches a part, and must match the whole"),
        ("safe_regex", "/b", "/a", ""),
        ("prefix", "/b", "/a", ""),
    ],
)
def test_a_path_that_does_not_match(kind, value, path, hint):
    wants, got, said = missed(told(entry(kind, value), path=path))
    assert wants == f'{kind.removeprefix("safe_")} "{value}"'
    assert got == f'the path is "{path.partition("?")[0]}"'
    assert said == hint


@pytest.mark.parametrize(
    ("matcher", "headers", "expected"),
    [
        (HeaderMatcher("x-env", "string", Text("exact", "prod")), [], ('is "prod"', "there is no x-env", "")),
        (
            HeaderMatcher("x-env", "string", Text("exact", "prod")),
            [(b"x-env", b"Prod")],
            ('is "prod"', 'x-env is "Prod"', "it differs in upper and lower case"),
        ),
        (
            HeaderMatcher("x-env", "string", Text("prefix", "p", True)),
            [(b"x-env", b"d"), (b"x-env", b"e")],
            ('begins with "p", in any case', 'x-env is "d", "e"', ""),
        ),
        (
            HeaderMatcher("x-env", "string", Text("safe_regex", "pr")),
            [(b"x-env", b"prod")],
            ('matches regex "pr"', 'x-env is "prod"', "it matches a part, and must match the whole"),
        ),
        (
            HeaderMatcher("x-n", "range", range_start=1, range_end=5),
            [(b"x-n", b"5")],
            ("is a number from 1 to less than 5", 'x-n is "5"', ""),
        ),
        (HeaderMatcher("x-n", "present"), [], ("is there", "there is no x-n", "")),
        (HeaderMatcher("x-n", "present", invert=True), [(b"x-n", b"")], ("is absent", 'x-n is ""', "")),
        (
            HeaderMatcher("x-n", "string", Text("exact", "1"), invert=True),
            [],
            ('not: is "1"', "there is no x-n", "a header that is missing matches nothing, not even inverted"),
        ),
        (
            HeaderMatcher(":method", "string", Text("exact", "POST")),
            [],
            ('is "POST"', ':method is "GET"', ""),
        ),
    ],
)
def test_a_header_that_does_not_match(matcher, headers, expected):
    wants, got, hint = missed(told(entry(headers=(matcher,)), headers=headers))
    assert (wants, got, hint) == (f"header {matcher.name} {expected[0]}", *expected[1:])


@pytest.mark.parametrize(
    ("matcher", "path", "wants", "got"),
    [
        (QueryParameterMatcher("q", Text("exact", "1")), "/?q=2", 'query parameter q is "1"', 'q is "2"'),
        (QueryParameterMatcher("q"), "/?p=2", "query parameter q is there", "there is no q"),
        (QueryParameterMatcher("q", present=False), "/?q=", "query parameter q is absent", 'q is ""'),
    ],
)
def test_a_query_that_does_not_match(matcher, path, wants, got):
    assert missed(told(entry(query_parameters=(matcher,)), path=path)) == (wants, got, "")


def test_a_connect():
    asked = entry("connect_matcher", "", headers=(HeaderMatcher("x-a", "present"),))
    routes = (asked, entry("prefix", ""), entry("connect_matcher", ""))
    explanation = told(*routes, path="", host="h:443", method=b"CONNECT")
    assert explanation.chosen.number == 2
    assert missed(explanation, 0)[0].startswith("header x-a")
    assert missed(explanation, 1) == ('prefix ""', "a CONNECT has no path", "connect_matcher matches it")
    explanation = told(*routes)
    assert explanation.chosen.number == 1
    assert missed(explanation, 2) == ("a CONNECT", "the method is GET", "")


def test_grpc():
    assert missed(told(entry(grpc=True)))[1] == "there is no content-type"


def test_what_cannot_be_printed_is_escaped_and_cut():
    wants, got, _ = missed(told(entry("path", "/a\n"), path="/" + "é" * 200))
    assert wants == 'path "/a\\n"'
    assert got.endswith("é…" + '"')


def test_chance_makes_outcomes_with_shares():
    canary = WeightedCluster("canary", 1, NO_HEADERS), WeightedCluster("never", 0, NO_HEADERS)
    weighted = ForwardAction(weighted_clusters=(*canary, WeightedCluster("web", 3, NO_HEADERS)))
    explanation = told(
        entry(name="some", runtime_fraction=FractionalPercent(20)),
        entry(name="none", runtime_fraction=FractionalPercent(0)),
        entry("prefix", "/", weighted, name="rest"),
    )
    found = [(each.route.name, each.choice.cluster_name, each.share, each.weight) for each in explanation.outcomes]
    assert found == [
        ("some", "up", 0.2, None),
        ("rest", "canary", pytest.approx(0.2), (1, 4)),
        ("rest", "web", pytest.approx(0.6), (3, 4)),
    ]
    assert explanation.chosen is None


def test_loaded_dice_choose():
    weighted = tuple(WeightedCluster(name, weight, NO_HEADERS) for name, weight in (("a", 70), ("b", 30)))
    rows = (
        entry(name="some", runtime_fraction=FractionalPercent(5)),
        entry("prefix", "/", ForwardAction(weighted_clusters=weighted), name="rest"),
    )
    chosen = {
        number: explain.explain(table(vhost(*rows), dice=loaded(number)), FakeStream(), dice_are_loaded=True).chosen
        for number in (4, 5, 69, 70, 99, 100, 170)
    }
    names = {number: outcome.choice.cluster_name for number, outcome in chosen.items()}
    assert names == {4: "up", 5: "a", 69: "a", 70: "b", 99: "b", 100: "up", 170: "b"}


def test_a_header_leaves_nothing_to_chance():
    weighted = tuple(WeightedCluster(name, weight, NO_HEADERS) for name, weight in (("a", 70), ("b", 30)))
    action = ForwardAction(weighted_clusters=weighted, weighted_header="x-n")
    (outcome,) = told(entry("prefix", "/", action), headers=[(b"x-n", b"75")]).outcomes
    assert (outcome.choice.cluster_name, outcome.share, outcome.weight) == ("b", 1.0, (30, 100))
    assert len(told(entry("prefix", "/", action)).outcomes) == 2


def test_a_uri_template():
    wants, got, _ = missed(told(entry("uri_template", "/a/([^/]+)", template="/a/{x}"), path="/b"))
    assert (wants, got) == ('uri_template "/a/{x}"', 'the path is "/b"')
    assert told(entry("uri_template", "/a/([^/]+)", template="/a/{x}"), path="/a/b").judgements[0].matches


def test_what_there_are_no_words_for_is_told_by_its_fields():
    matcher = MetadataMatcher("ns", ("a", "b"), ValueMatcher("string", string=Text("exact", "x")), False, Where())
    stream = FakeStream()
    stream.dynamic_metadata = {}
    wants, got, _ = missed(explain.explain(table(vhost(entry(dynamic_metadata=(matcher,)))), stream))
    assert wants == (
        'dynamic_metadata (namespace "ns", path ["a", "b"],'
        ' value (kind "string", string (kind "exact", value "x")), invert false)'
    )
    assert got == "nothing is known of it before the filters run"


# Virtual hosts


def hosts(host, **more):
    made = table(
        vhost(entry(), name="exact", domains=["api.example"]),
        vhost(entry(), name="suffix", domains=["*.example", "www.*"]),
        vhost(entry(), name="port", domains=["p.example:80"]),
        **more,
    )
    return explain.explain(made, FakeStream(b"/", host.encode()))


def test_the_domain_that_matched_and_those_that_would_have():
    explanation = hosts("API.example")
    assert (explanation.virtual_host.name, explanation.domain) == ("exact", "api.example")
    others = [(each.virtual_host.name, each.domain, each.why) for each in explanation.other_domains]
    assert others == [
        ("suffix", "*.example", "matches too, but is less specific"),
        ("port", "p.example:80", "does not match"),
    ]


def test_no_domain_matches():
    explanation = hosts("other")
    assert explanation.virtual_host is None
    assert [outcome.route for outcome in explanation.outcomes] == [None]
    assert explanation.chosen.choice is None


@pytest.mark.parametrize(
    ("host", "more", "hint"),
    [
        ("api.example:10000", {}, 'without its port the host would match the domain "api.example"'),
        ("p.exampl:80", {}, None),
    ],
)
def test_hints_for_a_host(host, more, hint):
    hints = hosts(host, **more).hints
    assert [each.partition(": see")[0] for each in hints] == ([hint] if hint else [])


def test_a_domain_with_a_port_never_matches_when_ports_are_ignored():
    made = table(vhost(entry(), domains=["p:80"]), ignore_port_in_host_matching=True)
    explanation = explain.explain(made, FakeStream(b"/", b"p:80"))
    assert explanation.hints == ("with ignore_port_in_host_matching a domain that has a port never matches",)


def test_a_dot_at_the_end():
    made = table(vhost(entry(), domains=["p.example"]))
    explanation = explain.explain(made, FakeStream(b"/", b"p.example."))
    assert explanation.hints == ("without the dot at its end the host would match: see strip_trailing_host_dot",)


def test_require_tls_comes_before_the_routes():
    made = table(vhost(entry(), require_tls="ALL"))
    (outcome,) = explain.explain(made, FakeStream(scheme=b"http")).outcomes
    assert outcome.route.redirect is not None
    assert outcome.number is None


def test_a_header_may_name_the_virtual_host_and_parameters_be_ignored():
    made = table(
        vhost(entry("path", "/a"), name="a", domains=("a.example",)),
        vhost(entry("prefix", "/b/"), name="b", domains=("b.example",)),
        vhost_header="x-host",
        ignore_path_parameters_in_path_matching=True,
    )
    stream = FakeStream(b"/b;1/c", authority=b"a.example", headers=[(b"x-host", b"b.example")])
    told = explain.explain(made, stream)
    assert (told.host, told.virtual_host.name, told.chosen.route.name) == ("b.example", "b", "/b/")
    assert [other.virtual_host.name for other in told.other_domains] == ["a"]


def test_a_matcher_leads_to_some_of_the_routes():
    tree = MatchTree("exact", ((1,),), header="x-a", keys=("1",), otherwise=(0,))
    host = replace(vhost(entry(name="zero"), entry(name="one"), name="v"), matcher=tree)
    told = explain.explain(table(host), FakeStream(headers=[(b"x-a", b"1")]))
    assert told.chosen.route.name == "one"
    assert [judgement.matches for judgement in told.judgements] == [False, True]
    assert told.judgements[0].missed[0].wants == "the virtual host's matcher"
    assert explain.explain(table(host), FakeStream()).chosen.route.name == "zero"
