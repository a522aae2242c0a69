"""Statistics whose names show only while requests are served: of an alternative stat name, of a pair of zones.

All others have their place before the workers are forked. These find one in the slab when they are counted first: the region has
a list of names with their counters, written from the front, and blocks for the histograms among them. It is as large as
``MAX_NAMES`` and ``MAX_HISTOGRAMS`` of one worker process need; what comes later is not counted, for names may be a client's.
Pages that nobody writes cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from forkproxy.stats.group import Histogram
from forkproxy.stats.histogram import BinnedHistogram, HistogramPair, bin_index
from forkproxy.stats.slab import Slab
from forkproxy.stats.snapshot import Snapshot

MAX_NAMES = 1023
MAX_HISTOGRAMS = 64
MAX_NAME_BYTES = 232

_ENTRY_CELLS = 32
_BLOCK_CELLS = 1024
_COUNTER = -1

CELLS = (MAX_NAMES + 1) * _ENTRY_CELLS + MAX_HISTOGRAMS * _BLOCK_CELLS
"""Of the region. Its first cell says how many names there are. An entry: value, or the number of the histogram's block behind
the entries; kind; bytes of the name; the name."""


class _Counts(dict[str, int]):
    __slots__ = ()

    def __missing__(self, name: str) -> int:
        return 0


class _Times(dict[str, Histogram]):
    __slots__ = ()

    def __missing__(self, name: str) -> Histogram:
        made = self[name] = Histogram()
        return made


class DynamicStats:
    """What a worker counts: ``counters[name] += 1``, ``histograms[name][milliseconds] += 1``. ``start``: the region's first
    cell; None: there is none, and nothing may be counted."""

    __slots__ = ("_entries", "_histograms", "counters", "histograms", "start")

    def __init__(self) -> None:
        self.start: int | None = None
        self.counters = _Counts()
        self.histograms = _Times()
        self._entries: dict[str, int] = {}
        self._histograms = 0

    def flush(self, slab: Slab) -> None:
        """Bring the slab up to date."""
        start = self.start
        if start is None or not (self.counters or self.histograms):
            return
        if start + CELLS <= len(slab):
            cells = slab.cells
            for name, count in self.counters.items():
                entry = self._entry(slab, start, name, is_histogram=False)
                if entry:
                    cells[entry] += count
            for name, histogram in self.histograms.items():
                entry = self._entry(slab, start, name, is_histogram=True)
                if entry:
                    block = _block(start, cells[entry])
                    for value, count in histogram.items():
                        cells[block + bin_index(value)] += count
        self.counters.clear()
        self.histograms.clear()

    def _entry(self, slab: Slab, start: int, name: str, *, is_histogram: bool) -> int:
        # The first cell of the name's entry; 0: there is no room.
        entry = self._entries.get(name)
        if entry is not None:
            return entry
        used = slab.cells[start]
        encoded = name.encode()
        has_no_room = used >= MAX_NAMES or (is_histogram and self._histograms >= MAX_HISTOGRAMS)
        if has_no_room or len(encoded) > MAX_NAME_BYTES:
            return 0
        entry = self._entries[name] = start + (used + 1) * _ENTRY_CELLS
        if is_histogram:
            slab.cells[entry] = self._histograms
            self._histograms += 1
        slab.cells[entry + 1] = 0 if is_histogram else _COUNTER
        slab.cells[entry + 2] = len(encoded)
        slab.memory[(entry + 3) * 8 : (entry + 3) * 8 + len(encoded)] = encoded
        slab.cells[start] = used + 1  # now it is seen
        return entry


def _block(start: int, number: int) -> int:
    return start + (MAX_NAMES + 1) * _ENTRY_CELLS + number * _BLOCK_CELLS


def _counters_in(slab: Slab, start: int) -> Iterator[tuple[str, int]]:
    for name, kind, value in _entries(slab, start):
        if kind == _COUNTER:
            yield name, value


def _histograms_in(slab: Slab, start: int) -> Iterator[tuple[str, dict[int, int]]]:
    # As counts by bin.
    for name, kind, number in _entries(slab, start):
        if kind != _COUNTER:
            first = _block(start, number)
            bins = slab.cells[first : first + _BLOCK_CELLS].tolist()
            yield name, {position: count for position, count in enumerate(bins) if count}


def _entries(slab: Slab, start: int) -> Iterator[tuple[str, int, int]]:
    if start + CELLS > len(slab):
        return
    cells = slab.cells
    for number in range(1, cells[start] + 1):
        entry = start + number * _ENTRY_CELLS
        name = slab.memory[(entry + 3) * 8 : (entry + 3) * 8 + cells[entry + 2]].decode()
        yield name, cells[entry + 1], cells[entry]


class DynamicTotals:
    """What the supervisor knows of them: the sums over slabs, with what ended workers counted."""

    __slots__ = ("_at_last_interval", "_counters", "_histograms", "_intervals")

    def __init__(self) -> None:
        self._counters: dict[str, int] = {}
        self._histograms: dict[str, dict[int, int]] = {}
        self._at_last_interval: dict[str, BinnedHistogram] = {}
        self._intervals: dict[str, BinnedHistogram] = {}

    def absorb(self, slab: Slab, start: int) -> None:
        """Keep what an ended worker counted."""
        self.add(dict(_counters_in(slab, start)), dict(_histograms_in(slab, start)))

    def add(self, counters: Mapping[str, int], histograms: Mapping[str, Mapping[int, int]]) -> None:
        """Keep these too."""
        for name, count in counters.items():
            self._counters[name] = self._counters.get(name, 0) + count
        for name, bins in histograms.items():
            _merge(self._histograms.setdefault(name, {}), bins)

    def counters(self, slabs: Iterable[Slab], start: int, *, with_base: bool = True) -> dict[str, int]:
        """All counters by name."""
        found = dict(self._counters) if with_base else {}
        for slab in slabs:
            for name, count in _counters_in(slab, start):
                found[name] = found.get(name, 0) + count
        return found

    def histograms(self, slabs: Iterable[Slab], start: int, *, with_base: bool = True) -> dict[str, dict[int, int]]:
        """All histograms by name, as counts by bin."""
        found = {name: dict(bins) for name, bins in self._histograms.items()} if with_base else {}
        for slab in slabs:
            for name, bins in _histograms_in(slab, start):
                _merge(found.setdefault(name, {}), bins)
        return found

    def enter(self, snapshot: Snapshot, slabs: Sequence[Slab], start: int, *, with_base: bool) -> None:
        """Enter all of them into the snapshot."""
        for name, count in self.counters(slabs, start, with_base=with_base).items():
            snapshot.counters[name] = snapshot.counters.get(name, 0) + count
            snapshot.used.add(name)
        for name, bins in self.histograms(slabs, start, with_base=with_base).items():
            pair = snapshot.histograms.setdefault(name, HistogramPair(BinnedHistogram(), BinnedHistogram()))
            pair.cumulative.merge(BinnedHistogram(bins))
            interval = self._intervals.get(name)
            if interval is not None:
                pair.interval.merge(interval)

    def reset_counters(self, slabs: Iterable[Slab], start: int) -> None:
        """Counters start again from zero."""
        self._counters = {name: -count for name, count in self.counters(slabs, start, with_base=False).items()}

    def end_interval(self, slabs: Iterable[Slab], start: int) -> None:
        """What came in since the last call is the interval that histograms show from now on."""
        for name, bins in self.histograms(slabs, start).items():
            now = BinnedHistogram(bins)
            before = self._at_last_interval.get(name)
            self._intervals[name] = now.since(before) if before is not None else now
            self._at_last_interval[name] = now


def _merge(into: dict[int, int], bins: Mapping[int, int]) -> None:
    for position, count in bins.items():
        into[position] = into.get(position, 0) + count
