"""--config-yaml over the file, by protobuf's rules for merging."""

from __future__ import annotations

import pytest

from forkproxy.config.overlay import merge
from forkproxy.config.tree import load


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        ("{node: {id: a, cluster: c}}", "{node: {id: b}}", {"node": {"id": "b", "cluster": "c"}}),
        ("{header_prefix: a}", "{header_prefix: ~}", {"header_prefix": "a"}),
        ("{header_prefix: ~}", "{header_prefix: a}", {"header_prefix": "a"}),
        ("{headerPrefix: a}", "{header_prefix: b}", {"headerPrefix": "b"}),
        ("{}", "{admin: {}}", {"admin": {}}),
        (
            "{static_resources: {clusters: [{name: a}]}}",
            "{static_resources: {clusters: {name: b}}}",
            {"static_resources": {"clusters": [{"name": "a"}, {"name": "b"}]}},
        ),
        (
            "{node: {metadata: {a: 1, b: {c: 1}}}}",
            "{node: {metadata: {b: {d: 2}}}}",
            {"node": {"metadata": {"a": 1, "b": {"d": 2}}}},
        ),
        (
            "{admin: {address: {pipe: {path: x}}}}",
            "{admin: {address: {socket_address: {address: a}}}}",
            {"admin": {"address": {"socket_address": {"address": "a"}}}},
        ),
        (
            "{default_regex_engine: {name: a, typed_config: {'@type': x, a: 1}}}",
            "{default_regex_engine: {typed_config: {'@type': z}}}",
            {"default_regex_engine": {"name": "a", "typed_config": {"@type": "z"}}},
        ),
        ("{stats_flush_interval: 5s}", "{stats_flush_interval: 1s}", {"stats_flush_interval": "1s"}),
        ("{node: 5}", "{node: {id: a}}", {"node": {"id": "a"}}),
        ("{nobody: 1}", "{nobody: 2, new: 3}", {"nobody": 2, "new": 3}),
    ],
)
def test_merge(base, over, expected):
    root = load(base, "f").root
    merge(root, load(over, "o").root)
    assert root.to_python() == expected
