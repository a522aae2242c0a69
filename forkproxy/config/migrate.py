"""A v2 file → the text of its v3 equivalent, which Envoy 1.40 accepts: ``forkproxy migrate``.

The order of fields is kept. Comments are not: they are no part of the tree, and the text says so in its first line.
Scalars are written so that yaml-cpp, which reads them for Envoy, and PyYAML agree on what they are: both take YAML 1.1's
words for booleans, but not the same ones, and yaml-cpp takes octal and hexadecimal numbers of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import yaml

from forkproxy.config.problems import Problem
from forkproxy.config.tree import Document, Node, load, resolve_plain
from forkproxy.config.upgrade import detect_version, type_extensions, upgrade
from forkproxy.config.validate import BOOTSTRAP_V3, validate

HEADER = "# Made from {filename} (Envoy API {version}) by forkproxy migrate. Its comments are not carried over.\n"

# Text that no reader of YAML takes for anything but text. What does not match is quoted.
_PLAIN = re.compile(
    r"[A-Za-z_/][\w./+-]*(?::[\w./+-]+)*(?: [A-Za-z][\w./+-]*)*\Z"  # words, paths, a:b
    r"|\d+(?:\.\d+)?s\Z"  # durations
    r"|\d+(?:\.\d+){3}\Z",  # IPv4 addresses
    re.ASCII,
)
_MAX_WIDTH = 1 << 30  # a folded line would be another string to some readers


class Migration(NamedTuple):
    """``text`` is the v3 YAML, or None when one of ``problems`` is an error. ``document`` is the upgraded tree."""

    text: str | None
    problems: Sequence[Problem]
    document: Document


def migrate(text: str | bytes, filename: str) -> Migration:
    """Rewrite a v2 (or mixed) file as v3. A v3 file comes back as it was read, without its comments.

    The top-level ``forkproxy:``, of which Envoy knows nothing, is kept, in front. ``filename`` is for the messages and the
    leading comment. Raises ConfigError when ``text`` is no YAML.
    """
    document = load(text, filename)
    problems = list(document.problems)
    ours = document.root.remove("forkproxy")
    version = detect_version(document.root)
    problems += upgrade(document) if version == "v2" else type_extensions(document)
    if not any(problem.kind == "error" for problem in problems):
        problems += [problem for problem in validate(document.root, BOOTSTRAP_V3) if problem.kind != "unsupported"]
    if any(problem.kind == "error" for problem in problems):
        return Migration(None, problems, document)
    if ours is not None:
        document.root.entries.insert(0, ours)
    return Migration(HEADER.format(filename=filename, version=version) + to_yaml(document.root), problems, document)


def to_yaml(root: Node) -> str:
    """A tree as YAML text in block style."""
    text = yaml.serialize(_yaml_node(root), allow_unicode=True, width=_MAX_WIDTH)
    assert isinstance(text, str)
    return text


def _yaml_node(node: Node) -> yaml.Node:
    if node.kind == "map":
        pairs = [(_text_node(entry.key), _yaml_node(entry.value)) for entry in node.entries]
        return yaml.MappingNode("tag:yaml.org,2002:map", pairs, flow_style=not pairs)
    if node.kind == "seq":
        items = [_yaml_node(item) for item in node.items]
        return yaml.SequenceNode("tag:yaml.org,2002:seq", items, flow_style=not items)
    value = node.value
    if isinstance(value, str):
        return _text_node(value)
    if value is None:
        return yaml.ScalarNode("tag:yaml.org,2002:null", "null")
    if isinstance(value, bool):
        return yaml.ScalarNode("tag:yaml.org,2002:bool", "true" if value else "false")
    if isinstance(value, int):
        return yaml.ScalarNode("tag:yaml.org,2002:int", str(value))
    return yaml.ScalarNode("tag:yaml.org,2002:str", repr(value), style='"')  # protobuf reads a number in quotes as well


def _text_node(text: str) -> yaml.Node:
    if _PLAIN.match(text) and resolve_plain(text) == text:
        style = None
    elif "\n" in text.rstrip("\n") and all(line.isprintable() for line in text.split("\n")):
        style = "|"
    else:
        style = '"'
    return yaml.ScalarNode("tag:yaml.org,2002:str", text, style=style)
