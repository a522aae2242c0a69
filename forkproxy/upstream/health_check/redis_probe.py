"""The Redis health check: PING must be answered by PONG, or EXISTS of a key by 0.

So an operator takes a Redis out of service by setting that key. A redirection (MOVED, ASK) is as good as an answer: the
endpoint lives. (Redis serialization protocol: "RESP protocol description".)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forkproxy.config.build.health_check import RedisCheck
from forkproxy.upstream.health_check.probe import ConnectionProbe
from forkproxy.upstream.health_check.session import ACTIVE

if TYPE_CHECKING:
    from forkproxy.upstream.health_check.checker import HealthChecker
    from forkproxy.upstream.health_check.session import Session

MAX_ANSWER_BYTES = 4096
"""No answer to either question is as long as that: all are one line."""


class RedisProbe(ConnectionProbe):
    """See the module's text."""

    __slots__ = ("_exists_stats", "_good", "_received", "_request")

    def __init__(self, checker: HealthChecker, session: Session, check: RedisCheck) -> None:
        super().__init__(checker, session)
        self._request = _command(b"EXISTS", check.key.encode()) if check.key else _command(b"PING")
        self._exists_stats = checker.redis_stats if check.key else None
        self._good = b":0" if check.key else b"+PONG"
        self._received = b""

    def check(self) -> None:
        """Probe: ask, over the connection of the last check when it is still there."""
        connection = self._connection or self._connect()
        if connection is None:
            return
        self._begun = True
        self._received = b""
        connection.write(self._request)

    def _on_data(self, data: bytes) -> None:
        if not self._begun:
            self._drop()  # an answer that nobody asked for would be taken for the next one
            return
        self._received += data
        line, end, rest = self._received.partition(b"\r\n")
        if end:
            self._on_answer(line, rest)
        elif len(line) > MAX_ANSWER_BYTES:
            self._fail()

    def _on_answer(self, line: bytes, rest: bytes) -> None:
        self._begun = False
        # What is not one line, or no answer at all, leaves a connection of which nobody knows where its next answer begins.
        if rest or line[:1] not in (b"+", b"-", b":") or not self._checker.config.reuse_connection:
            self._drop()
        if line == self._good or line.startswith((b"-MOVED ", b"-ASK ")):
            self._session.on_success()
        else:
            if self._exists_stats is not None:
                self._exists_stats.exists_failure += 1
            self._session.on_failure(ACTIVE)


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%s\r\n" % (len(word), word) for word in words])
