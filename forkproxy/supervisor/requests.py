"""What can be asked at the control socket, by ``op``. Every answer has ``ok``; a refusal has ``reason`` and ``exit`` as well.

``status`` (``fresh``: with the figures of this moment) · ``stop`` (``now``) · ``reload`` · ``upgrade`` → ``pid`` ·
``replace_worker`` (``slot``, ``now``) → ``pid`` · ``scale`` (``workers``) · ``admin`` (``method``, ``target``) → ``status``,
``body``: an admin page, also where no admin port is configured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from forkproxy.admin.context import AdminContext
from forkproxy.admin.handlers import AdminHandlers, parse_target
from forkproxy.admin.server import REFRESH_TIMEOUT_S
from forkproxy.supervisor.control_socket import Reply
from forkproxy.supervisor.exits import EXIT_FAILURE
from forkproxy.worker.control import Message

if TYPE_CHECKING:
    from forkproxy.supervisor.supervisor import Supervisor


class Requests:
    """Answers at once what only reads; everything else becomes an intention, whose outcome is the answer."""

    def __init__(self, supervisor: Supervisor, context: AdminContext) -> None:
        self._supervisor = supervisor
        self._context = context
        self._handlers = AdminHandlers(context)

    def answer(self, request: Message, reply: Reply) -> None:
        """Answer one request; ``reply`` may be called later."""
        supervisor = self._supervisor
        match request:
            case {"op": "status", "fresh": True}:
                self._refreshed(lambda: reply({"ok": True, **supervisor.report.status()}))
            case {"op": "status"}:
                reply({"ok": True, **supervisor.report.status()})
            case {"op": "stop"}:
                supervisor.want("stop", reply, now=bool(request.get("now")))
            case {"op": "reload"}:
                supervisor.want("reload", reply)
            case {"op": "upgrade"}:
                supervisor.want("upgrade", reply)
            case {"op": "replace_worker", "slot": int(slot)}:
                supervisor.want("replace_worker", reply, now=bool(request.get("now")), number=slot)
            case {"op": "scale", "workers": int(count)}:
                supervisor.want("scale", reply, number=count)
            case {"op": "admin", "method": str(method), "target": str(target)}:
                self._show(method, target, reply)
            case _:
                reply({"ok": False, "reason": f"no such request: {request.get('op')}", "exit": EXIT_FAILURE})

    def _show(self, method: str, target: str, reply: Reply) -> None:
        try:
            path, query = parse_target(target)
        except ValueError:
            reply({"ok": False, "reason": "too many query parameters", "exit": EXIT_FAILURE})
            return

        def answer() -> None:
            page = self._handlers.handle(method, path, query)
            reply({"ok": True, "status": page.status, "body": page.body.decode("utf-8", "replace")})

        if self._handlers.wants_figures(path):
            self._refreshed(answer)
        else:
            answer()

    def _refreshed(self, act: Callable[[], None]) -> None:
        """Act once the workers have flushed their figures; not later than the admin port would."""
        is_done = False

        def once() -> None:
            nonlocal is_done
            if not is_done:
                is_done = True
                timer.cancel()
                act()

        timer = self._supervisor.loop.call_later(REFRESH_TIMEOUT_S, once)
        self._context.refresh(once)
