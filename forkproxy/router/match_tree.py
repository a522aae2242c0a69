"""A virtual host's ``matcher``: which routes are asked, by a tree of conditions on request headers.

An outcome of the tree is final: when none of its routes matches, nothing else is asked. A tree in the tree that has no
outcome is as good as a condition that does not match.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from forkproxy.config.build.match_tree import MatchTree, Outcome, Predicate
from forkproxy.router.matcher import StreamTest, compile_string

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream
    from forkproxy.router.table import Route

Select = Callable[["Stream"], "Route | None"]
Decide = Callable[["Stream"], "Select | None"]
"""Who chooses the route; None when the tree has no answer."""
Read = Callable[["Stream"], "bytes | None"]


def compile_match_tree(tree: MatchTree, compile_leaf: Callable[[tuple[int, ...]], Select]) -> Select:
    """``compile_leaf``: from the numbers of routes to what chooses among them. ConfigError for a bad regular expression."""
    decide = _compile_tree(tree, compile_leaf)

    def select(stream: Stream) -> Route | None:
        chosen = decide(stream)
        return chosen(stream) if chosen is not None else None

    return select


def _compile_outcome(outcome: Outcome, compile_leaf: Callable[[tuple[int, ...]], Select]) -> Decide:
    if isinstance(outcome, MatchTree):
        return _compile_tree(outcome, compile_leaf)
    leaf = compile_leaf(outcome)
    return lambda _stream: leaf


def _nothing(_stream: Stream) -> Select | None:
    return None


def _compile_tree(tree: MatchTree, compile_leaf: Callable[[tuple[int, ...]], Select]) -> Decide:
    outcomes = [_compile_outcome(each, compile_leaf) for each in tree.outcomes]
    otherwise = _compile_outcome(tree.otherwise, compile_leaf) if tree.otherwise is not None else _nothing
    if tree.kind == "list":
        return _compile_list(
            [(_compile_predicate(each), outcome) for each, outcome in zip(tree.predicates, outcomes, strict=True)],
            otherwise,
        )
    by_key = {key.encode(): outcome for key, outcome in zip(tree.keys, outcomes, strict=True)}
    read = _reader(tree.header)
    # The longest first; an exact key is one of the value's own length.
    lengths = sorted({len(key) for key in by_key}, reverse=True) if tree.kind == "prefix" else None

    def decide(stream: Stream) -> Select | None:
        value = read(stream)
        if value is not None:
            for length in lengths if lengths is not None else (len(value),):
                outcome = by_key.get(value[:length])
                if outcome is not None:
                    chosen = outcome(stream)
                    if chosen is not None:
                        return chosen
        return otherwise(stream)

    return decide


def _compile_list(branches: list[tuple[StreamTest, Decide]], otherwise: Decide) -> Decide:
    def decide(stream: Stream) -> Select | None:
        for test, outcome in branches:
            if test(stream):
                chosen = outcome(stream)
                if chosen is not None:
                    return chosen
        return otherwise(stream)

    return decide


def _compile_predicate(predicate: Predicate) -> StreamTest:
    tests = tuple(_compile_predicate(each) for each in predicate.inner)
    match predicate.kind:
        case "or":
            return lambda stream: any(test(stream) for test in tests)
        case "and":
            return lambda stream: all(test(stream) for test in tests)
        case "not":
            (only,) = tests
            return lambda stream: not only(stream)
    assert predicate.string is not None
    read = _reader(predicate.header)
    matches = compile_string(predicate.string, predicate.where)

    def has_value(stream: Stream) -> bool:
        value = read(stream)
        return value is not None and matches(value)

    return has_value


_PSEUDO: dict[str, Read] = {
    ":method": lambda stream: stream.method,
    ":path": lambda stream: stream.path,
    ":authority": lambda stream: stream.authority,
    ":scheme": lambda stream: stream.scheme,
    "host": lambda stream: stream.authority,
}


def _reader(header: str) -> Read:
    """The lines of a header, joined by commas; None when there is none."""
    pseudo = _PSEUDO.get(header)
    if pseudo is not None:
        return pseudo
    name = header.encode()

    def read(stream: Stream) -> bytes | None:
        values = [value for key, value in stream.request_headers if key == name]
        return b",".join(values) if values else None

    return read
