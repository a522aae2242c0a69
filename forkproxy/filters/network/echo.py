"""Echo: what comes from downstream goes back.

    - name: envoy.filters.network.echo
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}

As in Envoy, the peer's end of data closes the connection, with what was not echoed yet.
"""

from __future__ import annotations

from collections.abc import Callable

from forkproxy.net.connection import Connection
from forkproxy.net.filter import NetworkFilter


class Echo(NetworkFilter):
    """See the module's text."""

    terminal = True

    def reader(self, connection: Connection) -> Callable[[bytes], None]:
        """The connection's own ``write``. A peer that does not read what comes back is not read from either."""
        connection.on_above_high_watermark = connection.pause_reading
        connection.on_below_low_watermark = connection.resume_reading
        return connection.write
