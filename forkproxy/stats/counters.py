"""Stat groups, and the registry that gives every figure its place in shared memory and its name.

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

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import ClassVar, TypeAlias, TypeVar, cast

from forkproxy.stats import histogram as bins
from forkproxy.stats.histogram import BinnedHistogram, HistogramPair
from forkproxy.stats.slab import HEADER_CELLS, Slab

# A plain figure of a group: write ``group.name += 1``. Counters only grow; of gauges the workers' values are added up.
Counter: TypeAlias = int
Gauge: TypeAlias = int
# A gauge that every worker sets to the same thing (membership_total): the largest value is shown, not the sum.
SharedGauge: TypeAlias = int


class Histogram(dict[int, int]):
    """Samples since the last flush, value → count: ``histogram[ms] += 1``. Whole numbers from 0 on."""

    __slots__ = ()

    def __missing__(self, value: int) -> int:
        return 0


class StatusCodes(dict[int, int]):
    """HTTP status → count since the last flush: ``codes[status] += 1``. Shown as name_404, _4xx and _completed."""

    __slots__ = ()

    def __missing__(self, status: int) -> int:
        return 0


class StatusClasses(StatusCodes):
    """The same on the path, but shown as name_1xx … name_5xx and name_completed only, also while they are zero."""

    __slots__ = ()


class Labels(dict[str, int]):
    """Figures under names known beforehand: ``versions["TLSv1.3"] += 1``. Shown as name.label once not zero.

    The group declares the possible labels in ``labels``; others are counted nowhere.
    """

    __slots__ = ()

    def __missing__(self, label: str) -> int:
        return 0


_PAGE_CELLS = 512
_HISTOGRAM_CELLS = 2 * _PAGE_CELLS
_ARENA_CELLS = 8 * _PAGE_CELLS
# A status-code block is one page: cell i counts status 100 + i; statuses outside 100–599 share the last cell.
_STATUS_CELLS = _PAGE_CELLS
_OTHER_STATUS = 500


class Layout:
    """What a group class consists of: computed once per class from its annotations.

    Cells of a group: counters, gauges, shared gauges; one "used up to" cell per block; six per StatusClasses; one per
    label.
    """

    __slots__ = (
        *(
            "additive",
            "blocks",
            "cells",
            "classes",
            "counters",
            "figures",
            "gauges",
            "getter",
            "histograms",
            "labels",
            "pack",
        ),
        *("shared_gauges", "status_codes"),
    )

    def __init__(self, fields: Mapping[str, str], labels: Mapping[str, tuple[str, ...]]) -> None:
        def of(kind: str) -> tuple[str, ...]:
            return tuple(name for name, its_kind in fields.items() if its_kind == kind)

        self.counters = of("Counter")
        self.gauges = of("Gauge")
        self.shared_gauges = of("SharedGauge")
        self.histograms = of("Histogram")
        self.status_codes = of("StatusCodes")
        self.figures = self.counters + self.gauges + self.shared_gauges
        self.blocks = self.histograms + self.status_codes
        position = len(self.figures) + len(self.blocks)
        self.classes: dict[str, int] = {}
        for name in of("StatusClasses"):
            self.classes[name] = position
            position += 6
        self.labels: dict[str, dict[str, int]] = {}
        for name in of("Labels"):
            self.labels[name] = {label: position + offset for offset, label in enumerate(labels.get(name, ()))}
            position += len(self.labels[name])
        self.cells = position
        additive_tail = position - len(self.figures) - len(self.blocks)
        no_sums = len(self.gauges) + len(self.shared_gauges) + len(self.blocks)
        self.additive = (True,) * len(self.counters) + (False,) * no_sums + (True,) * additive_tail
        self.pack = struct.Struct(f"={len(self.figures)}q").pack_into
        self.getter = _getter_of(self.figures)


def _getter_of(names: tuple[str, ...]) -> Callable[[object], tuple[int, ...]]:
    if not names:
        return lambda group: ()
    if len(names) == 1:
        single = attrgetter(names[0])
        return lambda group: (single(group),)
    return cast("Callable[[object], tuple[int, ...]]", attrgetter(*names))


_KINDS = frozenset({"Counter", "Gauge", "SharedGauge", "Histogram", "StatusCodes", "StatusClasses", "Labels"})


class StatGroupType(type):
    """Turns a group's annotations into slots and a layout."""

    layout: Layout
    fields: dict[str, str]

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, object]) -> StatGroupType:
        own: dict[str, str] = {}
        annotations = cast("dict[str, object]", namespace.get("__annotations__", {}))
        for field, annotation in annotations.items():
            kind = str(annotation).rpartition(".")[2]
            if kind in _KINDS:
                own[field] = kind
            elif not str(annotation).rpartition("typing.")[2].startswith("ClassVar"):
                raise TypeError(
                    f"{name}.{field}: {annotation!r} is no kind of statistic; the module that declares a group needs "
                    "'from __future__ import annotations'"
                )
        namespace["__slots__"] = tuple(own)
        cls = super().__new__(mcs, name, bases, namespace)
        inherited: dict[str, str] = {}
        for base in reversed(bases):
            inherited.update(getattr(base, "fields", {}))
        cls.fields = inherited | own
        cls.layout = Layout(cls.fields, cast("Mapping[str, tuple[str, ...]]", getattr(cls, "labels", {})))
        return cls


_FRESH: dict[str, Callable[[], object]] = {
    "Histogram": Histogram,
    "StatusCodes": StatusCodes,
    "StatusClasses": StatusClasses,
    "Labels": Labels,
}


class StatGroup(metaclass=StatGroupType):
    """Figures that one thing counts; subclasses annotate them.

        class ClusterStats(StatGroup):
            upstream_rq_total: Counter
            upstream_rq_active: Gauge
            upstream_cx_length_ms: Histogram
            upstream_rq: StatusCodes
            circuit_breakers__default__cx_open: Gauge      # "__" is a dot in the name

    Everything starts at zero. ``totals`` names stats that are sums: attribute → the stat name it also counts towards.
    ``labels``: for each Labels attribute, the labels it may count. ``bare``: the stat's name is the prefix alone.
    ``hidden``: not in /stats; the plain figures are in ``Snapshot.hidden``.
    """

    layout: ClassVar[Layout]
    fields: ClassVar[dict[str, str]]
    totals: ClassVar[Mapping[str, str]] = {}
    labels: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    bare: ClassVar[bool] = False
    hidden: ClassVar[bool] = False

    def __init__(self) -> None:
        for name, kind in type(self).fields.items():
            fresh = _FRESH.get(kind)
            setattr(self, name, fresh() if fresh else 0)

    def __repr__(self) -> str:
        told = (f"{name}={getattr(self, name)}" for name in type(self).fields if getattr(self, name))
        return f"<{type(self).__name__} {' '.join(told)}>"


class CounterValue(StatGroup):
    """One counter under a name of its own: ``counter.value += 1``."""

    bare = True
    value: Counter


class GaugeValue(StatGroup):
    """One gauge under a name of its own; the workers' values are added up."""

    bare = True
    value: Gauge


class HistogramValue(StatGroup):
    """One histogram under a name of its own: ``histogram.value[ms] += 1``."""

    bare = True
    value: Histogram


G = TypeVar("G", bound=StatGroup)


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


class Snapshot:
    """All figures of one moment by name: ``counters``, ``gauges``, ``histograms``, and what hidden groups counted."""

    __slots__ = ("counters", "gauges", "hidden", "histograms")

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.gauges: dict[str, int] = {}
        self.hidden: dict[str, int] = {}
        self.histograms: dict[str, HistogramPair] = {}


class _Generation:
    """The groups that one configuration uses: objects for the workers to count on, by (class, prefix)."""

    __slots__ = ("flushers", "groups")

    def __init__(self) -> None:
        self.groups: dict[tuple[type[StatGroup], str], StatGroup] = {}
        self.flushers: list[_Flusher] = []


class Registry:
    """Names and places of all statistics of this program; see the module's text for its life.

    ``cells``: how many cells a slab needs now. A slab made earlier stays good for the process that was forked with it.
    """

    def __init__(self) -> None:
        self.cells = HEADER_CELLS
        self._arena_next = self._arena_end = 0
        self._placements: dict[tuple[type[StatGroup], str], _Placement] = {}
        self._generation = _Generation()
        self._before: _Generation | None = None
        self._local = _Generation()
        # What dead workers counted, less what /reset_counters took away.
        self._base: dict[_Placement, list[int]] = {}
        self._base_blocks: dict[int, dict[int, int]] = {}
        self._at_last_interval: dict[int, BinnedHistogram] = {}
        self._intervals: dict[int, BinnedHistogram] = {}

    # Building

    def begin_generation(self) -> None:
        """A new configuration is about to be built: the groups asked for from now on are what it uses."""
        self._before, self._generation = self._generation, _Generation()

    def abandon_generation(self) -> None:
        """The build failed: go back to the groups of the configuration before."""
        if self._before is not None:
            self._generation, self._before = self._before, None

    def group(self, cls: type[G], prefix: str, *, rolls_up_to: Iterable[str] = ()) -> G:
        """The group of this class under ``prefix`` for workers to count on, the same one each time within a generation.

        ``rolls_up_to``: further prefixes under which the figures appear as sums, such as ``http.ingress`` for
        ``listener.127.0.0.1_80.http.ingress``; costs nothing on the path. To be called in the supervisor, before fork.
        """
        return self._group(self._generation, cls, prefix, rolls_up_to)

    def local_group(self, cls: type[G], prefix: str) -> G:
        """A group that the supervisor itself counts on (server.*, listener_manager.*, DNS).

        It outlives generations, needs no slab and no flush, and adds up with what workers count under the same name.
        """
        return self._group(self._local, cls, prefix, ())

    def counter(self, name: str) -> CounterValue:
        """A single counter named ``name``, for filters that are not ours: ``.value += 1``."""
        return self.group(CounterValue, name)

    def gauge(self, name: str) -> GaugeValue:
        """A single gauge named ``name``."""
        return self.group(GaugeValue, name)

    def histogram(self, name: str) -> HistogramValue:
        """A single histogram named ``name``: ``.value[sample] += 1``."""
        return self.group(HistogramValue, name)

    def _group(self, generation: _Generation, cls: type[G], prefix: str, rolls_up_to: Iterable[str]) -> G:
        key = (cls, prefix)
        group = generation.groups.get(key)
        if group is None:
            placement = self._placements.get(key)
            if placement is None:
                placement = self._placements[key] = self._place(cls, prefix)
            placement.rolls_up_to = tuple(rolls_up_to)
            group = generation.groups[key] = cls()
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
        memory = slab.memory
        for flusher in self._generation.flushers:
            values = flusher.getter(flusher.group)
            if values != flusher.last:
                flusher.last = values
                flusher.placement.cls.layout.pack(memory, flusher.offset, *values)
            for table, name in flusher.tables:
                if table:
                    _flush_table(flusher.placement, name, table, slab.cells)
                    table.clear()

    # Reading

    def read(self, slabs: Sequence[Slab], *, with_base: bool = True) -> Snapshot:
        """All figures of the current generation, summed over ``slabs``.

        ``with_base=False`` leaves out what dead workers and the supervisor counted: with one slab, one worker's view.
        """
        snapshot = Snapshot()
        self._collect_local()
        for placement in self._live():
            row = self._row(placement, slabs, with_base)
            blocks = [self._block(up_to, first, slabs, with_base) for up_to, first in placement.block_cells()]
            prefixes = (placement.prefix, *placement.rolls_up_to)
            for prefix in prefixes:
                self._name(snapshot, placement, prefix, row, blocks)
        return snapshot

    def absorb(self, slab: Slab) -> None:
        """Keep a dead process's counters and histograms; its gauges end with it. The slab may be closed afterwards."""
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

    def reset_counters(self, slabs: Sequence[Slab]) -> None:
        """Counters start again from zero; gauges and histograms stay, as in Envoy."""
        self._collect_local()
        for placement in self._placements.values():
            layout = placement.cls.layout
            old = self._base.get(placement) or [0] * layout.cells
            row = [total - base for total, base in zip(self._row(placement, slabs, True), old, strict=True)]
            self._base[placement] = [-v if additive else 0 for v, additive in zip(row, layout.additive, strict=True)]
            codes = list(placement.block_cells())[len(layout.histograms) :]
            for up_to, first in codes:
                counted = self._block(up_to, first, slabs, False)
                self._base_blocks[first] = {position: -value for position, value in counted.items()}

    def end_interval(self, slabs: Sequence[Slab]) -> None:
        """A stats flush interval (Envoy's stats_flush_interval) is over.

        What came in since the last call is the interval that histograms show from now on.
        """
        self._collect_local()
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
        """A block's cells that are not zero, by their position, summed."""
        counted: dict[int, int] = dict(self._base_blocks.get(first, ())) if with_base else {}
        for slab in slabs:
            if up_to < len(slab) and slab.cells[up_to]:
                for position, value in enumerate(slab.cells[first : first + slab.cells[up_to]].tolist()):
                    if value:
                        counted[position] = counted.get(position, 0) + value
        return {position: value for position, value in counted.items() if value}

    def _name(
        self, snapshot: Snapshot, placement: _Placement, prefix: str, row: list[int], blocks: list[dict[int, int]]
    ) -> None:
        """Enter one group's figures into the snapshot under ``prefix``, adding to what is there."""
        cls = placement.cls
        layout = cls.layout
        dotted = f"{prefix}." if prefix else ""

        def names(attribute: str) -> list[str]:
            if cls.bare:
                return [prefix]
            total = cls.totals.get(attribute)
            own = dotted + attribute.replace("__", ".")
            return [own] if total is None else [own, dotted + total]

        counters, gauges = snapshot.counters, snapshot.gauges
        if cls.hidden:
            counters = gauges = snapshot.hidden
        for position, attribute in enumerate(layout.figures):
            figures = counters if position < len(layout.counters) else gauges
            for name in names(attribute):
                figures[name] = figures.get(name, 0) + row[position]
        for attribute, first, bin_counts in zip(layout.histograms, placement.blocks, blocks, strict=False):
            if attribute in cls.totals and not bin_counts:
                continue
            for name in names(attribute):
                pair = snapshot.histograms.setdefault(name, HistogramPair(BinnedHistogram(), BinnedHistogram()))
                pair.cumulative.merge(BinnedHistogram(bin_counts))
                pair.interval.merge(self._intervals.get(first, BinnedHistogram()))
        for attribute, codes in zip(layout.status_codes, blocks[len(layout.histograms) :], strict=True):
            for name in names(attribute):
                if cls.totals.get(attribute) and name == dotted + cls.totals[attribute]:
                    counters.setdefault(f"{name}_completed", 0)  # Envoy has this one from the start
                for figure, value in _status_names(name, codes):
                    counters[figure] = counters.get(figure, 0) + value
        for attribute, start in layout.classes.items():
            for name in names(attribute):
                for number in range(1, 6):
                    figure = f"{name}_{number}xx"
                    counters[figure] = counters.get(figure, 0) + row[start + number - 1]
                figure = f"{name}_completed"
                counters[figure] = counters.get(figure, 0) + sum(row[start : start + 6])
        for attribute, labels in layout.labels.items():
            for label, position in labels.items():
                if row[position]:
                    for name in names(attribute):
                        counters[f"{name}.{label}"] = counters.get(f"{name}.{label}", 0) + row[position]


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
            yield number, bins.bin_index(value), count
    else:
        for status, count in counts.items():
            yield number, status - 100 if 100 <= status <= 599 else _OTHER_STATUS, count


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


def _status_names(name: str, codes: Mapping[int, int]) -> Iterator[tuple[str, int]]:
    """Envoy's stats for counted status codes: one per code, one per class, the sum; none while nothing was counted."""
    if not codes:
        return
    classes: dict[int, int] = {}
    for position, count in codes.items():
        if position != _OTHER_STATUS:
            yield f"{name}_{position + 100}", count
            classes[position // 100 + 1] = classes.get(position // 100 + 1, 0) + count
    for number, count in classes.items():
        yield f"{name}_{number}xx", count
    yield f"{name}_completed", sum(codes.values())
