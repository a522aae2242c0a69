"""Messages that say the same are built once.

Problem: of 10,000 routes most say little: a prefix and a cluster. Each would be asked some hundred questions all the same, with
one answer for all of them, and what is built would be 10,000 equal objects. So a builder has what it does of a message *but
for some fields* made here, and puts in what those fields say itself. Another message that says the same in all other fields
gets the object that was made of the first.

Rules, so that nobody can tell the difference:

* What says where in the file it stands (``Where``) is each message's own, and so is what can be changed.
* A message of which something was reported, or left unread, is built again every time.
* A builder that reads one of those fields after all is asked every time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final, TypeVar

from forkproxy.config.build.where import Where
from forkproxy.config.values import getter_of, is_frozen, replaced
from forkproxy.config.view import View

if TYPE_CHECKING:
    from forkproxy.config.build.context import BuildContext

T = TypeVar("T")

NOTHING: Final[frozenset[str]] = frozenset()
_UNKNOWN: Final = object()
_EACH_ITS_OWN: Final = object()
_ATOMS: Final = frozenset((str, int, float, bool, bytes, type(None)))


class Alike:
    """What was made in one load, by what it was made of."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], Any] = {}
        self._varied: dict[tuple[object, ...], tuple[Any, Any]] = {}

    def rest(
        self,
        view: View,
        build: Callable[[View, BuildContext], T],
        context: BuildContext,
        apart: Collection[str] = NOTHING,
    ) -> T:
        """``build(view, context)``, which does not read the fields that are ``apart``."""
        key = (build, view.content(apart))
        found: Any = self._made.get(key, _UNKNOWN)
        if found is _UNKNOWN:
            return self._first(key, view, build, context, apart)
        if found is _EACH_ITS_OWN:
            return build(view, context)
        view.mark_read(apart)
        made: T = found
        return made

    def _first(
        self,
        key: tuple[object, ...],
        view: View,
        build: Callable[[View, BuildContext], T],
        context: BuildContext,
        apart: Collection[str],
    ) -> T:
        reported = len(view.problems) + len(context.problems)
        other = view.again()
        made = build(other, context)
        view.absorb(other)
        is_common = (
            len(view.problems) + len(context.problems) == reported and other.is_all_read(apart) and _is_value(made)
        )
        self._made[key] = made if is_common else _EACH_ITS_OWN
        return made

    def varied(self, value: T, /, **changes: str) -> T:
        """A copy of the frozen ``value`` with these fields changed; asked for the same again, the same one."""
        key = (id(value), *changes.items())
        found = self._varied.get(key)
        if found is None:
            # It keeps the value, whose id would be another's else.
            found = self._varied[key] = (value, replaced(value, **changes))
        made: T = found[1]
        return made


def _is_value(made: Any) -> bool:
    """Whether it can be everybody's: it cannot be changed, and tells no place."""
    cls: Any = type(made)
    if cls in _ATOMS:
        return True
    if cls is Where:
        return not made.line
    if cls is tuple or cls is frozenset:
        return all(map(_is_value, made))
    if cls is dict or cls is list:
        return not made
    return is_frozen(cls) and all(map(_is_value, getter_of(cls)(made)))
