"""Token buckets: Envoy's arithmetic, and what several processes may take together."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkproxy.filters.token_bucket import OwnLedger, TokenBucket
from forkproxy.stats.shared import SharedCells


def bucket(max_tokens=3, per_fill=1, interval_ms=1000, ledger=None):
    return TokenBucket(max_tokens, per_fill, interval_ms, ledger or OwnLedger())


@pytest.fixture
def cells():
    cells = SharedCells()
    yield cells
    cells.close()


def test_it_is_full_at_first_and_then_empty():
    b = bucket()
    assert [b.take(5.0) for _ in range(4)] == [True, True, True, False]
    assert b.remaining(5.0) == 0


def test_it_fills_evenly():
    b = bucket(max_tokens=10, per_fill=2, interval_ms=1000)
    assert b.take(5.0, 10)
    assert (b.remaining(5.4), b.remaining(5.5), b.remaining(6.25)) == (0, 1, 2)
    assert b.take(6.25, 2)
    assert not b.take(6.25)
    assert b.take(6.5)


def test_it_runs_over():
    b = bucket()
    assert b.take(5.0)
    assert b.remaining(1000.0) == 3
    assert b.take(1000.0, 3)
    assert not b.take(1000.9)


def test_a_bucket_that_takes_longer_to_fill_than_the_machine_runs_is_full_all_the_same():
    b = bucket(max_tokens=1000, interval_ms=3_600_000)
    assert b.take(60.0, 1000)
    assert not b.take(60.0)


def test_more_than_there_is_takes_nothing_and_nobody_gets_none():
    b = bucket()
    assert not b.take(5.0, 4)
    assert not b.take(5.0, 0)
    assert b.remaining(5.0) == 3


def test_when_there_is_one_again():
    b = bucket(max_tokens=1, interval_ms=2000)
    assert b.next_s(5.0) == 0.0
    b.take(5.0)
    assert (b.next_s(5.0), b.next_s(6.5), b.next_s(7.0)) == (2.0, 0.5, 0.0)
    assert b.fill_rate == 0.5


@given(
    st.integers(1, 50),
    st.integers(1, 1000),
    st.integers(50, 10_000),
    st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 5)), max_size=60),
)
def test_it_counts_like_a_bucket_of_fractions(max_tokens, per_fill, interval_ms, steps):
    b = bucket(max_tokens, per_fill, interval_ms)
    units, capacity, now_ms = max_tokens * interval_ms, max_tokens * interval_ms, 1_000_000
    for passed_ms, amount in steps:
        now_ms += passed_ms
        units = min(capacity, units + passed_ms * per_fill)
        had = units >= amount * interval_ms
        # The clock counts nanoseconds: what is due at this very one may come at the next.
        assert b.take(now_ms / 1000 + 1e-7, amount) == had
        if had:
            units -= amount * interval_ms


def test_processes_have_one_bucket_and_it_outlives_them(cells):
    ledger = cells.ledger("limit", "a")
    b = bucket(ledger=ledger)
    first, second = cells.take_seat(), cells.take_seat()
    in_process(cells, first, lambda: b.take(5.0))
    in_process(cells, second, lambda: b.take(5.0))
    assert b.remaining(5.0) == 1
    cells.free_seat(first)
    cells.free_seat(second)
    assert b.remaining(5.0) == 1
    assert cells.take_seat() == first
    in_process(cells, first, lambda: b.take(5.0))
    assert not b.take(5.0)


def test_what_ran_over_stays_gone_when_the_process_that_saw_it_is(cells):
    b = bucket(ledger=cells.ledger("limit", "a"))
    seat = cells.take_seat()
    in_process(cells, seat, lambda: b.take(1000.0, 3))
    cells.free_seat(seat)
    assert b.remaining(1000.0) == 0
    assert b.remaining(1001.0) == 1


def test_a_look_from_an_older_moment_gives_less_and_spoils_nothing(cells):
    b = bucket(ledger=cells.ledger("limit", "a"))
    assert b.take(1000.0, 3)
    assert b.remaining(999.0) == 0
    assert b.remaining(1003.0) == 3


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_that_take_at_once_exceed_it_by_one_each_at_most(cells, processes):
    tokens = 4000
    b = bucket(tokens, interval_ms=1_000_000_000, ledger=cells.ledger("limit", "a"))
    taken = [cells.number("taken", str(index)) for index in range(processes)]
    seats = [cells.take_seat() for _ in range(processes)]
    pids = []
    for seat, count in zip(seats, taken, strict=True):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                cells.sit(seat)
                while b.take(1000.0):
                    count.add(1)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * processes
    assert tokens <= sum(each.total() for each in taken) <= tokens + processes - 1


def in_process(cells, seat, act):
    """Run ``act`` as the worker of ``seat``, to its end."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            cells.sit(seat)
            act()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
