"""Filters between the router and an endpoint: every attempt passes them, on its way there and back.

    - name: envoy.filters.http.router
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
        upstream_http_filters:
        - name: for-endpoints
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
            mutations: {request_mutations: [{append: {header: {key: x-attempt, value: "1"}}}]}
        - name: envoy.filters.http.upstream_codec
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec

What they change in a request stays for the next attempt, and what they change in a response is what retries are decided by.
They look at heads and trailers; routes configure them, and switch them off, as they do the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from forkproxy.config.build.router import RouterConfig
from forkproxy.config.problems import ConfigError
from forkproxy.filters import factory
from forkproxy.filters.context import FilterContext
from forkproxy.filters.http.router import Router
from forkproxy.http.filter import HttpFilter
from forkproxy.http.headers import Headers


class Filtered:
    """A mixin before any class of request: it is made, and answered, by way of the upstream filters."""

    router: Any
    stream: Any
    _end_stream: bool

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        for each in self._filters():
            each.decode_headers(self.stream, self.stream.request_headers, self._end_stream)

    def _filters(self) -> Iterator[HttpFilter]:
        switched_off = self.stream.route.filters_disabled
        return (each for entry, each in self.router.upstream_filters if not switched_off.get(entry.name))

    def send_data(self, data: bytes, end_stream: bool, trailers: Headers | None) -> None:
        """A piece of the request's body, and its trailers."""
        if trailers is not None:
            for each in self._filters():
                each.decode_trailers(self.stream, trailers)
        super().send_data(data, end_stream, trailers)  # type: ignore[misc]

    def decode_headers(self, status: int, headers: Headers, end_stream: bool) -> None:
        """The response's head."""
        for each in reversed(list(self._filters())):
            each.encode_headers(self.stream, headers, end_stream)
        super().decode_headers(status, headers, end_stream)  # type: ignore[misc]

    def decode_complete(self, trailers: Headers | None) -> None:
        """The response's end."""
        if trailers is not None:
            for each in reversed(list(self._filters())):
                each.encode_trailers(self.stream, trailers)
        super().decode_complete(trailers)  # type: ignore[misc]


_filtered: dict[type[Any], type[Any]] = {}


def filtered(kind: type[Any]) -> type[Any]:
    """That class of request, with the filters before it."""
    made = _filtered.get(kind)
    if made is None:
        made = _filtered[kind] = type(f"Filtered{kind.__name__}", (Filtered, kind), {})
    return made


def install(router: Router, config: RouterConfig, context: FilterContext) -> None:
    """The router's ``upstream_http_filters``. ConfigError for a name that another one has: routes could mean either."""
    names: set[str] = set()
    for entry in config.upstream_filters:
        if entry.name in names:
            where = entry.where
            raise ConfigError(where.path, where.line, where.column, f'two upstream filters are named "{entry.name}"')
        names.add(entry.name)
    name, where = context.name, context.where
    made = factory.make_http_filters(config.upstream_filters, context)
    context.name, context.where = name, where
    router.upstream_filters = list(zip(config.upstream_filters, made, strict=True))
    before = router.kind_of
    router.with_filters = filtered
    router.request_type = filtered(router.request_type)
    router.kind_of = lambda kind: filtered(before(kind))
