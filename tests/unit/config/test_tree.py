"""Text → tree: Envoy's scalar rules, marks, and a clear answer for what is no configuration."""

from __future__ import annotations

import gc
import random
import time
from pathlib import Path

import pytest

from forkproxy.config.problems import ConfigError, Problem, by_place, render
from forkproxy.config.tree import MAX_DEPTH, Entry, Mark, Node, collection_paused, lines_of, load

SEED = Path(__file__).parents[2] / "data" / "seed"


def python(text, filename="f.yaml"):
    return load(text, filename).root.to_python()


def refusal(text, filename="f.yaml"):
    with pytest.raises(ConfigError) as caught:
        load(text, filename)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0].text(filename)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x", "x"), ("''", ""), ("", None), ("~", None), ("null", None), ("NULL", None), ("nUll", "nUll"), ("'null'", "null"),
        ("true", True), ("Yes", True), ("ON", True), ("y", True), ("N", False), ("off", False), ("yEs", "yEs"), ('"yes"', "yes"),
        ("5", 5), ("-5", -5), ("+5", 5), ("010", 8), ("0x1F", 31), ("-0x10", -16), ("08", "08"), ("0o10", "0o10"),
        ("1_000", "1_000"), ("2147483647", 2147483647), ("2147483648", "2147483648"), ("0xFFFFFFFF", "4294967295"),
        ("99999999999999999999", "99999999999999999999"), ("1.5", "1.5"), ("1e3", "1e3"), (".nan", ".nan"), ("5s", "5s"),
        ("!!str 5", 5), ("! 5", "5"), ("!ignore 5", 5), ("|\n  yes\n", "yes\n"), ("2018-11-29", "2018-11-29"),
    ],
)  # fmt: skip
def test_scalars_by_yaml_cpp_and_envoy(text, value):
    found = python(f"k: {text}\n")["k"]
    assert found == value
    assert type(found) is type(value)


def test_json_has_json_scalars():
    assert python('{"a": 1.5, "b": 5000000000, "c": true, "d": null, "e": "1", "f": 1e2}', "f.json") == {
        "a": 1.5, "b": 5000000000, "c": True, "d": None, "e": "1", "f": 100.0}  # fmt: skip


def test_keys_are_strings_and_ignored_ones_go():
    assert python("5: a\n~: b\nyes: c\n!ignore x: {y: [1]}\nz: 1\n") == {"5": "a", "null": "b", "yes": "c", "z": 1}


def test_the_last_of_duplicate_keys_wins_and_is_warned_about():
    document = load("a: 1\nb: 2\na: 3\n", "f.yaml")
    assert document.root.to_python() == {"a": 3, "b": 2}
    assert [p.text("f.yaml") for p in document.problems] == [
        'f.yaml:3:1: "a" is set twice (also in line 1); the last one counts'
    ]
    assert document.problems[0].kind == "warning"


def test_the_same_key_in_two_mappings_is_no_duplicate():
    assert load("a: {k: 1, l: {k: 2}}\n", "f").problems == []


def test_merge_keys_are_keys():
    assert python("x: &x {a: 1}\ny: {<<: *x}\n") == {"x": {"a": 1}, "y": {"<<": {"a": 1}}}


def test_only_the_first_document_counts():
    document = load("a: 1\n---\n[ }", "f")
    assert document.root.to_python() == {"a": 1}
    assert "only the first YAML document" in document.problems[0].message


def test_marks_count_from_one_in_characters():
    root = load("a:\n  - é: [x, {b: ö}]\n", "f").root
    item = root.get("a").items[0]
    assert (root.mark, root.entries[0].key_mark, item.mark) == (Mark(1, 1), Mark(1, 1), Mark(2, 5))
    assert item.get("é").items[1].get("b").mark == Mark(2, 16)


def test_aliases_are_copies_with_the_anchors_marks():
    root = load("a: &x {k: [1]}\nb: *x\nc: &s str\n*s : d\n", "f").root
    a, b = root.get("a"), root.get("b")
    assert a.to_python() == b.to_python() == {"k": [1]}
    assert a is not b
    assert b.mark == Mark(1, 4)
    b.set("k", Node.scalar(2, b.mark))
    assert a.to_python() == {"k": [1]}
    assert root.get("str").value == "d"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", "f.yaml: the file is empty (the smallest configuration is {})"),
        ("# only\n", "f.yaml: the file is empty (the smallest configuration is {})"),
        ("---\n---\n{}", "f.yaml: the file is empty (the smallest configuration is {})"),
        ("text", "f.yaml:1:1: expected fields (name: value), found a single value"),
        ("- a\n", "f.yaml:1:1: expected fields (name: value), found a list"),
        ("a: *n\n", 'f.yaml:1:4: could not parse: no anchor "&n" stands before "*n"'),
        ("a: &n {b: *n}\n", 'f.yaml:1:11: could not parse: "*n" stands inside its own anchor (line 1)'),
        ("{a: b}: 1\n", "f.yaml:1:1: could not parse: a key must be a plain name, not a list or a mapping"),
        ("a: 1\n\x00", "f.yaml:2:1: could not parse: a NUL byte (is this a binary file?)"),
        ("a: \x07\n", "f.yaml:1:4: could not parse: U+0007 may not stand in YAML"),
        (b"a: 1\nbc\xff: 2", "f.yaml:2:3: could not parse: byte 0xff is not UTF-8 text (is this a binary file?)"),
        ("a:`\n  b: 1\n", 'f.yaml:1:3: could not parse: "`" right after "a:" (did you mean "a:" alone?)'),
        ("a:5\nb: 1\n", 'f.yaml:1:3: could not parse: "5" right after "a:" (did you mean "a: 5"?)'),
    ],
)  # fmt: skip
def test_what_is_no_configuration(text, answer):
    assert refusal(text).split(" while ")[0] == answer


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a:\n\tb: 1\n", "spaces, not tabs"),
        ("a: {{ .Values.x }}: y\n", "template"),
        ("a: {{ x }}\n", "template"),
        ("a: b: c\n", "quote the value, or check the indentation"),
        ("a: 1\n  - b\n c: 2\n", "indentation"),
        ("a: 'x\n", "a quote is not closed"),
        ("a: [1, 2\nb: 3\n", "a bracket is not closed"),
        ("a: @x\n", "quote the value"),
    ],
)
def test_parse_errors_have_a_hint(text, hint):
    assert hint in refusal(text)


def test_the_seed_as_printed():
    filename = "google_com_proxy.as-printed.v2.yaml"
    assert refusal((SEED / filename).read_bytes(), filename) == (
        'google_com_proxy.as-printed.v2.yaml:8:18: could not parse: "`" right after "static_resources:" '
        '(did you mean "static_resources:" alone?)'
    )


@pytest.mark.parametrize("opening", ["[", "{a: "])
def test_deep_nesting_ends_at_envoys_limit(opening):
    closing = {"[": "]", "{a: ": "}"}[opening]
    load("k: " + opening * (MAX_DEPTH - 1) + closing * (MAX_DEPTH - 1), "f")
    assert "nested more than 100 levels deep" in refusal("k: " + opening * MAX_DEPTH + closing * MAX_DEPTH)
    assert "nested more than 100 levels deep" in refusal("k: " + opening * 1_000 + closing * 1_000)


def test_aliases_count_in_the_depth():
    deep = "[" * 60 + "]" * 60
    assert "nested more than 100 levels deep" in refusal(f"a: &a {deep}\nb: {'[' * 60}*a{']' * 60}\n")


def test_billion_laughs_is_bounded():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    started = time.monotonic()
    assert "aliases expand to more than 300000 values" in refusal("\n".join(lines))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "data", [b"\x7fELF\x00" * 2_000_000, b"a" * 10_000_000, b"[" * 10_000_000], ids=["binary", "word", "brackets"]
)
def test_ten_megabytes_of_nonsense_are_refused_quickly(data):
    started = time.monotonic()
    refusal(data)
    assert time.monotonic() - started < 5


def test_too_large(monkeypatch):
    monkeypatch.setattr("forkproxy.config.tree.MAX_BYTES", 1 << 20)
    assert refusal(b"a: " + b"x" * (1 << 20)) == "f.yaml: the file is larger than 1 MiB"


def test_byte_order_marks():
    assert python("\ufeffa: é\n".encode()) == {"a": "é"}
    assert python("a: é\n".encode("utf-16")) == {"a": "é"}


def test_lines_are_libyamls_lines():
    document = load("a: x\r\nb: 1\u2028c: 2\n", "f")
    assert document.root.entries[2].key_mark == Mark(3, 1)
    assert lines_of(document.text)[2] == "c: 2"


def test_broken_files_are_refused_or_read_and_never_crash():
    rng = random.Random(8)
    original = (SEED / "google_com_proxy.half-fixed.v2.yaml").read_bytes()
    pieces = [b"\t", b": ", b"- ", b"&a ", b"*a", b"{", b"]", b'"', b"!x ", b"| ", b"? ", b"%", b"\xff", b"\r", b"<<: "]
    refused = []
    for _ in range(400):
        data = bytearray(original)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(3)] = rng.choice(pieces)
        try:
            load(bytes(data), "f")
        except ConfigError as error:
            source = data.decode("utf-8", "replace").splitlines()
            refused += [render(problem, "f", source) for problem in error.problems]
    assert 100 < len(refused) < 400
    assert [text for text in refused if not text.startswith("f:")] == []


def test_without_libyaml(monkeypatch):
    import yaml

    monkeypatch.delattr(yaml, "CSafeLoader")
    assert python("a: [1, &x yes, *x, ~]\n") == {"a": [1, True, True, None]}
    assert refusal("a: &n [*n]\n").startswith("f.yaml:1:")
    assert "U+0007" in refusal("a: \x07\n")


def test_nodes_change_in_place():
    node = Node.from_python({"a": 1, "b": [True, None, "x", {"c": 1.5}]}, Mark(3, 4))
    assert node.to_python() == {"a": 1, "b": [True, None, "x", {"c": 1.5}]}
    assert {node.mark, node.get("b").items[3].entries[0].key_mark} == {Mark(3, 4)}
    assert [item.text for item in node.get("b").items[:3]] == ["true", "null", "x"]
    twin = node.copy()
    node.set("a", Node.scalar("new", Mark(5, 6)))
    node.set("d", Node.scalar(2, Mark(7, 8)))
    assert node.remove("b").key == "b"
    assert node.remove("b") is None
    assert node.to_python() == {"a": "new", "d": 2}
    assert node.entry("d").key_mark == Mark(7, 8)
    assert twin.to_python() == {"a": 1, "b": [True, None, "x", {"c": 1.5}]}
    assert node.get("a").get("nothing") is None
    assert repr(node) == "<map 3:4 ['a', 'd']>"
    assert repr(Entry("k", Mark(1, 1), Node.seq(Mark(1, 2)))) == "Entry('k', <seq 1:2 of 0>)"
    assert repr(Node.scalar(None, Mark(1, 2))) == "<scalar 1:2 None>"


def test_collection_is_paused_and_resumed():
    assert gc.isenabled()
    with collection_paused():
        assert not gc.isenabled()
        with collection_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_rendering():
    problem = Problem("error", "a.b", 2, 4, "is wrong", "try c")
    source = ["x:", "\ty: z"]
    assert render(problem, "f.yaml", source) == "f.yaml:2:4: a.b: is wrong (try c)\n     y: z\n       ^"
    coloured = render(problem, "f.yaml", source, colour=True)
    assert "\x1b[1;31merror:\x1b[0m a.b: is wrong" in coloured
    assert render(Problem("warning", "", 0, 0, "m"), "f.yaml") == "f.yaml: m"
    assert problem.as_json("f") == {
        "kind": "error", "file": "f", "line": 2, "column": 4, "path": "a.b", "message": "is wrong", "hint": "try c"}  # fmt: skip


def test_one_error_carries_many_problems():
    first, second = Problem("error", "b", 2, 1, "m"), Problem("error", "a", 1, 9, "n")
    assert by_place([first, second, first]) == [second, first]
    error = ConfigError.of([second, first])
    assert (error.path, error.line, error.column, error.message, error.hint) == ("a", 1, 9, "n", "")
    assert str(error) == "1:9: a: n (and 1 more)"
    assert str(ConfigError("p", 1, 2, "m", "h")) == "1:2: p: m (h)"
