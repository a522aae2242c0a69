"""Merging, and that the configuration stays as it is; the rest is played beside Envoy."""

from types import SimpleNamespace

import pytest

from forkproxy.config.build.set_metadata import MetadataEntry, SetMetadataConfig, build
from forkproxy.filters.http.set_metadata import SetMetadata, merge
from tests.unit.config.build.building import built

MESSAGE = "envoy.extensions.filters.http.set_metadata.v3.Config"


@pytest.mark.parametrize(
    ("into", "values", "result"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1, "b": 2}, {"a": "x"}, {"a": "x", "b": 2}),
        ({"a": [1]}, {"a": [2]}, {"a": [1, 2]}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": {"b": 1}}, {"a": [1]}, {"a": [1]}),
        ({"a": [1]}, {"a": None}, {"a": None}),
    ],
)
def test_merging(into, values, result):
    merge(into, values)
    assert into == result


def test_one_request_leaves_nothing_for_the_next():
    config = SetMetadataConfig((MetadataEntry("n", True, {"list": [1]}), MetadataEntry("n", True, {"list": [2]})))
    asked = SetMetadata("m", config)
    for _ in range(2):
        stream = SimpleNamespace(dynamic_metadata={}, route=None)
        asked.decode_headers(stream, [], True)
        assert stream.dynamic_metadata == {"n": {"list": [1, 2]}}


def test_an_entry_without_a_value_sets_nothing():
    typed = "typed_value: {'@type': type.googleapis.com/envoy.type.v3.Percent, value: 1}"
    entries = f"{{metadata_namespace: a, {typed}}}, {{metadata_namespace: b}}, {{metadata_namespace: c, {typed}, value: {{}}}}"
    outcome = built(build, MESSAGE, f"{{metadata: [{entries}]}}")
    assert outcome.unread == []
    assert outcome.value == SetMetadataConfig((MetadataEntry("c", False, {}),))
