"""URI templates; what is refused, and the words, are Envoy 1.40's."""

import re

import pytest

from forkproxy.config.uri_template import NEVER, lacks_variables, parse_rewrite, parse_template


@pytest.mark.parametrize(
    ("template", "path", "groups"),
    [
        ("/", "/", {}),
        ("/a/", "/a/", {}),
        ("/a.b/*", "/a.b/c", {}),
        ("/**", "/", {}),
        ("/**", "/a/b/", {}),
        ("/{x}/{y=*}.ts", "/a.b/c.ts", {"x": "a.b", "y": "c"}),
        ("/{x=a/*/**}/end", "/a/b/c/d/end", {"x": "a/b/c/d"}),
        ("/a$(b)+", "/a$(b)+", {}),
    ],
)
def test_matches(template, path, groups):
    regex, names = parse_template(template)
    assert re.fullmatch(regex, path).groupdict() == groups
    assert names == tuple(groups)


@pytest.mark.parametrize(
    ("template", "path"),
    [("/a.b", "/axb"), ("/*", "/"), ("/*", "/a/b"), ("/*", "/a|b"), ("/a/**", "/a"), ("/{x}", "/{x}")],
)
def test_does_not_match(template, path):
    assert re.fullmatch(parse_template(template)[0], path) is None


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a", 'Invalid pattern: "a"'),
        ("/a b", 'Invalid pattern: "/a b"'),
        ("/**/*", "Glob after text glob."),
        ("/{a=**}/{b}", "Implicit variable path glob after text glob."),
        ("/{a}/{a}", 'Repeated variable name: "a"'),
        ("/{1a}", 'Invalid variable name: "1a"'),
        ("/{a", 'Unmatched variable bracket in mixed pattern: "{a"'),
        ("/{a}{b}", 'Invalid suffix literal: "{b}"'),
        ("/a//b", 'Invalid literal: ""'),
        ("/{a=}", "Empty variable match"),
        ("/{a=x/}", 'Invalid variable match: "/"'),
        ("/*x/y", "Prefix match not supported."),
        ("/{a}/{b}/{c}/{d}/{e}/{f}", "Exceeded variable count limit (5)"),
        (
            "/{abcdefghijklmnopq}",
            'Invalid variable name length (length of "abcdefghijklmnopq" should be at least 1 and no more than 16)',
        ),
    ],
)
def test_refused(template, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_template(template)


def test_rewrites():
    assert parse_rewrite("/") == (("/", False),)
    assert parse_rewrite("/a/{x}b{y}") == (("/a/", False), ("x", True), ("b", False), ("y", True))


@pytest.mark.parametrize("rewrite", ["a", "{a}", "/{a", "/a//b", "/{}", "/a b"])
def test_refused_rewrites(rewrite):
    with pytest.raises(ValueError, match=r"nvalid|Unmatched"):
        parse_rewrite(rewrite)


def test_the_variables_of_a_rewrite_must_be_there():
    assert lacks_variables("/{a}", "/{b}")
    assert not lacks_variables("/{a}", "/{a}/{a}")
    assert not lacks_variables("/{", "/{b}")


def test_never_matches_nothing():
    assert not re.fullmatch(NEVER, "")
    assert not re.search(NEVER, "a b")
