"""Attributes of a Stream that hardly any has: what nobody uses costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

T = TypeVar("T")


class Rare(Generic[T]):
    """An attribute of a Stream that hardly any has: it stands in ``Stream.rare``, a dict that the first of them makes."""

    __slots__ = ("_default", "_name")

    def __init__(self, default: T) -> None:
        self._default = default

    def __set_name__(self, owner: type[Stream], name: str) -> None:
        self._name = name

    def __get__(self, stream: Stream, owner: type[Stream]) -> T:
        rare = stream.rare
        found: T = self._default if rare is None else rare.get(self._name, self._default)
        return found

    def __set__(self, stream: Stream, value: T) -> None:
        if stream.rare is None:
            stream.rare = {}
        stream.rare[self._name] = value


class RareDict(Rare[dict[Any, Any]]):
    """A Rare attribute that is a dict of the stream's own."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__({})

    def __get__(self, stream: Stream, owner: type[Stream]) -> dict[Any, Any]:
        if stream.rare is None or self._name not in stream.rare:
            self.__set__(stream, {})
        return super().__get__(stream, owner)
