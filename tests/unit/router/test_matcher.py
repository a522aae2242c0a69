"""Matchers; every verdict in a table here was given by Envoy 1.40 for the same matcher and header."""

import pytest

from forkproxy.config.build.core import FractionalPercent, HeaderMatcher, QueryParameterMatcher, StringMatcher, Where
from forkproxy.config.problems import ConfigError
from forkproxy.router import matcher
from tests.unit.router.fakes import FakeStream

WHERE = Where("match", 4, 2)


@pytest.mark.parametrize(
    ("kind", "value", "yes", "no"),
    [
        ("exact", "a", [b"a"], [b"", b"A", b"ab"]),
        ("prefix", "ab", [b"ab", b"abc"], [b"a", b"AB", b"xab"]),
        ("suffix", "ab", [b"ab", b"xab"], [b"abx", b"AB"]),
        ("contains", "b", [b"b", b"abc"], [b"", b"B"]),
        ("safe_regex", "a|ab", [b"a", b"ab"], [b"", b"abc", b"xa", b"a\n"]),
        ("safe_regex", "[[:digit:]]+", [b"12"], [b"1a"]),
    ],
)
def test_string_matchers(kind, value, yes, no):
    test = matcher.compile_string(StringMatcher(kind, value), WHERE)
    assert [test(v) for v in yes] == [True] * len(yes)
    assert [test(v) for v in no] == [False] * len(no)


@pytest.mark.parametrize("kind", ["exact", "prefix", "suffix", "contains"])
def test_ignore_case(kind):
    test = matcher.compile_string(StringMatcher(kind, "AbC", ignore_case=True))
    assert test(b"aBc")
    assert not test(b"abd")


def test_a_bad_regex_names_its_place_and_reason():
    with pytest.raises(ConfigError) as caught:
        matcher.compile_regex("a(", WHERE)
    assert (caught.value.path, caught.value.line, caught.value.column) == ("match", 4, 2)
    assert 'invalid regex "a(": missing )' in caught.value.message


def test_regex_set_gives_every_number_beyond_the_size_of_one_set():
    patterns = [(n * 10, f"/p{n}/.*", WHERE) for n in range(150)] + [(5, "/p1.*", WHERE)]
    matching = matcher.compile_regex_set(patterns)
    assert sorted(matching(b"/p120/x")) == [5, 1200]
    assert matching(b"/q") == []


@pytest.fixture
def without_re2(monkeypatch):
    monkeypatch.setattr(matcher, "re2", None)


@pytest.mark.usefixtures("without_re2")
def test_without_re2_the_standard_library_matches_and_long_values_never_do():
    test = matcher.compile_regex("(a|b)+", WHERE)
    assert test(b"abab")
    assert not test(b"abc")
    assert test(b"a" * matcher.MAX_BACKTRACKING_BYTES)
    assert not test(b"a" * (matcher.MAX_BACKTRACKING_BYTES + 1))
    assert matcher.compile_regex_set([(3, "a.", WHERE), (4, "b", WHERE)])(b"ab") == [3]
    assert matcher.compile_substitution("(b)", "<\\1>", WHERE)(b"abc") == b"a<b>c"
    for compile_it in (matcher.compile_regex, lambda p, w: matcher.compile_substitution(p, "", w)):
        with pytest.raises(ConfigError, match="invalid regex"):
            compile_it("a(", WHERE)


@pytest.mark.parametrize(
    ("pattern", "substitution", "value", "expected"),
    [
        ("/(b+)", "/[\\1]", b"/rwr/bb/b", b"/rwr/[bb]/[b]"),
        ("^/rxr/(\\w+)", "/z/\\1/\\0", b"/rxr/abc/d", b"/z/abc//rxr/abc/d"),
        ("b*", "-", b"/emp/abb", b"-/-e-m-p-/-a-"),
        ("a", "\\\\", b"xa", b"x\\"),
        # Envoy loads these: a group that is not there is empty, and from an unknown escape on nothing is written.
        ("(a)", "<\\3>", b"xay", b"x<>y"),
        ("(a)", "<\\x>", b"xay", b"x<y"),
        ("(a)", "<\\", b"xay", b"x<y"),
        ("(a)|b", "<\\1>", b"b", b"<>"),
    ],
)
def test_substitution_is_re2s(pattern, substitution, value, expected):
    assert matcher.compile_substitution(pattern, substitution, WHERE)(value) == expected


HEADERS = {
    "none": [],
    "v": [(b"x-a", b"v")],
    "w": [(b"x-a", b"w")],
    "empty": [(b"x-a", b"")],
    "3": [(b"x-a", b"3")],
    "+3": [(b"x-a", b"+3")],
    "-5": [(b"x-a", b"-5")],
    "10": [(b"x-a", b"10")],
    "3x": [(b"x-a", b"3x")],
    "1_0": [(b"x-a", b"0_1")],
    "a+b": [(b"x-a", b"a"), (b"x-a", b"b")],
}
ALL_VALUES = set(HEADERS) - {"none"}


def header(kind="string", string=None, **more):
    return HeaderMatcher("x-a", kind, string, **more)


EXACT_V = StringMatcher("exact", "v")


@pytest.mark.parametrize(
    ("config", "matching"),
    [
        (header(string=EXACT_V), {"v"}),
        (header(string=EXACT_V, invert=True), ALL_VALUES - {"v"}),
        (header(string=EXACT_V, invert=True, treat_missing_as_empty=True), set(HEADERS) - {"v"}),
        (header(string=StringMatcher("exact", "b")), {"a+b"}),
        (header(string=StringMatcher("exact", "a,b")), set()),
        (header(string=StringMatcher("contains", ",")), set()),
        (header("present"), ALL_VALUES),
        (header("present", present=False), {"none"}),
        (header("present", invert=True), {"none"}),
        (header("present", present=False, invert=True), ALL_VALUES),
        (header("present", treat_missing_as_empty=True), set(HEADERS)),
        (header("present", present=False, treat_missing_as_empty=True), set()),
        (header("range", range_start=-5, range_end=10), {"3", "+3", "-5"}),
        (header("range", range_start=-5, range_end=10, invert=True), ALL_VALUES - {"3", "+3", "-5"}),
        (header("range", range_start=0, range_end=10, treat_missing_as_empty=True), {"3", "+3"}),
    ],
)
def test_header_matchers(config, matching):
    test = matcher.compile_header_matcher(config)
    assert {name for name, lines in HEADERS.items() if test(FakeStream(headers=lines))} == matching


def test_headers_that_envoy_keeps_as_one_value_match_joined():
    test = matcher.compile_header_matcher(HeaderMatcher("referer", "string", StringMatcher("exact", "a,b")))
    assert test(FakeStream(headers=[(b"referer", b"a"), (b"referer", b"b")]))
    assert not test(FakeStream(headers=[(b"referer", b"a")]))
    assert not test(FakeStream())


@pytest.mark.parametrize(
    ("name", "value"),
    [(":method", "PUT"), (":path", "/a?b"), (":authority", "host"), ("Host", "host"), (":scheme", "https")],
)
def test_pseudo_headers_come_from_the_stream(name, value):
    stream = FakeStream(b"/a?b", b"host", method=b"PUT", scheme=b"https")
    assert matcher.compile_header_matcher(HeaderMatcher(name, "string", StringMatcher("exact", value)))(stream)
    assert not matcher.compile_header_matcher(HeaderMatcher(name, "string", StringMatcher("exact", value + "x")))(
        stream
    )
    assert not matcher.compile_header_matcher(HeaderMatcher(name, "present", present=False))(stream)


def test_an_unset_pseudo_header_is_missing():
    stream = FakeStream(authority=b"")
    assert matcher.compile_header_matcher(HeaderMatcher(":authority", "present", present=False))(stream)


@pytest.mark.parametrize(
    ("config", "matching"),
    [
        (QueryParameterMatcher("k", EXACT_V), {"k=v", "k=v&k=w", "a=b&k=v#f"}),
        (QueryParameterMatcher("k"), {"k=v", "k=v&k=w", "a=b&k=v#f", "k", "k=", "k=w&k=v", "k=%76", "k=v=w"}),
        (QueryParameterMatcher("k", present=False), {"", "K=v", "kk=1", "#?k=v"}),
        (QueryParameterMatcher("k", StringMatcher("exact", "v=w")), {"k=v=w"}),
        (QueryParameterMatcher("k", StringMatcher("exact", "")), {"k", "k="}),
    ],
)
def test_query_matchers(config, matching):
    queries = ["k=v", "k=v&k=w", "a=b&k=v#f", "k", "k=", "k=w&k=v", "k=%76", "k=v=w", "", "K=v", "kk=1", "#?k=v"]
    test = matcher.compile_query_matcher(config)
    found = set()
    for query in queries:
        target = "/x" + query if query.startswith("#") else f"/x?{query}" if query else "/x"
        if test(FakeStream(target.encode())):
            found.add(query)
    assert found == matching


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc-web", False),
        (b"application/grpc;x=1", False),
        (b"APPLICATION/GRPC", False),
    ],
)
def test_grpc_is_told_by_the_content_type(content_type, expected):
    assert matcher.is_grpc(FakeStream(headers=[(b"content-type", content_type)])) is expected
    assert not matcher.is_grpc(FakeStream())


def test_fraction(monkeypatch):
    assert matcher.compile_fraction(FractionalPercent(100)) is None
    never = matcher.compile_fraction(FractionalPercent(0))
    assert not any(never(None) for _ in range(100))
    draws = iter([0.0, 0.0024, 0.0025, 0.9])
    monkeypatch.setattr(matcher.random, "random", lambda: next(draws))
    test = matcher.compile_fraction(FractionalPercent(25, 10_000))
    assert [test(None) for _ in range(4)] == [True, True, False, False]


def test_all_of():
    calls = []

    def says(answer):
        return lambda stream: calls.append(answer) or answer

    assert matcher.all_of([]) is None
    assert matcher.all_of([says(True)])(None)
    assert not matcher.all_of([says(False), says(True)])(None)
    assert not matcher.all_of([says(True), says(True), says(False)])(None)
    assert matcher.all_of([says(True)] * 3)(None)
    assert calls == [True, False, True, True, False, True, True, True]
