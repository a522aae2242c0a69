"""The service and the Debian package under a real systemd: tests/systemd, in a machine that the lab boots.

The lab is a script outside this repository, and needs root, systemd-nspawn and a Debian tree that it makes once (half a minute,
from a mirror). `make systemd-lab` makes it; without it this is skipped, so that no ordinary run waits for a mirror. With
FORKPROXY_SYSTEMD_MODE=vm (`make systemd-vm`) the machine is an emulated one with four CPUs on two NUMA nodes.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GIVEN = os.environ.get("FORKPROXY_SYSTEMD_LAB")
MODE = os.environ.get("FORKPROXY_SYSTEMD_MODE", "nspawn")
LAB = Path(GIVEN or ROOT.parent / "shared/tools/systemd-lab.sh").resolve()
CACHE = Path(os.environ.get("TMPDIR", "/var/tmp"), "systemd-lab")
TREE = CACHE / "root-bookworm.tar"
SCRIPTS = ROOT / "tests/systemd"
SERVICE = ROOT / "forkproxy/supervisor/service/forkproxy.service"
SOURCES = ("forkproxy", "scripts", "setup.cfg", "setup.py", "pyproject.toml", "README.md", "MANIFEST.in")
TOOLS = {"nspawn": ("systemd-nspawn", "nsenter"), "vm": ("qemu-system-x86_64", "cpio")}[MODE]
TIMEOUT_S = {"nspawn": 420, "vm": 1200}[MODE]


def why_not():
    """What is missing, or ""."""
    if os.geteuid() != 0:
        return "only root boots a machine"
    if not LAB.is_file():
        return "the lab is not there: FORKPROXY_SYSTEMD_LAB names systemd-lab.sh"
    if sys.version_info[:2] != (3, 11):
        return "the lab's Debian has Python 3.11, and wheels are made for this one"
    missing = [tool for tool in ("mmdebstrap", *TOOLS) if shutil.which(tool) is None]
    if missing and not GIVEN:
        return f"not installed: {', '.join(missing)}"
    if not GIVEN and not TREE.is_file():
        return "the lab's Debian tree is not made yet: make systemd-lab"
    return ""


pytestmark = [pytest.mark.timeout(TIMEOUT_S + 300), pytest.mark.skipif(why_not() != "", reason=why_not() or "-")]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """forkproxy and what it needs, as wheels; built from a copy, because a build leaves things behind."""
    directory = tmp_path_factory.mktemp("wheels")
    source = directory / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "-w", str(directory / "wheels"), str(source)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if answer.returncode != 0:
        pytest.skip(f"no wheels: {answer.stderr.strip().splitlines()[-1]}")
    return directory / "wheels"


@pytest.fixture
def machine(tmp_path):
    """A directory for the lab, with the cached tree and kernel in it; what it unpacks there is taken away again."""
    directory = tmp_path / "machine"
    directory.mkdir()
    if not TREE.is_file():
        lab("--root-only", "--unit", str(SERVICE), "--check", str(SCRIPTS / "check.sh"))
    (CACHE / "k").mkdir(exist_ok=True)
    (directory / "k").symlink_to(CACHE / "k")
    (directory / TREE.name).symlink_to(TREE)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def lab(*arguments):
    """The lab's exit code and output; in a session of its own, because what it ends, it ends there."""
    process = subprocess.Popen(
        ["bash", str(LAB), "--mode", MODE, *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        # The machine too: TERM powers it off.
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)
        raise
    return process.returncode, output


def check(machine, script, *arguments):
    """Run ``script`` in the machine; the test fails with every line that is not ok."""
    whole = machine / "check"
    whole.write_text((SCRIPTS / "tap.sh").read_text() + (SCRIPTS / script).read_text())
    code, output = lab("--lab", str(machine), "--check", str(whole), *arguments)
    booted = any(line.startswith(("ok ", "not ok ")) for line in output.splitlines())
    if not booted and not GIVEN:
        log = machine / f"{MODE}-boot.log"
        reason = log.read_text().strip().splitlines()[-1:] if log.is_file() else output.strip().splitlines()[-1:]
        pytest.skip(f"no machine can be booted here: {' '.join(reason) or 'the lab does not say why'}")
    print(output)
    assert code == 0, "\n".join(line for line in output.splitlines() if not line.startswith("ok "))


def package(wheels, directory, version):
    """The path of the Debian package with ``wheels`` that says it has ``version``."""
    command = [sys.executable, ROOT / "scripts/deb", "--wheels", wheels, "--output", directory, "--version", version]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert answer.returncode == 0, answer.stderr
    return Path(answer.stdout.strip())


def test_the_service_keeps_its_promises(machine, wheels):
    check(machine, "check.sh", "--unit", str(SERVICE), "--wheelhouse", str(wheels))


@pytest.mark.skipif(MODE == "vm", reason="nothing in it depends on the kind of machine")
def test_the_debian_package(machine, wheels, tmp_path):
    debs = tmp_path / "opt" / "debs"
    debs.mkdir(parents=True)
    package(wheels, tmp_path, "0.0.1").rename(debs / "old.deb")
    package(wheels, tmp_path, "9.9.9").rename(debs / "new.deb")
    again = package(wheels, tmp_path, "9.9.9")
    assert again.read_bytes() == (debs / "new.deb").read_bytes(), "the same sources gave other bytes"
    # The lab brings wheels and one unit into the machine; the packages come with its tree.
    (machine / TREE.name).unlink()
    shutil.copy(TREE, machine / TREE.name)
    subprocess.run(["tar", "-rf", machine / TREE.name, "-C", tmp_path, "opt/debs"], check=True, timeout=60)
    some = tmp_path / "wheelhouse"
    some.mkdir()
    shutil.copy(next(wheels.glob("click-*.whl")), some)
    unit = tmp_path / "unrelated.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    check(machine, "debian.sh", "--unit", str(unit), "--wheelhouse", str(some), "--package", "click")
