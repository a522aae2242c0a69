import os

import pytest

from forkproxy.stats import shared
from forkproxy.stats.shared import AREA_CELLS, SharedCells


@pytest.fixture
def cells():
    cells = SharedCells()
    yield cells
    cells.close()


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


def test_a_number_is_the_sum_of_what_processes_write(cells):
    number = cells.number("requests", "cluster.a")
    seats = [cells.take_seat() for _ in range(3)]
    for seat in seats:
        in_process(cells, seat, lambda seat=seat: number.set(10**seat))
    assert number.total() == 111
    in_process(cells, seats[1], lambda: number.add(5))
    assert number.total() == 116
    cells.sit(seats[1])
    assert (number.own, number.others()) == (15, 101)


def test_a_process_sees_what_others_write_while_it_runs(cells):
    number = cells.number("requests", "cluster.a")
    first, second = cells.take_seat(), cells.take_seat()
    cells.sit(first)
    number.set(1)

    def act():
        assert number.others() == 1
        number.set(2)

    in_process(cells, second, act)
    assert (number.own, number.total()) == (1, 3)


def test_the_same_name_is_the_same_cell_over_generations(cells):
    number = cells.number("requests", "cluster.a")
    number.set(3)
    assert cells.number("requests", "cluster.a").total() == 3
    for other in (("requests", "cluster.b"), ("connections", "cluster.a"), ("requests", "cluster.a", 1)):
        assert cells.number(*other).total() == 0


def test_a_freed_seat_holds_nothing_and_is_the_next_to_be_taken(cells):
    number, other = cells.number("requests", "a"), cells.number("requests", "b")
    common = cells.common("failures", "a")
    seats = [cells.take_seat() for _ in range(3)]
    for seat in seats:
        in_process(cells, seat, lambda: (number.add(1), other.add(2), common.add(1)))
    cells.free_seat(seats[1])
    assert (number.total(), other.total()) == (2, 4)
    assert common.get() == 3  # belongs to nobody
    assert cells.take_seat() == seats[1]
    assert number.total() == 2


def test_a_number_is_alone_until_there_is_a_second_process(cells):
    number = cells.number("requests", "a")
    assert number.is_alone
    first, second = cells.take_seat(), cells.take_seat()
    assert not number.is_alone
    cells.free_seat(first)
    assert not number.is_alone  # the one that is left may sit on any seat
    cells.free_seat(second)
    assert number.is_alone


def test_a_later_area_knows_who_sits(cells):
    seats = [cells.take_seat(), cells.take_seat()]
    early = cells.number("requests", "early")
    for index in range(AREA_CELLS):
        late = cells.number("requests", "late", index)
    for seat in seats:
        in_process(cells, seat, lambda: (early.add(1), late.add(1)))
    assert (early.total(), late.total()) == (2, 2)
    assert not late.is_alone


def test_a_process_forked_before_an_area_was_made_has_nothing_to_clear_there(cells):
    cells.number("requests", "early")
    old = cells.take_seat()
    for index in range(AREA_CELLS):
        late = cells.number("requests", "late", index)
    new = cells.take_seat()
    in_process(cells, new, lambda: late.add(1))
    cells.free_seat(old)
    assert late.total() == 1
    cells.free_seat(new)
    assert late.total() == 0


def test_all_processes_write_a_common_cell(cells):
    common = cells.common("failures", "a")
    for _ in range(2):
        in_process(cells, cells.take_seat(), lambda: common.add(2))
    assert common.get() == 4
    assert common.add(-1) == 3
    common.set(0)
    assert common.get() == 0


def test_seats_come_to_an_end(cells, monkeypatch):
    monkeypatch.setattr(shared, "SEATS", 2)
    cells = SharedCells()
    cells.take_seat()
    cells.take_seat()
    with pytest.raises(OSError, match="2 workers already"):
        cells.take_seat()


def test_what_is_not_used_takes_no_memory(cells):
    number = cells.number("requests", "a")
    for _ in range(3):
        cells.take_seat()
    before = resident_shared_kib()
    assert number.total() == 0
    number.set(1)
    assert resident_shared_kib() - before < 256


def resident_shared_kib():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("RssShmem")).split()[1])


def test_a_block_is_numbers_under_one_name(cells):
    block = cells.block("breakers", "a", 3)
    for index in range(3):
        block.number(index).set(index + 1)
    assert [cells.block("breakers", "a", 3).number(index).total() for index in range(3)] == [1, 2, 3]
    cells.number("breakers", "b").set(9)
    assert block.number(2).total() == 3


def test_a_block_is_never_cut_in_two(cells):
    for index in range(AREA_CELLS - 2):
        cells.number("requests", "a", index)
    block = cells.block("breakers", "a", 4)
    for index in range(4):
        block.number(index).set(1)
    assert sum(block.number(index).total() for index in range(4)) == 4


def test_a_ledger_keeps_what_processes_wrote_that_are_gone(cells):
    ledger, number = cells.ledger("limit", "a"), cells.number("requests", "a")
    seats = [cells.take_seat() for _ in range(3)]
    for seat in seats:
        in_process(cells, seat, lambda seat=seat: (ledger.spend(10**seat), ledger.raise_mark(7 - seat), number.add(1)))
    assert (ledger.spent(), ledger.mark(), number.total()) == (111, 7, 3)
    for left, seat in enumerate(seats):
        cells.free_seat(seat)
        assert (ledger.spent(), ledger.mark(), number.total()) == (111, 7, 2 - left)
    again = cells.take_seat()
    in_process(cells, again, lambda: (ledger.spend(1000), ledger.raise_mark(9)))
    assert (ledger.spent(), ledger.mark()) == (1111, 9)
    same = cells.ledger("limit", "a")
    cells.free_seat(again)
    assert (same.spent(), same.mark()) == (1111, 9)
    assert cells.ledger("limit", "b").spent() == 0
