"""Histograms as Envoy keeps them: two-digit log-linear bins, quantiles by interpolation inside a bin.

Envoy's histograms (circllhist) put a value into the bin of its first two significant digits: 7 into [7, 7.1), 42 into
[42, 43), 14,512 into [14000, 15000). Our samples are whole numbers, so the bins are numbered without gaps: bin 0 is the
value zero, 1–9 one digit, and every further power of ten has 90 bins. 820 bins reach 10^10 (115 days in milliseconds).

Quantiles, sums and bucket counts below follow from the bins alone, by rules found by feeding real Envoy; equal samples
give Envoy's digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

BINS = 820
QUANTILES: tuple[float, ...] = (0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1)
QUANTILE_NAMES = ("0", "25", "50", "75", "90", "95", "99", "99.5", "99.9", "100")
# Envoy's default bucket bounds, for Prometheus and for ?histogram_buckets=.
BUCKETS: tuple[float, ...] = (
    *(0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000),
    *(300000, 600000, 1800000, 3600000),
)


def bin_index(value: int) -> int:
    """The number of the bin that holds ``value``; negative values count as 0, those from 10^10 on as the largest."""
    if value < 10:
        return max(int(value), 0)
    power = len(str(int(value))) - 2
    scale: int = 10**power
    return min(10 + power * 90 + int(value) // scale - 10, BINS - 1)


def bin_bounds(index: int) -> tuple[float, float]:
    """(lower bound, width) of a bin. The bound is calculated as Envoy does, rounding error included: 110.00000000000001."""
    if index < 10:
        return float(index), 0.1 if index else 0.0
    power, digits = divmod(index - 10, 90)
    return (digits + 10) / 10.0 * 10.0 ** (power + 1), 10.0**power


class BinnedHistogram:
    """Counts per bin: ``bins`` maps a bin number to the number of samples in it."""

    __slots__ = ("bins",)

    def __init__(self, bins: Mapping[int, int] | None = None) -> None:
        self.bins: dict[int, int] = dict(bins or {})

    @classmethod
    def of(cls, values: Iterable[int]) -> BinnedHistogram:
        """Bin some samples."""
        histogram = cls()
        for value in values:
            histogram.add(bin_index(value), 1)
        return histogram

    def add(self, index: int, count: int) -> None:
        """Count ``count`` more samples in bin ``index``."""
        self.bins[index] = self.bins.get(index, 0) + count

    def merge(self, other: BinnedHistogram) -> None:
        """Add another histogram's samples."""
        for index, count in other.bins.items():
            self.add(index, count)

    def since(self, earlier: BinnedHistogram) -> BinnedHistogram:
        """What came in after ``earlier`` was taken."""
        grown = {index: count - earlier.bins.get(index, 0) for index, count in self.bins.items()}
        return BinnedHistogram({index: count for index, count in grown.items() if count > 0})

    @property
    def count(self) -> int:
        """How many samples."""
        return sum(self.bins.values())

    @property
    def sum(self) -> float:
        """The approximate sum: each sample counts as the harmonic mean of its bin's bounds, as in Envoy."""
        total = 0.0
        for index, count in sorted(self.bins.items()):
            lower, width = bin_bounds(index)
            if lower:
                upper = lower + width
                total += count * (2.0 * lower * upper / (lower + upper))
        return total

    def detail(self) -> list[tuple[float, float, int]]:
        """(lower bound, width, count) of each bin in use, ascending."""
        return [(*bin_bounds(index), count) for index, count in sorted(self.bins.items()) if count]

    def quantiles(self, wanted: Sequence[float] = QUANTILES) -> list[float]:
        """The values at the quantiles ``wanted`` (ascending, 0 to 1); all NaN without samples.

        The k-th of n samples of a bin is taken to lie k/(n+1) of the way through it.
        """
        total = self.count
        if not total:
            return [math.nan] * len(wanted)
        found: list[float] = []
        steps = iter(self.detail())
        lower, width, count = next(steps)
        before = 0
        for quantile in wanted:
            rank = max(1, math.ceil(total * quantile))
            while rank > before + count:
                before += count
                lower, width, count = next(steps)
            found.append(lower + width * (rank - before) / (count + 1))
        return found

    def cumulative_buckets(self, bounds: Sequence[float] = BUCKETS) -> list[int]:
        """For each bound (ascending): how many samples are not above it."""
        counts: list[int] = []
        running = 0
        steps = self.detail()
        position = 0
        for bound in bounds:
            while position < len(steps) and steps[position][0] <= bound:
                running += steps[position][2]
                position += 1
            counts.append(running)
        return counts

    def disjoint_buckets(self, bounds: Sequence[float] = BUCKETS) -> list[int]:
        """For each bound (ascending): how many samples lie above the bound before it and not above this one."""
        cumulative = self.cumulative_buckets(bounds)
        return [count - before for before, count in zip([0, *cumulative], cumulative, strict=False)]


class HistogramPair:
    """One histogram as Envoy reports it: the samples of the last whole flush interval, and all samples."""

    __slots__ = ("cumulative", "interval")

    def __init__(self, cumulative: BinnedHistogram, interval: BinnedHistogram) -> None:
        self.cumulative = cumulative
        self.interval = interval

    @property
    def used(self) -> bool:
        """Whether anything was ever recorded."""
        return bool(self.cumulative.bins)
