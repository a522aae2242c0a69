"""forkproxy's own log: one event per line, as text or JSON, to standard error or a file.

structlog does the work behind ``get_logger``. It is imported with the first line that is really written, and without what it
brings along for others (``_import_structlog``): ``forkproxy version`` need not pay for it, and a line below the level costs
one comparison.
A line never stops the program that wants to write it. What cannot be written at once (a full disk, a pipe that nobody reads, a
terminal that is gone) is lost and counted, and the first line that can be written again is preceded by one that says how
many were.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socket import socket

LEVELS: dict[str, int] = {"trace": 5, "debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50, "off": 100}
"""Envoy's level names and their rank; ``warn`` is accepted for ``warning`` as Envoy does."""

_COLOURS = {
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[1;31m",
    "debug": "\x1b[2m",
    "trace": "\x1b[2m",
}


class _Output:
    """Where lines go, and from which level on. One per process; a forked worker inherits it."""

    def __init__(self) -> None:
        self.fd = 2
        self.path = ""
        self.takes_streams = False
        self.format = "text"
        self.colour = False
        self.threshold = LEVELS["info"]
        self.components: dict[str, int] = {}
        self.on_loss: Callable[[], None] = _nobody_counts
        self._send: Callable[[bytes], int] | None = None
        self._socket: socket | None = None
        self._untold = 0
        self._reason = ""
        self._telling = False
        self._cut = False  # what was written last is not a whole line

    def use(self, fd: int) -> None:
        """Write to ``fd`` from now on."""
        former = self.fd
        if self._socket is not None:
            self._socket.detach()
            self._socket = None
        if former != 2:
            os.close(former)
        self.fd = fd
        self._send = None
        self._cut = False
        if _is_socket(fd):
            # Standard error of a service: the journal. Only then is the module wanted.
            from socket import MSG_DONTWAIT, socket

            self._socket = journal = socket(fileno=fd)
            self._send = lambda data: journal.send(data, MSG_DONTWAIT)

    def write(self, line: str) -> None:
        if self._untold and not self._telling:
            self._tell()
        data = line.encode("utf-8", "backslashreplace")
        if self._cut:
            data = b"\n" + data
        try:
            sent = os.write(self.fd, data) if self._send is None else self._send(data)
        except OSError as error:
            self._lose(os.strerror(error.errno) if error.errno else str(error))
            return
        self._cut = sent < len(data)
        if self._cut:
            self._lose("the rest of a line was not taken")

    def _lose(self, reason: str) -> None:
        self._untold += 1
        self._reason = reason
        if not self._telling:
            self.on_loss()

    def _tell(self) -> None:
        count, self._untold = self._untold, 0
        self._telling = True
        _own.warning("lines of this log were lost", lines=count, reason=self._reason, hint=_hint_for(self._reason))
        self._telling = False
        if self._untold:
            self._untold = count


def _nobody_counts() -> None:
    pass


def _hint_for(reason: str) -> str:
    if reason == os.strerror(errno.EAGAIN):
        return "whoever reads this log is too slow, or has stopped: see what standard error is connected to"
    if reason in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)):
        return "the disk was full: see what fills it, and rotate the logs sooner"
    return "see where the log goes"


_output = _Output()
_bind: Callable[[str], Any] | None = None
_components: set[str] = set()


def rank(level: str) -> int:
    """The rank of a level's name; ValueError when there is no such level."""
    name = level.lower()
    if name == "warn":
        name = "warning"
    if name not in LEVELS:
        raise ValueError(f'no log level "{level}" (levels: {", ".join(LEVELS)})')
    return LEVELS[name]


def parse_component_levels(text: str) -> dict[str, int]:
    """``"supervisor:debug,http:info"`` → ranks by component; ValueError says what is wrong."""
    levels = {}
    for entry in filter(None, text.split(",")):
        component, colon, level = entry.partition(":")
        if not colon or not component:
            raise ValueError(f'"{entry}" is not COMPONENT:LEVEL')
        levels[component.strip()] = rank(level.strip())
    return levels


def configure(
    *,
    level: str = "info",
    component_levels: str = "",
    path: str = "",
    format: str = "text",
    takes_streams: bool = False,
) -> None:
    """Set the log up. ``path`` "" is standard error. OSError when the file cannot be opened, ValueError for a wrong level.

    ``takes_streams``: standard output and standard error go to the file too, for a process that leaves its terminal.
    """
    global _bind
    _output.threshold = rank(level)
    _output.components = parse_component_levels(component_levels)
    _output.format = format
    _output.path = path
    _output.use(_open(path) if path else _standard_error())
    _output.takes_streams = takes_streams and bool(path)
    _redirect_streams()
    _output.colour = not path and "NO_COLOR" not in os.environ and os.isatty(2)
    _bind = None


def set_level(level: str, component: str = "") -> None:
    """Change the level of one component, or of all of them (which forgets what was set per component)."""
    if component:
        _output.components[component] = rank(level)
    else:
        _output.threshold = rank(level)
        _output.components.clear()


def level_of(component: str = "") -> str:
    """The name of the level in force."""
    threshold = _output.components.get(component, _output.threshold)
    return next(name for name, value in LEVELS.items() if value == threshold)


def levels() -> dict[str, str]:
    """The level in force of every component that has a logger."""
    return {component: level_of(component) for component in sorted(_components)}


def reopen() -> None:
    """Open the log file again under its name, after logrotate has moved it. OSError leaves the old one in use."""
    if _output.path:
        fresh = _open(_output.path)
        os.dup2(fresh, _output.fd, inheritable=False)
        os.close(fresh)
        _redirect_streams()


def _redirect_streams() -> None:
    if _output.takes_streams:
        os.dup2(_output.fd, 1)
        os.dup2(_output.fd, 2)


def paths() -> list[str]:
    """The file lines go to; none when it is standard error."""
    return [_output.path] if _output.path else []


def descriptor() -> int:
    """The file descriptor lines are written to: a forked worker keeps it open."""
    return _output.fd


def count_losses(on_loss: Callable[[], None]) -> None:
    """Call ``on_loss()`` for every line of this process that is lost from now on."""
    _output.on_loss = on_loss


_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def _open(path: str) -> int:
    return os.open(path, _FLAGS | os.O_CREAT, 0o640)


def _standard_error() -> int:
    # A pipe or a terminal is opened anew: not to block would otherwise be the mode of everybody who shares it, the shell among
    # them. A socket, which cannot be opened, is told not to block with every line; a file does not.
    with contextlib.suppress(OSError):  # closed, or another user's: then it is used as it is
        if stat.S_ISFIFO(os.fstat(2).st_mode) or os.isatty(2):
            return os.open("/proc/self/fd/2", _FLAGS)
        if _is_socket(2):
            return os.dup(2)
    return 2


def _is_socket(fd: int) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    return False


class Logger:
    """The log of one component. Fields are keyword arguments: ``log.info("listening", address="0.0.0.0:80")``."""

    __slots__ = ("_bound", "_made_by", "component")

    def __init__(self, component: str) -> None:
        self.component = component
        self._bound: Any = None
        self._made_by: Callable[[str], Any] | None = None

    def debug(self, event: str, **fields: object) -> None:
        """For who looks for a fault."""
        self._write("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """What an operator wants to find later."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something is not as it should be; traffic goes on."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something was lost or refused."""
        self._write("error", event, fields)

    def critical(self, event: str, **fields: object) -> None:
        """The program cannot go on."""
        self._write("critical", event, fields)

    def exception(self, event: str, exception: BaseException, **fields: object) -> None:
        """An error with the traceback of ``exception``."""
        self._write("error", event, {**fields, "exc_info": exception})

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        if LEVELS[level] < _output.components.get(self.component, _output.threshold):
            return
        bind = _bind if _bind is not None else _set_up()
        if self._made_by is not bind:
            self._bound = bind(self.component)
            self._made_by = bind
        getattr(self._bound, level)(event, **fields)


def get_logger(component: str) -> Logger:
    """The logger of a component; made once per module, at import."""
    _components.add(component)
    return Logger(component)


def prepare() -> None:
    """Import what writing a line takes. Before a fork: a process that is out of descriptors cannot import anything."""
    _set_up()


def _set_up() -> Callable[[str], Any]:
    global _bind
    structlog = _import_structlog()
    processors: list[Any] = [_stamp, structlog.processors.format_exc_info]
    processors.append(structlog.processors.JSONRenderer(default=str) if _output.format == "json" else _as_text)
    wrapper = structlog.make_filtering_bound_logger(0)

    def bind(component: str) -> Any:
        return structlog.wrap_logger(_Lines(), processors=processors, wrapper_class=wrapper, component=component).bind()

    _bind = bind
    return bind


_PRETTY = ("rich", "colorama", "better_exceptions")
"""What structlog does without where it is not installed: they colour and frame what its ConsoleRenderer prints."""


def _import_structlog() -> Any:
    """structlog without 4 MiB that it imports and no line of ours needs: asyncio, which it then has when it asks it for
    anything, and rich with pygments, where these are installed."""
    if "structlog" not in sys.modules:
        hidden: dict[str, Any] = dict.fromkeys(name for name in _PRETTY if name not in sys.modules)
        if "asyncio" not in sys.modules:
            hidden["asyncio"] = _on_demand("asyncio")
        sys.modules.update(hidden)
        try:
            importlib.import_module("structlog")
        finally:
            for name in hidden:
                del sys.modules[name]
    return sys.modules["structlog"]


def _on_demand(name: str) -> ModuleType:
    """A module that stands for another, and imports it when it is asked for an attribute."""
    module = ModuleType(name)
    module.__getattr__ = lambda attribute: getattr(importlib.import_module(name), attribute)  # type: ignore[method-assign]
    return module


_own = get_logger("log")


class _Lines:
    """What structlog calls with the finished text, by the name of the level."""

    __slots__ = ()

    def debug(self, line: str) -> None:
        _output.write(line + "\n")

    info = warning = error = critical = debug


def _stamp(_logger: object, level: str, event: dict[str, Any]) -> dict[str, Any]:
    # The order here is the order of the keys in the JSON form.
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "time": now,
        "level": level,
        "component": event.pop("component"),
        "pid": os.getpid(),
        "event": event.pop("event"),
        **event,
    }


def _as_text(_logger: object, _level: str, event: dict[str, Any]) -> str:
    traceback = event.pop("exception", "")
    level = event.pop("level")
    colour = _COLOURS.get(level, "") if _output.colour else ""
    head = f"{event.pop('time')} {colour}{level}{chr(27) + '[0m' if colour else ''} {event.pop('component')}[{event.pop('pid')}] "
    text = head + _one_line(event.pop("event"))
    for name, value in event.items():
        text += f" {name}={_value(value)}"
    if traceback:
        text += "\n  " + traceback.replace("\n", "\n  ")
    return text


def _value(value: object) -> str:
    text = _one_line(value)
    return f'"{text}"' if " " in text or not text else text


def _one_line(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def report_stray_exception(kind: type[BaseException], exception: BaseException, traceback: object) -> None:
    """For ``sys.excepthook``: what nobody caught is one event of the log like any other."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, exception, exception.__traceback__)
        return
    get_logger("main").exception("uncaught exception", exception)


def report_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """For ``sys.unraisablehook``: an exception with nobody above it to take it, as an event of the log."""
    if isinstance(unraisable.exc_value, UnicodeDecodeError) and isinstance(unraisable.object, bytes):
        # The module ssl met a server name that is not ASCII. Any client can send one; its handshake is refused, and counted so.
        return
    event = unraisable.err_msg or "an exception was ignored"
    subject = repr(unraisable.object)[:200]
    if isinstance(unraisable.exc_value, Exception):
        get_logger("main").exception(event, unraisable.exc_value, object=subject)
    else:
        get_logger("main").error(event, object=subject, reason=unraisable.exc_type.__name__)
