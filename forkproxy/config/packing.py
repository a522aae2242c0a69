"""A configuration's dataclasses, from one process to another.

By pickle, in a form of our own for dataclasses: pickle's own restores a frozen one field by field through Python (four times as
slow). What is equal comes out as one object: of 10,000 routes most have the same retries, timeouts and policies.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import IO, Any


def dump(value: object, file: IO[bytes]) -> None:
    """Write ``value``. Its dataclasses are changed: equal ones become the same object."""
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(_Joiner().join(value))


def load(file: IO[bytes]) -> object:
    """What ``dump`` wrote. For what this program wrote itself, and nothing else: pickle runs what it is told."""
    return pickle.load(file)


def _names_of(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))


class _Pickler(pickle.Pickler):
    def __init__(self, file: IO[bytes], protocol: int) -> None:
        super().__init__(file, protocol)
        self._getters: dict[type, Callable[[Any], tuple[object, ...]] | None] = {}

    def reducer_override(self, obj: Any) -> Any:
        cls = type(obj)
        try:
            values_of = self._getters[cls]
        except KeyError:
            values_of = self._getters[cls] = _getter_of(cls)
        return NotImplemented if values_of is None else (_restore, (cls, *values_of(obj)))


def _getter_of(cls: type) -> Callable[[Any], tuple[object, ...]] | None:
    if not is_dataclass(cls):
        return None
    names = _names_of(cls)
    if len(names) > 1:
        values_of: Callable[[Any], tuple[object, ...]] = attrgetter(*names)
        return values_of
    return lambda obj: tuple([getattr(obj, name) for name in names])


_setters: dict[type, list[Callable[[object, object], None]]] = {}


def _restore(cls: type, *values: object) -> object:
    made: object = object.__new__(cls)
    try:
        setters = _setters[cls]
    except KeyError:
        setters = _setters[cls] = [_setter_of(cls, name) for name in _names_of(cls)]
    for set_, value in zip(setters, values, strict=True):
        set_(made, value)
    return made


def _setter_of(cls: type, name: str) -> Callable[[object, object], None]:
    for base in cls.__mro__:
        setter: Callable[[object, object], None] | None = getattr(base.__dict__.get(name), "__set__", None)
        if setter is not None:
            return setter
    return lambda obj, value: object.__setattr__(obj, name, value)


class _Joiner:
    """Makes equal values one object, from the leaves up: two are equal when they have one type and their parts, which are
    joined already, are the same objects. What can be changed stays itself."""

    def __init__(self) -> None:
        self._joins: dict[type, Callable[[Any], object]] = {
            type(None): _itself,
            bool: _itself,
            str: self._atom,
            bytes: self._atom,
            int: self._atom,
            float: self._float,
            tuple: self._tuple,
            list: self._list,
            dict: self._dict,
        }
        self._atoms: dict[tuple[type, object], object] = {}
        self._joined: dict[tuple[object, ...], object] = {}
        self._done: dict[int, object] = {}
        self._kept: list[object] = []  # an id is another's once its object is gone

    def join(self, value: Any) -> Any:
        cls = type(value)
        try:
            join = self._joins[cls]
        except KeyError:
            join = self._joins[cls] = self._join_of(cls)
        return join(value)

    def _join_of(self, cls: type) -> Callable[[Any], object]:
        parameters: Any = getattr(cls, "__dataclass_params__", None)
        if parameters is None:
            return _itself
        names = _names_of(cls)
        is_value = parameters.frozen and parameters.eq

        def join(value: object) -> object:
            done = self._done.get(id(value))
            if done is not None:
                return done
            parts: list[object] = [cls]
            for name in names:
                part = getattr(value, name)
                joined = self.join(part)
                if joined is not part:
                    object.__setattr__(value, name, joined)
                parts.append(id(joined))
            self._kept.append(value)
            found = self._joined.setdefault(tuple(parts), value) if is_value else value
            self._done[id(value)] = found
            return found

        return join

    def _atom(self, value: object) -> object:
        return self._atoms.setdefault((type(value), value), value)

    def _float(self, value: float) -> object:
        # 0.0 and -0.0 are equal, and no nan equals itself.
        return self._atoms.setdefault((float, repr(value)), value)

    def _tuple(self, value: tuple[object, ...]) -> object:
        made = tuple([self.join(item) for item in value])
        return self._joined.setdefault((tuple, *map(id, made)), made)

    def _list(self, value: list[object]) -> object:
        self._kept.append(value)
        value[:] = [self.join(item) for item in value]
        return value

    def _dict(self, value: dict[object, object]) -> object:
        self._kept.append(value)
        for key, item in value.items():
            value[key] = self.join(item)
        return value


def _itself(value: object) -> object:
    return value
