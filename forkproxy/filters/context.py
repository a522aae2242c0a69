"""What a filter is given: a FilterContext when it is made, in the supervisor, and a WorkerContext when it starts, in a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from forkproxy.config.build.access_log import AccessLogConfig
from forkproxy.config.build.bootstrap import NodeConfig
from forkproxy.config.build.core import Where
from forkproxy.config.build.dynamic_forward_proxy import DnsCacheConfig
from forkproxy.net.loop import Loop
from forkproxy.stats.counters import Registry
from forkproxy.upstream.cluster import Cluster
from forkproxy.upstream.dns_cache import DnsCache


class MakeAccessLogs(Protocol):
    """See FilterContext."""

    def __call__(self, configs: Sequence[AccessLogConfig], log_type: str = ..., /) -> list[Any]: ...


@dataclass(slots=True)
class FilterContext:
    """For ``from_config``.

    ``registry``: statistics, ``registry.counter("my_filter.seen")`` for a counter of one's own.
    ``cluster(name)``: the live cluster, None when there is none. Connections may only be made after ``start``.
    ``access_logs(configs, type)``: the access logs of a list of configurations; ``type`` is what %ACCESS_LOG_TYPE% says.
    ``stat_prefix``: of the connection manager for HTTP filters ("http.ingress"), of the listener for network filters.
    """

    registry: Registry
    cluster: Callable[[str], Cluster | None]
    access_logs: MakeAccessLogs
    listener_name: str
    listener_stat_prefix: str
    node: NodeConfig = field(default_factory=NodeConfig)
    static: Mapping[str, Any] = field(default_factory=dict)
    """What formats say of this place, for ``compile_header_value``: names and metadata of listener and filter chain."""
    stat_prefix: str = ""
    router_class: str = ""
    """For the router: "policies" where a route or a request may ask for more than one exchange with one endpoint, "mirrors" where
    requests may be mirrored, too."""
    name: str = ""
    """The filter's name in its chain: routes have what they say about it under this name."""
    where: Where = field(default_factory=Where)
    report_exception: Callable[[str, Exception], None] | None = None
    tls: bool = False
    """The filter chain's transport is TLS."""
    certificates: tuple[bytes, ...] = ()
    """The certificates that the filter chain may show to its clients: PEM chains."""
    internal_addresses: bool = False
    """The connection manager may find requests to come from inside."""
    dns_cache: Callable[[DnsCacheConfig, Where], DnsCache] | None = None
    """The DNS cache with this configuration; ConfigError when its name has another one elsewhere."""
    clusters: Callable[[], Iterable[Cluster]] = tuple
    """All live clusters."""
    local_ip: str = ""
    """This machine's first address that is not loopback: what x-forwarded-for says for a client on this machine."""


@dataclass(slots=True)
class WorkerContext:
    """For ``start``: ``loop`` is the worker's loop; ``slot`` its number from 0."""

    loop: Loop
    slot: int = 0
