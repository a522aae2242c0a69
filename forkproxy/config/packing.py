"""A configuration's dataclasses, from one process to another.

By pickle, in a form of our own for dataclasses: pickle's own restores a frozen one field by field through Python (four times as
slow). What is equal comes out as one object: of 10,000 routes most have the same retries, timeouts and policies.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from operator import is_not
from struct import Struct
from typing import IO, Any

from forkproxy.config.values import getter_of, is_frozen, names_of, restored


def dump(value: object, file: IO[bytes]) -> None:
    """Write ``value``. Its dataclasses are changed: equal ones become the same object."""
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(_Joiner().join(value))


def load(file: IO[bytes]) -> object:
    """What ``dump`` wrote. For what this program wrote itself, and nothing else: pickle runs what it is told."""
    return pickle.load(file)


class _Pickler(pickle.Pickler):
    def __init__(self, file: IO[bytes], protocol: int) -> None:
        super().__init__(file, protocol)
        self._getters: dict[type, Callable[[Any], tuple[object, ...]] | None] = {}

    def reducer_override(self, obj: Any) -> Any:
        cls = type(obj)
        try:
            values_of = self._getters[cls]
        except KeyError:
            values_of = self._getters[cls] = getter_of(cls) if is_dataclass(cls) else None
        return NotImplemented if values_of is None else (restored, (cls, *values_of(obj)))


class _Joiner(dict[type, Callable[[Any], Any]]):
    """Makes equal values one object, from the leaves up: two are equal when they have one type and their parts, which are
    joined already, are the same objects. What can be changed stays itself. By type: how one is joined."""

    def __init__(self) -> None:
        self._joined: dict[bytes, object] = {}
        self._tuples: dict[tuple[int, ...], object] = {}
        self._done: dict[int, object] = {}
        self._kept: list[object] = []  # an id is another's once its object is gone
        self.update({str: _atoms(), bytes: _atoms(), int: _atoms(), float: self._float()})
        self.update({tuple: self._tuple, list: self._list, dict: self._dict, bool: _itself, type(None): _itself})

    def join(self, value: Any) -> Any:
        return self[type(value)](value)

    def __missing__(self, cls: type) -> Callable[[Any], Any]:
        # Where nothing is compared (a place in the file), nothing is the same either.
        is_joined = is_dataclass(cls) and any(field.compare for field in fields(cls))
        join = self[cls] = self._dataclass(cls) if is_joined else _itself
        return join

    def _dataclass(self, cls: type) -> Callable[[Any], object]:
        names, values_of, is_value = names_of(cls), getter_of(cls), is_frozen(cls)
        kept, done, all_joined = self._kept, self._done, self._joined
        pack = Struct(f"{len(names) + 1}Q").pack  # a tuple of as many large numbers is five times as large
        # Most parts are the very objects that the one before had in their place.
        last: Sequence[object] = (None,) * len(names)
        last_parts: Sequence[object] = last

        def join(value: object) -> object:
            nonlocal last, last_parts
            found = done.get(id(value))
            if found is not None:
                return found
            before = values_of(value)
            parts = [
                joined if part is former else self[type(part)](part)
                for part, former, joined in zip(before, last, last_parts, strict=True)
            ]
            if any(map(is_not, before, parts)):
                for name, old, new in zip(names, before, parts, strict=True):
                    if old is not new:
                        object.__setattr__(value, name, new)
            last, last_parts = before, parts
            kept.append(value)
            found = all_joined.setdefault(pack(id(cls), *map(id, parts)), value) if is_value else value
            done[id(value)] = found
            return found

        return join

    def _float(self) -> Callable[[float], float]:
        # 0.0 and -0.0 are equal, and no nan equals itself.
        atoms: dict[str, float] = {}
        return lambda value: atoms.setdefault(repr(value), value)

    def _tuple(self, value: tuple[object, ...]) -> object:
        if not value:
            return value
        made = tuple([self.join(item) for item in value])
        return self._tuples.setdefault(tuple(map(id, made)), made)

    def _list(self, value: list[object]) -> object:
        self._kept.append(value)
        value[:] = [self.join(item) for item in value]
        return value

    def _dict(self, value: dict[object, object]) -> object:
        self._kept.append(value)
        for key, item in value.items():
            value[key] = self.join(item)
        return value


def _atoms() -> Callable[[Any], Any]:
    atoms: dict[object, object] = {}
    return lambda value: atoms.setdefault(value, value)


def _itself(value: object) -> object:
    return value
