"""Frozen values: dataclasses that are cheap to define and to restore.

Problem: there are 150 such classes. Every process that serves defines them and makes few objects by ``__init__``: they come ready
from another process (config/packing.py). ``@dataclass(frozen=True, slots=True)`` writes and compiles six methods for each class,
0.6 ms, a fifth of all the time until the example serves.

So ``frozen`` leaves the fields to ``dataclass`` and has one method of each kind for all classes. Only ``__init__`` is written,
when the first object is made. ``dataclasses.fields`` and ``replace``, ``match`` and type checkers see no difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")

_Getter = Callable[[Any], tuple[object, ...]]


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """What ``@dataclass(frozen=True, slots=True)`` makes of a class."""
    made = dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    for name, method in _METHODS.items():
        if name not in cls.__dict__:
            setattr(made, name, method)
    return made


def is_frozen(cls: type) -> bool:
    """Whether objects of a class are values: compared by their fields, which cannot be changed."""
    parameters: Any = getattr(cls, "__dataclass_params__", None)
    if parameters is not None and parameters.frozen and parameters.eq:
        return True
    set_: object = cls.__setattr__
    return set_ is _refuse_to_set


@cache
def names_of(cls: type) -> tuple[str, ...]:
    """The fields of a dataclass."""
    return tuple(each.name for each in fields(cls))


@cache
def getter_of(cls: type) -> _Getter:
    """What gets the values of all fields of a dataclass, in order."""
    return _getter(names_of(cls))


@cache
def compared_of(cls: type) -> _Getter:
    """What gets the values of those fields that make objects of a dataclass different."""
    return _getter(tuple(each.name for each in fields(cls) if each.compare))


@cache
def setters_of(cls: type) -> tuple[Callable[[object, object], None], ...]:
    """What sets the fields of a dataclass, frozen or not, in order."""
    return tuple([_setter_of(cls, name) for name in names_of(cls)])


def replaced(value: T, /, **changes: object) -> T:
    """``dataclasses.replace`` for a class whose ``__init__`` does nothing but set fields."""
    cls: type = type(value)
    made: T = object.__new__(cls)
    for name, set_, old in zip(names_of(cls), setters_of(cls), getter_of(cls)(value), strict=True):
        set_(made, changes.get(name, old))
    return made


def restored(cls: type[T], *values: object) -> T:
    """An object with these values of its fields."""
    made = object.__new__(cls)
    kind: type = cls
    for set_, value in zip(setters_of(kind), values, strict=True):
        set_(made, value)
    return made


def _getter(names: tuple[str, ...]) -> _Getter:
    if len(names) > 1:
        values_of: _Getter = attrgetter(*names)
        return values_of
    return lambda obj: tuple([getattr(obj, name) for name in names])


def _setter_of(cls: type, name: str) -> Callable[[object, object], None]:
    for base in cls.__mro__:
        setter: Callable[[object, object], None] | None = getattr(base.__dict__.get(name), "__set__", None)
        if setter is not None:
            return setter
    return lambda obj, value: object.__setattr__(obj, name, value)


# -- the methods of all classes -----------------------------------------------------------------------------------------


def _init(self: Any, *args: Any, **kwargs: Any) -> None:
    """Written for the class when its first object is made."""
    cls: type = next(base for base in type(self).__mro__ if base.__dict__.get("__init__") is _init)
    written = _written_init(cls)
    setattr(cls, "__init__", written)  # noqa: B010 (mypy would have it that this is unsound)
    written(self, *args, **kwargs)


def _written_init(cls: type) -> Callable[..., None]:
    """As ``dataclass`` would write it, but that it sets fields without asking ``__setattr__``."""
    names: dict[str, object] = {"_missing": MISSING}
    parameters: list[str] = []
    body: list[str] = []
    for number, (each, set_) in enumerate(zip(fields(cls), setters_of(cls), strict=True)):
        names[f"_set{number}"] = set_
        value = each.name
        if each.default_factory is not MISSING:
            names[f"_make{number}"] = each.default_factory
            parameters.append(f"{each.name}=_missing")
            value = f"_make{number}() if {each.name} is _missing else {each.name}"
        elif each.default is not MISSING:
            names[f"_default{number}"] = each.default
            parameters.append(f"{each.name}=_default{number}")
        else:
            parameters.append(each.name)
        body.append(f" _set{number}(_self, {value})")
    text = "\n".join([f"def __init__({', '.join(['_self', *parameters])}):", *(body or [" pass"])])
    exec(text, names)
    made: Any = names["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made  # type: ignore[no-any-return]


def _repr(self: Any) -> str:
    shown = [f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr]
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: Any, other: object) -> Any:
    cls: Any = type(self)
    values_of = compared_of(cls)
    return values_of(self) == values_of(other) if type(other) is cls else NotImplemented


def _hash(self: Any) -> int:
    cls: Any = type(self)
    return hash(compared_of(cls)(self))


def _refuse_to_set(self: object, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _reduce(self: Any) -> tuple[Any, ...]:
    """For ``copy`` and ``pickle``."""
    cls: type = type(self)
    return restored, (cls, *getter_of(cls)(self))


_METHODS: dict[str, Callable[..., Any]] = {
    "__init__": _init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _refuse_to_set,
    "__delattr__": _refuse_to_delete,
    "__reduce__": _reduce,
}
