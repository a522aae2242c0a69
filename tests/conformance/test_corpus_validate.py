"""Public Envoy bootstraps: the same verdict on the schema as real Envoy 1.40, and never a crash.

The corpus is third-party data beside the repository (../shared/corpus), never in it; without it these tests are skipped.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from forkproxy.config.problems import ConfigError
from forkproxy.config.tree import load
from forkproxy.config.validate import BOOTSTRAP_V2, BOOTSTRAP_V3, validate

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at ../shared/corpus ({CORPUS.name})")

_16 = "v3/envoyproxy__envoy-wasm__envoy1.16__"
# Files that 1.40 refuses, but not for their schema: a missing file or module, or a filter named without typed_config,
# which forkproxy takes with a warning. All others that it refuses use a type that its build lacks, or break a rule.
REFUSED_FOR_ANOTHER_REASON = {
    "v3/envoyproxy__envoy-openssl__docs_root_configuration_security__include_sds-source-example.yaml",
    f"{_16}docs_root_configuration_http_http_filters__include_grpc-transcoder-filter.yaml",
    f"{_16}examples_cache_service-envoy.yaml",
    "v3/envoyproxy__examples__lua_envoy.yaml",
}
# Of these the rest, the two that break a rule (http_filters in a filter chain; ocsp_response, an unknown field).
INVALID = {
    f"{_16}docs_root_intro__include_life-of-a-request.yaml",
    f"{_16}docs_root_intro_arch_overview_security__include_ssl.yaml",
}
# Passed once a file was supplied, which made Envoy stop before this listener; reached, it refuses the same thing
# (RateLimitValidationError.RateLimitService: value is required).
NOT_REACHED_BY_ENVOY = {"v3/envoyproxy__envoy-openssl__configs_RENDERED_envoy_service_to_service.yaml"}
# A placeholder stands where a number belongs.
NOT_VALID_V2 = {
    "v2/lijiaocn__seed01__seed-series__2018-12-29-envoy-07-features-2-dynamic-discovery.md.block35.yaml",
}


def manifest():
    with (CORPUS / "manifest.tsv").open(newline="") as file:
        return [(row["file"], row["envoy_1.40_verdict"]) for row in csv.DictReader(file, delimiter="\t")]


def problems_of(name):
    try:
        document = load((CORPUS / name).read_bytes(), name)
    except ConfigError as error:
        return error.problems
    return validate(document.root, BOOTSTRAP_V2 if name.startswith("v2/") else BOOTSTRAP_V3)


def refusals(name):
    return [problem.text(name) for problem in problems_of(name) if problem.kind == "error"]


def test_what_envoy_accepts_is_valid():
    accepted = [name for name, verdict in manifest() if verdict.startswith("pass")]
    wrong = {name: found for name in accepted if name not in NOT_REACHED_BY_ENVOY and (found := refusals(name))}
    assert len(accepted) > 150
    assert wrong == {}


def test_what_envoy_accepts_is_known():
    """Nothing that Envoy's public build takes is "unknown to forkproxy's schema"."""
    accepted = [name for name, verdict in manifest() if verdict.startswith("pass")]
    unknown = {name: p for name in accepted for p in problems_of(name) if p.kind == "unsupported"}
    assert unknown == {}


def test_v2_files_are_valid_v2():
    files = [name for name, _ in manifest() if name.startswith("v2/")]
    wrong = {name: found for name in files if name not in NOT_VALID_V2 and (found := refusals(name))}
    assert len(files) > 80
    assert wrong == {}
    for name in NOT_VALID_V2:
        assert len(refusals(name)) == 1


def test_what_envoy_refuses_for_its_schema():
    refused = {name for name, verdict in manifest() if verdict == "fail"}
    assert {name for name in refused if refusals(name)} == INVALID
    unknown = {name for name in refused if any(p.kind == "unsupported" and p.opens_door for p in problems_of(name))}
    assert unknown == refused - INVALID - REFUSED_FOR_ANOTHER_REASON
