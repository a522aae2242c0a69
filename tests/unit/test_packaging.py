"""What makes packages and images of this tree: that it names what is there."""

import re
from pathlib import Path

from forkproxy.config.load import load_file

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
MOST_DISTANT = "0.0.0.0"


def test_the_image_s_configuration_runs():
    result = load_file(str(ROOT / "packaging/docker/forkproxy.yaml"))
    assert result.verdict == "runs"
    assert result.problems == ()


def test_the_image_listens_outside_and_its_admin_does_not():
    text = (ROOT / "packaging/docker/forkproxy.yaml").read_text()
    addresses = dict(re.findall(r"address: ([\d.]+), port_value: (\d+)", text))
    assert addresses == {"127.0.0.1": "9901", MOST_DISTANT: "10000"}
    assert re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE) == ["10000"]


def test_the_image_is_of_two_stages_and_runs_as_nobody_s_root():
    assert len(re.findall(r"^FROM python:3\.11-slim-bookworm", DOCKERFILE, re.MULTILINE)) == 2
    last = DOCKERFILE.rpartition("FROM ")[2]
    assert "USER forkproxy" in last
    assert "pip" not in last
    assert "STOPSIGNAL SIGTERM" in last
    assert 'ENTRYPOINT ["forkproxy", "run"]' in last


def test_the_build_context_holds_what_the_build_needs():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    assert {"setup.py", "setup.cfg", "pyproject.toml", "README.md", "forkproxy", "scripts/build_schema.py"} <= kept


def test_the_debian_package_asks_for_what_its_scripts_call():
    control = (ROOT / "packaging/debian/control").read_text()
    scripts = "".join((ROOT / "packaging/debian" / name).read_text() for name in ("postinst", "prerm", "postrm"))
    assert "deb-systemd-helper" in scripts
    assert "init-system-helpers" in control
    assert "systemd-sysusers" in scripts
    assert "systemd | systemd-standalone-sysusers | adduser" in control
