"""Statistics as Prometheus text, with Envoy's metric names and labels.

Envoy cuts the variable parts out of a stat's name and makes labels of them (tags.py): ``cluster.web.upstream_rq_503`` becomes
``envoy_cluster_upstream_rq{envoy_response_code="503",envoy_cluster_name="web"}``. Dashboards made for Envoy rely on the
quirks too: a cluster called ``a.b`` is labelled ``a``, and its metrics are called ``envoy_cluster_b_…``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from forkproxy.stats.histogram import QUANTILES, HistogramPair
from forkproxy.stats.tags import TagExtractor

_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_:]")


_NOT_IN_A_LABEL = re.compile(r"[^a-zA-Z0-9_]")


def _cut_labels(name: str, extractor: TagExtractor) -> tuple[str, str]:
    """(what is left of a stat name, labels as written between the braces)."""
    rest, tags = extractor.cut(name)
    return rest, ",".join([f'{_NOT_IN_A_LABEL.sub("_", tag)}="{_escaped(value)}"' for tag, value in tags])


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def render(
    counters: Mapping[str, int],
    gauges: Mapping[str, int],
    histograms: Mapping[str, HistogramPair],
    *,
    extractor: TagExtractor,
    buckets_of: Callable[[str], Sequence[float]],
    summaries: bool = False,
) -> str:
    """The text of /stats/prometheus: counters, gauges and histograms, each metric's lines together.

    ``buckets_of``: the bounds of a histogram's buckets, by its name.
    ``summaries``: histograms as quantiles of the last interval instead of buckets (?histogram_buckets=summary).
    """
    parts: list[str] = []
    for kind, values in (("counter", counters), ("gauge", gauges)):
        for metric, series in _families(values, extractor):
            parts.append(f"# TYPE {metric} {kind}\n")
            parts.extend(f"{metric}{{{labels}}} {values[name]}\n" for name, labels in series)
    for metric, series in _families(histograms, extractor):
        parts.append(f"# TYPE {metric} {'summary' if summaries else 'histogram'}\n")
        for name, labels in series:
            if summaries:
                parts.extend(_summary(metric, labels, histograms[name]))
            else:
                parts.extend(_histogram(metric, labels, histograms[name], buckets_of(name)))
    return "".join(parts)


def _families(names: Iterable[str], extractor: TagExtractor) -> list[tuple[str, list[tuple[str, str]]]]:
    """Metric → its (stat name, labels): a metric's lines must not be interrupted by another's.

    Ordered as Envoy orders them: by what is left of the stat name, and then by the name, token by token.
    """
    cut = [(*_cut_labels(name, extractor), name) for name in names]
    cut.sort(key=lambda each: (each[0].split("."), each[2].split(".")))
    families: dict[str, list[tuple[str, str]]] = {}
    for rest, labels, name in cut:
        families.setdefault("envoy_" + _NOT_IN_A_NAME.sub("_", rest), []).append((name, labels))
    return list(families.items())


def _histogram(metric: str, labels: str, pair: HistogramPair, buckets: Sequence[float]) -> Iterable[str]:
    before = f"{labels}," if labels else ""
    histogram = pair.cumulative
    for bound, count in zip(buckets, histogram.cumulative_buckets(buckets), strict=True):
        yield f'{metric}_bucket{{{before}le="{bound:.32g}"}} {count}\n'
    yield f'{metric}_bucket{{{before}le="+Inf"}} {histogram.count}\n'
    yield f"{metric}_sum{{{labels}}} {histogram.sum:.32g}\n"
    yield f"{metric}_count{{{labels}}} {histogram.count}\n"


def _summary(metric: str, labels: str, pair: HistogramPair) -> Iterable[str]:
    before = f"{labels}," if labels else ""
    for quantile, value in zip(QUANTILES, pair.interval.quantiles(), strict=True):
        yield f'{metric}{{{before}quantile="{quantile:g}"}} {value:.32g}\n'
    yield f"{metric}_sum{{{labels}}} {pair.cumulative.sum:.32g}\n"
    yield f"{metric}_count{{{labels}}} {pair.cumulative.count}\n"
