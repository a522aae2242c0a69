"""The service's files: what they say, where they go, what stays."""

import shutil
import subprocess
from pathlib import Path

import pytest

from forkproxy.config.load import load_file
from forkproxy.supervisor import service_files
from forkproxy.supervisor.service_files import FILES, ServiceError, install, uninstall, unit_text

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "opt" / "forkproxy"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def tree(tmp_path):
    path = tmp_path / "tree"
    path.mkdir()
    return path


def files_in(tree):
    return {"/" + str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}


def test_all_files_are_written(program, tree):
    done = install(program, root=str(tree))
    assert files_in(tree) == {file.target for file in FILES}
    assert len(done) == len(FILES)
    unit = (tree / "etc/systemd/system/forkproxy.service").read_text()
    assert unit == unit_text(program)
    assert unit.count(program) == 2
    assert service_files.DEFAULT_PROGRAM not in unit


def test_completions_lie_where_the_shells_look_and_go_again(program, tree):
    install(program, root=str(tree), completions={"bash": "b\n", "zsh": "z\n", "fish": "f\n"})
    assert (tree / "usr/local/share/bash-completion/completions/forkproxy").read_text() == "b\n"
    assert (tree / "usr/local/share/zsh/site-functions/_forkproxy").read_text() == "z\n"
    assert (tree / "usr/local/share/fish/vendor_completions.d/forkproxy.fish").read_text() == "f\n"
    uninstall(root=str(tree))
    assert files_in(tree) == {"/etc/forkproxy/forkproxy.yaml", "/etc/default/forkproxy"}


def test_what_is_the_operators_is_neither_overwritten_nor_removed(program, tree):
    config = tree / "etc/forkproxy/forkproxy.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("mine")
    assert f"{config} stays as it is" in install(program, root=str(tree))
    assert config.read_text() == "mine"
    assert f"{config} stays: it is yours" in uninstall(root=str(tree))
    assert files_in(tree) == {"/etc/forkproxy/forkproxy.yaml", "/etc/default/forkproxy"}


def test_the_rest_is_brought_up_to_date(program, tree):
    install(program, root=str(tree))
    rotation = tree / "etc/logrotate.d/forkproxy"
    rotation.write_text("old")
    install(program, root=str(tree))
    assert "USR1" in rotation.read_text()


def test_uninstall_where_nothing_is(tree):
    assert uninstall(root=str(tree)) == []


@pytest.mark.parametrize("place", ["/root/x/forkproxy", "/home/me/.venv/bin/forkproxy"])
def test_a_program_that_the_unit_hides_is_refused(place, tree):
    with pytest.raises(ServiceError, match="make install-service"):
        install(place, root=str(tree))
    assert files_in(tree) == set()


def test_a_program_that_is_not_there_is_refused(tree):
    with pytest.raises(ServiceError, match="/nowhere/forkproxy is not an executable file"):
        install("/nowhere/forkproxy", root=str(tree))


def test_the_default_configuration_runs(program, tree):
    install(program, root=str(tree))
    result = load_file(str(tree / "etc/forkproxy/forkproxy.yaml"))
    assert result.verdict == "runs"
    assert result.problems == ()


def test_the_unit_in_the_repository_is_the_installed_one():
    assert (ROOT / "systemd/forkproxy.service").read_text() == unit_text()


def test_two_reload_lines_and_no_loop_on_a_bad_file():
    lines = unit_text().splitlines()
    check, hup = (line for line in lines if line.startswith("ExecReload="))
    assert " check " in check
    assert hup == "ExecReload=/bin/kill -HUP $MAINPID"
    assert "RestartPreventExitStatus=64 78" in lines


def test_workers_outlive_a_supervisor_that_is_killed():
    assert "KillMode=process" in unit_text().splitlines()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_exposure_of_the_unit(tmp_path):
    unit = tmp_path / "forkproxy.service"
    unit.write_text(unit_text())
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if "Unknown" in answer.stderr or "unrecognized" in answer.stderr:
        pytest.skip("this systemd-analyze cannot judge a file")
    assert answer.returncode == 0, answer.stdout[-300:] + answer.stderr
