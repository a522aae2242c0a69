"""HTTP filters compiled: for each hook the filters that really override it, with their positions in the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forkproxy.http.filter import DataResult, HookResult, HttpFilter
from forkproxy.http.headers import Headers
from forkproxy.net.filter import overrides

HeadersHook = Callable[[Any, Headers, bool], HookResult]
DataHook = Callable[[Any, bytes, bool], DataResult]
TrailersHook = Callable[[Any, Headers], HookResult]


class HttpFilterChain:
    """What a connection manager runs. Decode hooks stand in the order of the configuration, encode hooks in reverse.

    Positions are indices into ``filters``; for encode hooks they are negated, so that they grow along the way too.
    An empty tuple means that nobody wants to see this part of a message. ``switches``: of the filters that are off on some
    routes and on elsewhere, position → (name, whether it is off where ``Route.filters_disabled`` does not have the name).
    """

    __slots__ = (
        "decode_data",
        "decode_headers",
        "decode_trailers",
        "encode_data",
        "encode_headers",
        "encode_trailers",
        "filters",
        "on_stream_complete",
        "owners",
        "passes_responses",
        "switches",
    )

    def __init__(self, filters: Sequence[HttpFilter], switches: Mapping[int, tuple[str, bool]] | None = None) -> None:
        self.filters = tuple(filters)
        self.switches = switches or {}
        self.owners: dict[object, HttpFilter] = {}
        """Of the hooks that are no methods of their filters."""
        self.decode_headers: tuple[tuple[int, HeadersHook], ...] = self._hooks("decode_headers")
        self.decode_data: tuple[tuple[int, DataHook], ...] = self._hooks("decode_data")
        self.decode_trailers: tuple[tuple[int, TrailersHook], ...] = self._hooks("decode_trailers")
        self.encode_headers: tuple[tuple[int, HeadersHook], ...] = self._hooks("encode_headers")
        self.encode_data: tuple[tuple[int, DataHook], ...] = self._hooks("encode_data")
        self.encode_trailers: tuple[tuple[int, TrailersHook], ...] = self._hooks("encode_trailers")
        self.passes_responses = not (self.encode_headers or self.encode_data)
        """Nobody looks at a response, but perhaps at its trailers."""
        self.on_stream_complete: tuple[Callable[[Any], None], ...] = tuple(
            hook for _, hook in self._hooks("on_stream_complete")
        )

    def _hooks(self, name: str) -> tuple[tuple[int, Any], ...]:
        backwards = name.startswith("encode")
        found = [
            (-position if backwards else position, self._switched(position, getattr(filter_object, name)))
            for position, filter_object in enumerate(self.filters)
            if overrides(filter_object, HttpFilter, name)
        ]
        return tuple(reversed(found)) if backwards else tuple(found)

    def _switched(self, position: int, hook: Callable[..., Any]) -> Callable[..., Any]:
        if position not in self.switches:
            return hook
        name, off_elsewhere = self.switches[position]

        def switched(stream: Any, *arguments: Any) -> Any:
            route = stream.route
            if off_elsewhere if route is None else route.filters_disabled.get(name, off_elsewhere):
                return None
            return hook(stream, *arguments)

        self.owners[switched] = self.filters[position]
        return switched

    def name_of(self, hook: object) -> str:
        """The class name of the filter that a hook belongs to, for the log."""
        owner = self.owners.get(hook)
        return type(getattr(hook, "__self__", hook) if owner is None else owner).__qualname__
