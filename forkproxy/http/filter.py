"""The contract of HTTP filters (L7). The core owns it; filters are extensions above.

A filter object is made once per configuration entry and worker and shared by all streams; what belongs to one stream lives
in ``stream.filter_state[self]``. Hooks are plain calls and never block: who must wait returns STOP_ITERATION, keeps the
stream and calls ``stream.continue_decoding()`` or ``continue_encoding()`` from a callback. Decoding runs in the order of the
configuration, encoding in reverse. A chain is compiled from the hooks that a class really overrides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from forkproxy.http.headers import Headers
from forkproxy.net.filter import STOP_ITERATION, HookResult, StopIterationStatus

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

    Route = Any  # router.table.Route: the floor above, so its type cannot be named here

__all__ = ["STOP_ITERATION", "TAKEN", "DataResult", "HookResult", "HttpFilter"]


class TakenStatus:
    """The type of TAKEN."""

    def __repr__(self) -> str:
        return "TAKEN"


TAKEN: Final = TakenStatus()
"""From ``encode_data``: the filter has kept the piece and will bring it back with ``stream.inject_encoded``."""
DataResult = StopIterationStatus | TakenStatus | bytes | None


class HttpFilter:
    """Base of HTTP filters: every hook does nothing; override what you need.

    ``terminal``: the last filter of a chain, and only the last, is terminal (the router): it consumes the request.
    Data hooks are only called while a body passes; a chain in which nobody overrides them never touches body bytes.
    """

    terminal: ClassVar[bool] = False

    @classmethod
    def from_config(cls, config: Any, context: Any) -> HttpFilter:
        """Make the filter, in the supervisor. ``config``: the extension's dataclass, or a plain dict for third parties.

        ``context``: ``forkproxy.filters.context.FilterContext``. Raises ConfigError when the filter cannot work.
        """
        return cls()

    def route_config(self, configs: Sequence[Any], route: Route) -> Any:
        """What this filter needs on ``route``: it will find it in ``stream.route.per_filter_config[name]``; None for nothing.

        Called at load, after ``from_config``, for every route if a class overrides it. ``configs``: what
        ``typed_per_filter_config`` says under the filter's name (``context.name``), the most specific first: a dict each for
        third parties. Without this method the most specific one counts, as it is.
        """
        return configs[0] if configs else None

    def start(self, worker: Any) -> None:
        """Called once in each worker, before any stream. ``worker``: ``forkproxy.filters.context.WorkerContext``."""

    def stop(self) -> None:
        """Called once when the worker drains."""

    def decode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """The request's head. ``stream.method``, ``.path``, ``.authority`` are not in ``headers``; both may be changed."""
        return None

    def decode_data(self, stream: Stream, data: bytes, end_stream: bool) -> DataResult:
        """A piece of the request body (``end_stream`` with an empty piece: it has ended). Bytes returned replace the piece."""
        return None

    def decode_trailers(self, stream: Stream, trailers: Headers) -> HookResult:
        """The request's trailers; the request is complete with them."""
        return None

    def encode_headers(self, stream: Stream, headers: Headers, end_stream: bool) -> HookResult:
        """The response's head; the status is ``stream.status``."""
        return None

    def encode_data(self, stream: Stream, data: bytes, end_stream: bool) -> DataResult:
        """A piece of the response body. Bytes returned replace it."""
        return None

    def encode_trailers(self, stream: Stream, trailers: Headers) -> HookResult:
        """The response's trailers."""
        return None

    def on_stream_complete(self, stream: Stream) -> None:
        """The stream is over, in whatever way; called before the access logs."""
