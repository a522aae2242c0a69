"""Rules for every test."""

from __future__ import annotations

import os

import pytest

from tests.support import leaks

if os.geteuid() == 0:
    # Workers that root starts would run as forkproxy or nobody, who may not enter root's temporary directories.
    os.environ.setdefault("FORKPROXY_USER", "root")


def pytest_collection_modifyitems(items):
    """The longest file first: with several processes, nobody waits for it at the end."""
    items.sort(key=lambda item: "test_systemd_lab.py" not in item.nodeid)


@pytest.fixture(autouse=True)
def nothing_leaks():
    """A test that leaves a file descriptor or a child process behind has failed."""
    before = leaks.held()
    yield
    left = leaks.leaked(before)
    assert not left, "left open: " + ", ".join(left)
