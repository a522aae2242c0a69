"""Many regular expressions, of which only those are asked that may match."""

import re

import pytest

from forkproxy.config.build.core import Where
from forkproxy.router.matcher import compile_regex_set
from forkproxy.router.regex_sets import PATTERNS_PER_SET, RegexSets, literal_prefix


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [
        ("/a/b", "/a/b"),
        ("^/a$", "/a"),
        ("/a/[0-9]+", "/a/"),
        (r"/a\.b\-c/\d", "/a.b-c/"),
        ("/ab*", "/a"),
        ("/ab?c", "/a"),
        ("/ab{2}", "/a"),
        ("/ab+", "/a"),
        (r"/a\+?", "/a"),
        ("/a|/b", ""),
        ("/a(b|c)", "/a"),
        (r"/a\|b", "/a|b"),
        (r"/a\(b|c", ""),
        ("/a[)]|b", ""),
        (r"/a\Q(\E|b", ""),
        (r"/a\Qb", "/a"),
        ("(?i)/a", ""),
        (".*", ""),
        ("", ""),
        ("/é*", "/"),
    ],
)
def test_how_an_expression_begins(pattern, literal):
    assert literal_prefix(pattern) == literal


PATTERNS = [
    *[(number, f"/service-{number}/[0-9]+", Where()) for number in range(1000)],
    (1000, ".*/last", Where()),
    (1001, "/service-7/.*", Where()),
]


def test_few_of_many_sets_are_asked():
    asked = []

    def compile_set(members):
        def ask(value):
            asked.append(len(members))
            return [n for n, (_, pattern, _) in enumerate(members) if re.fullmatch(pattern.encode(), value)]

        return ask

    sets = RegexSets(PATTERNS, compile_set)
    assert len(sets.sets) == -(-len(PATTERNS) // PATTERNS_PER_SET)
    assert sets.matching(b"/service-999/1") == [999]
    assert len(asked) <= 2
    assert sorted(sets.matching(b"/service-7/1")) == [7, 1001]
    assert sets.matching(b"/x/last") == [1000]
    assert sets.matching(b"") == []


def test_the_same_with_re2():
    matching = compile_regex_set(PATTERNS)
    assert sorted(matching(b"/service-7/1")) == [7, 1001]
    assert matching(b"/service-999/1") == [999]
    assert matching(b"/service-7/last") != [1000]
    assert matching(b"/other") == []
