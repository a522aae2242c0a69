"""The service under a real systemd: tests/systemd/check.sh, in a machine that the lab boots.

The lab is a script outside this repository, and needs root, systemd-nspawn and a Debian tree that it makes once (half a minute,
from a mirror). `make systemd-lab` makes it; without it this is skipped, so that no ordinary run waits for a mirror.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GIVEN = os.environ.get("FORKPROXY_SYSTEMD_LAB")
LAB = Path(GIVEN or ROOT.parent / "shared/tools/systemd-lab.sh").resolve()
TREE = Path(os.environ.get("TMPDIR", "/var/tmp"), "systemd-lab", "root-bookworm.tar")
CHECK = ROOT / "tests/systemd/check.sh"
UNIT = ROOT / "systemd/forkproxy.service"
SOURCES = ("forkproxy", "scripts", "setup.cfg", "setup.py", "pyproject.toml", "README.md", "MANIFEST.in")


def why_not():
    """What is missing, or ""."""
    if os.geteuid() != 0:
        return "only root boots a machine"
    if not LAB.is_file():
        return "the lab is not there: FORKPROXY_SYSTEMD_LAB names systemd-lab.sh"
    missing = [tool for tool in ("systemd-nspawn", "mmdebstrap", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if not GIVEN and not TREE.is_file():
        return "the lab's Debian tree is not made yet: make systemd-lab"
    return ""


def wheels(directory):
    """forkproxy and what it needs, as wheels; built from a copy, because a build leaves things behind."""
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


@pytest.mark.timeout(480)
@pytest.mark.skipif(why_not() != "", reason=why_not() or "-")
def test_the_service_keeps_its_promises(tmp_path):
    lab = [str(LAB), "--mode", "nspawn", "--unit", str(UNIT), "--check", str(CHECK)]
    if not TREE.is_file():
        subprocess.run(["bash", *lab, "--root-only"], check=True, capture_output=True, timeout=240)
    machine = tmp_path / "machine"
    machine.mkdir()
    (machine / TREE.name).symlink_to(TREE)
    try:
        # A session of its own: what it ends, it ends there.
        answer = subprocess.run(
            ["bash", *lab, "--lab", str(machine), "--wheelhouse", str(wheels(tmp_path))],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False, start_new_session=True,
        )  # fmt: skip
        assert answer.returncode == 0, "\n".join(
            line for line in answer.stdout.splitlines() if not line.startswith("ok ")
        )
    finally:
        shutil.rmtree(machine, ignore_errors=True)
