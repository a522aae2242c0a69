"""Statistics as /stats writes them: text lines, and the JSON of ?format=json, with Envoy's four ways to show a histogram."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence

from forkproxy.stats.histogram import BUCKETS, QUANTILE_NAMES, BinnedHistogram, HistogramPair

SUMMARY = "summary"
CUMULATIVE = "cumulative"
DISJOINT = "disjoint"
DETAILED = "detailed"

BucketsOf = Callable[[str], Sequence[float]]
"""The bounds of a histogram's buckets, by its name."""


def default_buckets(_name: str) -> Sequence[float]:
    """Envoy's, for all."""
    return BUCKETS


def number(value: float) -> str:
    """The shortest text that reads back as ``value``: 14500, 1.05, 3e+05, nan."""
    if math.isnan(value):
        return "nan"
    plain = repr(value)
    if plain.endswith(".0"):
        plain = plain[:-2]
    scientific = f"{value:.17g}" if "e" in plain else f"{float(value):e}"
    mantissa, _, exponent = scientific.partition("e")
    if exponent:
        shortest = f"{mantissa.rstrip('0').rstrip('.')}e{exponent}"
        if float(shortest) == value and len(shortest) < len(plain):
            return shortest
    return plain


def render_text(
    figures: Mapping[str, int],
    histograms: Mapping[str, HistogramPair],
    mode: str = SUMMARY,
    buckets_of: BucketsOf = default_buckets,
) -> str:
    """``name: value`` lines, sorted, the histograms after all others."""
    lines = [f"{name}: {figures[name]}\n" for name in sorted(figures)]
    lines.extend(_histogram_line(name, histograms[name], mode, buckets_of) for name in sorted(histograms))
    return "".join(lines)


def _histogram_line(name: str, pair: HistogramPair, mode: str, buckets_of: BucketsOf) -> str:
    if not pair.used:
        shown = "No recorded values"
    elif mode in (CUMULATIVE, DISJOINT):
        rows = _bucket_rows(pair, mode == DISJOINT, buckets_of(name))
        shown = " ".join(f"B{bound:g}({interval},{total})" for bound, interval, total in rows)
    elif mode == DETAILED:
        totals, intervals = _detail(pair.cumulative), _detail(pair.interval)
        return f"{name}:\n  totals={totals}\n  intervals={intervals}\n  summary={_summary(pair)}\n"
    else:
        shown = _summary(pair)
    return f"{name}: {shown}\n"


def _summary(pair: HistogramPair) -> str:
    rows = zip(QUANTILE_NAMES, pair.interval.quantiles(), pair.cumulative.quantiles(), strict=True)
    return " ".join(f"P{name}({number(interval)},{number(cumulative)})" for name, interval, cumulative in rows)


def _detail(histogram: BinnedHistogram) -> str:
    return ", ".join(f"{number(lower)},{number(width)}:{count}" for lower, width, count in histogram.detail())


def _bucket_rows(pair: HistogramPair, disjoint: bool, bounds: Sequence[float]) -> list[tuple[float, int, int]]:
    if disjoint:
        counts = pair.interval.disjoint_buckets(bounds), pair.cumulative.disjoint_buckets(bounds)
    else:
        counts = pair.interval.cumulative_buckets(bounds), pair.cumulative.cumulative_buckets(bounds)
    return list(zip(bounds, *counts, strict=True))


def render_json(
    figures: Mapping[str, int],
    histograms: Mapping[str, HistogramPair],
    mode: str = SUMMARY,
    buckets_of: BucketsOf = default_buckets,
) -> str:
    """``{"stats": [{"name", "value"}, …, {"histograms": …}]}`` in Envoy's shape, without white space."""
    entries = [f'{{"name":{json.dumps(name)},"value":{figures[name]}}}' for name in sorted(figures)]
    if histograms:
        entries.append(f'{{"histograms":{_histograms_json(histograms, mode, buckets_of)}}}')
    return f'{{"stats":[{",".join(entries)}]}}'


def _histograms_json(histograms: Mapping[str, HistogramPair], mode: str, buckets_of: BucketsOf) -> str:
    if mode in (CUMULATIVE, DISJOINT):
        rows = (
            f'{{"name":{json.dumps(name)},"buckets":[{_buckets_json(histograms[name], mode, buckets_of(name))}]}}'
            for name in sorted(histograms)
        )
        return f"[{','.join(rows)}]"
    ordered = [(json.dumps(name), histograms[name]) for name in sorted(histograms)]
    supported = f"[{','.join(QUANTILE_NAMES)}]"
    if mode == DETAILED:
        rows = (
            f'{{"name":{name},"totals":[{_detail_json(pair.cumulative)}],"intervals":[{_detail_json(pair.interval)}],'
            f'"percentiles":[{_quantiles_json(pair)}]}}'
            for name, pair in ordered
        )
        return f'{{"supported_percentiles":{supported},"details":[{",".join(rows)}]}}'
    rows = (f'{{"name":{name},"values":[{_quantiles_json(pair)}]}}' for name, pair in ordered)
    return f'{{"supported_quantiles":{supported},"computed_quantiles":[{",".join(rows)}]}}'


def _quantiles_json(pair: HistogramPair) -> str:
    rows = zip(pair.cumulative.quantiles(), pair.interval.quantiles(), strict=True)
    return ",".join(
        f'{{"cumulative":{_json_number(cumulative)},"interval":{_json_number(interval)}}}'
        for cumulative, interval in rows
    )


def _json_number(value: float) -> str:
    return "null" if math.isnan(value) else number(value)


def _detail_json(histogram: BinnedHistogram) -> str:
    return ",".join(
        f'{{"lower_bound":{number(lower)},"width":{number(width)},"count":{count}}}'
        for lower, width, count in histogram.detail()
    )


def _buckets_json(pair: HistogramPair, mode: str, bounds: Sequence[float]) -> str:
    return ",".join(
        f'{{"upper_bound":{number(bound)},"interval":{interval},"cumulative":{total}}}'
        for bound, interval, total in _bucket_rows(pair, mode == DISJOINT, bounds)
    )
