"""Live cells that all worker processes see: what one limit over all of them, or one count of all of them, is made of.

A statistic is copied to its slab once a second and read by the supervisor; a shared cell is read and written by workers, at
once. Python has no atomic addition, so there are two kinds of cells:

- A ``SharedNumber`` has one cell per process. Each process writes its own only and reads the sum of all. Whoever first writes
  and then reads the total can be one too many only because of those that do the same in the same moment: at most one per
  other process.
- A ``CommonCell`` is one cell with many writers, for what may lose an update when two write in the same moment.

A ``SharedLedger`` is made of numbers of the first kind that outlive their processes.

How it lives: the supervisor's Registry has one SharedCells. A generation under construction asks for its cells by name (kind,
prefix, slot); the same name gives the same cells over reloads. Every process that is forked has a seat, which the supervisor
takes before the fork and frees, zeroing its cells, when it has reaped it: two workers of one slot, of the old and the new
generation, count both, and what a killed worker held is free again.

The memory grows by areas, each an anonymous shared mapping of its own. A process forked before an area was made knows nobody
that has cells in it. In an area the cells of one seat lie together and untouched pages cost nothing, so that there is room
for far more seats than anybody needs. The cells before the first seat are the common ones.
"""

from __future__ import annotations

import errno
import mmap

SEATS = 4096
"""Worker processes at a time, those that drain among them."""
AREA_CELLS = 4096
"""Cells of one seat in one area: 32 KiB, and with those of all seats 128 MiB of address space."""

_MAP_NORESERVE = 0x4000  # <asm-generic/mman.h>; the mmap module has it from Python 3.13 on
_FLAGS = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
_SEATS_IN_USE = 0
"""The cell of an area that tells its readers how many seats to sum; the first name comes behind it."""

Name = tuple[str, str, int]


class _Area:
    """One mapping. ``own`` is where the cells of this process begin."""

    __slots__ = ("_memory", "cells", "own", "used")

    def __init__(self, seat: int, seats_in_use: int) -> None:
        self._memory = mmap.mmap(-1, (SEATS + 1) * AREA_CELLS * 8, flags=_FLAGS)
        self.cells: memoryview = memoryview(self._memory).cast("q")
        self.own = (seat + 1) * AREA_CELLS
        self.used = _SEATS_IN_USE + 1
        self.cells[_SEATS_IN_USE] = seats_in_use

    def close(self) -> None:
        self.cells.release()
        self._memory.close()


class SharedNumber:
    """A number that every process has its own of. ``own`` is this process's."""

    __slots__ = ("_area", "_cells", "_index")

    def __init__(self, area: _Area, index: int) -> None:
        self._area = area
        self._cells = area.cells
        self._index = index

    def __repr__(self) -> str:
        return f"<SharedNumber {self.own} of {self.total()}>"

    @property
    def own(self) -> int:
        """What this process has written."""
        area = self._area
        return int(area.cells[area.own + self._index])

    def set(self, value: int) -> None:
        """Write this process's cell: 90 ns."""
        self._cells[self._area.own + self._index] = value

    def add(self, amount: int) -> None:
        """Add to this process's cell: 150 ns."""
        area = self._area
        area.cells[area.own + self._index] += amount

    @property
    def is_alone(self) -> bool:
        """No other process has a cell of this number: a count of one's own is all there is."""
        return self._cells[_SEATS_IN_USE] <= 1

    @property
    def processes(self) -> int:
        """How many processes may have a cell of it: all, and those whose seats are free between them."""
        return int(self._area.cells[_SEATS_IN_USE])

    def total(self) -> int:
        """The sum of all processes' cells: 240 ns with two of them, 40 ns more for each further one."""
        cells = self._cells
        first = AREA_CELLS + self._index
        return sum(cells[first : first + cells[_SEATS_IN_USE] * AREA_CELLS : AREA_CELLS])

    def others(self) -> int:
        """The sum of the other processes' cells."""
        return self.total() - self.own


class CommonCell:
    """One number for all processes. Of two additions in the same moment one may be lost; nothing else goes wrong."""

    __slots__ = ("_cells", "_index")

    def __init__(self, area: _Area, index: int) -> None:
        self._cells = area.cells
        self._index = index

    def __repr__(self) -> str:
        return f"<CommonCell {self.get()}>"

    def get(self) -> int:
        """The number now."""
        return int(self._cells[self._index])

    def set(self, value: int) -> None:
        """Write it, for all processes."""
        self._cells[self._index] = value

    def add(self, amount: int) -> int:
        """Add to it; returns the result."""
        value = int(self._cells[self._index]) + amount
        self._cells[self._index] = value
        return value


class SharedLedger:
    """What processes have spent, and a mark that only rises; both hold on when the process that wrote them is gone.

    Each process adds to its own account and raises its own mark, so that nothing is ever lost: ``spent`` is the sum of all,
    ``mark`` the highest. When the supervisor has reaped a process it books them on the accounts of nobody (the common cells).
    """

    __slots__ = ("_area", "_index")

    def __init__(self, area: _Area, index: int) -> None:
        self._area = area
        self._index = index

    def __repr__(self) -> str:
        return f"<SharedLedger {self.spent()} mark {self.mark()}>"

    def spend(self, amount: int) -> None:
        """Add to this process's account."""
        area = self._area
        area.cells[area.own + self._index] += amount

    def spent(self) -> int:
        """The sum of all accounts. What is written meanwhile is in it or not."""
        area = self._area
        cells = area.cells
        return sum(cells[self._index : self._index + (cells[_SEATS_IN_USE] + 1) * AREA_CELLS : AREA_CELLS])

    def raise_mark(self, mark: int) -> None:
        """This process knows of a higher mark."""
        area = self._area
        area.cells[area.own + self._index + 1] = mark

    def mark(self) -> int:
        """The highest mark."""
        area = self._area
        cells = area.cells
        first = self._index + 1
        return max(cells[first : first + (cells[_SEATS_IN_USE] + 1) * AREA_CELLS : AREA_CELLS])

    def close_account(self, start: int) -> None:
        """In the supervisor: the process whose cells begin at ``start`` is gone.

        For a moment what it spent counts twice, and never not at all.
        """
        cells = self._area.cells
        index = self._index
        cells[index] += cells[start + index]
        cells[index + 1] = max(cells[index + 1], cells[start + index + 1])


class SharedBlock:
    """Numbers that belong together, under one name."""

    __slots__ = ("_area", "_index", "count")

    def __init__(self, area: _Area, index: int, count: int) -> None:
        self._area = area
        self._index = index
        self.count = count

    def __repr__(self) -> str:
        return f"<SharedBlock of {self.count}>"

    def number(self, index: int) -> SharedNumber:
        """The number at ``index``, from 0 on."""
        assert 0 <= index < self.count
        return SharedNumber(self._area, self._index + index)


class SharedCells:
    """The shared cells of this program; see the module's text.

    Without a supervisor (a test, a trial run) this process sits on the first seat and is alone.
    """

    def __init__(self) -> None:
        self._areas: list[_Area] = []
        self._places: dict[Name, tuple[_Area, int]] = {}
        self._ledgers: dict[_Area, list[SharedLedger]] = {}
        self._taken: dict[int, int] = {}
        self._seat = 0

    # -- in the supervisor, while a generation is built

    def number(self, kind: str, prefix: str, slot: int = 0) -> SharedNumber:
        """The number of this name."""
        return SharedNumber(*self._place((kind, prefix, slot)))

    def block(self, kind: str, prefix: str, count: int) -> SharedBlock:
        """``count`` numbers under this name, always the same count: 1,000 clusters of them are 1,000 names, not 10,000."""
        return SharedBlock(*self._place((kind, prefix, 0), count), count)

    def common(self, kind: str, prefix: str, slot: int = 0) -> CommonCell:
        """The common cell of this name. A name is of one sort for ever: a number or a common cell."""
        return CommonCell(*self._place((kind, prefix, slot)))

    def ledger(self, kind: str, prefix: str, slot: int = 0) -> SharedLedger:
        """The ledger of this name."""
        name = (kind, prefix, slot)
        is_new = name not in self._places
        ledger = SharedLedger(*self._place(name, 2))
        if is_new:
            self._ledgers.setdefault(self._places[name][0], []).append(ledger)
        return ledger

    def _place(self, name: Name, count: int = 1) -> tuple[_Area, int]:
        place = self._places.get(name)
        if place is None:
            if not self._areas or self._areas[-1].used + count > AREA_CELLS:
                self._areas.append(_Area(self._seat, self._seats_in_use()))
            area = self._areas[-1]
            place = self._places[name] = (area, area.used)
            area.used += count
        return place

    # -- in the supervisor, around a worker's life

    def take_seat(self) -> int:
        """A seat for a process that is about to be forked, the lowest that is free. OSError when all are taken."""
        seat = next((seat for seat in range(SEATS) if seat not in self._taken), None)
        if seat is None:
            raise OSError(errno.EAGAIN, f"there are {SEATS} workers already, those that drain among them")
        self._taken[seat] = len(self._areas)
        self._tell_seats()
        return seat

    def free_seat(self, seat: int) -> None:
        """The process on this seat is gone, or was never born: its cells are zero from now on."""
        known = self._taken.pop(seat)
        start = (seat + 1) * AREA_CELLS
        for area in self._areas[:known]:
            for ledger in self._ledgers.get(area, ()):
                ledger.close_account(start)
            area.cells[start : start + area.used] = memoryview(bytes(area.used * 8)).cast("q")
        self._tell_seats()

    def _seats_in_use(self) -> int:
        return max(self._taken, default=0) + 1

    def _tell_seats(self) -> None:
        in_use = self._seats_in_use()
        for area in self._areas:
            area.cells[_SEATS_IN_USE] = in_use

    # -- in the worker

    def sit(self, seat: int) -> None:
        """After the fork: the cells of ``seat`` are this process's own."""
        self._seat = seat
        for area in self._areas:
            area.own = (seat + 1) * AREA_CELLS

    def close(self) -> None:
        """Give the memory back; for tests. Numbers and cells must not be used any more."""
        for area in self._areas:
            area.close()
        self._areas.clear()
        self._places.clear()
        self._ledgers.clear()
