"""Rules between messages, each as real Envoy 1.40 has it (tests/conformance/test_semantics.py asks it)."""

from __future__ import annotations

import pytest

from forkproxy.config import semantics
from forkproxy.config.tree import load
from forkproxy.config.validate import BOOTSTRAP_V3, validate
from tests.support.bootstrap_mutations import MUTATIONS, text_of


def found(text):
    root = load(text, "f").root
    assert [p.text("f") for p in validate(root, BOOTSTRAP_V3) if p.kind == "error"] == []
    return [problem for problem in semantics.check(root) if problem.kind == "error"]


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutations(name):
    mutation = MUTATIONS[name]
    messages = [f"{problem.path.rpartition('.')[2]}: {problem.message}" for problem in found(text_of(mutation))]
    assert messages == ([mutation.message] if mutation.message else [])


def test_problems_have_their_place_and_a_hint():
    text = """
static_resources:
  clusters:
  - {name: blue}
  - {name: blue}
  - {name: red, load_assignment: {cluster_name: r, endpoints: [{lb_endpoints: [{endpoint: {address:
      {socket_address: {address: localhost, port_value: 1}}}}]}]}}
"""
    first, second = found(text)
    assert first.text("f") == (
        'f:5:12: static_resources.clusters[1].name: duplicate cluster "blue" (the first is in line 4)'
    )
    assert (second.line, second.message) == (7, "malformed IP address: localhost")
    assert second.hint == "type: STRICT_DNS or LOGICAL_DNS resolves names"


@pytest.mark.parametrize("pattern", ["a+", "(?i)x", "\\d{2}", "[[:alpha:]]"])
def test_regular_expressions(pattern):
    assert semantics.regex_error(pattern) is None


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "(?=a)", "*"])
def test_what_is_no_regular_expression(pattern):
    assert semantics.regex_error(pattern)


def test_without_re2_the_pattern_is_compiled_by_re(monkeypatch):
    monkeypatch.setattr(semantics, "_re2", None)
    assert semantics.regex_error("(?=a)") is None
    assert semantics.regex_error("(") == "missing ), unterminated subpattern at position 0"


def test_warnings():
    text = """
static_resources:
  listeners:
  - {name: l, address: {pipe: {path: a}}, filter_chains: [{}]}
  - name: l
    address: {pipe: {path: b}}
    filter_chains:
    - filters:
      - name: t
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: t
          cluster: bleu
  clusters: [{name: blue}]
"""
    root = load(text, "f").root
    validate(root, BOOTSTRAP_V3)
    problems = semantics.check(root)
    assert [(p.kind, p.line, p.message) for p in problems] == [
        ("warning", 5, 'the listener "l" is defined twice'),
        ("warning", 13, 'unknown cluster "bleu": every connection will be closed'),
    ]
    assert problems[1].hint == 'did you mean "blue"?'


def test_clusters_that_come_later_are_not_unknown():
    text = text_of(MUTATIONS["unknown cluster"])
    with_cds = text.replace("static_resources:", "dynamic_resources: {cds_config: {ads: {}}}\nstatic_resources:", 1)
    assert [problem.message for problem in found(text)] == ['unknown cluster "nope"']
    assert found(with_cds) == []
