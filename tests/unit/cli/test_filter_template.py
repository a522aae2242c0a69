"""What `forkproxy filters new` writes; that it works, tests/integration/test_cli_filters.py shows."""

import ast

import pytest

from forkproxy.cli.filter_template import class_name, files, is_module_name


@pytest.mark.parametrize(
    ("name", "expected"), [("api_key", "ApiKey"), ("x", "X"), ("myFilter2", "MyFilter2"), ("_", "Filter")]
)
def test_class_names(name, expected):
    assert class_name(name) == expected
    assert class_name(name).isidentifier()


@pytest.mark.parametrize("name", ["a-b", "1a", "", "class", "a.b", "ä", "../x"])
def test_what_is_no_module_name(name):
    assert not is_module_name(name)


def test_no_mark_is_left():
    texts = files("my_filter")
    assert set(texts) == {"my_filter.py", "test_my_filter.py", "my_filter.yaml", "pyproject.toml"}
    assert not any("@NAME@" in text or "@CLASS@" in text or "@DASHED@" in text for text in texts.values())
    for path, text in texts.items():
        if path.endswith(".py"):
            ast.parse(text)
