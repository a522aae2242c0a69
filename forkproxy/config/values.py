"""Frozen dataclasses from the values of their fields, past ``__init__``, which sets each by a call of its own through Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

T = TypeVar("T")


@cache
def names_of(cls: type) -> tuple[str, ...]:
    """The fields of a dataclass."""
    return tuple(field.name for field in fields(cls))


@cache
def getter_of(cls: type) -> Callable[[Any], tuple[object, ...]]:
    """What gets the values of all fields of a dataclass, in order."""
    names = names_of(cls)
    if len(names) > 1:
        values_of: Callable[[Any], tuple[object, ...]] = attrgetter(*names)
        return values_of
    return lambda obj: tuple([getattr(obj, name) for name in names])


@cache
def setters_of(cls: type) -> tuple[Callable[[object, object], None], ...]:
    """What sets the fields of a dataclass, frozen or not, in order."""
    return tuple([_setter_of(cls, name) for name in names_of(cls)])


def _setter_of(cls: type, name: str) -> Callable[[object, object], None]:
    for base in cls.__mro__:
        setter: Callable[[object, object], None] | None = getattr(base.__dict__.get(name), "__set__", None)
        if setter is not None:
            return setter
    return lambda obj, value: object.__setattr__(obj, name, value)


def replaced(value: T, /, **changes: object) -> T:
    """``dataclasses.replace`` for a class whose ``__init__`` does nothing but set fields."""
    cls: type = type(value)
    made: T = object.__new__(cls)
    for name, set_, old in zip(names_of(cls), setters_of(cls), getter_of(cls)(value), strict=True):
        set_(made, changes.get(name, old))
    return made
