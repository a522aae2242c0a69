"""The route table; domain and TLS verdicts were observed on Envoy 1.40."""

import dataclasses
import random

import pytest

from forkproxy.config.build.core import (
    FractionalPercent,
    HeaderMatcher,
    HeaderMutations,
    QueryParameterMatcher,
    StringMatcher,
)
from forkproxy.config.build.route import BufferLimits, ForwardAction, WeightedCluster
from forkproxy.config.problems import ConfigError
from forkproxy.router.table import DIRECT, FORWARD, REDIRECT, host_without_port
from tests.unit.router.fakes import FakeStream, direct, entry, option, redirect, table, vhost


def chosen(made, path="/", host="h", headers=()):
    route = made.match(FakeStream(path.encode(), host.encode(), headers))
    return route.name if route is not None else None


def virtual_host_of(made, host):
    route = made.match(FakeStream(b"/", host.encode()))
    return route.virtual_host.name if route is not None else None


# virtual hosts

DOMAINS = table(
    vhost(
        entry(),
        name="d1",
        domains=("*.foo.com", "*-bar.com", "baz.*", "baz-*", "exact.foo.com:80", "UP.com"),
    ),
    vhost(entry(), name="d2", domains=("*.a.foo.com", "baz.b.*")),
)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.foo.com", "d1"),
        ("A.FOO.com", "d1"),
        ("foo.com", None),
        (".foo.com", None),
        ("x.a.foo.com", "d2"),
        ("x-bar.com", "d1"),
        ("-bar.com", None),
        ("baz.com", "d1"),
        ("baz.", None),
        ("BAZ.b.c", "d2"),
        ("baz.b.", "d1"),
        ("baz-x", "d1"),
        ("exact.foo.com:80", "d1"),
        ("exact.foo.com", "d1"),
        ("up.com", "d1"),
        ("UP.COM:80", None),
        ("x.foo.com:80", None),
        ("baz.com:80", "d1"),
        ("", None),
    ],
)
def test_domains(host, expected):
    assert virtual_host_of(DOMAINS, host) == expected


def test_an_exact_domain_wins_over_wildcards_and_a_suffix_over_a_prefix():
    made = table(
        vhost(entry(), name="star"),
        vhost(entry(), name="prefix", domains=("www.*",)),
        vhost(entry(), name="suffix", domains=("*.com",)),
        vhost(entry(), name="exact", domains=("www.a.com",)),
    )
    hosts = ["www.a.com", "www.b.com", "www.b.org", "b.org", ""]
    assert [virtual_host_of(made, host) for host in hosts] == ["exact", "suffix", "prefix", "star", "star"]


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("a.com:80", True),
        ("A.com:99", True),
        ("a.com", True),
        ("x.b.com:1", True),
        ("c.d:1", True),
        ("a.com:abc", True),
        ("a.com:", True),
        ("[::1]:80", False),
        ("p.com:80", False),
        ("p.com", False),
    ],
)
def test_ignore_port_in_host_matching(host, found):
    made = table(vhost(entry(), domains=("a.com", "*.b.com", "c.*", "p.com:80")), ignore_port_in_host_matching=True)
    assert (virtual_host_of(made, host) is not None) is found


def test_host_without_port():
    assert [host_without_port(h) for h in (b"a:1", b"a", b"[::1]", b"[::1]:80", b"")] == [
        b"a", b"a", b"[::1]", b"[::1]", b"",
    ]  # fmt: skip


def test_no_virtual_hosts_and_no_routes():
    assert chosen(table()) is None
    assert chosen(table(vhost())) is None


# paths


def test_first_match_wins_in_the_order_of_the_file():
    made = table(
        vhost(
            entry("prefix", "/a/b"),
            entry("path", "/x"),
            entry("prefix", "/a"),
            entry("path", "/a/c", name="never: /a stands before it"),
            entry("prefix", "/a/b/c", name="never: /a/b stands before it"),
            entry("path", "/x", name="never: a duplicate"),
            entry("prefix", "/"),
        )
    )
    paths = ["/a/b/c", "/a/c", "/a", "/ab?x=/a/b", "/x", "/x?q", "/x#f", "/x#f?q", "/x/", "/", "*", ""]
    assert [chosen(made, path) for path in paths] == [
        "/a/b", "/a", "/a", "/a", "/x", "/x", "/x", "/x", "/", "/", None, None,
    ]  # fmt: skip


def test_a_lower_number_among_shorter_and_longer_prefixes():
    made = table(
        vhost(entry("prefix", "/aa/bb"), entry("prefix", "/aa"), entry("prefix", "/aa/bb/cc"), entry("prefix", "/b"))
    )
    assert [chosen(made, path) for path in ("/aa/bb/cc", "/aa/x", "/b", "/c")] == ["/aa/bb", "/aa", "/b", None]


@pytest.mark.parametrize(("prefix", "path", "found"), [("/", "/x", True), ("/", "*", False), ("", "*", True)])
def test_a_catch_all(prefix, path, found):
    made = table(vhost(entry("prefix", prefix, name="all"), entry("path", "/x", name="never")))
    assert chosen(made, path) == ("all" if found else None)


def test_case_insensitive_paths():
    made = table(
        vhost(
            entry("path", "/ExCi", case_sensitive=False),
            entry("path_separated_prefix", "/pSp", case_sensitive=False),
            entry("prefix", "/PRE", case_sensitive=False),
            entry("prefix", "/pre", name="never"),
            entry("safe_regex", "/Re.x", case_sensitive=False),
        )
    )
    paths = ["/exci", "/EXCI?x", "/psp", "/PSP/x", "/pspx", "/pRefix", "/reax", "/ReAx"]
    assert [chosen(made, path) for path in paths] == ["/ExCi", "/ExCi", "/pSp", "/pSp", None, "/PRE", None, "/Re.x"]


def test_path_separated_prefix():
    made = table(vhost(entry("path_separated_prefix", "/a/b")))
    assert [chosen(made, path) for path in ("/a/b", "/a/b/", "/a/b/c?x", "/a/b?x", "/a/bc", "/a")] == [
        "/a/b", "/a/b", "/a/b", "/a/b", None, None,
    ]  # fmt: skip


def test_regular_expressions_match_the_path_without_query_in_the_order_of_the_file():
    made = table(
        vhost(
            entry("prefix", "/first"),
            entry("safe_regex", "/[a-z]+/\\d+"),
            entry("safe_regex", "/.*/1", name="second"),
            entry("prefix", "/a", name="late"),
        )
    )
    paths = ["/first/1", "/a/12?x=y", "/A/1", "/a/1/x", "/b/1/x"]
    assert [chosen(made, path) for path in paths] == ["/first", "/[a-z]+/\\d+", "second", "late", None]


def test_a_bad_regex_in_a_route_is_a_config_error():
    with pytest.raises(ConfigError, match="invalid regex"):
        table(vhost(entry("safe_regex", "(")))


@pytest.mark.parametrize("action", [direct(), redirect(host_redirect="h")])
def test_a_header_that_may_not_be_added_is_a_config_error_also_where_nothing_is_forwarded(action):
    mutations = HeaderMutations(request_add=(option(":path"),))
    with pytest.raises(ConfigError):
        table(vhost(entry(action=action, mutations=mutations)))


# conditions


def test_conditions_fall_through_to_the_next_route():
    beta = HeaderMatcher("x-v", "string", StringMatcher("exact", "beta"))
    made = table(
        vhost(
            entry("prefix", "/", name="beta", query_parameters=(QueryParameterMatcher("q"),)),
            entry("prefix", "/a", name="grpc", grpc=True),
            entry("path", "/a", name="exact"),
            entry("prefix", "/a", name="open"),
            entry("prefix", "/a", name="never"),
            entry("prefix", "/", name="last"),
        )
    )
    grpc = [(b"content-type", b"application/grpc")]
    assert chosen(made, "/a?q") == "beta"
    assert chosen(made, "/a", headers=grpc) == "grpc"
    assert chosen(made, "/a") == "exact"
    assert chosen(made, "/ab") == "open"
    assert chosen(made, "/b") == "last"
    with_header = entry("prefix", "/", name="h", headers=(beta,))
    made = table(vhost(with_header))
    assert chosen(made, "/", headers=[(b"x-v", b"beta")]) == "h"
    assert chosen(made, "/") is None


def test_a_fraction_of_nothing_never_matches():
    made = table(
        vhost(
            entry("prefix", "/", name="none", runtime_fraction=FractionalPercent(0)),
            entry("prefix", "/", name="all", runtime_fraction=FractionalPercent(100)),
        )
    )
    assert {chosen(made) for _ in range(50)} == {"all"}


def walk(routes, path):
    """First match by definition."""
    bare = path.partition("#")[0].partition("?")[0]
    for route in routes:
        kind, value = route.match.kind, route.match.value
        left, right = (bare, value) if route.match.case_sensitive else (bare.lower(), value.lower())
        if (
            (kind == "prefix" and left.startswith(right))
            or (kind == "path" and left == right)
            or (kind == "path_separated_prefix" and (left == right or left.startswith(right + "/")))
        ):
            return route.name
    return None


@pytest.mark.parametrize("with_condition", [False, True])
def test_the_compiled_table_agrees_with_a_walk(with_condition):
    """Against the plain definition, over random tables; the seed is in the message."""
    seed = random.randrange(1 << 32)
    draw = random.Random(seed)
    for _ in range(60):
        routes = []
        for number in range(draw.randrange(1, 30)):
            value = "/" + "".join(draw.choice("aB/") for _ in range(draw.randrange(6)))
            kind = draw.choice(["prefix", "path", "path_separated_prefix"])
            value = value.rstrip("/") or "/a" if kind == "path_separated_prefix" else value
            routes.append(
                entry(kind, value, name=str(number), case_sensitive=not with_condition or draw.random() < 0.5)
            )
        made = table(vhost(*routes))
        for _ in range(40):
            path = "/" + "".join(draw.choice("aB/?") for _ in range(draw.randrange(8)))
            assert chosen(made, path) == walk(routes, path), (seed, path, routes)


def test_twenty_thousand_routes_are_not_walked():
    class Counting(bytes):
        slices = 0

        def __getitem__(self, key):
            Counting.slices += 1
            return bytes.__getitem__(self, key)

    made = table(vhost(*(entry("prefix", f"/s{n:05}/") for n in range(20_000)), entry("prefix", "/")))
    stream = FakeStream(Counting(b"/s19999/x"))
    assert made.match(stream).name == "/s19999/"
    assert Counting.slices <= 4


# actions


def test_kinds_and_their_values():
    made = table(
        vhost(
            entry("path", "/d", direct(418, b"teapot"), mutations=HeaderMutations(response_add=(option("x-r"),))),
            entry("path", "/r", redirect(host_redirect="n")),
            entry("path", "/f", ForwardAction(cluster="up", timeout_s=None, idle_timeout_s=3.0, idle_timeout_set=True)),
        )
    )
    by_path = {path: made.match(FakeStream(path)) for path in (b"/d", b"/r", b"/f")}
    assert [route.kind for route in by_path.values()] == [DIRECT, REDIRECT, FORWARD]
    assert by_path[b"/d"].direct == (418, b"teapot")
    headers = []
    by_path[b"/d"].finalize_response(FakeStream(), headers)
    assert headers == [(b"x-r", b"added")]
    assert by_path[b"/r"].redirect(FakeStream(b"/r", b"h")) == (301, b"http://n/r")
    forward = by_path[b"/f"]
    assert (forward.cluster_name, forward.cluster) == ("up", "<cluster up>")
    assert (forward.timeout_s, forward.idle_timeout_s, forward.idle_timeout_set) == (None, 3.0, True)
    assert (forward.finalize_request, forward.finalize_response, forward.rewrite) == (None, None, None)
    assert "up" in repr(forward)


def test_an_unknown_cluster_is_bound_to_none():
    route = table(vhost(entry(action=ForwardAction(cluster="gone", cluster_not_found_response_code=404)))).match(
        FakeStream()
    )
    assert route.find_cluster(FakeStream()) is None
    assert route.cluster_not_found_status == 404


def test_cluster_header():
    route = table(vhost(entry(action=ForwardAction(cluster_header="X-C")))).match(FakeStream())
    assert route.cluster is None
    assert route.find_cluster(FakeStream(headers=[(b"x-c", b"up2")])) == "<cluster up2>"
    assert route.find_cluster(FakeStream(headers=[(b"x-c", b"other")])) is None
    assert route.find_cluster(FakeStream()) is None


CLUSTERS = tuple(
    WeightedCluster(name, weight, HeaderMutations(request_add=(option("x-w", name),)), host)
    for name, weight, host in (("up", 1, ""), ("never", 0, ""), ("up2", 3, "wc"), ("last", 0, ""))
)


@pytest.mark.parametrize(("drawn", "cluster"), [(0.0, "up"), (0.2499, "up"), (0.25, "up2"), (0.9999999, "up2")])
def test_a_weighted_cluster_is_drawn_by_its_share(monkeypatch, drawn, cluster):
    monkeypatch.setattr("random.random", lambda: drawn)
    made = table(vhost(entry(action=ForwardAction(weighted_clusters=CLUSTERS))))
    assert made.match(FakeStream()).cluster_name == cluster


def test_weighted_clusters_are_routes_of_their_own():
    made = table(vhost(entry("path", "/w", ForwardAction(weighted_clusters=CLUSTERS)), entry("path", "/x", direct())))
    drawn = {route.cluster_name: route for route in (made.match(FakeStream(b"/w")) for _ in range(300))}
    assert set(drawn) == {"up", "up2"}
    assert drawn["up2"].cluster == "<cluster up2>"
    stream = FakeStream()
    drawn["up2"].finalize_request(stream)
    drawn["up2"].rewrite(stream)
    assert (stream.authority, stream.request_headers[-1]) == (b"wc", (b"x-w", b"up2"))
    assert {route.cluster_name for route in made.all_routes()} == {"up", "never", "up2", "last", ""}
    assert made.match(FakeStream(b"/x")).kind == DIRECT
    assert made.match(FakeStream(b"/none")) is None


def test_weights_of_nothing_are_refused():
    clusters = (WeightedCluster("up", 0, HeaderMutations()),)
    with pytest.raises(ConfigError, match="add up to more than 0"):
        table(vhost(entry(action=ForwardAction(weighted_clusters=clusters))))


@pytest.mark.parametrize(("wins", "order"), [(False, [b"W", b"R", b"V", b"T"]), (True, [b"W", b"T", b"V", b"R"])])
def test_the_order_of_levels(wins, order):
    def level(name):
        return HeaderMutations(
            request_add=(option("x", name), option("last", name, "OVERWRITE_IF_EXISTS_OR_ADD")),
            response_add=(option("x", name),),
        )

    action = ForwardAction(weighted_clusters=(WeightedCluster("up", 1, level("W")),))
    made = table(
        vhost(entry(action=action, mutations=level("R")), headers=level("V")),
        headers=level("T"),
        most_specific_header_mutations_wins=wins,
    )
    stream, response = FakeStream(), []
    route = made.match(stream)
    route.finalize_request(stream)
    route.finalize_response(stream, response)
    assert [value for name, value in stream.request_headers if name == b"x"] == order
    assert [value for name, value in stream.request_headers if name == b"last"] == order[-1:]
    assert [value for _, value in response] == order


# TLS


@pytest.mark.parametrize(
    ("require_tls", "scheme", "headers", "redirected"),
    [
        ("ALL", b"http", [], True),
        ("ALL", b"http", [(b"x-envoy-internal", b"true")], True),
        ("ALL", b"https", [], False),
        ("EXTERNAL_ONLY", b"http", [], True),
        ("EXTERNAL_ONLY", b"http", [(b"x-envoy-internal", b"true")], False),
        ("EXTERNAL_ONLY", b"https", [], False),
    ],
)
def test_require_tls(require_tls, scheme, headers, redirected):
    made = table(vhost(entry(), require_tls=require_tls))
    stream = FakeStream(b"/a?b", b"tls.example", headers, scheme=scheme)
    route = made.match(stream)
    assert (route.kind == REDIRECT) is redirected
    if redirected:
        assert route.redirect(stream) == (301, b"https://tls.example/a?b")
        assert (route.name, route.virtual_host.name, route.finalize_response) == ("", "v", None)


def test_the_virtual_host_may_be_named_by_a_header():
    hosts = (vhost(entry(), name="a", domains=("a.example",)), vhost(entry(), name="any", domains=("*",)))
    made = table(*hosts, vhost_header="X-Host")

    def named(*values):
        stream = FakeStream(authority=b"a.example", headers=[(b"x-host", value) for value in values])
        route = made.match(stream)
        return route.virtual_host.name if route is not None else None

    assert [named(b"A.example"), named(b"b"), named(b"a.example", b"b"), named()] == ["a", "any", "a", None]


@pytest.mark.parametrize(
    ("kind", "value", "path", "found"),
    [
        ("path", "/a/b", b"/a;1/b;2?c", True),
        ("path", "/a/b", b"/a/b;/c", False),
        ("prefix", "/a/", b"/a;1/b", True),
        ("safe_regex", "/a/[a-z]+", b"/a;1/b;2", True),
        ("uri_template", "/a/[a-z]+", b"/a/b;2", False),
        ("uri_template", "/a/[a-z;]+", b"/a/b;", True),
    ],
)
def test_path_parameters_may_be_ignored(kind, value, path, found):
    made = table(vhost(entry(kind, value)), ignore_path_parameters_in_path_matching=True)
    assert (made.match(FakeStream(path)) is not None) is found


def test_a_bodys_limit_goes_before_a_requests():
    def limit(of_route, of_host):
        route = dataclasses.replace(entry(), buffer_limits=BufferLimits(*of_route))
        made = table(dataclasses.replace(vhost(route), buffer_limits=BufferLimits(*of_host)))
        return made.virtual_hosts[0].routes[0].body_buffer_limit

    assert limit((None, None), (None, None)) is None
    assert limit((None, 1), (None, 2)) == 1
    assert limit((None, 1), (3, 2)) == 3
    assert limit((4, 1), (3, 2)) == 4
    assert limit((0, None), (3, None)) == 0


class CountedHeaders(list):
    """Headers that count how often a condition looks at them."""

    looked = 0

    def __iter__(self):
        self.looked += 1
        return super().__iter__()


def stream_that_counts(path, headers, authority=b"h.example"):
    stream = FakeStream(path, authority)
    stream.request_headers = CountedHeaders(headers)
    return stream


def test_ten_thousand_routes_in_a_thousand_virtual_hosts_are_not_walked():
    asks = HeaderMatcher("x-a", "string", StringMatcher("exact", "b"))
    hosts = [
        vhost(
            *[entry("prefix", f"/host-{host}/{number}/", headers=(asks,) if number % 2 else ()) for number in range(9)],
            entry("safe_regex", f"/host-{host}/regex/[0-9]+"),
            name=f"{host}",
            domains=(f"{host}.example", f"*.{host}.example"),
        )
        for host in range(1000)
    ]
    made = table(*hosts)
    for path, name in ((b"/host-999/7/x", "/host-999/7/"), (b"/host-999/regex/12", "/host-999/regex/[0-9]+")):
        stream = stream_that_counts(path, [(b"x-a", b"b")], b"www.999.example")
        assert made.match(stream).name == name
        assert stream.request_headers.looked <= 1


def test_ten_thousand_conditions_of_one_virtual_host_are_not_tried():
    asks = HeaderMatcher("x-a", "string", StringMatcher("exact", "b"))
    made = table(vhost(*[entry("prefix", f"/service-{number}/", headers=(asks,)) for number in range(10_000)]))
    stream = stream_that_counts(b"/service-9999/x", [(b"x-a", b"b")])
    assert made.match(stream).name == "/service-9999/"
    assert stream.request_headers.looked == 1
