"""Many regular expressions asked at once: RE2 sets, of which only those are run that may hold a match.

Every expression has a beginning that is literal text, perhaps an empty one. A value that does not begin so cannot match it.
The expressions are sorted by it and cut into sets, and the sets are found by the beginnings of the value, so that of 10,000
expressions for paths mostly one or two sets are run, and not all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from forkproxy.config.build.core import Where

Pattern = tuple[int, str, Where]
"""Number, expression, its place in the file."""
Ask = Callable[[bytes], Sequence[int]]
"""From a value to the positions, in the set, of the expressions that match it whole."""

PATTERNS_PER_SET: Final = 64
"""A set is one automaton: more patterns in it, more memory before its cache of states is thrown away and rebuilt."""

_META: Final = frozenset("\\.^$*+?()[]{}|")
_QUANTIFIERS: Final = frozenset("*+?{")


def literal_prefix(pattern: str) -> str:
    """Text with which everything begins that ``pattern`` matches whole; "" when it cannot be told."""
    if _has_alternatives(pattern):
        return ""
    characters: list[str] = []
    position = 1 if pattern.startswith("^") else 0
    while position < len(pattern):
        character = pattern[position]
        if character == "\\" and not pattern[position + 1 : position + 2].isalnum():
            position += 1  # an escaped sign is itself
            character = pattern[position : position + 1]
        elif character in _META:
            break
        characters.append(character)
        position += 1
    if characters and pattern[position : position + 1] in _QUANTIFIERS:
        characters.pop()
    return "".join(characters)


def _has_alternatives(pattern: str) -> bool:
    """Whether there is a "|" that no parenthesis holds; when in doubt, True."""
    if "|" not in pattern:
        return False
    if "[" in pattern or "\\Q" in pattern:
        return True  # what a class or a quotation holds is not looked into
    depth = 0
    escaped = False
    for character in pattern:
        if escaped or character == "\\":
            escaped = not escaped
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == "|" and depth == 0:
            return True
    return False


class RegexSets:
    """Regular expressions, cut into sets. ``compile_set`` makes an Ask of those that go together."""

    __slots__ = ("_by_literal", "_lengths", "sets")

    def __init__(self, patterns: Sequence[Pattern], compile_set: Callable[[Sequence[Pattern]], Ask]) -> None:
        literals = [(literal_prefix(pattern[1]).encode(), pattern) for pattern in patterns]
        literals.sort(key=lambda pair: pair[0])
        self.sets: list[tuple[Ask, tuple[int, ...]]] = []
        by_literal: dict[bytes, list[int]] = {}
        for first in range(0, len(literals), PATTERNS_PER_SET):
            members = literals[first : first + PATTERNS_PER_SET]
            for literal in {literal for literal, _ in members}:
                by_literal.setdefault(literal, []).append(len(self.sets))
            numbers = tuple(pattern[0] for _, pattern in members)
            self.sets.append((compile_set([pattern for _, pattern in members]), numbers))
        self._by_literal = by_literal
        self._lengths = tuple(sorted({len(literal) for literal in by_literal}))

    def candidates(self, value: bytes) -> set[int]:
        """The positions of the sets that may hold a match."""
        found: set[int] = set()
        for length in self._lengths:
            positions = self._by_literal.get(value[:length])
            if positions is not None:
                found.update(positions)
        return found

    def matching(self, value: bytes) -> list[int]:
        """The numbers of all expressions that match the whole value."""
        numbers: list[int] = []
        for position in self.candidates(value):
            ask, members = self.sets[position]
            numbers.extend([members[place] for place in ask(value)])
        return numbers
