"""Goes where the Host header says (Envoy: "Dynamic forward proxy").

    - name: envoy.filters.http.dynamic_forward_proxy
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig
        dns_cache_config: {name: outside, dns_lookup_family: V4_PREFERRED}

The filter has the host resolved before the router asks the cluster ``envoy.clusters.dynamic_forward_proxy``, which has the same
``dns_cache_config``. A route may name another host (``PerRouteConfig``). Routes to other clusters are let through untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forkproxy.config.build.dynamic_forward_proxy import DynamicForwardProxyConfig, HostRewrite
from forkproxy.filters.context import FilterContext
from forkproxy.http import response_flags as flags
from forkproxy.http.filter import STOP_ITERATION, HookResult, HttpFilter
from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.stream import Stream
from forkproxy.net import address as addresses
from forkproxy.router.filter_state import UPSTREAM_ADDRESS
from forkproxy.upstream.dns_cache import OVERFLOW, CachedHost, DnsCache, host_key, split_key

if TYPE_CHECKING:
    from forkproxy.upstream.dns_cache import Waiting


class DynamicForwardProxy(HttpFilter):
    """See the module's text. ``filter_state`` of a stream that waits: whom the cache is to call."""

    def __init__(self, name: str, cache: DnsCache, save_upstream_address: bool = False) -> None:
        self.name = name
        self.cache = cache
        self.save_upstream_address = save_upstream_address

    @classmethod
    def from_config(cls, config: DynamicForwardProxyConfig, context: FilterContext) -> DynamicForwardProxy:
        """Share the cache with whoever names it."""
        assert context.dns_cache is not None
        cache = context.dns_cache(config.cache, config.where)
        return cls(context.name, cache, config.save_upstream_address)

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """Let the stream wait until its host is resolved."""
        route = stream.route
        if route is None or route.kind:
            return None
        cluster = route.cluster or route.find_cluster(stream)
        if cluster is None or cluster.dns_cache is None:
            return None
        rewrite: HostRewrite | None = route.per_filter_config.get(self.name)
        if rewrite is not None:
            self._rewrite_host(stream, rewrite)
        key = host_key(stream.authority.decode("latin-1"), cluster.default_port)
        host = self.cache.find(key)
        if host is not None:
            return self._go_on(stream, host) if host.addresses else self._refuse(stream, host)

        def done(found: CachedHost) -> None:
            del stream.filter_state[self]
            if found.addresses:
                self._go_on(stream, found)
                stream.continue_decoding()
            else:
                self._refuse(stream, found)

        if not self.cache.ask(key, done):
            body, details = (
                b"Dynamic forward proxy pending request overflow",
                "dynamic_forward_proxy_pending_request_overflow",
            )
            stream.send_local_reply(503, body, details=details)
            return STOP_ITERATION
        stream.filter_state[self] = key, done
        return STOP_ITERATION

    def _go_on(self, stream: Stream, host: CachedHost) -> HookResult:
        if self.save_upstream_address:
            stream.filter_state[UPSTREAM_ADDRESS] = addresses.text((host.addresses[0], split_key(host.key)[1]))
        return None

    def _rewrite_host(self, stream: Stream, rewrite: HostRewrite) -> None:
        host = rewrite.literal.encode()
        if rewrite.header:
            host = get_header(stream.request_headers, rewrite.header.encode()) or b""
        if host:
            stream.authority = host

    def _refuse(self, stream: Stream, host: CachedHost) -> HookResult:
        if host.reason == OVERFLOW:
            stream.send_local_reply(503, b"DNS cache overflow", details="dns_cache_overflow")
        else:
            details = f"dns_resolution_failure{{{host.reason.replace(' ', '_')}}}"
            stream.send_local_reply(503, b"DNS resolution failure", details=details, flags=flags.DF)
        return STOP_ITERATION

    def on_stream_complete(self, stream: Stream) -> None:
        """Who is gone need not be called."""
        waiting: tuple[str, Waiting] | None = stream.filter_state.pop(self, None)
        if waiting is not None:
            self.cache.forget(*waiting)
