"""--watch: the file's content decides, however it gets there."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.integration.test_cli import bootstrap
from tests.support.proxy import free_ports
from tests.support.supervised import ROOT, Supervised, exchange, until

SETTINGS = {"listeners": {"main": "127.0.0.1:0"}, "concurrency": 1}


def saying(word):
    return json.dumps({**SETTINGS, "say": word})


@pytest.fixture
def supervised(tmp_path):
    with Supervised(tmp_path, SETTINGS, watch=True) as running:
        yield running


def says(supervised):
    with supervised.connect() as sock:
        return exchange(sock)[2]


def test_written_renamed_and_swapped(supervised, tmp_path):
    supervised.config.write_text(saying("written"))
    until(lambda: says(supervised) == "written")

    fresh = tmp_path / "fresh"
    fresh.write_text(saying("renamed"))
    fresh.replace(supervised.config)
    until(lambda: says(supervised) == "renamed")

    (tmp_path / "elsewhere").write_text(saying("swapped"))
    fresh.symlink_to("elsewhere")
    fresh.replace(supervised.config)
    until(lambda: says(supervised) == "swapped")
    until(lambda: supervised.status()["generation"] == 4)


def test_only_content_counts(supervised):
    os.utime(supervised.config)
    supervised.config.chmod(0o600)
    supervised.configure(SETTINGS)
    supervised.config.rename(supervised.config.with_suffix(".away"))
    until(lambda: "the watched file cannot be read" in supervised.log())
    supervised.config.write_text(saying("new"))
    until(lambda: says(supervised) == "new")
    until(lambda: supervised.status()["generation"] == 2)


def test_a_refused_content_is_tried_once(supervised):
    supervised.config.write_text(json.dumps({**SETTINGS, "fault": "refuse"}))
    until(lambda: supervised.status()["last_refusal"])
    supervised.config.write_text(saying("good"))
    until(lambda: says(supervised) == "good")
    assert supervised.log().count("reload refused") == 1
    assert supervised.status()["last_refusal"] == ""


def test_a_reload_by_hand_is_not_repeated(supervised):
    supervised.config.write_text(saying("first"))
    supervised.ask({"op": "reload"})
    supervised.config.write_text(saying("second"))
    until(lambda: says(supervised) == "second")
    until(lambda: supervised.status()["generation"] == 3)


def test_nobody_watches_without_the_option(tmp_path):
    with Supervised(tmp_path, SETTINGS) as supervised:
        supervised.config.write_text(saying("new"))
        supervised.signal(signal.SIGUSR1)
        until(lambda: "logs opened again" in supervised.log())
        assert supervised.status()["generation"] == 1


def test_a_half_written_file_does_not_take_the_service_down(tmp_path):
    port, more = free_ports(2)
    config = tmp_path / "forkproxy.yaml"
    config.write_text(bootstrap(port))
    log = tmp_path / "log"
    command = [sys.executable, "-m", "forkproxy", "run", "--watch", "-c", str(config), "--log-path", str(log)]
    command += ["--pid-file", str(tmp_path / "pid"), "--concurrency", "1", "--drain-time-s", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL) as process:
        try:
            until(lambda: log.exists() and " ready " in log.read_text())
            text = bootstrap(more)
            config.write_text(text[: len(text) // 2])
            until(lambda: "reload refused; the old configuration stays" in log.read_text())
            assert process.poll() is None
            config.write_text(text)
            until(lambda: " reloaded " in log.read_text())
            assert f"listening listener=greeter address=127.0.0.1:{port}" in log.read_text()
        finally:
            process.terminate()
            assert process.wait(15) == 0
