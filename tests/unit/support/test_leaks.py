"""What the autouse fixture calls a leak."""

import os
import subprocess
import sys

from tests.support import leaks


def test_an_open_descriptor_is_a_leak(monkeypatch):
    monkeypatch.setattr(leaks, "GRACE_S", 0.0)
    before = leaks.held()
    reader, writer = os.pipe()
    assert len(leaks.leaked(before)) == 2
    os.close(reader)
    os.close(writer)
    assert leaks.leaked(before) == []


def test_a_child_is_a_leak(monkeypatch):
    monkeypatch.setattr(leaks, "GRACE_S", 0.0)
    before = leaks.held()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert any(f"child {child.pid}" in each for each in leaks.leaked(before))
        child.communicate(b"\n")
    assert leaks.leaked(before) == []


def test_what_a_wider_fixture_opens_is_none(monkeypatch):
    monkeypatch.setattr(leaks, "GRACE_S", 0.0)
    before = leaks.held()
    with leaks.shared():
        reader, writer = os.pipe()
    assert leaks.leaked(before) == []
    os.close(reader)
    os.close(writer)
