"""Rules for every test."""

from __future__ import annotations

import pytest

from tests.support import leaks


@pytest.fixture(autouse=True)
def nothing_leaks():
    """A test that leaves a file descriptor or a child process behind has failed."""
    before = leaks.held()
    yield
    left = leaks.leaked(before)
    assert not left, "left open: " + ", ".join(left)
