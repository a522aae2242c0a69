"""Rewrites and redirects; every expected value is what Envoy 1.40 answered to the same request."""

import pytest

from forkproxy.config.build.route import ForwardAction, RegexRewrite, RouteMatch
from forkproxy.router import rewrite
from tests.unit.router.fakes import WHERE, FakeStream, compile_fake_format, redirect


def match(kind, value, **more):
    return RouteMatch(kind, value, **more)


def compiled(action, route_match, weighted_host=""):
    return rewrite.compile_rewrite(action, route_match, weighted_host, WHERE, compile_fake_format, compile_fake_format)


@pytest.mark.parametrize(
    ("route_match", "new", "path", "expected"),
    [
        (match("prefix", "/rw/"), "/N/", b"/rw/a?q", b"/N/a?q"),
        (match("prefix", "/rwci/", case_sensitive=False), "/N/", b"/RWci/a", b"/N/a"),
        (match("path", "/rwe"), "/N", b"/rwe?q=1", b"/N?q=1"),
        (match("safe_regex", "/rws/.*"), "/N", b"/rws/a/b?q=1", b"/N?q=1"),
        (match("safe_regex", "/rws/.*"), "/N", b"/rws/a/b#f?x", b"/N#f?x"),
        (match("path_separated_prefix", "/psp"), "/N", b"/psp?q", b"/N?q"),
        (match("path_separated_prefix", "/pss"), "/", b"/pss/a", b"//a"),
    ],
)
def test_prefix_rewrite(route_match, new, path, expected):
    apply = compiled(ForwardAction(prefix_rewrite=new), route_match, "")
    stream = FakeStream(path, headers=[(b"x-envoy-original-path", b"/zzz"), (b"x-last", b"1")])
    apply(stream)
    assert stream.path == expected
    assert stream.request_headers[1:] == [(b"x-envoy-original-path", path), (b"x-last", b"1")]


def test_regex_rewrite_leaves_the_query_alone():
    action = ForwardAction(regex_rewrite=RegexRewrite("/(b+)", "/[\\1]"))
    stream = FakeStream(b"/rwr/bb/b?x=/b")
    compiled(action, match("prefix", "/rwr"), "")(stream)
    assert stream.path == b"/rwr/[bb]/[b]?x=/b"
    assert (b"x-envoy-original-path", b"/rwr/bb/b?x=/b") in stream.request_headers


def test_no_rewrite_is_none():
    assert compiled(ForwardAction(auto_host_rewrite=True), match("prefix", "/"), "") is None


@pytest.mark.parametrize(
    ("fields", "weighted", "headers", "authority", "added"),
    [
        ({"host_rewrite_literal": "l"}, "", [], b"l", [(b"x-envoy-original-host", b"h.example")]),
        (
            {"host_rewrite_literal": "l", "append_x_forwarded_host": True},
            "",
            [],
            b"l",
            [(b"x-envoy-original-host", b"h.example"), (b"x-forwarded-host", b"h.example")],
        ),
        (
            {"host_rewrite_header": "X-Host", "append_x_forwarded_host": True},
            "",
            [(b"x-host", b"from.header"), (b"x-forwarded-host", b"prev")],
            b"from.header",
            [
                (b"x-host", b"from.header"),
                (b"x-forwarded-host", b"prev,h.example"),
                (b"x-envoy-original-host", b"h.example"),
            ],
        ),
        (
            {"host_rewrite_literal": "l", "append_x_forwarded_host": True},
            "",
            [(b"x-forwarded-host", b"p,h.example")],
            b"l",
            [(b"x-forwarded-host", b"p,h.example"), (b"x-envoy-original-host", b"h.example")],
        ),
        ({"host_rewrite_header": "x-host"}, "", [], b"h.example", []),
        ({"host_rewrite_header": "x-host"}, "", [(b"x-host", b"")], b"h.example", [(b"x-host", b"")]),
        ({"host_rewrite_header": ":path"}, "", [], b"/", [(b"x-envoy-original-host", b"h.example")]),
        ({"append_x_forwarded_host": True}, "wc", [], b"wc", []),
        ({"host_rewrite_literal": "r"}, "wc", [], b"r", [(b"x-envoy-original-host", b"wc")]),
    ],
)
def test_host_rewrite(fields, weighted, headers, authority, added):
    stream = FakeStream(headers=headers)
    compiled(ForwardAction(**fields), match("prefix", "/"), weighted)(stream)
    assert stream.authority == authority
    assert stream.request_headers[1:] == added


def test_host_before_path_and_suppressed_envoy_headers():
    action = ForwardAction(host_rewrite_literal="r", append_x_forwarded_host=True, prefix_rewrite="/N")
    apply = compiled(action, match("prefix", "/h"), "")
    stream = FakeStream(b"/h")
    apply(stream)
    assert [name for name, _ in stream.request_headers[1:]] == [
        b"x-envoy-original-host",
        b"x-forwarded-host",
        b"x-envoy-original-path",
    ]
    stream = FakeStream(b"/h")
    apply(stream, False)
    assert (stream.path, stream.authority) == (b"/N", b"r")
    assert stream.request_headers[1:] == [(b"x-forwarded-host", b"h.example")]


def test_a_request_without_a_path_keeps_none():
    stream = FakeStream(b"")
    compiled(ForwardAction(prefix_rewrite="/N"), match("prefix", ""), "")(stream)
    assert stream.path == b""


REDIRECTS = [
    ({"host_redirect": "new.example"}, b"/hr/a?q", b"h.example", b"http", b"http://new.example/hr/a?q"),
    ({"host_redirect": "new.example"}, b"/hr", b"h.example", b"https", b"https://new.example/hr"),
    ({"port_redirect": 8443}, b"/pr/a?q=1", b"h.example", b"http", b"http://h.example:8443/pr/a?q=1"),
    ({"port_redirect": 8443}, b"/pr/a", b"h.example:81", b"http", b"http://h.example:8443/pr/a"),
    ({"port_redirect": 8443}, b"/pr/a", b"[::1]:80", b"http", b"http://[::1]:8443/pr/a"),
    ({"https_redirect": True}, b"/a?q", b"h.example", b"http", b"https://h.example/a?q"),
    ({"https_redirect": True}, b"/a", b"h.example:80", b"http", b"https://h.example/a"),
    ({"https_redirect": True}, b"/a", b"h.example:443", b"http", b"https://h.example:443/a"),
    ({"https_redirect": True}, b"/a", b"h.example:443", b"https", b"https://h.example:443/a"),
    ({"https_redirect": True}, b"/a", b"h.example:8080", b"http", b"https://h.example:8080/a"),
    ({"https_redirect": True}, b"/a", b"[::1]:80", b"http", b"https://[::1]/a"),
    ({"https_redirect": True}, b"/a", b"[::1]", b"http", b"https://[::1]/a"),
    ({"scheme_redirect": "ftp"}, b"/a", b"h.example:443", b"https", b"ftp://h.example/a"),
    ({"scheme_redirect": "ftp"}, b"/a", b"h.example:80", b"http", b"ftp://h.example/a"),
    (
        {"https_redirect": True, "port_redirect": 443, "host_redirect": "x.y"},
        b"/hp",
        b"h",
        b"http",
        b"https://x.y:443/hp",
    ),
    ({"path_redirect": "/new"}, b"/p?q=1", b"h", b"http", b"http://h/new?q=1"),
    ({"path_redirect": "/new"}, b"/p", b"h", b"http", b"http://h/new"),
    ({"path_redirect": "/new?a=b"}, b"/p?q=1", b"h", b"http", b"http://h/new?a=b"),
    ({"path_redirect": "/new?a=b", "strip_query": True}, b"/p?q=1", b"h", b"http", b"http://h/new?a=b"),
    ({"path_redirect": "/new", "strip_query": True}, b"/p?q=1", b"h", b"http", b"http://h/new"),
    ({"strip_query": True}, b"/p?q=1", b"h", b"http", b"http://h/p"),
    ({}, b"/same?q=1", b"h", b"http", b"http://h/same?q=1"),
    ({}, b"/", b"", b"http", b"http:///"),
]


@pytest.mark.parametrize(("fields", "path", "host", "scheme", "location"), REDIRECTS)
def test_redirect(fields, path, host, scheme, location):
    apply = rewrite.compile_redirect(redirect(**fields), match("prefix", "/"), WHERE)
    stream = FakeStream(path, host, scheme=scheme)
    assert apply(stream) == (301, location)
    assert stream.path == path
    assert stream.request_headers == [(b"x-forwarded-proto", scheme)]


@pytest.mark.parametrize(
    ("route_match", "fields", "path", "location", "new_path"),
    [
        (match("path", "/epw"), {"prefix_rewrite": "/n/"}, b"/epw?q=1", b"http://h/n/?q=1", b"/n/?q=1"),
        (match("safe_regex", "/rx/.*"), {"prefix_rewrite": "/n/"}, b"/rx/a?q=1", b"http://h/n/?q=1", b"/n/?q=1"),
        (
            match("prefix", "/rxr/"),
            {"regex_rewrite": RegexRewrite("^/rxr/(\\w+)", "/z/\\1"), "strip_query": True},
            b"/rxr/abc/d?q=1",
            b"http://h/z/abc/d",
            b"/z/abc/d?q=1",
        ),
    ],
)
def test_a_redirect_with_a_rewrite_leaves_the_new_path_on_the_stream(route_match, fields, path, location, new_path):
    stream = FakeStream(path, b"h")
    apply = rewrite.compile_redirect(redirect(response_code=308, **fields), route_match, WHERE)
    assert apply(stream) == (308, location)
    assert stream.path == new_path
    assert (b"x-envoy-original-path", path) in stream.request_headers


def test_request_header_knows_pseudo_headers():
    stream = FakeStream(b"/p", b"host", [(b"a", b"1"), (b"a", b"2")], b"PUT", b"https")
    names = [b":authority", b"host", b":path", b":method", b":scheme", b"a", b"b"]
    assert [rewrite.request_header(stream, name) for name in names] == [
        b"host",
        b"host",
        b"/p",
        b"PUT",
        b"https",
        b"1",
        b"",
    ]


@pytest.mark.parametrize(
    ("fields", "path", "authority", "new"),
    [
        ({"path_rewrite": "%REQ(x-a)%"}, b"/r?q", b"h.example", b"one?q"),
        ({"path_rewrite": "%NOTHING%"}, b"/r?q", b"h.example", b"/r?q"),
        ({"regex_rewrite": RegexRewrite(".*", "")}, b"/r?q", b"h.example", b"/r?q"),
        ({"host_rewrite": "%REQ(x-a)%"}, b"/r", b"one", b"/r"),
        ({"host_rewrite": "%NOTHING%"}, b"/r", b"h.example", b"/r"),
        ({"host_rewrite": "%PATH%", "path_rewrite": "%NOTHING%"}, b"/r", b"/r", b"/r"),
        ({"host_rewrite_path_regex": RegexRewrite("^/(.*)$", "\\1.x")}, b"/r?q", b"r.x", b"/r?q"),
        ({"host_rewrite_path_regex": RegexRewrite("no", "")}, b"/r?q", b"/r", b"/r?q"),
    ],
)
def test_formats_and_the_path_as_host(fields, path, authority, new):
    stream = FakeStream(path, headers=[(b"x-a", b"one")])
    compiled(ForwardAction(**fields), match("prefix", "/r"))(stream)
    assert (stream.authority, stream.path) == (authority, new)
    names = [name for name, _ in stream.request_headers]
    assert (b"x-envoy-original-path" in names) is (new != path)
    assert (b"x-envoy-original-host" in names) is (authority != b"h.example")


def test_the_variables_of_a_template():
    action = ForwardAction(path_template_rewrite=(("/", False), ("y", True), ("-", False), ("x", True)))
    apply = compiled(action, match("uri_template", "/(?P<x>[a-z]+)/(?P<y>[0-9]+)"))
    stream = FakeStream(b"/ab/12?q=/")
    apply(stream)
    assert stream.path == b"/12-ab?q=/"
    changed = FakeStream(b"/a filter has changed it")
    apply(changed)
    assert changed.path == b"/a filter has changed it"
