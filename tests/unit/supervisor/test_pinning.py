"""Following the affinity mask, with masks that the test sets."""

from types import SimpleNamespace

import pytest

from forkproxy.stats.slab import Slab
from forkproxy.supervisor import pinning as module
from forkproxy.supervisor.cpus import place
from forkproxy.supervisor.pinning import LOOK_INTERVAL_S, Pinning
from forkproxy.supervisor.slot import Slot, WorkerHandle


class Machine:
    """Affinity masks by pid (0: the supervisor's), and the supervisor's slots with a ready worker each."""

    def __init__(self, monkeypatch, cpus, workers, cpuset=None):
        self.masks = {0: set(cpus)}
        self.now = 100.0
        self.lines = []
        self.cpuset = cpuset
        self.slots = []
        monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: self.masks[pid])
        silent = SimpleNamespace(warning=lambda text, **_: self.lines.append(text), info=lambda *_, **__: None)
        monkeypatch.setattr(module, "_log", silent)
        self.pinning = Pinning(self.place)
        for number, cpu in enumerate(self.place(workers).cpus):
            slot = Slot(number, cpu, "generation")
            slot.current = self.worker(slot, 10 + number)
            self.slots.append(slot)
        self.pass_()

    def place(self, count):
        mask = self.masks[0]
        return place(concurrency=count, cpuset=self.cpuset, mask=mask, quota=None, order=sorted(mask))

    def worker(self, slot, pid, *, follows=True):
        self.masks[pid] = {slot.cpu} if slot.cpu is not None else set(self.masks[0])

        class Channel:
            sent = 0

            def send(channel, message):
                assert message["op"] == "pin"
                channel.sent += 1
                if follows:
                    self.masks[pid] = set(message["cpus"])

        worker = WorkerHandle(pid=pid, slot=slot, run="", slab=Slab.create(64), channel=Channel(), started_at=0.0)
        worker.ready = True
        return worker

    def pass_(self):
        self.now += LOOK_INTERVAL_S
        lasting = [slot for slot in self.slots if not slot.retiring]
        self.pinning.check(self.now, self.slots, lasting)

    def allow(self, *cpus):
        """The service manager changes the set; the kernel moves everybody to the whole of it."""
        for pid in self.masks:
            self.masks[pid] = set(cpus)
        self.pass_()

    @property
    def pins(self):
        return [self.masks[slot.current.pid] for slot in self.slots]


@pytest.fixture
def machine(monkeypatch):
    return lambda *arguments, **more: Machine(monkeypatch, *arguments, **more)


def test_workers_move_to_the_new_set_and_back(machine):
    here = machine({0, 1}, 2)
    assert here.pins == [{0}, {1}]
    here.allow(2, 3)
    assert here.pins == [{2}, {3}]
    here.allow(0, 1, 2, 3)
    assert here.pins == [{0}, {1}]
    assert here.lines == []


def test_too_small_a_set_warns_once(machine):
    here = machine({0, 1}, 2)
    here.allow(1)
    for _ in range(5):
        here.pass_()
    assert here.pins == [{1}, {1}]
    assert here.lines == ["2 workers share 1 CPU"]
    here.allow(0, 1)
    here.allow(0)
    assert here.lines == ["2 workers share 1 CPU"] * 2


def test_a_cpuset_outside_the_set_runs_unpinned_until_it_is_back(machine):
    here = machine({0, 1, 2}, 2, cpuset="0-1")
    here.allow(2)
    assert here.pins == [{2}, {2}]
    assert [slot.cpu for slot in here.slots] == [None, None]
    assert here.lines[-1] == "no CPU of --cpuset 0-1 may be used: 2 workers run unpinned"
    here.allow(0, 1, 2)
    assert here.pins == [{0}, {1}]


def test_a_pin_that_the_kernel_has_dropped_is_set_again(machine):
    here = machine({0, 1}, 2)
    here.masks[11] = {0, 1}
    here.pass_()
    assert here.pins == [{0}, {1}]


def test_what_is_right_is_left_alone_and_looked_at_now_and_then(machine):
    here = machine({0, 1}, 2)
    here.pass_()
    assert [slot.current.channel.sent for slot in here.slots] == [0, 0]
    here.masks[11] = {0, 1}
    here.pinning.check(here.now + LOOK_INTERVAL_S / 2, here.slots, here.slots)
    assert here.slots[1].current.channel.sent == 0


def test_workers_of_retiring_slots_stay_while_they_may(machine):
    here = machine({0, 1}, 2)
    here.slots[1].retiring = True
    here.masks[0] = {1, 2}
    here.pass_()
    assert here.pins == [{1}, {1}]
    here.allow(2)
    assert here.pins == [{2}, {2}]


def test_a_worker_that_does_not_follow_is_told_of_once(machine):
    here = machine({0, 1}, 1)
    here.slots[0].current = here.worker(here.slots[0], 20, follows=False)
    here.masks[20] = {1}
    for _ in range(10):
        here.pass_()
    assert here.lines == ["a worker does not stay on its CPU"]
    del here.masks[20]
    here.slots[0].current = None
    here.pass_()
    assert not here.pinning._strays


def test_workers_that_are_not_ready_or_gone_are_not_asked(machine, monkeypatch):
    here = machine({0, 1}, 1)
    here.slots[0].current.ready = False
    here.masks[10] = {0, 1}
    here.pass_()
    assert here.slots[0].current.channel.sent == 0

    def gone(pid):
        if pid:
            raise ProcessLookupError
        return {0, 1}

    here.slots[0].current.ready = True
    monkeypatch.setattr(module.os, "sched_getaffinity", gone)
    here.pass_()
    assert here.slots[0].current.channel.sent == 0
