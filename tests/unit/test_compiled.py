"""scripts/compiled writes into a copy of the sources what mypyc must be told; that it still finds the places is seen here."""

import ast
import importlib.machinery
import importlib.util
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load():
    loader = importlib.machinery.SourceFileLoader("compiled", str(ROOT / "scripts" / "compiled"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


compiled = load()


@pytest.mark.parametrize("name", compiled.MODULES)
def test_what_mypyc_is_told_finds_its_place(name, tmp_path):
    copy = tmp_path / name
    copy.parent.mkdir(parents=True)
    shutil.copy(ROOT / name, copy)
    compiled.tell(tmp_path, name, {"HttpConnection"})
    told = {
        node.name: {keyword.arg for decorator in node.decorator_list for keyword in getattr(decorator, "keywords", ())}
        for node in ast.parse(copy.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    for each in {*told} & {*compiled.COPIED}:
        assert told[each] == {"allow_interpreted_subclasses", "serializable"}
    if "HttpConnection" in told:
        assert told["HttpConnection"] == {"allow_interpreted_subclasses"}
        assert told["ConnectionManager"] == set()


def test_every_class_that_is_copied_is_there():
    classes = {
        node.name
        for name in compiled.MODULES
        for node in ast.parse((ROOT / name).read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    assert {*compiled.COPIED} <= classes


@pytest.mark.parametrize(
    ("line", "constant"),
    [
        ("A = 1", True),
        ("_join = b''.join", True),
        ("_ids = count().__next__", True),
        ("T = TypeVar('T')", False),
        ("Hook = Callable[[bytes], None]", False),
        ("A: Final = 1", False),
        ("x.y = 1", False),
    ],
)
def test_constants(line, constant):
    (node,) = ast.parse(line).body
    assert compiled.is_constant(node) is constant
