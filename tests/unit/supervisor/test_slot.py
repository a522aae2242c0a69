"""Back-off, promotion, and what a worker's state is called."""

import pytest

from forkproxy.stats.slab import FLUSHED_NS, HEARTBEAT_NS, REQUESTS, Slab
from forkproxy.supervisor.slot import LONGEST_BACK_OFF_S, Slot, WorkerHandle


class FakeChannel:
    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent.append(message)


def worker(slot, run="generation"):
    return WorkerHandle(pid=1, slot=slot, run=run, slab=Slab.create(64), channel=FakeChannel(), started_at=0.0)


@pytest.fixture
def slot():
    return Slot(0, None, "generation")


def test_the_first_death_costs_no_wait_and_the_wait_doubles(slot):
    waits = [slot.count_death(lived_s=0.1, now=10.0) for _ in range(12)]
    assert waits[:5] == [0.0, 0.1, 0.2, 0.4, 0.8]
    assert waits[-1] == LONGEST_BACK_OFF_S
    assert slot.respawn_at == 10.0 + LONGEST_BACK_OFF_S


def test_a_long_life_ends_the_back_off(slot):
    for _ in range(5):
        slot.count_death(lived_s=0.1, now=0.0)
    assert slot.count_death(lived_s=60.0, now=0.0) == 0.0
    assert slot.count_death(lived_s=0.1, now=0.0) == 0.0


def test_a_successor_takes_over(slot):
    old = slot.current = worker(slot)
    new = slot.successor = worker(slot, run="next")
    slot.given_up = 78
    assert slot.promote() is old
    assert (slot.current, slot.successor, slot.draining, slot.run, slot.given_up) == (new, None, [old], "next", 0)
    assert slot.workers() == [new, old]
    slot.forget(old)
    slot.forget(new)
    assert slot.workers() == []


def test_a_slot_without_a_worker_has_nobody_to_drain(slot):
    slot.successor = worker(slot)
    assert slot.promote() is None


def test_states(slot):
    one = worker(slot)
    assert one.state == "starting"
    one.ready = True
    assert one.state == "ready"
    one.drain(now=5.0, time_s=3.0)
    one.drain(now=6.0, time_s=3.0)
    assert one.state == "draining"
    assert one.channel.sent == [{"op": "drain", "time_s": 3.0, "going": []}]
    assert one.deadline == 10.0
    one.stop(now=6.0)
    assert one.deadline == 8.0


def test_requests_per_second_are_those_between_two_flushes(slot):
    one = worker(slot)

    def told(at_s, requests):
        one.slab.cells[FLUSHED_NS], one.slab.cells[REQUESTS] = int(at_s * 1e9), requests
        one.note_rate()
        return one.requests_per_s

    one.note_rate()
    assert one.requests_per_s == 0.0
    assert told(10.0, 500) == 0.0
    assert told(11.0, 600) == 100.0
    # The admin port asks for figures in between: too soon for a rate.
    assert told(11.1, 610) == 100.0
    assert told(12.0, 650) == 50.0
    assert told(12.0, 650) == 50.0
    assert told(13.0, 650) == 0.0


def test_no_heartbeat_is_no_age(slot):
    one = worker(slot)
    assert one.heartbeat_age_s() == 0.0
    one.slab.cells[HEARTBEAT_NS] = 1
    assert one.heartbeat_age_s() > 0.0
