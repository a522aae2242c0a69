"""`forkproxy config explain` and `config schema` as a shell sees them."""

import json

from tests.integration.test_cli import bootstrap, forkproxy


def test_a_field_and_where_the_file_sets_it(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text(bootstrap(10000))
    done = forkproxy("config", "explain", "SocketAddress.port_value", "-c", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "must be at most 65535" in done.stdout
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "port_value" in text)
    assert f"{path}:{line}:" in done.stdout
    assert "static_resources.listeners[0].address.socket_address.port_value" in done.stdout
    answer = json.loads(forkproxy("config", "explain", "--json", "SocketAddress.port_value", "-c", path).stdout)
    assert [each["value"] for each in answer["set"]] == ["10000"]


def test_a_typo_ends_with_1():
    done = forkproxy("config", "explain", "RouteAction.timout")
    assert (done.returncode, done.stdout) == (1, "")
    assert 'did you mean "timeout"' in done.stderr
    assert "did you mean" in forkproxy("config", "schema", "RouteAction.timout").stderr


def test_a_file_that_is_no_yaml_ends_with_78(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("a: [")
    done = forkproxy("config", "explain", "Cluster", "-c", path)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith(f"{path}:")
