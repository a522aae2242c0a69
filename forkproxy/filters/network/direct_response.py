"""Direct response: a new connection is sent some bytes and closed.

- name: envoy.filters.network.direct_response
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config
    response: {inline_string: "maintenance\\n"}
"""

from __future__ import annotations

from forkproxy.config.build.direct_response import DirectResponseConfig
from forkproxy.filters.context import FilterContext
from forkproxy.net.connection import Connection
from forkproxy.net.filter import STOP_ITERATION, DataResult, HookResult, NetworkFilter

LINGER_S = 1.0
"""For peers that speak first: closing with their bytes unread would reset the connection before they have read ours."""


class DirectResponse(NetworkFilter):
    """See the module's text."""

    terminal = True

    def __init__(self, response: bytes) -> None:
        self._response = response

    @classmethod
    def from_config(cls, config: DirectResponseConfig, context: FilterContext) -> DirectResponse:
        """``config.response`` is all there is."""
        return cls(config.response)

    def on_new_connection(self, connection: Connection) -> HookResult:
        """Answer and close."""
        if self._response:
            connection.write(self._response)
        connection.close_lingering(LINGER_S)
        return STOP_ITERATION

    def on_data(self, connection: Connection, data: bytes, end_stream: bool) -> DataResult:
        """What the peer says is not read."""
        return STOP_ITERATION
