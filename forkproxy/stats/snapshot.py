"""A moment's figures by name: where numbers in cells become Envoy's statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from forkproxy.stats.group import OTHER_STATUS, StatGroup
from forkproxy.stats.histogram import BinnedHistogram, HistogramPair


class Snapshot:
    """All figures of one moment by name: ``counters``, ``gauges``, ``histograms``, and what hidden groups counted.

    ``used`` holds the names of counters and gauges that were ever written, also when they are zero now: counters that
    /reset_counters took back, and the gauges of a group that has counted anything.
    """

    __slots__ = ("counters", "gauges", "hidden", "histograms", "used")

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.gauges: dict[str, int] = {}
        self.hidden: dict[str, int] = {}
        self.used: set[str] = set()
        self.histograms: dict[str, HistogramPair] = {}

    def keep_only(self, shows: Callable[[str], bool]) -> None:
        """Leave out whatever has another name, but for what is hidden."""
        self.counters = {name: value for name, value in self.counters.items() if shows(name)}
        self.gauges = {name: value for name, value in self.gauges.items() if shows(name)}
        self.used = {name for name in self.used if shows(name)}
        self.histograms = {name: pair for name, pair in self.histograms.items() if shows(name)}


def enter(
    snapshot: Snapshot,
    cls: type[StatGroup],
    prefix: str,
    row: Sequence[int],
    written: Sequence[int],
    blocks: Sequence[Mapping[int, int]],
    intervals: Sequence[BinnedHistogram],
) -> None:
    """Enter one group's figures into the snapshot under ``prefix``, adding to what is there.

    ``row``: the group's cells. ``written``: not zero where a cell of it ever was. ``blocks``: what its histograms and status
    codes counted, in the layout's order; ``intervals``: the histograms' last interval.
    """
    layout = cls.layout
    dotted = f"{prefix}." if prefix else ""

    def names(attribute: str) -> list[str]:
        return [dotted + suffix if suffix else prefix for suffix in cls.suffixes[attribute]]

    counters, gauges = snapshot.counters, snapshot.gauges
    if cls.hidden:
        counters = gauges = snapshot.hidden
    counts = len(layout.counters)
    used = snapshot.used
    suffixes = cls.suffixes
    for position, attribute in enumerate(layout.figures):
        figures = counters if position < counts else gauges
        value = row[position]
        is_used = written[position]
        if not is_used and attribute in cls.used_with:
            other = cls.used_with[attribute]
            is_used = not other or written[layout.figures.index(other)]
        if not is_used and position >= counts:
            # A gauge that went up and down again was used too; the counter of the same thing remembers.
            companion = layout.companions.get(attribute)
            is_used = companion is not None and written[companion]
        for suffix in suffixes[attribute]:
            name = dotted + suffix if suffix else prefix
            figures[name] = figures.get(name, 0) + value
            if is_used:
                used.add(name)
    for attribute, zeros in cls.zeros.items():
        if not attribute or written[layout.counters.index(attribute)]:
            for zero in zeros:
                counters.setdefault(dotted + zero, 0)
    for attribute, bin_counts, interval in zip(layout.histograms, blocks, intervals, strict=False):
        if not bin_counts and (attribute in cls.totals or attribute in cls.lazy):
            continue
        for name in names(attribute):
            pair = snapshot.histograms.setdefault(name, HistogramPair(BinnedHistogram(), BinnedHistogram()))
            pair.cumulative.merge(BinnedHistogram(bin_counts))
            pair.interval.merge(interval)
    for attribute, codes in zip(layout.status_codes, blocks[len(layout.histograms) :], strict=True):
        for name in names(attribute):
            if cls.totals.get(attribute) and name == dotted + cls.totals[attribute]:
                counters.setdefault(f"{name}_completed", 0)  # Envoy has this one from the start
            for figure, value in _status_names(name, codes):
                counters[figure] = counters.get(figure, 0) + value
                used.add(figure)
    for attribute, start in layout.classes.items():
        for name in names(attribute):
            for number in range(1, 6):
                figure = f"{name}_{number}xx"
                counters[figure] = counters.get(figure, 0) + row[start + number - 1]
                if written[start + number - 1]:
                    used.add(figure)
            figure = f"{name}_completed"
            counters[figure] = counters.get(figure, 0) + sum(row[start : start + 6])
            if any(written[start : start + 6]):
                used.add(figure)
    for attribute, labels in layout.labels.items():
        for label, position in labels.items():
            if written[position]:
                for name in names(attribute):
                    figure = f"{name}.{label}"
                    counters[figure] = counters.get(figure, 0) + row[position]
                    used.add(figure)


def _status_names(name: str, codes: Mapping[int, int]) -> Iterator[tuple[str, int]]:
    """Envoy's stats for counted status codes: one per code, one per class, the sum; none while nothing was counted."""
    if not codes:
        return
    classes: dict[int, int] = {}
    for position, count in codes.items():
        if position != OTHER_STATUS:
            yield f"{name}_{position + 100}", count
            classes[position // 100 + 1] = classes.get(position // 100 + 1, 0) + count
    for number, count in classes.items():
        yield f"{name}_{number}xx", count
    if OTHER_STATUS in codes:
        yield f"{name}_unknown", codes[OTHER_STATUS]
    yield f"{name}_completed", sum(codes.values())


def names_of_status(name: str, status: int) -> tuple[str, ...]:
    """The stats that one response of ``status`` counts towards."""
    if not 100 <= status <= 599:
        return f"{name}_unknown", f"{name}_completed"
    return f"{name}_{status}", f"{name}_{status // 100}xx", f"{name}_completed"
