"""A roll-out goes slot by slot, and never drains before the successor is ready."""

import pytest

from forkproxy.supervisor.reload import RollOut
from forkproxy.supervisor.slot import Slot


class FakeWorker:
    def __init__(self, slot, run):
        self.slot = slot
        self.run = run
        self.ready = False


class Scene:
    """Two slots that run "old"; what was forked and drained, in order."""

    def __init__(self):
        self.slots = [Slot(number, None, "old") for number in range(2)]
        for slot in self.slots:
            slot.current = FakeWorker(slot, "old")
        self.events = []
        self.roll_out = RollOut("new", before="old")

    def spawn(self, slot, run):
        self.events.append(("fork", slot.number))
        return FakeWorker(slot, run)

    def drain(self, worker):
        self.events.append(("drain", worker.slot.number))

    def advance(self):
        return self.roll_out.advance(self.slots, self.spawn, self.drain)


@pytest.fixture
def scene():
    return Scene()


def test_ready_before_drain_and_one_slot_after_the_other(scene):
    assert not scene.advance()
    assert not scene.advance()
    assert scene.events == [("fork", 0)]
    scene.slots[0].successor.ready = True
    assert not scene.advance()
    assert scene.events == [("fork", 0), ("drain", 0), ("fork", 1)]
    scene.slots[1].successor.ready = True
    assert scene.advance()
    assert scene.events[3:] == [("drain", 1)]
    assert [slot.run for slot in scene.slots] == ["new", "new"]
    assert scene.advance()
    assert len(scene.events) == 4


def test_a_slot_without_a_worker_gets_one_and_nobody_drains(scene):
    scene.slots[0].current = None
    scene.advance()
    scene.slots[0].successor.ready = True
    scene.advance()
    assert scene.events == [("fork", 0), ("fork", 1)]


def test_a_retiring_slot_is_left_alone(scene):
    scene.slots[0].retiring = True
    scene.advance()
    assert scene.events == [("fork", 1)]


def test_a_fork_that_fails_leaves_the_slot_as_it_was(scene):
    def fail(_slot, _run):
        raise OSError(11, "Resource temporarily unavailable")

    with pytest.raises(OSError, match="unavailable"):
        scene.roll_out.advance(scene.slots, fail, scene.drain)
    assert scene.slots[0].successor is None
    assert scene.slots[0].current.run == "old"
