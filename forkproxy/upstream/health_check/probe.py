"""What the probes have in common: one connection to the endpoint, which may be kept for the next check."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from forkproxy.net.connection import LOCAL_CLOSE, Connection
from forkproxy.upstream.health_check.session import NETWORK

if TYPE_CHECKING:
    from forkproxy.upstream.health_check.checker import HealthChecker
    from forkproxy.upstream.health_check.session import Session


class ConnectionProbe(ABC):
    """A Probe but for ``check``. ``_begun``: a check is under way; only then does the end of the connection fail one."""

    __slots__ = ("_begun", "_checker", "_connection", "_session")

    def __init__(self, checker: HealthChecker, session: Session) -> None:
        self._checker = checker
        self._session = session
        self._connection: Connection | None = None
        self._begun = False

    def give_up(self) -> None:
        """Probe: it takes too long."""
        self._begun = False
        self._drop()

    def close(self) -> None:
        """Probe: the endpoint is no longer checked."""
        self.give_up()

    def _connect(self) -> Connection | None:
        """Start to connect; None when that fails on the spot, and the check with it."""
        try:
            connection = self._checker.connect(self._session.endpoint)
        except OSError:
            self._begun = False
            self._session.on_failure(NETWORK)
            return None
        self._connection = connection
        connection.on_data = self._on_data
        connection.on_close = self._on_close
        return connection

    @abstractmethod
    def _on_data(self, data: bytes) -> None: ...

    def _on_close(self, _reason: str) -> None:
        self._connection = None
        self._fail()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort(LOCAL_CLOSE)

    def _fail(self) -> None:
        self._drop()
        if self._begun:
            self._begun = False
            self._session.on_failure(NETWORK)
