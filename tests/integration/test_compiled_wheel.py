"""The wheel that `make compiled` makes. That takes a minute: everything about it is asked in one test."""

import http.client
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.support import bootstrap as b
from tests.support.forkproxy import ROOT, Forkproxy
from tests.support.proxy import free_ports, process_tree
from tests.support.upstream import ScriptedUpstream

HEADER = Path(sysconfig.get_path("include")) / "Python.h"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nanswer"


class Installed(Forkproxy):
    """What is installed in ``site`` runs, and not this tree."""

    def __init__(self, site, *arguments, **options):
        self.site = site
        super().__init__(*arguments, **options)

    def environment(self):
        return {**os.environ, "FORKPROXY_USER": "root" if os.geteuid() == 0 else "", "PYTHONPATH": str(self.site)}

    def command(self):
        # Not -m, which puts the working directory first.
        return [sys.executable, "-P", *super().command()[1:]]


@pytest.mark.skipif(shutil.which("gcc") is None or not HEADER.exists(), reason="no C compiler, or no headers of Python")
@pytest.mark.timeout(900)
def test_the_compiled_wheel_serves(tmp_path):
    site, wheels = tmp_path / "site", tmp_path / "wheels"
    making = [sys.executable, str(ROOT / "scripts" / "compiled"), str(tmp_path / "tree"), "--opt", "0"]
    made = subprocess.run([*making, "--wheel", str(wheels)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = wheels.iterdir()
    assert wheel.name.endswith(f"-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}.whl")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        # Here it comes with mypy; elsewhere it must be asked for.
        assert re.search(rb"(?m)^Requires-Dist: mypy[-_]extensions$", archive.read(metadata))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(wheel)], check=True, capture_output=True)
    ports = dict(zip(("main", "admin"), free_ports(2), strict=True))
    upstream = ScriptedUpstream()
    upstream.script([(OK,)])
    data = b.bootstrap([b.hcm({"virtual_hosts": [b.vhost(b.route("/"))]})], [b.cluster("up", "upstream")])
    proxy = Installed(site, b.render(data, {**ports, "upstream": upstream.port}), admin_port=ports["admin"])
    try:
        proxy.start()
        connection = http.client.HTTPConnection("127.0.0.1", ports["main"], timeout=30)
        for _ in range(3):
            connection.request("GET", "/")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"answer")
        connection.close()
        for pid in process_tree(proxy.process.pid):
            assert f"{site}/forkproxy/http/http1." in Path(f"/proc/{pid}/maps").read_text()
        assert proxy.stop() == 0
    finally:
        proxy.close()
        upstream.stop()
