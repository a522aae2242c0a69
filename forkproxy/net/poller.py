"""The one place that knows epoll.

Level-triggered on purpose: one ``recv`` per readiness and no read-until-EAGAIN (a refused recv costs 1.3 µs). The stdlib's
``selectors`` costs 5–15 % of a request over raw epoll, because it makes a key object per event.
"""

from __future__ import annotations

import select

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
ERROR = select.EPOLLERR
HANG_UP = select.EPOLLHUP


class Poller:
    """Readiness of file descriptors. Masks are combinations of READ and WRITE; ERROR and HANG_UP always arrive."""

    __slots__ = ("_epoll", "modify", "poll", "register", "unregister")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.register = self._epoll.register
        self.modify = self._epoll.modify
        self.unregister = self._epoll.unregister
        self.poll = self._epoll.poll
        """``poll(timeout_s, max_events)`` → [(fd, mask)]; a timeout of -1 waits for ever."""

    def fileno(self) -> int:
        """The epoll descriptor itself, so that a forked child can tell what it must close."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Give the descriptor back; the poller is of no use afterwards."""
        self._epoll.close()
