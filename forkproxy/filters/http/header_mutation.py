"""Adds and removes headers at its place in the chain, not only at its end as routes do.

    - name: envoy.filters.http.header_mutation
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
        mutations:
          request_mutations: [{remove: x-secret}]
          response_mutations: [{append: {header: {key: x-proxy, value: "%HOSTNAME%"}}}]
          query_parameter_mutations: [{remove: debug}]
          response_trailers_mutations: [{remove_on_match: {key_matcher: {prefix: x-internal-}}}]

Mutations are done one after the other: the filter's own, then those of ``typed_per_filter_config``, all of its levels, from the
route's to the route configuration's (the other way round with ``most_specific_header_mutations_wins``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from forkproxy.access_log.formatter import compile_header_value
from forkproxy.config.build.header_mutation import HeaderMutationConfig
from forkproxy.filters.context import FilterContext
from forkproxy.http.filter import HookResult, HttpFilter
from forkproxy.http.headers import Headers
from forkproxy.http.stream import Stream
from forkproxy.router.header_mutation import Apply, chain
from forkproxy.router.mutation_steps import compile_query, compile_steps
from forkproxy.router.table import Route


class Mutations(NamedTuple):
    """What is done on a route; None where there is nothing to do."""

    request: Apply | None
    response: Apply | None
    request_trailers: Apply | None
    response_trailers: Apply | None


class HeaderMutation(HttpFilter):
    """See the module's text."""

    def __init__(self, name: str, config: HeaderMutationConfig) -> None:
        self.name = name
        self.config = config
        self.own = _compile([config])
        self._compiled: dict[tuple[int, ...], Mutations] = {(): self.own}

    @classmethod
    def from_config(cls, config: HeaderMutationConfig, context: FilterContext) -> HeaderMutation:
        """Compile the filter's own mutations. ConfigError for a format that is wrong."""
        return cls(context.name, config)

    def route_config(self, configs: Sequence[Any], route: Route) -> Mutations | None:
        """All mutations of this route; routes with the same levels share them."""
        levels = [config for config in configs if isinstance(config, HeaderMutationConfig)]
        if not levels:
            return None
        if self.config.most_specific_wins:
            levels.reverse()
        key = tuple(map(id, levels))
        if key not in self._compiled:
            self._compiled[key] = _compile([self.config, *levels])
        return self._compiled[key]

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Change the request's head."""
        mutate = self._mutations(stream).request
        if mutate is not None:
            mutate(stream, headers)
        return None

    def decode_trailers(self, stream: Stream, trailers: Headers) -> HookResult:
        """Change the request's trailers."""
        mutate = self._mutations(stream).request_trailers
        if mutate is not None:
            mutate(stream, trailers)
        return None

    def encode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Change the response's head."""
        mutate = self._mutations(stream).response
        if mutate is not None:
            mutate(stream, headers)
        return None

    def encode_trailers(self, stream: Stream, trailers: Headers) -> HookResult:
        """Change the response's trailers."""
        mutate = self._mutations(stream).response_trailers
        if mutate is not None:
            mutate(stream, trailers)
        return None

    def _mutations(self, stream: Stream) -> Mutations:
        route = stream.route
        if route is None:
            return self.own
        found: Mutations = route.per_filter_config.get(self.name, self.own)
        return found


def _compile(configs: Sequence[HeaderMutationConfig]) -> Mutations:
    form = compile_header_value
    request: list[Apply | None] = []
    for config in configs:  # level by level, the query after the headers
        request.append(compile_steps(config.request, form, of_request=True))
        request.append(compile_query(config.query, form))
    return Mutations(
        chain(request),
        compile_steps([step for each in configs for step in each.response], form, of_request=False),
        compile_steps(
            [step for each in configs for step in each.request_trailers], form, of_request=True, trailers=True
        ),
        compile_steps(
            [step for each in configs for step in each.response_trailers], form, of_request=False, trailers=True
        ),
    )
