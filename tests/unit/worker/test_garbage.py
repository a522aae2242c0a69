import gc

import pytest

from forkproxy.worker.garbage import LONGEST_S, MOST_NEW, ROUNDS, Garbage


@pytest.fixture(autouse=True)
def collector():
    """The collector as it was before."""
    thresholds = gc.get_threshold()
    gc.collect()
    yield
    gc.set_threshold(*thresholds)


@pytest.fixture
def garbage():
    made = Garbage()
    made.start(100.0)
    made.look(100.0, 0, 1, 0)
    return made


def full_collections(garbage, *calls):
    """How many there were while ``look`` was called with (now, requests)."""
    before = gc.get_stats()[2]["collections"]
    for call in calls:
        garbage.look(call[0], 0, call[1], 0)
    return gc.get_stats()[2]["collections"] - before


def fill():
    for _ in range(ROUNDS):
        gc.collect(1)


def test_what_is_old_is_not_looked_at_while_objects_are_made(garbage):
    before = gc.get_stats()
    kept = [[number] for number in range(200_000)]
    after = gc.get_stats()
    assert len(kept) == 200_000
    assert after[0]["collections"] > before[0]["collections"]
    assert after[1]["collections"] >= before[1]["collections"] + ROUNDS
    assert after[2]["collections"] == before[2]["collections"]


def test_all_is_looked_at_in_a_quiet_moment(garbage):
    fill()
    assert full_collections(garbage, (101.0, 2), (102.0, 3)) == 0
    assert full_collections(garbage, (103.0, 3)) == 1
    assert full_collections(garbage, (104.0, 3), (105.0, 3)) == 0


def test_where_little_was_made_nothing_is_looked_for(garbage):
    assert full_collections(garbage, (101.0, 1), (102.0, 1)) == 0


def test_a_worker_that_is_never_quiet_looks_once_an_hour(garbage):
    fill()
    busy = [(100.0 + LONGEST_S + second, 10 + second) for second in range(-5, 5)]
    assert full_collections(garbage, *busy) == 1


def test_what_was_found_alive_is_not_looked_at_again(garbage):
    kept = [[number] for number in range(1000)]
    before = gc.get_freeze_count()
    fill()
    assert full_collections(garbage, (101.0, 1)) == 1
    assert gc.get_freeze_count() >= before + len(kept)
    assert full_collections(garbage, (102.0, 1)) == 0


@pytest.mark.parametrize(
    ("accepted", "connections", "collections"),
    [(MOST_NEW, MOST_NEW, 1), (MOST_NEW + 1, MOST_NEW + 1, 0), (MOST_NEW + 1, 10, 1)],
)
def test_where_too_many_connections_are_new_all_is_taken_for_alive(garbage, accepted, connections, collections):
    fill()
    garbage.look(101.0, accepted, 0, connections)
    before = gc.get_stats()[2]["collections"]
    garbage.look(102.0, accepted, 0, connections)
    assert gc.get_stats()[2]["collections"] - before == collections
    fill()
    garbage.look(103.0, accepted, 0, connections)
    assert gc.get_stats()[2]["collections"] - before == collections + 1
