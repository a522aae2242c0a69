"""Every way to match a request: each matcher guards a route that answers by itself, and every request asks all of them.

What Envoy and forkproxy say of a request is a row of statuses: 200 where the matcher matched, 404 where it did not.
"""

from __future__ import annotations

from tests.support.bootstrap import TYPE, Data, bootstrap, cluster, hcm, port, vhost
from tests.support.exchange import Exchange, ReadResponses, SendStep


def answered(match: Data, status: int = 200, **more: object) -> Data:
    """A route with an answer of its own."""
    return {"match": match, "direct_response": {"status": status}, **more}


def header(name: str = "x-v", **match: object) -> Data:
    """A HeaderMatcher."""
    return {"name": name, **match}


def text(**match: object) -> Data:
    """A HeaderMatcher by string_match."""
    return header(string_match=match)


REGEX = {"safe_regex": {"regex": "a[b-d]+"}}
EMPTY = {"treat_missing_header_as_empty": True}
INVERT = {"invert_match": True}
RANGE = {"range_match": {"start": -5, "end": 10}}

HEADERS: list[Data] = [
    header(),
    header(present_match=True),
    header(present_match=False),
    header(present_match=True, **INVERT),
    header(present_match=False, **INVERT),
    header(present_match=True, **EMPTY),
    header(present_match=False, **EMPTY),
    header(**RANGE),
    header(**RANGE, **INVERT),
    header(**RANGE, **EMPTY),
    header(range_match={"start": 0, "end": 0}),
    header(range_match={"start": -9223372036854775808, "end": 9223372036854775807}),
    text(exact="abc"),
    text(exact="abc", ignore_case=True),
    text(exact=""),
    text(prefix="ab"),
    text(prefix="AB", ignore_case=True),
    text(suffix="bc"),
    text(suffix="BC", ignore_case=True),
    text(contains="b"),
    text(contains="B", ignore_case=True),
    text(**REGEX),
    text(safe_regex={"regex": "(?i)ABC"}),
    text(safe_regex={"regex": ".*"}),
    {**text(exact="abc"), **INVERT},
    {**text(exact=""), **EMPTY},
    {**text(exact="abc"), **INVERT, **EMPTY},
    {**text(**REGEX), **INVERT},
    {**text(safe_regex={"regex": "a*"}), **EMPTY},
    {**text(prefix="a"), **EMPTY, **INVERT},
    header(exact_match="abc"),
    header(prefix_match="ab"),
    header(suffix_match="bc"),
    header(contains_match="b"),
    header(safe_regex_match={"regex": "a.c"}),
    header("X-V", exact_match="abc"),
    header("user-agent", exact_match="a,b"),
    header("x-forwarded-for", contains_match=","),
    header(":method", exact_match="GET"),
    header(":method", exact_match="GET", **INVERT),
    header(":path", prefix_match="/h"),
    header(":path", suffix_match="?q"),
    header(":authority", exact_match="headers.example"),
    header(":scheme", exact_match="http"),
    header("host", exact_match="headers.example"),
    header("x-forwarded-proto", exact_match="http"),
    header("content-length", present_match=True),
    header("connection", present_match=True),
    header("cookie", exact_match="a=1"),
]

LINES: dict[str, bytes] = {
    "none": b"",
    "empty": b"x-v:\r\n",
    "abc": b"x-v: abc\r\n",
    "ABC": b"X-V: ABC\r\n",
    "with blanks around": b"x-v:   abc  \r\n",
    "more than abc": b"x-v: xabcx\r\n",
    "two lines": b"x-v: abc\r\nx-v: zzz\r\n",
    "two lines, another order": b"x-v: zzz\r\nx-v: abc\r\n",
    "two lines, one empty": b"x-v: zzz\r\nx-v:\r\n",
    "two of each": b"user-agent: a\r\nuser-agent: b\r\nx-forwarded-for: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2\r\n",
    "two cookies": b"cookie: a=1\r\ncookie: b=2\r\n",
}
NUMBERS = (
    *(b"0", b"-5", b"-6", b"9", b"10", b"+3", b"3.0", b"1e0", b"0x1", b"007", b"1_0", b"1 2", b"--1", b"-", b"9x", b""),
    *(b"9223372036854775806", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808"),
    *(b"-9223372036854775809", b"\xd9\xa3", b"1,2"),
)


def query(name: str, **match: object) -> Data:
    """A QueryParameterMatcher."""
    return {"name": name, **match}


QUERIES: list[Data] = [
    query("a"),
    query("a", present_match=True),
    query("a", present_match=False),
    query("a", string_match={"exact": "1"}),
    query("a", string_match={"exact": ""}),
    query("a", string_match={"exact": "ONE", "ignore_case": True}),
    query("a", string_match={"prefix": "1"}),
    query("a", string_match={"suffix": "1"}),
    query("a", string_match={"contains": "="}),
    query("a", string_match={"safe_regex": {"regex": "[0-9]*"}}),
    query("a", string_match={"exact": "%31"}),
    query("a", string_match={"exact": "b c"}),
    query("a", string_match={"exact": "b+c"}),
    query("%61", present_match=True),
    query("b.c", present_match=True),
    query("A", present_match=True),
]
QUERY_TEXTS = (
    *(b"", b"?", b"?a", b"?a=", b"?a=1", b"?a=1&a=2", b"?a=2&a=1", b"?b=1", b"?a=one", b"?a=oNe", b"?a=%31", b"?%61=1"),
    *(
        b"?a=b+c",
        b"?a=b%20c",
        b"?x&&a=1&",
        b"?a=x=1",
        b"?a=1?a=2",
        b"?A=1",
        b"?=1",
        b"?&",
        b"?aa=1",
        b"?b.c",
        b"?a;a=1",
    ),
    b"?a=1%",
)

PATH_ROUTES: list[Data] = [
    answered({"path": "/exact"}, 201),
    answered({"path": "/Mixed", "case_sensitive": False}, 202),
    answered({"prefix": "/pre"}, 203),
    answered({"prefix": "/IgnorE/", "case_sensitive": False}, 208),
    answered({"path_separated_prefix": "/sep"}, 210),
    answered({"path_separated_prefix": "/Sep/Fold", "case_sensitive": False}, 211),
    answered({"safe_regex": {"regex": "/re/[0-9]+(/.*)?"}}, 212),
    answered({"safe_regex": {"regex": "/RE", }, "case_sensitive": False}, 213),
    answered({"safe_regex": {"regex": "/any/."}}, 214),
    answered({"safe_regex": {"regex": r"/utf/\p{L}"}}, 215),
    answered({"safe_regex": {"regex": r"/byte/\C"}}, 216),
    answered({"safe_regex": {"regex": "/alt/a|/alt/b"}}, 217),
    answered({"safe_regex": {"regex": "^/anchored$"}}, 218),
    answered({"prefix": "/grpc", "grpc": {}}, 219),
    answered({"prefix": "/never", "runtime_fraction": {"default_value": {"numerator": 0}}}, 220),
    answered({"prefix": "/always", "runtime_fraction": {"default_value": {"numerator": 100}}}, 221),
    answered({"prefix": "/runtime-on", "runtime_fraction": {
        "default_value": {"numerator": 0}, "runtime_key": "routes.on"}}, 222),
    answered({"prefix": "/runtime-off", "runtime_fraction": {
        "default_value": {"numerator": 100}, "runtime_key": "routes.off"}}, 223),
    answered({"prefix": "/runtime-share", "runtime_fraction": {
        "default_value": {"numerator": 0}, "runtime_key": "routes.share"}}, 224),
    answered({"prefix": "/first"}, 225),
    answered({"prefix": "/first/longer"}, 226),
    answered({"prefix": "/meta", "dynamic_metadata": [
        {"filter": "a", "path": [{"key": "b"}], "value": {"string_match": {"exact": "c"}}}]}, 227),
    answered({"prefix": "/meta", "filter_state": [{"key": "a", "string_match": {"exact": ""}}]}, 228),
    answered({"prefix": "/meta", "tls_context": {"presented": True}}, 229),
    answered({"prefix": "/meta", "tls_context": {"validated": True}}, 230),
    answered({"prefix": "/meta/tls", "tls_context": {"presented": False, "validated": False}}, 231),
    answered({"prefix": "/meta", "dynamic_metadata": [
        {"filter": "a", "path": [{"key": "b"}], "value": {"string_match": {"exact": "c"}}, "invert": True}]}, 232),
]  # fmt: skip
PATHS = (
    *(
        b"/exact",
        b"/exact/",
        b"/exact?a",
        b"/exact%20",
        b"/Exact",
        b"/mixed",
        b"/MIXED?x",
        b"/mixed/",
        b"/pre",
        b"/prefix",
    ),
    *(b"/Pre", b"/pre?x", b"/IGNORE/x", b"/ignore", b"/sep", b"/sep/", b"/sep/x", b"/separate", b"/sep?x", b"/sep;x"),
    *(b"/SEP/FOLD/x", b"/sep/folder", b"/re/12", b"/re/12/x", b"/re/12x", b"/re/12?x", b"/re", b"/RE", b"/any/%41"),
    *(b"/any/x", b"/alt/a", b"/alt/b", b"/alt/ab", b"/anchored", b"/anchored/", b"/grpc", b"/never", b"/always"),
    *(b"/runtime-on", b"/runtime-off", b"/runtime-share", b"/first/longer", b"/meta", b"/meta/tls", b"/", b"//exact"),
    *(b"/exact//", b"/./exact", b"/x/../exact", b"/%65xact", b"/exact\\"),
)
GRPC = (
    b"application/grpc",
    b"application/grpc+proto",
    b"application/grpc;a",
    b"application/grpcx",
    b"Application/grpc",
)

DOMAINS: dict[str, tuple[str, ...]] = {
    "exact": ("exact.example", "other.exact.example", "Upper.Example"),
    "port": ("port.example:8080", "exact.example:81"),
    "suffix": ("*.example", "*-dash.example"),
    "longer": ("*.long.example", "*exact.example.org"),
    "prefix": ("exact.*", "pre*", "www.long.*"),
    "longer-prefix": ("exact.exam*",),
    "v6": ("[::1]", "[::2]:8080"),
    "any": ("*",),
}
HOSTS = (
    *(b"exact.example", b"EXACT.Example", b"upper.example", b"exact.example:80", b"exact.example:81", b"port.example"),
    *(
        b"port.example:8080",
        b"x.example",
        b".example",
        b"example",
        b"a-dash.example",
        b"x.long.example",
        b"long.example",
    ),
    *(b"exact.com", b"exact.", b"exact.exam", b"exact.examp", b"prefix", b"pre", b"www.long.example", b"www.long.org"),
    *(
        b"[::1]",
        b"[::1]:80",
        b"[::2]:8080",
        b"[::2]",
        b"nobody",
        b"exact.example.",
        b"exact.example.org",
        b"x:y",
        b"x:",
    ),
    *(b"xexact.example.org", b"exact.example:", b"exact.example:081", b"192.0.2.1", b"192.0.2.1:80"),
)

REDIRECTS: list[Data] = [
    {"https_redirect": True},
    {"scheme_redirect": "https"},
    {"scheme_redirect": "HTTP"},
    {"scheme_redirect": "http"},
    {"host_redirect": "new.example"},
    {"host_redirect": "new.example:99"},
    {"port_redirect": 8443},
    {"https_redirect": True, "port_redirect": 443},
    {"https_redirect": True, "host_redirect": "new.example", "port_redirect": 8443},
    {"path_redirect": "/new"},
    {"path_redirect": "/new?b=2"},
    {"path_redirect": "/new#part"},
    {"path_redirect": "/new", "strip_query": True},
    {"path_redirect": "/new?b=2", "strip_query": True},
    {"prefix_rewrite": "/new"},
    {"prefix_rewrite": "/"},
    {"prefix_rewrite": "/new", "strip_query": True},
    {"regex_rewrite": {"pattern": {"regex": "r([0-9]+)"}, "substitution": r"[\1]"}},
    {"regex_rewrite": {"pattern": {"regex": ".*"}, "substitution": ""}},
    {"regex_rewrite": {"pattern": {"regex": "none"}, "substitution": "x"}, "strip_query": True},
    {"strip_query": True},
    {"response_code": "FOUND"},
    {"response_code": "SEE_OTHER", "host_redirect": "a"},
    {"response_code": "TEMPORARY_REDIRECT", "https_redirect": True, "path_redirect": "/p"},
    {"response_code": "PERMANENT_REDIRECT", "scheme_redirect": "ftp", "host_redirect": "h", "port_redirect": 21},
]
REDIRECTED = (
    b"redirect.example",
    b"redirect.example:80",
    b"redirect.example:443",
    b"redirect.example:8080",
    b"[::1]:80",
    b"[::1]:443",
    b"[::1]",
)


def value_of(name: str) -> Data:
    """A matching input: a request header."""
    typed = {"@type": TYPE + "envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": name}
    return {"name": "header", "typed_config": typed}


def then(*routes: Data) -> Data:
    """An OnMatch that ends at routes."""
    kind, inner = ("Route", routes[0]) if len(routes) == 1 else ("RouteList", {"routes": list(routes)})
    return {"action": {"name": "routes", "typed_config": {"@type": f"{TYPE}envoy.config.route.v3.{kind}", **inner}}}


def go_on(**matcher: object) -> Data:
    """An OnMatch that asks another matcher."""
    return {"matcher": matcher}


def is_(name: str, **match: object) -> Data:
    """A predicate on a header."""
    return {"single_predicate": {"input": value_of(name), "value_match": match}}


def tree(name: str, kind: str, **outcomes: Data) -> Data:
    """A matcher_tree."""
    return {"matcher_tree": {"input": value_of(name), f"{kind}_match_map": {"map": outcomes}}}


def listed(*branches: tuple[Data, Data]) -> Data:
    """A matcher_list."""
    return {"matcher_list": {"matchers": [{"predicate": when, "on_match": what} for when, what in branches]}}


def at(prefix: str, status: int) -> Data:
    """An answer for a prefix."""
    return answered({"prefix": prefix}, status, name=f"status {status}")


MATCHERS: dict[str, Data] = {
    "exact": {
        **tree("x-a", "exact", **{"1": then(at("/", 202)), "two": then(at("/two", 203), at("/", 208))}),
        "on_no_match": then(at("/", 299)),
    },
    "prefix": tree(
        ":path",
        "prefix",
        **{
            "/a": then(at("/", 202)),
            "/a/b": then(at("/", 203)),
            "/a/b/c": go_on(**listed((is_("x-a", exact="1"), then(at("/", 208))))),
        },
    ),
    "list": {
        **listed(
            (is_("x-a", exact="1"), then(at("/", 202))),
            ({"or_matcher": {"predicate": [is_("x-a", prefix="p"), is_("x-b", exact="1")]}}, then(at("/", 203))),
            ({"and_matcher": {"predicate": [is_("x-a", suffix="s"), is_("x-b", exact="2")]}}, then(at("/", 208))),
            ({"not_matcher": is_("x-a", safe_regex={"google_re2": {}, "regex": "[a-z]*"})}, then(at("/", 210))),
            (is_("x-b", contains="c", ignore_case=True), then(at("/only", 211))),
        ),
        "on_no_match": then(at("/six", 212), at("/seven", 213)),
    },
    "nested": {
        **listed(
            (is_("x-a", exact="1"), go_on(**listed((is_("x-b", exact="2"), then(at("/a", 202)))))),
            (is_("x-a", exact="1"), then(at("/", 203))),
            (
                is_("x-a", exact="two"),
                go_on(**tree("x-b", "prefix", **{"2": then(at("/", 208))}), on_no_match=then(at("/six", 210))),
            ),
        ),
        "on_no_match": go_on(**tree("host", "exact", **{"nested.matcher": then(at("/", 211))})),
    },
}
MATCHER_PATHS = (b"/", b"/a", b"/a/b/c", b"/two", b"/six?x")
MATCHER_LINES = (
    b"", b"x-a: 1\r\n", b"x-a: two\r\n", b"x-a: 1\r\nx-b: 2\r\n", b"x-a: ps\r\nx-b: aCc\r\n", b"x-a: s\r\nx-b: 2\r\n",
    b"x-a: 1\r\nx-a: two\r\n", b"x-a:\r\n", b"x-a: two\r\nx-b: 21\r\n",
)  # fmt: skip


def configuration() -> Data:
    """One listener for domains, one that ignores ports, one that strips them, and one for all the rest."""
    headers = [answered({"path": f"/h{n}", "headers": [each]}) for n, each in enumerate(HEADERS)]
    queries = [answered({"path": f"/q{n}", "query_parameters": [each]}) for n, each in enumerate(QUERIES)]
    redirects = [
        {"match": {"prefix": f"/r{n}/"}, "redirect": each, "name": f"redirect {n}"} for n, each in enumerate(REDIRECTS)
    ]
    both = answered({"prefix": "/both", "headers": [text(exact="abc")], "query_parameters": [query("a")]})
    table = {
        "virtual_hosts": [
            vhost(*headers, answered({"prefix": "/"}, 404), name="headers", domains=("headers.example",)),
            vhost(*queries, both, answered({"prefix": "/"}, 404), name="queries", domains=("queries.example",)),
            vhost(*PATH_ROUTES, name="paths", domains=("paths.example",)),
            vhost(*redirects, name="redirects", domains=("redirect.example*", "redirect.example", "[*")),
            vhost(
                answered({"prefix": "/"}), name="empty prefix", domains=("tls.example",), require_tls="EXTERNAL_ONLY"
            ),
            vhost(answered({"prefix": ""}), name="prefix of nothing", domains=("nothing.example",)),
            vhost(name="no routes", domains=("none.example",)),
            *[
                {"name": name, "domains": [f"{name}.matcher"], "matcher": matcher, "require_tls": "NONE"}
                for name, matcher in MATCHERS.items()
            ],
        ]
    }

    def domains() -> Data:
        hosts = [vhost(answered({"prefix": "/"}, name=name), name=name, domains=each) for name, each in DOMAINS.items()]
        return {"virtual_hosts": hosts}

    def listener(name: str, table: Data, **more: object) -> Data:
        return {"name": name, "address": port(name), "filter_chains": [{"filters": [hcm(table, **more)]}]}

    runtime = {"routes": {"on": 100, "off": 0, "share": {"numerator": 1_000_000, "denominator": "MILLION"}}}
    return bootstrap(
        [hcm(table)],
        [cluster("up", "up")],
        more_listeners=[
            listener("domains", domains()),
            listener("portless", {**domains(), "ignore_port_in_host_matching": True}),
            listener("stripped", domains(), strip_any_host_port=True),
            listener("undotted", domains(), strip_trailing_host_dot=True, strip_matching_host_port=True),
        ],
        layered_runtime={"layers": [{"name": "static", "static_layer": runtime}]},
    )


Asked = tuple[bytes, bytes, bytes]
"""Target, host, more lines."""


def row(name: str, asked: list[Asked], listener: str = "main") -> Exchange:
    """One request after the other, on one connection."""
    steps: list[SendStep] = []
    for number, (target, host, lines) in enumerate(asked):
        if number:
            steps.append(ReadResponses(number))  # Envoy bears only two answers that wait to be sent
        steps.append(b"GET " + target + b" HTTP/1.1\r\nhost: " + host + b"\r\n" + lines + b"\r\n")
    count = len(asked)
    return Exchange(
        f"match: {name}", tuple(steps), config="route_matching", listener=listener, responses=count, log_lines=count
    )


def all_of(name: str, targets: list[bytes], host: bytes, lines: bytes = b"") -> Exchange:
    """Several targets of one host."""
    return row(name, [(target, host, lines) for target in targets])


def of_hosts(name: str, listener: str, hosts: tuple[bytes, ...]) -> Exchange:
    """One target of several hosts."""
    return row(name, [(b"/", host, b"") for host in hosts], listener)


def of_headers(name: str, lines: bytes) -> Exchange:
    """All of HEADERS, for these lines."""
    return all_of(f"headers, {name}", [b"/h%d" % n for n in range(len(HEADERS))], host=b"headers.example", lines=lines)


def of_numbers(number: int) -> Exchange:
    """All of NUMBERS, for this matcher."""
    asked = [(b"/h%d" % number, b"headers.example", b"x-v: " + each + b"\r\n") for each in NUMBERS]
    return row(f"numbers, {HEADERS[number]}", asked)


def of_queries(query_text: bytes) -> Exchange:
    """All of QUERIES, for this query."""
    targets = [b"/q%d" % n + query_text for n in range(len(QUERIES))]
    return all_of(f"query {query_text.decode()}", [*targets, b"/both" + query_text], host=b"queries.example")


def of_redirects(host: bytes, lines: bytes = b"") -> Exchange:
    """All of REDIRECTS, for this host."""
    targets = [b"/r%d/r12/x?a=1" % n for n in range(len(REDIRECTS))]
    return all_of(f"redirects of {host.decode()} {lines.decode().strip()}".strip(), targets, host=host, lines=lines)


STRIPPED = (*HOSTS, b"exact.example.:@PORT:undotted@", b"exact.example:@PORT:undotted@")
EXCHANGES = [
    *[of_headers(name, lines) for name, lines in LINES.items()],
    *[of_numbers(number) for number, each in enumerate(HEADERS) if "range_match" in each],
    *[of_queries(each) for each in QUERY_TEXTS],
    all_of("all of a route", [b"/both?a", b"/both?b", b"/both"], host=b"queries.example", lines=b"x-v: abc\r\n"),
    all_of("paths", list(PATHS), host=b"paths.example"),
    row("gRPC", [(b"/grpc", b"paths.example", b"content-type: " + each + b"\r\n") for each in GRPC]),
    of_hosts("domains", "domains", HOSTS),
    of_hosts("domains, ports ignored", "portless", HOSTS),
    of_hosts("domains, ports stripped", "stripped", HOSTS),
    of_hosts("domains, dots stripped", "undotted", STRIPPED),
    all_of("TLS of outsiders", [b"/a?b"], host=b"tls.example"),
    all_of(
        "TLS of outsiders, x-forwarded-proto", [b"/a?b"], host=b"tls.example", lines=b"x-forwarded-proto: HTTPS\r\n"
    ),
    all_of("a prefix of nothing", [b"/", b"/x?y"], host=b"nothing.example"),
    all_of("a virtual host without routes", [b"/"], host=b"none.example"),
    *[of_redirects(host) for host in REDIRECTED],
    *[
        row(
            f"matcher, {name}",
            [(path, name.encode() + b".matcher", lines) for path in MATCHER_PATHS for lines in MATCHER_LINES],
        )
        for name in MATCHERS
    ],
    *[of_redirects(host, b"x-forwarded-proto: https\r\n") for host in REDIRECTED],
]
