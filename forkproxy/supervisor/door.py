"""The supervisor's door: the pid file by which it is found, and the control socket at which it is asked."""

from __future__ import annotations

import os
from pathlib import Path

from forkproxy import log
from forkproxy.net.loop import Loop
from forkproxy.supervisor.control_socket import Answer, ControlSocket
from forkproxy.supervisor.exits import EXIT_FAILURE, EXIT_NO_PERMISSION, StartFailed
from forkproxy.supervisor.inheritance import listening_socket_of, remove_path
from forkproxy.supervisor.options import Options
from forkproxy.supervisor.pid_file import AlreadyRunning, PidFile, control_socket_of

_log = log.get_logger("supervisor")


class Door:
    """Both, or neither: without a pid file there is no control socket."""

    def __init__(self, loop: Loop, answer: Answer) -> None:
        self._loop = loop
        self._answer = answer
        self._pid_file: PidFile | None = None
        self._control: ControlSocket | None = None
        self._has_left = False
        self._inherited_pid_file: tuple[str, int] | None = None
        self._inherited_control: tuple[str, int] | None = None

    def inherit(self, pid_file: tuple[str, int] | None, control: tuple[str, int] | None) -> None:
        """What a predecessor has, as (path, descriptor), for ``open`` to use; it stays with it until ``take_over``."""
        self._inherited_pid_file, self._inherited_control = pid_file, control

    def open(self, options: Options, path_in_file: str | None) -> None:
        """Take the pid file that the command line or the configuration names, or the default one, and listen beside it.

        StartFailed when a pid file that is needed cannot be had.
        """
        named = options.pid_file or (Path(path_in_file) if path_in_file else None)
        path = named or options.default_pid_file
        is_needed = named is not None or options.needs_pid_file
        if path is None:
            if is_needed:
                raise StartFailed(EXIT_FAILURE, "there is no directory for the pid file: give one with --pid-file PATH")
            return
        inherited = self._inherited_pid_file
        if inherited is not None and Path(inherited[0]) == path.absolute():
            self._pid_file = PidFile.adopt(path, inherited[1])
            self._inherited_pid_file = None
            self._open_control(path)
            return
        try:
            self._pid_file = PidFile(path)
        except AlreadyRunning as error:
            if is_needed:
                raise StartFailed(EXIT_FAILURE, str(error)) from None
            _log.warning(
                "no pid file and no control socket", reason=str(error), hint="give this one its own with --pid-file"
            )
            return
        except OSError as error:
            if is_needed:
                code = EXIT_NO_PERMISSION if isinstance(error, PermissionError) else EXIT_FAILURE
                raise StartFailed(code, f"cannot write the pid file {path}: {error.strerror}") from None
            _log.warning("no pid file and no control socket", path=path, reason=error.strerror)
            return
        self._open_control(path)

    def _open_control(self, pid_file: Path) -> None:
        path, inherited = control_socket_of(pid_file), self._inherited_control
        try:
            if inherited is not None and Path(inherited[0]) == path.absolute():
                self._inherited_control = None
                self._control = ControlSocket(self._loop, path, self._answer, listening_socket_of(inherited[1]))
            else:
                self._control = ControlSocket(self._loop, path, self._answer)
        except OSError as error:
            _log.warning("no control socket", path=path, reason=error.strerror)

    def pid_file_inheritance(self) -> tuple[str, int] | None:
        """(path, descriptor) for a successor."""
        return (str(self._pid_file.path.absolute()), self._pid_file.fileno()) if self._pid_file is not None else None

    def control_inheritance(self) -> tuple[str, int] | None:
        """(path, descriptor) for a successor."""
        return (str(self._control.path.absolute()), self._control.fileno()) if self._control is not None else None

    def take_over(self) -> None:
        """What was inherited is ours from now on: our pid, our answers. What is not used of it goes."""
        if self._pid_file is not None:
            self._pid_file.write()
        if self._control is not None:
            self._control.listen()
        for unused in (self._inherited_pid_file, self._inherited_control):
            if unused is not None:
                remove_path(unused[0])
                os.close(unused[1])
        self._inherited_pid_file = self._inherited_control = None

    def leave(self) -> None:
        """Both are another's; who has asked here is still answered here."""
        if self._control is not None:
            self._control.leave()
        if self._pid_file is not None:
            self._pid_file.leave()
            self._pid_file = None
        self._has_left = True

    def close_socket(self) -> None:
        """Nobody is answered any more; what was just written leaves with the next pass of the loop."""
        if self._control is not None and self._has_left:
            self._control.close_connections()
        elif self._control is not None:
            self._control.close()
        self._control = None

    def remove_pid_file(self) -> None:
        """The very last thing: the next one may start."""
        if self._pid_file is not None:
            self._pid_file.remove()
            self._pid_file = None
