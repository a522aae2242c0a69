"""Rules for every test."""

from __future__ import annotations

import gc
import os
import pathlib
import sys

import pytest
from hypothesis import settings

from tests.support import leaks

CONFORMANCE = pathlib.Path(__file__).with_name("conformance")
INTEGRATION = CONFORMANCE.with_name("integration")
LONGEST = (
    *(
        "test_systemd_lab.py",
        "test_differential.py",
        "test_differential_filters.py",
        "test_check.py",
        "test_compiled_wheel.py",
    ),
    *(
        "test_health_checks.py",
        "test_cli_operations.py",
        "test_upgrade.py",
        "test_start_stop.py",
        "test_outlier_detection.py",
        "test_third_party.py",
    ),
    *("test_differential_policies.py", "test_cli.py", "test_systemd_notify.py", "test_schema_differential.py"),
)


def _place(item):
    # Behind them what starts programs, and last what is quick: it fills the gaps.
    return len(LONGEST) + (not item.path.is_relative_to(INTEGRATION)) + (not item.path.is_relative_to(CONFORMANCE))


# Tests start this tree's program a thousand times. Where the environment wants no bytecode, each would compile all of it again,
# which is half of what starting takes.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

if os.geteuid() == 0:
    # Workers that root starts would run as forkproxy or nobody, who may not enter root's temporary directories.
    os.environ.setdefault("FORKPROXY_USER", "root")


# How long an example takes says more about what else the machine does than about the example.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_collection_modifyitems(items):
    """The longest files first: with several processes, nobody waits for one at the end. What is compared with real Envoy may
    be tried twice: on a busy machine Envoy's own threads come late, and that is not forkproxy's failure. Tests of forkproxy
    alone may not.
    """
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else _place(item))
    for item in items:
        if item.path.is_relative_to(CONFORMANCE):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(autouse=True, scope="module")
def frozen():
    """A test that looks for garbage, looks among what its own file has made, not among all modules and all tests: a fiftieth."""
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_leaks():
    """A test that leaves a file descriptor or a child process behind has failed."""
    before = leaks.held()
    yield
    left = leaks.leaked(before)
    assert not left, "left open: " + ", ".join(left)
