"""What the admin pages ask of the supervisor."""

from types import SimpleNamespace

import pytest

from forkproxy.supervisor import admin_context
from forkproxy.supervisor.admin_context import MEMORY_AGE_S, SupervisorContext


@pytest.fixture
def supervisor():
    told = []
    bootstrap = SimpleNamespace(stats_flush_on_admin=False, listeners=(), clusters=())
    return SimpleNamespace(
        told=told,
        figures=SimpleNamespace(update_rare=lambda **figures: told.append(figures["physical_size"])),
        fleet=SimpleNamespace(workers=lambda: [SimpleNamespace(pid=7)]),
        generations=SimpleNamespace(running=SimpleNamespace(bootstrap=bootstrap)),
    )


def test_statistics_do_not_look_at_memory_each_time(supervisor, monkeypatch):
    now, looks = [100.0], []
    monkeypatch.setattr(admin_context, "monotonic", lambda: now[0])
    monkeypatch.setattr(admin_context, "memory_of", lambda pids: looks.append(pids) or (0, len(looks)))
    context = SupervisorContext(supervisor)
    for passed in (0.0, MEMORY_AGE_S / 2, MEMORY_AGE_S, MEMORY_AGE_S * 1.5):
        now[0] = 100.0 + passed
        context.before_statistics()
    assert supervisor.told == [1, 1, 2, 2]
    assert [pids[1:] for pids in looks] == [[7], [7]]
    # Its own page is of now.
    assert context.memory().total_physical_bytes == 3
