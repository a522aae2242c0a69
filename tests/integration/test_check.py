"""check and migrate: one object or readable lines, whatever the file holds."""

import json
import os

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


HCM = """\
static_resources:
  listeners:
  - name: a
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: a
          access_log: [ACCESS_LOG]
          route_config: {virtual_hosts: [{name: a, domains: ["*"], routes: [ROUTE]}]}
          http_filters: [FILTERS]
"""
PARTS = {
    "ACCESS_LOG": "",
    "ROUTE": "{match: {prefix: /}, direct_response: {status: 200}}",
    "FILTERS": "{name: envoy.filters.http.router}",
}
STDOUT = (
    '{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, '
    'log_format: {text_format_source: {inline_string: "FORMAT"}}}}'
)


def hcm(**parts):
    text = HCM
    for name, part in {**PARTS, **parts}.items():
        text = text.replace(name, part)
    return text


@pytest.mark.parametrize(
    ("parts", "kind", "line", "message"),
    [
        ({"ACCESS_LOG": STDOUT.replace("FORMAT", "%NONSENSE%")}, "error", 11, "NONSENSE"),
        ({"ACCESS_LOG": STDOUT.replace("FORMAT", "%CEL(1)%")}, "unsupported", 11, "CEL"),
        ({"FILTERS": '{name: "no.such.module:Filter"}, {name: envoy.filters.http.router}'}, "error", 13, "No module"),
        ({"FILTERS": '{name: "json:dumps"}, {name: envoy.filters.http.router}'}, "error", 13, "not a HttpFilter"),
        ({"FILTERS": '{name: "mine:Broken"}, {name: envoy.filters.http.router}'}, "error", 13, "KeyError: 'a'"),
        ({"FILTERS": '{name: "mine:Refuses"}, {name: envoy.filters.http.router}'}, "error", 13, "no colour"),
        ({"FILTERS": '{name: "mine:Nothing"}, {name: envoy.filters.http.router}'}, "error", 13, "returned NoneType"),
        ({"FILTERS": '{name: "syntax:Filter"}, {name: envoy.filters.http.router}'}, "error", 13, "SyntaxError"),
        ({"FILTERS": '{name: "mine:Good"}'}, "error", 13, "last"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_only_shows_when_it_is_built(tmp_path, parts, kind, line, message):
    (tmp_path / "mine.py").write_text(
        "from forkproxy.config.problems import ConfigError\n"
        "from forkproxy.http.filter import HttpFilter\n"
        "class Good(HttpFilter): pass\n"
        "class Broken(HttpFilter):\n"
        "    from_config = classmethod(lambda cls, config, context: {}['a'])\n"
        "class Nothing(HttpFilter):\n"
        "    from_config = classmethod(lambda cls, config, context: None)\n"
        "class Refuses(HttpFilter):\n"
        "    @classmethod\n"
        "    def from_config(cls, config, context):\n"
        "        raise ConfigError('', 0, 0, 'no colour')\n"
    )
    (tmp_path / "syntax.py").write_text("def (:\n")
    path = tmp_path / "f.yaml"
    path.write_text(hcm(**parts))
    answer = check_json(path)
    (problem,) = [problem for problem in answer["problems"] if problem["kind"] != "warning"]
    assert answer["verdict"] == ("invalid" if kind == "error" else kind)
    assert (problem["kind"], problem["line"]) == (kind, line)
    assert message in problem["message"]
    assert problem["path"].startswith("static_resources.listeners[0]")
    assert problem["column"] > 0
    if kind == "unsupported":
        # It cannot be run without, so nobody is told that it could.
        assert check_json(path, "--allow-unsupported")["verdict"] == "unsupported"
        assert forkproxy("check", path).stdout.endswith("and there is nothing to run in its place\n")
    # run says the same, with the source line and a caret, and ends.
    refused = forkproxy("run", "-c", path, "--pid-file", tmp_path / "x.pid")
    assert refused.returncode == 78
    assert f"{path}:{line}:{problem['column']}: {problem['path']}: {problem['message']}" in refused.stderr
    assert refused.stderr.rstrip().endswith("^")
    assert "Traceback" not in refused.stderr


def test_every_chain_s_problem_is_told(tmp_path):
    path = tmp_path / "f.yaml"
    one = hcm(FILTERS='{name: "no.such:One"}, {name: envoy.filters.http.router}')
    two = hcm(FILTERS='{name: "no.such:Two"}, {name: envoy.filters.http.router}').partition("  listeners:\n")[2]
    path.write_text(one + two.replace("- name: a\n", "- name: b\n", 1))
    problems = check_json(path)["problems"]
    assert [p["line"] for p in problems if "No module" in p["message"]] == [13, 24]


def test_a_filter_beside_the_file_runs(tmp_path):
    (tmp_path / "mine.py").write_text("from forkproxy.http.filter import HttpFilter\nclass Good(HttpFilter): pass\n")
    path = tmp_path / "f.yaml"
    path.write_text(hcm(FILTERS='{name: "mine:Good"}, {name: envoy.filters.http.router}'))
    assert check_json(path)["verdict"] == "runs"


def test_a_user_that_is_not_there(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text(bootstrap(0, user="no-such-user-anywhere"))
    problems = check_json(path)["problems"]
    expected = ["forkproxy.user"] if os.geteuid() == 0 else []
    assert [problem["path"] for problem in problems] == expected
