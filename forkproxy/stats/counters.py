"""The registry that gives every figure its place in shared memory, and what a module that counts needs to import.

The rule: on a request's path a statistic is ``group.upstream_rq_total += 1`` (26 ns) and nothing else; no name, no
lock, no shared memory. A timer in each worker copies the groups that changed into the worker's slab (slab.py), at C
speed: 1,000 clusters of 120 figures take 2 ms idle, 13 ms when every one of them changed. Names are made when somebody
reads: ``upstream_rq[404] += 1`` becomes Envoy's ``upstream_rq_404``, ``_4xx`` and ``_completed``, and what is a sum of
others (``upstream_rq`` of ``external.upstream_rq`` and ``internal.upstream_rq``) is never counted.

How it lives: the supervisor owns one Registry for its whole life. While it builds a generation, filters and clusters
ask for their groups; same class and same prefix always give the same cells, so that a counter goes on over a reload. Forked
workers inherit registry and groups, and ``flush``. The supervisor ``read``s all slabs; when a worker has ended it
``absorb``s the slab, so that counters never go back (gauges of the dead are dropped).

Layout: a group's plain figures are consecutive cells. A histogram or a table of status codes has a block of pages of its
own, touched only from the first sample on, and one cell beside the plain figures that says how far the block is in use:
readers must not touch the rest, since reading an untouched page of a shared mapping allocates it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypedDict, TypeVar, cast

from forkproxy.stats.dynamic import CELLS as DYNAMIC_CELLS
from forkproxy.stats.dynamic import DynamicStats, DynamicTotals
from forkproxy.stats.group import (
    OTHER_STATUS,
    Counter,
    CounterValue,
    Gauge,
    GaugeValue,
    Histogram,
    HistogramValue,
    Labels,
    Layout,
    SharedGauge,
    StatGroup,
    StatusClasses,
    StatusCodes,
    keep_nothing,
)
from forkproxy.stats.histogram import BinnedHistogram, bin_index
from forkproxy.stats.shared import SharedCells
from forkproxy.stats.slab import HEADER_CELLS, Slab
from forkproxy.stats.snapshot import Snapshot, enter

__all__ = [
    "Counter",
    "CounterValue",
    "Gauge",
    "GaugeValue",
    "Histogram",
    "HistogramValue",
    "Labels",
    "NameFilter",
    "Registry",
    "SharedGauge",
    "Snapshot",
    "StatGroup",
    "StatusClasses",
    "StatusCodes",
]

_PAGE_CELLS = 512
_ARENA_CELLS = 8 * _PAGE_CELLS
_HISTOGRAM_CELLS = 2 * _PAGE_CELLS
_STATUS_CELLS = _PAGE_CELLS
_NOTHING = BinnedHistogram()
_DYNAMIC = "dynamic"
"""The group that a statistic without one has in what is told to another supervisor."""

G = TypeVar("G", bound=StatGroup)


class Totals(TypedDict):
    """A group's figures by name: ``cells`` as Layout.positions() has them, ``blocks`` as (position, count)."""

    group: str
    prefix: str
    cells: dict[str, int]
    blocks: dict[str, list[tuple[int, int]]]


class NameFilter(Protocol):
    """Which statistics there are, by name (``stats_matcher``)."""

    def __call__(self, name: str) -> bool:
        """Is there a statistic of this name?"""

    def refuses_all(self, beginning: str) -> bool:
        """Is it certain that there is none whose name begins so?"""


class _Placement:
    """Where one group lies: ``start`` is its first cell, ``blocks`` those of its blocks, in the layout's order."""

    __slots__ = ("blocks", "cls", "prefix", "rolls_up_to", "start")

    def __init__(self, cls: type[StatGroup], prefix: str, start: int, blocks: tuple[int, ...]) -> None:
        self.cls = cls
        self.prefix = prefix
        self.start = start
        self.blocks = blocks
        self.rolls_up_to: tuple[str, ...] = ()

    @property
    def end(self) -> int:
        return self.start + self.cls.layout.cells

    def block_cells(self) -> Iterator[tuple[int, int]]:
        """(cell that says how far the block is in use, block's first cell) of each block."""
        return enumerate(self.blocks, self.start + len(self.cls.layout.figures))


class _Flusher:
    """One live group and what was last written of it."""

    __slots__ = ("getter", "group", "last", "offset", "placement", "tables")

    def __init__(self, group: StatGroup, placement: _Placement) -> None:
        layout = placement.cls.layout
        self.group = group
        self.placement = placement
        self.getter = layout.getter
        self.offset = placement.start * 8
        self.last = (0,) * len(layout.figures)
        names = (*layout.blocks, *layout.classes, *layout.labels)
        self.tables: tuple[tuple[dict[int, int] | dict[str, int], str], ...] = tuple(
            (getattr(group, name), name) for name in names
        )


class _Generation:
    """The groups that one configuration uses: objects for the workers to count on, by (class, prefix).

    ``shows``: which statistics there are; None: all.
    """

    __slots__ = ("flushers", "groups", "shows")

    def __init__(self) -> None:
        self.shows: NameFilter | None = None
        self.groups: dict[tuple[type[StatGroup], str], StatGroup] = {}
        self.flushers: list[_Flusher] = []


class Registry:
    """Names and places of all statistics of this program; see the module's text for its life.

    ``cells``: how many cells a slab needs now. A slab made earlier stays good for the process that was forked with it.
    ``shared``: the cells through which the workers know of each other; they are asked for while a generation is built, too.
    """

    def __init__(self) -> None:
        self.cells = HEADER_CELLS
        self.shared = SharedCells()
        self.dynamic = DynamicStats()
        self._dynamic_totals = DynamicTotals()
        self._arena_next = self._arena_end = 0
        self._placements: dict[tuple[type[StatGroup], str], _Placement] = {}
        self._generation = _Generation()
        self._before: _Generation | None = None
        self._local = _Generation()
        # What dead workers counted, less what /reset_counters took away.
        self._base: dict[_Placement, list[int]] = {}
        self._base_blocks: dict[int, dict[int, int]] = {}
        self._placed: dict[tuple[str, str], _Placement] = {}
        self._carried: dict[tuple[str, str], Totals] = {}
        self._at_last_interval: dict[int, BinnedHistogram] = {}
        self._intervals: dict[int, BinnedHistogram] = {}

    # Building

    def begin_generation(self) -> None:
        """A new configuration is about to be built: the groups asked for from now on are what it uses."""
        self._before, self._generation = self._generation, _Generation()

    def show_only(self, shows: NameFilter | None) -> None:
        """Of the generation that has just begun: statistics with other names do not exist, and cost as little as can be."""
        self._generation.shows = shows

    def abandon_generation(self) -> None:
        """The build failed: go back to the groups of the configuration before."""
        if self._before is not None:
            self._generation, self._before = self._before, None

    def group(
        self, cls: type[G], prefix: str, *, rolls_up_to: Iterable[str] = (), make: Callable[[], G] | None = None
    ) -> G:
        """The group of this class under ``prefix`` for workers to count on, the same one each time within a generation.

        ``rolls_up_to``: further prefixes under which the figures appear as sums, such as ``http.ingress`` for
        ``listener.127.0.0.1_80.http.ingress``; costs nothing on the path. To be called in the supervisor, before fork.
        ``make``: what makes the object, of a class below ``cls``, when nobody has asked for the group before.
        """
        return self._group(self._generation, cls, prefix, rolls_up_to, make)

    def local_group(self, cls: type[G], prefix: str, *, rolls_up_to: Iterable[str] = ()) -> G:
        """A group that the supervisor itself counts on (server.*, listener_manager.*, DNS).

        It outlives generations, needs no slab and no flush, and adds up with what workers count under the same name.
        """
        return self._group(self._local, cls, prefix, rolls_up_to)

    def figures(self, cls: type[StatGroup], prefix: str, slabs: Sequence[Slab]) -> dict[str, int]:
        """The plain figures of one group, summed over ``slabs`` and what ended workers counted; {} without such a group."""
        placement = self._placements.get((cls, prefix))
        if placement is None:
            return {}
        return dict(zip(cls.layout.figures, self._row(placement, slabs, True), strict=False))

    def forget_local(self, prefix: str) -> None:
        """What the local groups of this prefix count on is gone: they are shown no more, and begin anew when asked for."""
        local = self._local
        for key in [key for key in local.groups if key[1] == prefix]:
            group = local.groups.pop(key)
            local.flushers = [flusher for flusher in local.flushers if flusher.group is not group]

    def counter(self, name: str) -> CounterValue:
        """A single counter named ``name``, for filters that are not ours: ``.value += 1``."""
        return self.group(CounterValue, name)

    def gauge(self, name: str) -> GaugeValue:
        """A single gauge named ``name``."""
        return self.group(GaugeValue, name)

    def histogram(self, name: str) -> HistogramValue:
        """A single histogram named ``name``: ``.value[sample] += 1``."""
        return self.group(HistogramValue, name)

    def use_dynamic(self) -> DynamicStats:
        """Where workers count what has its name only then (dynamic.py). To be called in the supervisor, before fork."""
        if self.dynamic.start is None:
            self.dynamic.start = self._take_pages(DYNAMIC_CELLS)
        return self.dynamic

    def _group(
        self,
        generation: _Generation,
        cls: type[G],
        prefix: str,
        rolls_up_to: Iterable[str],
        make: Callable[[], G] | None = None,
    ) -> G:
        key = (cls, prefix)
        group = generation.groups.get(key)
        if group is None and generation.shows is not None and _is_refused(generation.shows, cls, prefix, rolls_up_to):
            group = generation.groups[key] = cls() if make is None else make()
            keep_nothing(group)
        if group is None:
            placement = self._placements.get(key)
            if placement is None:
                placement = self._placements[key] = self._place(cls, prefix)
                name = cls.__name__, prefix
                self._placed[name] = placement
                carried = self._carried.get(name)
                if carried is not None:
                    self._add(placement, carried, None)
            placement.rolls_up_to = tuple(rolls_up_to)
            group = generation.groups[key] = cls() if make is None else make()
            generation.flushers.append(_Flusher(group, placement))
        return cast("G", group)

    def _place(self, cls: type[StatGroup], prefix: str) -> _Placement:
        layout = cls.layout
        if self._arena_next + layout.cells > self._arena_end:
            arena = max(_ARENA_CELLS, layout.cells)
            self._arena_next = self._take_pages(arena)
            self._arena_end = self._arena_next + arena
        start = self._arena_next
        self._arena_next += layout.cells
        blocks = [self._take_pages(_HISTOGRAM_CELLS) for _ in layout.histograms]
        blocks += [self._take_pages(_STATUS_CELLS) for _ in layout.status_codes]
        return _Placement(cls, prefix, start, tuple(blocks))

    def _take_pages(self, cells: int) -> int:
        """Room for ``cells`` that begins on a page, at the end of all that is placed."""
        start = -(-self.cells // _PAGE_CELLS) * _PAGE_CELLS
        self.cells = start + cells
        return start

    # Writing

    def flush(self, slab: Slab) -> None:
        """In a worker: bring its slab up to date. A cluster that did not change costs 2 µs."""
        self._flush(self._generation.flushers, slab)
        self.dynamic.flush(slab)

    def _flush(self, flushers: Iterable[_Flusher], slab: Slab) -> None:
        memory = slab.memory
        for flusher in flushers:
            values = flusher.getter(flusher.group)
            if values != flusher.last:
                flusher.last = values
                flusher.placement.cls.layout.pack(memory, flusher.offset, *values)
            for table, name in flusher.tables:
                if table:
                    _flush_table(flusher.placement, name, table, slab.cells)
                    table.clear()

    def flush_groups(self, slab: Slab, groups: Iterable[StatGroup]) -> None:
        """The same for a few groups, in a process that is no worker and must not tell what it does not know."""
        wanted = {id(group) for group in groups}
        self._flush([flusher for flusher in self._generation.flushers if id(flusher.group) in wanted], slab)

    # Reading

    def read(self, slabs: Sequence[Slab], *, with_base: bool = True) -> Snapshot:
        """All figures of the current generation, summed over ``slabs``.

        ``with_base=False`` leaves out what dead workers and the supervisor counted: with one slab, one worker's view.
        """
        snapshot = Snapshot()
        self._collect_local()
        for placement in self._live():
            row = self._row(placement, slabs, with_base)
            base = self._base.get(placement) if with_base else None
            written = [a or b for a, b in zip(row, base, strict=True)] if base else row
            blocks = [self._block(up_to, first, slabs, with_base) for up_to, first in placement.block_cells()]
            intervals = [
                self._intervals.get(first, _NOTHING)
                for first in placement.blocks[: len(placement.cls.layout.histograms)]
            ]
            prefixes = (placement.prefix, *placement.rolls_up_to)
            for prefix in prefixes:
                enter(snapshot, placement.cls, prefix, row, written, blocks, intervals)
        if self.dynamic.start is not None:
            self._dynamic_totals.enter(snapshot, slabs, self.dynamic.start, with_base=with_base)
        if self._generation.shows is not None:
            snapshot.keep_only(self._generation.shows)
        return snapshot

    def absorb(self, slab: Slab) -> None:
        """Keep a dead process's counters and histograms; its gauges end with it. The slab may be closed afterwards."""
        if self.dynamic.start is not None:
            self._dynamic_totals.absorb(slab, self.dynamic.start)
        for placement in self._placements.values():
            if placement.end > len(slab):
                continue
            row = slab.cells[placement.start : placement.end].tolist()
            if not any(row):
                continue
            base = self._base.setdefault(placement, [0] * len(row))
            for position, (value, additive) in enumerate(zip(row, placement.cls.layout.additive, strict=True)):
                if additive:
                    base[position] += value
            for up_to, first in placement.block_cells():
                kept = self._base_blocks.setdefault(first, {})
                for position, value in enumerate(slab.cells[first : first + slab.cells[up_to]].tolist()):
                    if value:
                        kept[position] = kept.get(position, 0) + value

    # Taking over from another supervisor

    def totals(self, slabs: Sequence[Slab]) -> list[Totals]:
        """All figures as sums, for a supervisor that takes over, JSON-ready. Only what is not zero."""
        self._collect_local()
        found: list[Totals] = []
        for (cls, prefix), placement in self._placements.items():
            layout = cls.layout
            row = self._row(placement, slabs, True)
            is_local = (cls, prefix) in self._local.groups
            cells = {
                name: row[position]
                for name, position in layout.positions().items()
                if row[position] and (layout.additive[position] or not is_local)
            }
            blocks = {
                name: list(self._block(up_to, first, slabs, True).items())
                for name, (up_to, first) in zip(layout.blocks, placement.block_cells(), strict=True)
            }
            blocks = {name: block for name, block in blocks.items() if block}
            if cells or blocks:
                found.append({"group": cls.__name__, "prefix": prefix, "cells": cells, "blocks": blocks})
        if self.dynamic.start is not None:
            counters = self._dynamic_totals.counters(slabs, self.dynamic.start)
            histograms = self._dynamic_totals.histograms(slabs, self.dynamic.start)
            counted = {name: list(bins.items()) for name, bins in histograms.items()}
            found.append({"group": _DYNAMIC, "prefix": "", "cells": counters, "blocks": counted})
        return found

    def carry(self, totals: Iterable[Totals]) -> None:
        """What another supervisor's ``totals`` are by now: they count here too, those of a later call instead of an earlier
        one's. A group that is not in use here is kept for the configuration that uses it."""
        for entry in totals:
            key = (entry["group"], entry["prefix"])
            before = self._carried.get(key)
            self._carried[key] = entry
            if entry["group"] == _DYNAMIC:
                self._carry_dynamic(entry, 1)
                if before is not None:
                    self._carry_dynamic(before, -1)
                continue
            placement = self._placed.get(key)
            if placement is not None:
                self._add(placement, entry, before)

    def _carry_dynamic(self, totals: Totals, sign: int) -> None:
        self.use_dynamic()
        counters = {name: sign * count for name, count in totals["cells"].items()}
        blocks = totals["blocks"].items()
        histograms = {name: {position: sign * count for position, count in block} for name, block in blocks}
        self._dynamic_totals.add(counters, histograms)

    def forget_carried_gauges(self) -> None:
        """The other supervisor has gone: its gauges count no more."""
        for key, before in self._carried.items():
            placement = self._placed.get(key)
            if placement is not None:
                gauges = placement.cls.layout.gauges
                cells = {name: value for name, value in before["cells"].items() if name not in gauges}
                entry: Totals = {**before, "cells": cells}
                self._carried[key] = entry
                self._add(placement, entry, before)

    def _add(self, placement: _Placement, totals: Totals, before: Totals | None) -> None:
        """Add to what is kept the difference of two totals."""
        layout = placement.cls.layout
        base = self._base.setdefault(placement, [0] * layout.cells)
        old_cells = before["cells"] if before is not None else {}
        for name, position in layout.positions().items():
            if name not in layout.shared_gauges:
                base[position] += totals["cells"].get(name, 0) - old_cells.get(name, 0)
        for name, (_up_to, first) in zip(layout.blocks, placement.block_cells(), strict=True):
            old = dict(before["blocks"].get(name, ())) if before is not None else {}
            for position, value in totals["blocks"].get(name, ()):
                kept = self._base_blocks.setdefault(first, {})
                kept[position] = kept.get(position, 0) + value - old.get(position, 0)

    def reset_counters(self, slabs: Sequence[Slab]) -> None:
        """Counters start again from zero; gauges and histograms stay, as in Envoy."""
        self._collect_local()
        if self.dynamic.start is not None:
            self._dynamic_totals.reset_counters(slabs, self.dynamic.start)
        for placement in self._placements.values():
            layout = placement.cls.layout
            old = self._base.get(placement) or [0] * layout.cells
            row = [total - base for total, base in zip(self._row(placement, slabs, True), old, strict=True)]
            self._base[placement] = [
                -value if additive else base for value, base, additive in zip(row, old, layout.additive, strict=True)
            ]
            codes = list(placement.block_cells())[len(layout.histograms) :]
            for up_to, first in codes:
                counted = self._block(up_to, first, slabs, False)
                self._base_blocks[first] = {position: -value for position, value in counted.items()}

    def end_interval(self, slabs: Sequence[Slab]) -> None:
        """A stats flush interval (Envoy's stats_flush_interval) is over.

        What came in since the last call is the interval that histograms show from now on.
        """
        self._collect_local()
        if self.dynamic.start is not None:
            self._dynamic_totals.end_interval(slabs, self.dynamic.start)
        for placement in self._live():
            for up_to, first in list(placement.block_cells())[: len(placement.cls.layout.histograms)]:
                if first not in self._base_blocks and not any(
                    up_to < len(slab) and slab.cells[up_to] for slab in slabs
                ):
                    continue
                now = BinnedHistogram(self._block(up_to, first, slabs, True))
                before = self._at_last_interval.get(first)
                self._intervals[first] = now.since(before) if before else now
                self._at_last_interval[first] = now

    def _live(self) -> list[_Placement]:
        flushers = (*self._local.flushers, *self._generation.flushers)
        return list(dict.fromkeys(flusher.placement for flusher in flushers))

    def _collect_local(self) -> None:
        """Take over the supervisor's own samples into what is kept."""
        for flusher in self._local.flushers:
            placement = flusher.placement
            layout = placement.cls.layout
            for table, name in flusher.tables:
                for number, position, count in _positions(layout, name, table):
                    if number is None:
                        self._base.setdefault(placement, [0] * layout.cells)[position] += count
                    else:
                        kept = self._base_blocks.setdefault(placement.blocks[number], {})
                        kept[position] = kept.get(position, 0) + count
                table.clear()

    def _row(self, placement: _Placement, slabs: Sequence[Slab], with_base: bool) -> list[int]:
        start, end = placement.start, placement.end
        rows: list[list[int]] = [slab.cells[start:end].tolist() for slab in slabs if end <= len(slab)]
        base = self._base.get(placement) if with_base else None
        if base:
            rows.append(base)
        local = self._local.groups.get((placement.cls, placement.prefix)) if with_base else None
        if local:
            figures = placement.cls.layout.getter(local)
            rows.append([*figures, *[0] * (end - start - len(figures))])
        if not rows:
            return [0] * (end - start)
        if len(rows) == 1:
            return rows[0]
        totals = [sum(column) for column in zip(*rows, strict=True)]
        layout = placement.cls.layout
        for position in range(len(layout.figures) - len(layout.shared_gauges), len(layout.figures)):
            totals[position] = max(row[position] for row in rows)
        return totals

    def _block(self, up_to: int, first: int, slabs: Sequence[Slab], with_base: bool) -> dict[int, int]:
        """A block's cells that were ever written, by their position, summed."""
        counted: dict[int, int] = dict(self._base_blocks.get(first, ())) if with_base else {}
        for slab in slabs:
            if up_to < len(slab) and slab.cells[up_to]:
                for position, value in enumerate(slab.cells[first : first + slab.cells[up_to]].tolist()):
                    if value:
                        counted[position] = counted.get(position, 0) + value
        return counted


def _is_refused(shows: NameFilter, cls: type[StatGroup], prefix: str, rolls_up_to: Iterable[str]) -> bool:
    # The figures of endpoints are for /clusters, and no statistics.
    if cls.hidden:
        return False
    if cls.bare:
        return not shows(prefix)
    return all(shows.refuses_all(f"{each}.") for each in (prefix, *rolls_up_to))


def _positions(
    layout: Layout, name: str, table: Mapping[int, int] | Mapping[str, int]
) -> Iterator[tuple[int | None, int, int]]:
    """Where a table's entries are kept: (block number or None for the group's own cells, position there, count)."""
    if name in layout.labels:
        labels = layout.labels[name]
        for label, count in cast("Mapping[str, int]", table).items():
            if label in labels:
                yield None, labels[label], count
        return
    counts = cast("Mapping[int, int]", table)
    if name in layout.classes:
        first = layout.classes[name]
        for status, count in counts.items():
            yield None, first + (status // 100 - 1 if 100 <= status <= 599 else 5), count
        return
    number = layout.blocks.index(name)
    if number < len(layout.histograms):
        for value, count in counts.items():
            yield number, bin_index(value), count
    else:
        for status, count in counts.items():
            yield number, status - 100 if 100 <= status <= 599 else OTHER_STATUS, count


def _flush_table(placement: _Placement, name: str, table: dict[int, int] | dict[str, int], cells: memoryview) -> None:
    """Add what a table holds to its cells, and say how far its block is in use."""
    layout = placement.cls.layout
    for number, position, count in _positions(layout, name, table):
        if number is None:
            cells[placement.start + position] += count
        else:
            cells[placement.blocks[number] + position] += count
            up_to = placement.start + len(layout.figures) + number
            if cells[up_to] <= position:
                cells[up_to] = position + 1
