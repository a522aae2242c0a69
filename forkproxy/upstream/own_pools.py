"""Pools whose connections serve one downstream connection alone. Imported where a cluster asks for it."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from forkproxy.upstream.circuit_breakers import Breakers
from forkproxy.upstream.http_pool import HttpPool, PoolRequest, pool_class

if TYPE_CHECKING:
    from forkproxy.upstream.cluster import Cluster
    from forkproxy.upstream.endpoint import Endpoint


class _OwnPool:
    """In the ``filter_state`` of a downstream connection, which ends with it: its pool of one endpoint."""

    __slots__ = ("__weakref__", "pool")

    def __init__(self, pool: HttpPool) -> None:
        self.pool = pool


class OwnPools(HttpPool):
    """Stands for one pool per downstream connection: the file wants it, or the endpoint is told of that connection.

    Nobody else may use the connections of such a pool: they go with the downstream connection, where Envoy keeps them until
    they have been idle for long enough.
    """

    __slots__ = ("_announces", "_pools")

    def __init__(self, cluster: Cluster, endpoint: Endpoint, breakers: Breakers) -> None:
        super().__init__(cluster, endpoint, breakers)
        self._pools: dict[weakref.ref[_OwnPool], HttpPool] = {}
        self._announces = cluster.announces(endpoint)

    def acquire(self, request: PoolRequest) -> None:
        """From the pool of the request's downstream connection."""
        downstream = request.downstream()
        own: _OwnPool | None = downstream.filter_state.get(self)
        if own is None:
            cls = pool_class(self.cluster, self.breakers)
            pool = cls(self.cluster, self.endpoint, self.breakers)
            pool.client_class = self.client_class
            pool.draining = self.draining
            if self._announces:
                pool.origin = (downstream.remote_address, downstream.local_socket_address())
            own = downstream.filter_state[self] = _OwnPool(pool)
            self._pools[weakref.ref(own, self._on_downstream_gone)] = pool
        own.pool.acquire(request)

    def _on_downstream_gone(self, key: weakref.ref[_OwnPool]) -> None:
        pool = self._pools.pop(key, None)
        if pool is not None:
            self.cluster.loop.call_soon(pool.drain)

    def _others(self) -> list[HttpPool]:
        return [*self._pools.values(), *super()._others()]
