"""Reaching an instance, and what is said where it cannot be reached."""

import pytest
from click.testing import CliRunner

from forkproxy.cli import main
from forkproxy.supervisor import control_socket, pid_file


def run(*arguments):
    result = CliRunner().invoke(main, list(map(str, arguments)))
    return result.exit_code, result.stdout, result.stderr


def raising(error):
    def call(*_arguments):
        raise error

    return call


def test_a_pid_file_that_may_not_be_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(pid_file.os, "open", raising(PermissionError(13, "Permission denied")))
    path = tmp_path / "x.pid"
    assert run("status", "--pid-file", path) == (77, "", f"{path}: no permission\n")
    assert run("healthcheck", "--pid-file", path)[0] == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (PermissionError(13, "Permission denied"), 77, "no permission: only its owner and root are answered"),
        (TimeoutError(), 4, "no answer within 10 s"),
        (FileNotFoundError(2, "No such file"), 4, "is locked: another program has it, the socket was removed"),
        (ConnectionRefusedError(111, "Connection refused"), 4, "Connection refused"),
        (control_socket.ProtocolError("the supervisor closed the connection"), 4, "closed the connection"),
    ],
)
def test_an_instance_that_does_not_answer(tmp_path, monkeypatch, error, code, text):
    monkeypatch.setattr(pid_file, "holder_of", lambda _path: 4321)
    monkeypatch.setattr(control_socket, "ask", raising(error))
    exit_code, out, said = run("status", "--pid-file", tmp_path / "x.pid")
    assert (exit_code, out) == (code, "")
    assert text in said
    for command in (["reload"], ["workers", "list"], ["stats"], ["upgrade"]):
        assert run(*command, "--pid-file", tmp_path / "x.pid")[0] == code


def test_a_refusal_is_told_with_its_exit_code(tmp_path, monkeypatch):
    monkeypatch.setattr(pid_file, "holder_of", lambda _path: 4321)
    monkeypatch.setattr(
        control_socket, "ask", lambda *_arguments: {"ok": False, "reason": "a: line 1\nb", "exit": 78, "generation": 1}
    )
    assert run("upgrade", "--pid-file", tmp_path / "x.pid") == (
        *(78, ""),
        "a: line 1\nb\nnot upgraded: pid 4321 carries on\n",
    )
    code, out, said = run("reload", "--pid-file", tmp_path / "x.pid")
    assert (code, out) == (78, "")
    assert said.endswith("reload refused: the old configuration stays\n")
