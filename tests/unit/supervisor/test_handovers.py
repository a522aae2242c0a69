"""Boards and queues of several generations; what goes over them is in tests/unit/worker/test_handover.py."""

import pytest

from forkproxy.supervisor.handovers import Handovers


@pytest.fixture
def handovers():
    made = Handovers()
    yield made
    made.keep_only(())


def test_generations_have_nothing_in_common(handovers):
    first = handovers.part_of(0, generation=1, listeners=2, slots=(0, 1))
    second = handovers.part_of(0, generation=2, listeners=1, slots=(0, 1))
    assert first.board is not second.board
    assert set(first.descriptors()).isdisjoint(second.descriptors())


def test_the_next_worker_of_a_slot_gets_the_same_queue(handovers):
    before = handovers.part_of(1, generation=1, listeners=1, slots=(0, 1))
    after = handovers.part_of(1, generation=1, listeners=1, slots=(0, 1))
    assert before.descriptors() == after.descriptors()


def test_a_generation_that_is_gone_leaves_no_descriptor(handovers):
    old = handovers.part_of(0, generation=1, listeners=1, slots=(0, 1))
    new = handovers.part_of(0, generation=2, listeners=1, slots=(0, 1))
    sender = old.senders[1]
    handovers.keep_only((2, 3))
    assert sender.fileno() == -1
    assert new.senders[1].fileno() != -1
    handovers.on_worker_gone(0, 1)


def test_a_slot_is_a_place_of_its_own_even_alone(handovers):
    part = handovers.part_of(3, generation=1, listeners=1, slots=())
    assert part.senders == {}
    assert not part.left
