"""Is it healthy? Never raises: whatever is wrong is the answer."""

from __future__ import annotations

import http.client
from pathlib import Path

from forkproxy.supervisor.control_socket import ask
from forkproxy.supervisor.pid_file import control_socket_of, default_pid_file, holder_of
from forkproxy.worker.control import ProtocolError


def ask_control_socket(pid_file: Path | None, timeout_s: float) -> tuple[str, bool]:
    """(state or what is wrong, whether it is LIVE)."""
    path = pid_file if pid_file is not None else default_pid_file()
    socket_path = control_socket_of(path)
    try:
        if not holder_of(path):
            return f"not running ({path})", False
        answer = ask(socket_path, {"op": "admin", "method": "GET", "target": "/ready"}, timeout_s)
    except TimeoutError:
        return f"{socket_path}: no answer within {timeout_s:g} s", False
    except (OSError, ProtocolError) as error:
        return f"{socket_path}: {getattr(error, 'strerror', None) or error}", False
    if not answer["ok"]:
        return str(answer["reason"]), False
    return str(answer["body"]).strip(), answer["status"] == 200


def ask_admin_port(address: str, timeout_s: float) -> tuple[str, bool]:
    """The same from ``"host:port"``."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return f'"{address}" is not HOST:PORT', False
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout_s)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        return answer.read(100).decode("latin-1").strip(), answer.status == 200
    except TimeoutError:
        return f"{address}: no answer within {timeout_s:g} s", False
    except (OSError, http.client.HTTPException) as error:
        return f"{address}: {getattr(error, 'strerror', None) or error}", False
    finally:
        connection.close()
