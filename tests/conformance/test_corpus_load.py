"""load() over public bootstraps: it never raises, and calls nothing invalid that real Envoy 1.40 accepts.

The corpus is third-party data beside the repository; without it these tests are skipped.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from forkproxy.config.load import load_file

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="no corpus beside the repository")

# Its network rate limit filter has no rate_limit_service: Envoy, too, refuses it once the runtime's directory is there.
REFUSED_BY_ENVOY = {"v3/envoyproxy__envoy-openssl__configs_RENDERED_envoy_service_to_service.yaml"}


def rows():
    if not CORPUS.is_dir():
        return []
    with open(CORPUS / "manifest.tsv") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["file"])
def test_corpus(row):
    result = load_file(str(CORPUS / row["file"]))
    assert (result.bootstrap is not None) == (result.verdict == "runs")
    errors = [problem for problem in result.problems if problem.kind == "error"]
    assert bool(errors) == (result.verdict == "invalid")
    if row["envoy_1.40_verdict"].startswith("pass") and row["file"] not in REFUSED_BY_ENVOY:
        # What Envoy takes once a missing file is supplied is an error that names the file.
        assert [p.message for p in errors if not p.message.startswith("cannot read file")] == []
    if row["envoy_1.40_verdict"] == "pass":
        assert result.verdict != "invalid"
