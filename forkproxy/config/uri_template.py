"""URI templates: the language of ``path_match_policy`` and ``path_rewrite_policy`` (Envoy: "uri_template").

A template begins with "/" and is a row of segments: a literal, ``*`` (one segment), ``**`` (any number of them, also none,
and nothing after it but literals), ``{name}`` (one segment, kept) or ``{name=a/*/**}``; the last may have a literal right
behind it. It becomes a regular expression in which each name is a group. What Envoy 1.40 refuses is a ValueError in its words.

A quirk is kept: a literal may hold ``*``, which then means what it means in a regular expression. (``/a**`` is none; such a
route matches nothing.)
"""

from __future__ import annotations

import re
from typing import Final

MAX_VARIABLES: Final = 5
MAX_NAME_LENGTH: Final = 16
NEVER: Final = r"\b\B"
"""A regular expression that matches nothing, whichever engine has it."""

_CHARACTERS: Final = r"a-zA-Z0-9\-._~%!$&'()+,;:@=*"
_LITERAL: Final = re.compile(f"[{_CHARACTERS}]+")
_REWRITE_LITERAL: Final = re.compile(f"[{_CHARACTERS}/]+")
_NAME: Final = re.compile("[a-zA-Z][a-zA-Z0-9_]*")
_TEMPLATE: Final = re.compile("/[!-~]*")
_ONE_SEGMENT: Final = f"[{_CHARACTERS}]+"
_ANY_SEGMENTS: Final = f"[{_CHARACTERS}/]*"
_TO_ESCAPE: Final = re.compile(r"[$()+.]")


class _Parser:
    """What has been read of a template: the segments as expressions, the names, whether there was a ``**``."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._after_any = False

    def glob(self, rest: str, implicit: bool = False) -> tuple[str, str]:
        """A ``*`` or ``**`` at the beginning of ``rest``: its expression, and what follows."""
        if self._after_any:
            raise ValueError("Implicit variable path glob after text glob." if implicit else "Glob after text glob.")
        if rest.startswith("**"):
            self._after_any = True
            return _ANY_SEGMENTS, rest[2:]
        return _ONE_SEGMENT, rest[1:]

    def literal(self, rest: str, what: str = "literal") -> tuple[str, str]:
        """A literal up to the next "/"."""
        text, slash, after = rest.partition("/")
        if _LITERAL.fullmatch(text) is None:
            raise ValueError(f'Invalid {what}: "{text}"')
        return _TO_ESCAPE.sub(r"\\\g<0>", text), slash + after

    def variable(self, rest: str) -> tuple[str, str]:
        """``{name}`` or ``{name=segments}``."""
        inner, closed, after = rest[1:].partition("}")
        if not closed:
            raise ValueError(f'Unmatched variable bracket in mixed pattern: "{rest}"')
        name, has_match, match = inner.partition("=")
        if _NAME.fullmatch(name) is None:
            raise ValueError(f'Invalid variable name: "{name}"')
        if has_match and not match:
            raise ValueError("Empty variable match")
        self._name(name)
        if not match:
            return f"(?P<{name}>{self.glob('*', implicit=True)[0]})", after
        parts = []
        while match:
            part, match = self.glob(match) if match[0] == "*" else self.literal(match)
            parts.append(part)
            if match:
                if match[0] != "/" or match == "/":
                    raise ValueError(f'Invalid variable match: "{match}"')
                match = match[1:]
        return f"(?P<{name}>{'/'.join(parts)})", after

    def _name(self, name: str) -> None:
        if len(self.names) == MAX_VARIABLES:
            raise ValueError(f"Exceeded variable count limit ({MAX_VARIABLES})")
        if len(name) > MAX_NAME_LENGTH:
            limits = f"should be at least 1 and no more than {MAX_NAME_LENGTH}"
            raise ValueError(f'Invalid variable name length (length of "{name}" {limits})')
        if name in self.names:
            raise ValueError(f'Repeated variable name: "{name}"')
        self.names.append(name)


def parse_template(template: str) -> tuple[str, tuple[str, ...]]:
    """The regular expression of a template, for the whole path without its query, and the names of its variables."""
    if _TEMPLATE.fullmatch(template) is None:
        raise ValueError(f'Invalid pattern: "{template}"')
    parser = _Parser()
    rest = template[1:]
    parts: list[str] = []
    suffix = ""
    while rest:
        if rest[0] == "*":
            part, rest = parser.glob(rest)
        elif rest[0] == "{":
            part, rest = parser.variable(rest)
        else:
            part, rest = parser.literal(rest)
        parts.append(part)
        if rest == "/":
            parts.append("")
            break
        if rest.startswith("/"):
            rest = rest[1:]
        elif rest:
            suffix, rest = parser.literal(rest, "suffix literal")
            if rest:
                raise ValueError("Prefix match not supported.")
    return "/" + "/".join(parts) + suffix, tuple(parser.names)


def parse_rewrite(rewrite: str) -> tuple[tuple[str, bool], ...]:
    """The parts of a ``path_template_rewrite``: (text, False) for a literal, (name, True) for a variable."""
    if not rewrite.startswith("/"):
        raise ValueError("Invalid rewrite variable placement")
    if "//" in rewrite:
        raise ValueError("Invalid rewrite literal")
    parts: list[tuple[str, bool]] = []
    while rewrite:
        literal, opened, rewrite = rewrite.partition("{")
        if literal:
            if _REWRITE_LITERAL.fullmatch(literal) is None:
                raise ValueError(f'Invalid rewrite literal pattern: "{literal}"')
            parts.append((literal, False))
        if opened:
            name, closed, rewrite = rewrite.partition("}")
            if not closed:
                raise ValueError("Unmatched variable bracket")
            if _NAME.fullmatch(name) is None:
                raise ValueError(f'Invalid variable name: "{name}"')
            parts.append((name, True))
    return tuple(parts)


def lacks_variables(template: str, rewrite: str) -> bool:
    """Whether ``rewrite`` names a variable that ``template`` does not have. False when one of them is wrong by itself."""
    try:
        names = parse_template(template)[1]
        return any(is_name and text not in names for text, is_name in parse_rewrite(rewrite))
    except ValueError:
        return False
