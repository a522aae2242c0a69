"""forkproxy.config.migrate: the text, and that it says the same when read again."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from forkproxy.config.migrate import HEADER, migrate, to_yaml
from forkproxy.config.problems import ConfigError
from forkproxy.config.tree import Mark, Node, load

V2 = """\
admin:  # where to look
  access_log_path: /dev/null
  address: {socket_address: {address: 127.0.0.1, port_value: 0}}
static_resources:
  clusters:
  - name: one
    connect_timeout: 0.25s
    type: static
    hosts: {socket_address: {address: 127.0.0.1, port_value: 80}}
"""

V3 = """\
admin:
  access_log_path: /dev/null
  address:
    socket_address:
      address: 127.0.0.1
      port_value: 0
static_resources:
  clusters:
  - name: one
    connect_timeout: 0.25s
    type: STATIC
    load_assignment:
      cluster_name: one
      endpoints:
      - lb_endpoints:
        - endpoint:
            address:
              socket_address:
                address: 127.0.0.1
                port_value: 80
"""


def test_the_v3_text_keeps_the_order_and_says_that_comments_are_gone():
    migration = migrate(V2, "old.yaml")
    assert migration.text == HEADER.format(filename="old.yaml", version="v2") + V3
    assert "comments" in migration.text.partition("\n")[0]
    assert [p.kind for p in migration.problems if p.kind == "error"] == []


def test_migrating_twice_changes_nothing():
    once = migrate(V2, "f").text
    assert migrate(once, "f").text == once.replace("(Envoy API v2)", "(Envoy API v3)")


def test_a_v3_file_gets_the_types_of_its_named_filters():
    text = """
static_resources:
  listeners:
  - address: {pipe: {path: /x}}
    listener_filters: [{name: envoy.listener.tls_inspector}]
    filter_chains: [{}]
"""
    made = migrate(text, "f").text
    assert made.startswith("# Made from f (Envoy API v3) by forkproxy migrate.")
    migrated = load(made, "f").root.to_python()
    assert migrated["static_resources"]["listeners"][0]["listener_filters"] == [
        {
            "name": "envoy.filters.listener.tls_inspector",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
            },
        }
    ]


def test_an_invalid_file_has_no_v3_form_but_problems():
    migration = migrate(V2.replace("hosts", "host") + "    tls_context: {}\n", "f")
    assert migration.text is None
    assert [(p.line, p.message) for p in migration.problems if p.kind == "error"] == [
        (9, 'Cluster has no field "host"')
    ]


def test_a_field_one_level_too_far_out_is_named_with_its_place():
    migration = migrate(V2 + "tls_context: {sni: a}\n", "f")
    (error,) = [p for p in migration.problems if p.kind == "error"]
    assert error.text("f") == (
        'f:10:1: Bootstrap has no field "tls_context" '
        '("tls_context" is a field of static_resources.clusters[0] (line 6): check the indentation)'
    )


def test_our_own_key_is_kept_in_front():
    text = migrate(V2 + "forkproxy: {concurrency: 2}\n", "f").text
    assert text.split("\n")[1:4] == ["forkproxy:", "  concurrency: 2", "admin:"]


def test_no_yaml_raises():
    with pytest.raises(ConfigError):
        migrate("a: [", "f")


def test_warnings_of_loading_are_kept():
    migration = migrate(V2.replace("    type: static", "    type: static\n    type: static"), "f")
    assert any("set twice" in p.message for p in migration.problems)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain\n"),
        ("/a/b.c", "/a/b.c\n"),
        ("0.25s", "0.25s\n"),
        ("10.0.0.1", "10.0.0.1\n"),
        ("type.googleapis.com/a.B", "type.googleapis.com/a.B\n"),
        ("yes", '"yes"\n'),
        ("y", '"y"\n'),
        ("Off", '"Off"\n'),
        ("null", '"null"\n'),
        ("", '""\n'),
        ("010", '"010"\n'),
        ("0x1F", '"0x1F"\n'),
        ("1e3", '"1e3"\n'),
        ("a: b", '"a: b"\n'),
        ("a #b", '"a #b"\n'),
        ("*", '"*"\n'),
        ("a\nb\n", "|\n  a\n  b\n"),
        ("\n", '"\\n"\n'),
        (True, "true\n"),
        (5, "5\n"),
        (None, "null\n"),
        (1.5, '"1.5"\n'),
        ({}, "{}\n"),
        ([], "[]\n"),
    ],
)
def test_values(value, text):
    # A document that is one plain scalar ends with an explicit "...".
    assert to_yaml(Node.from_python(value, Mark(1, 1))).removesuffix("...\n") == text


TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")) | st.sampled_from("\n\t:#-*&!|>'\"%@`{}[],? 01xyn~")
)


@given(st.dictionaries(TEXT, st.recursive(TEXT | st.booleans() | st.integers(-5, 1 << 30), st.lists, max_leaves=5)))
def test_what_is_written_reads_back_the_same(tree):
    text = to_yaml(Node.from_python(tree, Mark(1, 1)))
    assert yaml.safe_load(text) == tree
    if tree:
        assert load(text, "f").root.to_python() == tree
