"""check and migrate: one object or readable lines, whatever the file holds."""

import json

import pytest

from tests.integration.test_cli import bootstrap, forkproxy

KEYS = {"kind", "path", "line", "column", "message", "hint"}


def check_json(path, *more):
    done = forkproxy("check", "--json", path, *more)
    assert "Traceback" not in done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == {"file", "verdict", "problems"}
    assert answer["file"] == str(path)
    assert all(set(problem) == KEYS for problem in answer["problems"])
    assert (done.returncode == 0) == (answer["verdict"] == "runs")
    return answer


def test_a_file_that_runs(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text(bootstrap(0))
    assert check_json(path) == {"file": str(path), "verdict": "runs", "problems": []}
    assert forkproxy("validate", path).stdout == f"{path}: runs\n"
    assert forkproxy("check", "-q", path).stdout == ""
    assert forkproxy("run", "-c", path, "-t").stdout == f"{path}: runs\n"
    assert forkproxy("start", "-c", path, "--mode", "validate").stdout == f"{path}: runs\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x01\xff\xfe" * 100,
        b"\xff\xfe\xfd",
        b"x" * 10_000_000,
        b"a: &a [*a]\n",
        b"admin: &a {address: *a}\n",
        b"[" * 1000 + b"]" * 1000,
        b"{a: " * 1000 + b"}" * 1000,
        b"- " * 1000,
        b"just text",
        b"5",
        b"admin:\n\taddress: 1\n",
        b"a: 1\n---\nb: 2\n",
        b'{"admin": {"address": "\\ud800"}}',
        b"admin: {address: \xe2\x80\xa8}\n",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_whatever_the_file_holds(tmp_path, content):
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    check_json(path)


def test_what_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "missing", "a\nb"):
        answer = check_json(path)
        assert answer["verdict"] == "invalid"
        assert answer["problems"][0]["kind"] == "error"


def test_problems_are_lines_with_their_place(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("node: {idd: 1}\nadmin: {nonsense: 2}\n")
    done = forkproxy("check", path)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{path}:1:8: ")
    assert lines[1].strip() == "node: {idd: 1}"
    assert lines[2].strip() == "^"
    assert any(line.startswith(f"{path}:2:9: ") for line in lines)
    assert lines[-1] == f"{path}: invalid"


def test_strict_counts_warnings(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("admin: {access_log_path: /dev/null}\n" + bootstrap(0))
    assert forkproxy("check", path).returncode == 0
    assert forkproxy("check", "--strict", path).returncode == 1
    assert "deprecated" in forkproxy("check", "--strict", path).stdout


def test_allow_unsupported(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("enable_dispatcher_stats: true\n" + bootstrap(0))
    assert check_json(path)["verdict"] == "unsupported"
    assert check_json(path, "--allow-unsupported")["verdict"] == "runs"


def test_an_overlay_is_merged_over_the_file(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text(bootstrap(0))
    assert check_json(path, "--config-yaml", "node: {id: x}")["verdict"] == "runs"
    answer = check_json(path, "--config-yaml", "node: {nonsense: x}")
    assert answer["verdict"] == "invalid"


def test_migrate_prints_v3_and_nothing_else(tmp_path):
    path = tmp_path / "v2.yaml"
    path.write_text(
        "static_resources:\n  clusters:\n  - name: a\n    connect_timeout: 1s\n    hosts:\n"
        "    - socket_address: {address: 127.0.0.1, port_value: 1}\n"
    )
    done = forkproxy("migrate", path)
    assert done.returncode == 0
    assert "load_assignment" in done.stdout
    migrated = tmp_path / "v3.yaml"
    migrated.write_text(done.stdout)
    assert check_json(migrated)["verdict"] == "runs"


@pytest.mark.parametrize("content", [b"", b"a: [", b"\xff\xfe\x00", b"static_resources: 5\n"])
def test_migrate_of_what_it_cannot_is_told(tmp_path, content):
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    done = forkproxy("migrate", path)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1)
    assert (done.returncode == 0) == bool(done.stdout)
    assert forkproxy("migrate", tmp_path / "missing").returncode == 1
