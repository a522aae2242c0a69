"""The systemd service: which files it has, where they go, and how it is taken away again.

The files lie in ``service/`` beside this module; only the program's path in the unit depends on where it is installed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from forkproxy.config.values import frozen

UNIT_NAME = "forkproxy.service"
DEFAULT_PROGRAM = "/opt/forkproxy/bin/forkproxy"
"""Where ``make install-service`` puts it, and what the unit file names."""
HIDDEN_BY_UNIT = ("/home", "/root", "/run/user")
"""ProtectHome=yes: a program that lies there could not be started."""
_DIRECTORY = Path(__file__).with_name("service")


@frozen
class ServiceFile:
    """``source`` in ``service/`` goes to ``target``. The operator's own: written when absent, and never removed."""

    source: str
    target: str
    is_operators: bool = False


FILES = (
    ServiceFile("sysusers.conf", "/etc/sysusers.d/forkproxy.conf"),
    ServiceFile("forkproxy.yaml", "/etc/forkproxy/forkproxy.yaml", is_operators=True),
    ServiceFile("default", "/etc/default/forkproxy", is_operators=True),
    ServiceFile("logrotate.conf", "/etc/logrotate.d/forkproxy"),
    ServiceFile(UNIT_NAME, f"/etc/systemd/system/{UNIT_NAME}"),
)

COMPLETIONS = {
    "bash": "/usr/local/share/bash-completion/completions/forkproxy",
    "zsh": "/usr/local/share/zsh/site-functions/_forkproxy",
    "fish": "/usr/local/share/fish/vendor_completions.d/forkproxy.fish",
}
"""Where the shells look by themselves for what the administrator installs."""


class ServiceError(Exception):
    """The service cannot be installed or removed; the text says why."""


def unit_text(program: str = DEFAULT_PROGRAM) -> str:
    """The unit that runs ``program``."""
    return (_DIRECTORY / UNIT_NAME).read_text().replace(DEFAULT_PROGRAM, program)


def install(
    program: str, *, root: str = "/", start: bool = True, completions: Mapping[str, str] | None = None
) -> list[str]:
    """Write the files, make the user, enable and start the service; returns what was done, line by line.

    ``completions``: the text for every shell of COMPLETIONS. A ``root`` other than / only gets the files (an image, a package).
    ServiceError and OSError when it cannot.
    """
    if any(Path(program).is_relative_to(hidden) for hidden in HIDDEN_BY_UNIT):
        hint = "the unit hides home directories (make install-service installs it into /opt/forkproxy)"
        raise ServiceError(f"{program} cannot run as a service: {hint}")
    if not os.access(program, os.X_OK):
        raise ServiceError(f"{program} is not an executable file")
    done = [_write(file, program, root) for file in FILES]
    for shell, text in (completions or {}).items():
        done.append(_put(_under(root, COMPLETIONS[shell]), text))
    if root != "/":
        return done
    _run("systemd-sysusers", "/etc/sysusers.d/forkproxy.conf")
    if not _systemd_runs():
        _run("systemctl", "enable", UNIT_NAME)
        return [*done, "enabled; systemd does not run here, so nothing was started"]
    _run("systemctl", "daemon-reload")
    _run("systemctl", "enable", UNIT_NAME)
    done.append("enabled")
    if start:
        # One that runs already gets the new program; what it holds is drained first.
        _run("systemctl", "restart", UNIT_NAME)
        done.append("started")
    return done


def uninstall(*, root: str = "/") -> list[str]:
    """Stop the service and remove its files; the configuration, the logs and the user stay. Returns what was done."""
    if root == "/":
        if _systemd_runs():
            subprocess.run(["systemctl", "disable", "--now", UNIT_NAME], capture_output=True, check=False)
        else:
            subprocess.run(["systemctl", "disable", UNIT_NAME], capture_output=True, check=False)
    done = []
    for file in FILES:
        target = _under(root, file.target)
        if file.is_operators:
            if target.exists():
                done.append(f"{target} stays: it is yours")
        elif target.exists():
            target.unlink()
            done.append(f"{target} removed")
    for path in COMPLETIONS.values():
        _under(root, path).unlink(missing_ok=True)
    if root == "/" and _systemd_runs():
        _run("systemctl", "daemon-reload")
    return done


def _write(file: ServiceFile, program: str, root: str) -> str:
    target = _under(root, file.target)
    if file.is_operators and target.exists():
        return f"{target} stays as it is"
    return _put(target, unit_text(program) if file.source == UNIT_NAME else (_DIRECTORY / file.source).read_text())


def _put(target: Path, text: str) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.replace(target)
    return f"{target} written"


def _under(root: str, target: str) -> Path:
    return Path(root) / target.lstrip("/")


def _systemd_runs() -> bool:
    """As sd_booted(3) tells."""
    return Path("/run/systemd/system").is_dir()


def _run(*command: str) -> None:
    try:
        subprocess.run(command, capture_output=True, check=True, text=True)
    except FileNotFoundError:
        raise ServiceError(f"{command[0]} is missing: is this a systemd machine?") from None
    except subprocess.CalledProcessError as error:
        raise ServiceError(_failure(command, error.stderr)) from None


def _failure(command: Sequence[str], stderr: str) -> str:
    lines = stderr.strip().splitlines()
    return f"{' '.join(command)}: {lines[0] if lines else 'failed'}"
