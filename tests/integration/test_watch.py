"""--watch: the file's content decides, however it gets there."""

import json
import os
import signal
import ssl
import subprocess
import sys

import pytest

from tests.integration.test_cli import bootstrap
from tests.support import bootstrap as b
from tests.support.forkproxy import Forkproxy
from tests.support.proxy import free_ports
from tests.support.supervised import ROOT, Supervised, exchange, until
from tests.support.x509_authority import leaf

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


def test_a_refused_content_is_tried_once(supervised, tmp_path):
    # By a rename: half a file would be another refusal.
    fresh = tmp_path / "fresh"
    fresh.write_text(json.dumps({**SETTINGS, "fault": "refuse"}))
    fresh.replace(supervised.config)
    until(lambda: supervised.status()["last_refusal"])
    fresh.write_text(saying("good"))
    fresh.replace(supervised.config)
    until(lambda: says(supervised) == "good")
    until(lambda: supervised.status()["last_refusal"] == "")
    assert supervised.log().count("reload refused") == 1


def test_a_reload_by_hand_is_not_repeated(supervised):
    supervised.config.write_text(saying("first"))
    # Who watches may have come first, but not after it again.
    generation = supervised.ask({"op": "reload"})["generation"]
    supervised.config.write_text(saying("second"))
    until(lambda: says(supervised) == "second")
    until(lambda: supervised.status()["generation"] == generation + 1)


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


def test_a_renewed_certificate_is_taken_when_its_key_has_come(tmp_path):
    # As Kubernetes mounts a secret: the files are links through ..data, which is swapped; and then as certbot writes.
    for number in (1, 2, 3):
        directory = tmp_path / f"version{number}"
        directory.mkdir()
        made = leaf(f"version{number}.example")
        (directory / "cert.pem").write_bytes(made.pem)
        (directory / "key.pem").write_bytes(made.key_pem)
    (tmp_path / "..data").symlink_to("version1")
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    proxy = TlsProxy(tmp_path)
    proxy.start()
    try:
        assert proxy.shown_certificate() == pem_of(tmp_path / "version1")
        (tmp_path / "fresh").symlink_to("version2")
        (tmp_path / "fresh").replace(tmp_path / "..data")
        until(lambda: proxy.shown_certificate() == pem_of(tmp_path / "version2"))
        # One after the other, and the pair does not fit in between.
        third = tmp_path / "version3"
        third.joinpath("cert.pem").replace(tmp_path / "version2" / "cert.pem")
        until(lambda: "reload refused" in proxy.output())
        assert proxy.shown_certificate() != pem_of(tmp_path / "version2")
        third.joinpath("key.pem").replace(tmp_path / "version2" / "key.pem")
        until(lambda: proxy.shown_certificate() == pem_of(tmp_path / "version2"))
        assert proxy.stop() == 0
    finally:
        proxy.close()


def pem_of(directory):
    return (directory / "cert.pem").read_text()


class TlsProxy(Forkproxy):
    """One TLS listener whose certificate lies in the directory."""

    def __init__(self, directory):
        self.ports = dict(zip(("main", "admin"), free_ports(2), strict=True))
        hcm = b.hcm({"virtual_hosts": []}, access_log=[])
        data = b.bootstrap([hcm], [])
        (chain,) = data["static_resources"]["listeners"][0]["filter_chains"]
        chain["transport_socket"] = b.tls_downstream()
        (files,) = chain["transport_socket"]["typed_config"]["common_tls_context"]["tls_certificates"]
        files["certificate_chain"]["filename"] = f"{directory}/cert.pem"
        files["private_key"]["filename"] = f"{directory}/key.pem"
        super().__init__(b.render(data, self.ports), admin_port=self.ports["admin"], directory=directory)

    def command(self):
        return [*super().command(), "--watch"]

    def shown_certificate(self):
        return ssl.get_server_certificate(("127.0.0.1", self.ports["main"]), timeout=10)
