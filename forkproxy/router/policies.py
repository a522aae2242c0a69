"""What a route asks for beyond one exchange with one endpoint, compiled (config/build/route_policies.py has the fields).

``Policies`` is None on a route that asks for nothing of it, which is then served without any of this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from forkproxy.config.build.core import HeaderMutations, Where
from forkproxy.config.build.route import ForwardAction, RouteTableConfig
from forkproxy.config.build.route import VirtualHost as VirtualHostConfig
from forkproxy.config.build.route_policies import (
    InternalRedirectPolicy,
    MaxStreamDuration,
    MirrorPolicy,
    RoutePolicies,
    VirtualHostPolicies,
)
from forkproxy.router.header_mutation import CompileFormat
from forkproxy.router.matcher import StreamTest, compile_fraction
from forkproxy.router.mutation_steps import compile_steps
from forkproxy.router.rewrite import request_header

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

ClusterLookup = Callable[[str], Any]

RETRY_DIRECTIONS = frozenset(
    (
        *(b"x-envoy-retry-on", b"x-envoy-retry-grpc-on", b"x-envoy-max-retries"),
        *(b"x-envoy-retriable-status-codes", b"x-envoy-retriable-header-names"),
    )
)
"""Request headers that say something about retries; what a route adds to its requests counts, too."""


class Mirror:
    """A compiled ``RequestMirrorPolicy``. After ``bind``, ``cluster`` is the live one; None for an unknown one, or by header."""

    __slots__ = ("append_suffix", "cluster", "cluster_header", "cluster_name", "host", "lookup", "mutate", "test")

    def __init__(self, policy: MirrorPolicy, compile_format: CompileFormat, lookup: ClusterLookup) -> None:
        self.cluster_name = policy.cluster
        self.cluster_header = policy.cluster_header.lower().encode()
        self.cluster: Any = None
        self.lookup = lookup
        self.test: StreamTest | None = compile_fraction(policy.fraction) if policy.fraction is not None else None
        self.append_suffix = policy.append_suffix
        self.host = policy.host.encode()
        self.mutate = compile_steps(policy.mutations, compile_format, of_request=True)

    def bind(self) -> None:
        """Look the cluster up, once all exist."""
        if self.cluster_name:
            self.cluster = self.lookup(self.cluster_name)

    def find_cluster(self, stream: Stream) -> Any:
        """The cluster for this request; None for none."""
        if self.cluster is not None or not self.cluster_header:
            return self.cluster
        name = request_header(stream, self.cluster_header)
        return self.lookup(name.decode("latin-1")) if name else None

    def host_for(self, authority: bytes) -> bytes:
        """What the copy says it is for: logs of its upstream can tell it from the original."""
        if self.host:
            return self.host
        if not self.append_suffix:
            return authority
        colon = authority.rfind(b":")
        if colon < 0 or colon < authority.rfind(b"]"):
            return authority + b"-shadow"
        return authority[:colon] + b"-shadow" + authority[colon:]


class Policies:
    """See the module's text."""

    __slots__ = (
        *("adds_directions", "grpc_max_s", "grpc_offset_s", "hedges", "internal_redirect", "max_stream_duration"),
        *("mirrors", "tells_timeout_retry"),
    )

    def __init__(
        self,
        own: RoutePolicies,
        shared: VirtualHostPolicies,
        mirrors: tuple[Mirror, ...] = (),
        levels: Sequence[tuple[HeaderMutations, Where]] = (),
    ) -> None:
        self.mirrors = mirrors
        self.internal_redirect: InternalRedirectPolicy | None = own.internal_redirect
        self.hedges = bool(shared.hedges if own.hedges is None else own.hedges)
        self.tells_timeout_retry = shared.tells_timeout_retry
        added = {option.key.lower().encode() for level, _ in levels for option in level.request_add}
        self.adds_directions = not RETRY_DIRECTIONS.isdisjoint(added)
        self.max_stream_duration: MaxStreamDuration | None = own.max_stream_duration
        self.grpc_max_s = own.grpc_max_s
        self.grpc_offset_s = own.grpc_offset_s

    @property
    def shape_exchange(self) -> bool:
        """Whether the exchange itself is another one than the plain: mirrors have to see the body, too."""
        return (
            bool(self.mirrors)
            or self.internal_redirect is not None
            or self.hedges
            or self.max_stream_duration is not None
            or self.grpc_max_s is not None
        )

    @property
    def matter(self) -> bool:
        """Whether any of it does anything."""
        return self.shape_exchange or self.tells_timeout_retry or self.adds_directions


NO_POLICIES = Policies(RoutePolicies(), VirtualHostPolicies())


class MirrorCompiler:
    """Makes the Mirrors of a route configuration: those of a level that many routes share are made once."""

    def __init__(self, config: RouteTableConfig, compile_format: CompileFormat, lookup: ClusterLookup) -> None:
        self.config = config
        self.compile_format = compile_format
        self.lookup = lookup
        self._made: dict[int, tuple[Mirror, ...]] = {}
        self._nothing: dict[tuple[int, int], bool] = {}

    def is_nothing(self, own: RoutePolicies, shared: VirtualHostPolicies) -> bool:
        """Whether these, by themselves, do nothing. Nearly all routes have the same."""
        key = id(own), id(shared)
        found = self._nothing.get(key)
        if found is None:
            found = self._nothing[key] = not Policies(own, shared).matter
        return found

    def mirrors(self, action: ForwardAction, virtual_host: VirtualHostConfig) -> tuple[Mirror, ...]:
        """Of the most specific level that has some."""
        for policies in (action.policies.mirrors, virtual_host.policies.mirrors, self.config.mirrors):
            if policies:
                if id(policies) not in self._made:
                    self._made[id(policies)] = tuple(
                        Mirror(policy, self.compile_format, self.lookup) for policy in policies
                    )
                return self._made[id(policies)]
        return ()

    def bind(self) -> None:
        """Look all clusters up."""
        for mirrors in self._made.values():
            for mirror in mirrors:
                mirror.bind()


def compile_policies(
    action: ForwardAction,
    virtual_host: VirtualHostConfig,
    compiler: MirrorCompiler,
    levels: Sequence[tuple[HeaderMutations, Where]],
) -> Policies | None:
    """None when there is nothing beyond one exchange. ``levels``: what the route changes of its requests' heads."""
    mirrors = compiler.mirrors(action, virtual_host)
    says_nothing = not mirrors and compiler.is_nothing(action.policies, virtual_host.policies)
    if says_nothing and not any(level.request_add for level, _ in levels):
        return None
    policies = Policies(action.policies, virtual_host.policies, mirrors, levels)
    return policies if policies.matter else None
