"""Trees of conditions that choose among routes; every expected value is what Envoy 1.40 chose."""

import pytest

from forkproxy.config.build.core import StringMatcher
from forkproxy.config.build.match_tree import MatchTree, Predicate
from forkproxy.router.match_tree import compile_match_tree
from tests.unit.router.fakes import FakeStream


def chosen(tree, *lines, path=b"/"):
    asked = []

    def leaf(numbers):
        def select(_stream):
            asked.append(numbers)

        return select

    assert compile_match_tree(tree, leaf)(FakeStream(path, headers=lines)) is None
    return asked[0][0] if asked else None


def header(name, value, kind="exact"):
    return Predicate("header", name, StringMatcher(kind, value))


EXACT = MatchTree("exact", ((1,), (2,)), header="x-a", keys=("a", "b"), otherwise=(9,))


def test_exact_keys():
    assert [chosen(EXACT, (b"x-a", value)) for value in (b"a", b"b", b"c", b"")] == [1, 2, 9, 9]
    assert chosen(EXACT) == 9
    assert chosen(EXACT, (b"x-a", b"a"), (b"x-a", b"b")) == 9  # "a,b"


def test_the_longest_prefix_that_has_an_answer():
    inner = MatchTree("list", ((3,),), predicates=(header("x-a", "1"),))
    tree = MatchTree("prefix", ((1,), (2,), inner), header=":path", keys=("/a", "/a/b", "/a/b/c"))
    assert [chosen(tree, path=path) for path in (b"/", b"/ab", b"/a/b/c?d")] == [None, 1, 2]
    assert chosen(tree, (b"x-a", b"1"), path=b"/a/b/c?d") == 3


@pytest.mark.parametrize(
    ("predicate", "lines", "matches"),
    [
        (header("x-a", "1"), [(b"x-a", b"1")], True),
        (header("x-a", "1"), [], False),
        (header("x-a", "[a-z]*", "safe_regex"), [], False),
        (header("x-a", "[a-z]*", "safe_regex"), [(b"x-a", b"")], True),
        (Predicate("not", inner=(header("x-a", "1"),)), [], True),
        (Predicate("not", inner=(header("x-a", "1"),)), [(b"x-a", b"1")], False),
        (Predicate("or", inner=(header("x-a", "1"), header("x-b", "1"))), [(b"x-b", b"1")], True),
        (Predicate("and", inner=(header("x-a", "1"), header("x-b", "1"))), [(b"x-b", b"1")], False),
        (header(":method", "GET"), [], True),
        (header("host", "h.example"), [], True),
    ],
)
def test_predicates(predicate, lines, matches):
    tree = MatchTree("list", ((1,),), predicates=(predicate,), otherwise=(2,))
    assert chosen(tree, *lines) == (1 if matches else 2)


def test_a_tree_without_an_answer_is_passed_over():
    nothing = MatchTree("list", ((1,),), predicates=(header("x-b", "1"),))
    tree = MatchTree("list", (nothing, (2,)), predicates=(header("x-a", "1"), header("x-a", "1")), otherwise=(3,))
    assert chosen(tree, (b"x-a", b"1")) == 2
    assert chosen(tree, (b"x-a", b"1"), (b"x-b", b"1")) == 1
    assert chosen(tree) == 3
