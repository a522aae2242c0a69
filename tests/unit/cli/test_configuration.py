"""What a supervisor loads: read in a process of its own."""

import os
import signal

import pytest

from forkproxy.cli import configuration as module
from forkproxy.cli.configuration import Configuration
from forkproxy.config.problems import ConfigError
from forkproxy.supervisor.exits import ConfigurationRefused

GIVEN = dict.fromkeys(("config_yaml", "service_node", "service_cluster", "service_zone"), "") | {
    "allow_unsupported": False
}
CLUSTER = "static_resources: {clusters: [{name: %s, connect_timeout: 1s}]}\n"


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "forkproxy.yaml"
    file.write_text(CLUSTER % "one")
    return file


def names(bootstrap):
    return [cluster.name for cluster in bootstrap.clusters]


def test_load(path):
    bootstrap = Configuration({**GIVEN, "service_zone": "z"}, str(path)).load()
    assert names(bootstrap) == ["one"]
    assert bootstrap.node.zone == "z"
    assert bootstrap.config_dump["static_resources"]["clusters"][0]["connect_timeout"] == "1s"
    assert list(bootstrap.files) == [str(path)]


def test_what_was_begun_is_what_is_loaded_first(path):
    configuration = Configuration(GIVEN, str(path))
    configuration.begin(gently=False)
    assert names(configuration.load()) == ["one"]
    path.write_text(CLUSTER % "two")
    assert names(configuration.load()) == ["two"]


def test_refused(path):
    path.write_text("static_resources:\n  clusters: 1\n")
    with pytest.raises(ConfigurationRefused, match=r"forkproxy.yaml:2:13: static_resources.clusters.*") as refused:
        Configuration(GIVEN, str(path)).load()
    assert list(refused.value.files) == [str(path)]


def test_problems_that_show_later_have_their_source_line(path):
    configuration = Configuration(GIVEN, str(path))
    configuration.load()
    text = configuration.explain(ConfigError("static_resources", 1, 20, "no"))
    assert f"{path}:1:20: static_resources: no" in text
    assert (CLUSTER % "one").strip() in text


def test_a_reader_that_dies_refuses(path, monkeypatch):
    monkeypatch.setattr(module, "read", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ConfigurationRefused, match="who read it has died: signal SIGKILL"):
        Configuration(GIVEN, str(path)).load()


def test_no_process_to_read_with(path, monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    configuration = Configuration(GIVEN, str(path))
    monkeypatch.setattr(os, "fork", refuse)
    configuration.begin(gently=False)
    with pytest.raises(ConfigurationRefused, match="no process to read it: Resource temporarily unavailable"):
        configuration.load()
