"""Statistics as Prometheus text, with Envoy's metric names and labels.

Envoy cuts the variable parts out of a stat's name and makes labels of them: ``cluster.web.upstream_rq_503`` becomes
``envoy_cluster_upstream_rq{envoy_response_code="503",envoy_cluster_name="web"}``. The rules below are its default tag
extractors, for the names that this program has, in the order in which Envoy writes the labels. A rule's group ``cut`` leaves the
name, its group ``value`` is the label. Dashboards made for Envoy rely on the quirks too: a cluster called ``a.b`` is
labelled ``a``, and its metrics are called ``envoy_cluster_b_…``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from forkproxy.stats.histogram import BUCKETS, QUANTILES, HistogramPair

_RULES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (label, re.compile(pattern))
    for label, pattern in (
        ("envoy_response_code", r"_rq(?P<cut>_(?P<value>\d{3}))$"),
        ("envoy_response_code_class", r"_rq_(?P<cut>(?P<value>\d))xx$"),
        ("envoy_worker_id", r"\bworker(?P<cut>_(?P<value>\d+))\."),
        ("cipher_suite", r"^cluster\.(?:.*\.)?ssl\.ciphers(?P<cut>\.(?P<value>.+))$"),
        ("envoy_ssl_cipher", r"^listener\.(?:.*\.)?ssl\.ciphers(?P<cut>\.(?P<value>.+))$"),
        ("envoy_ssl_version", r"\.ssl\.versions(?P<cut>\.(?P<value>.+))$"),
        ("envoy_ssl_curve", r"\.ssl\.curves(?P<cut>\.(?P<value>.+))$"),
        ("envoy_ssl_sigalg", r"\.ssl\.sigalgs(?P<cut>\.(?P<value>.+))$"),
        ("envoy_tls_certificate", r"\.ssl\.certificate(?P<cut>\.(?P<value>[^.]+))\."),
        ("envoy_http_conn_manager_prefix", r"^(?:listener\..+?\.)?http\.(?P<cut>(?P<value>[^.]+)\.)"),
        ("envoy_tcp_prefix", r"^tcp\.(?P<cut>(?P<value>[^.]+)\.)"),
        ("envoy_cluster_name", r"^cluster\.(?P<cut>(?P<value>[^.]+)\.)"),
        ("envoy_listener_address", r"^listener\.(?P<cut>(?P<value>\d+\.\d+\.\d+\.\d+_\d+|(?!admin\.)[^.]+)\.)"),
    )
)
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_:]")


def metric_of(name: str) -> tuple[str, str]:
    """(metric name, labels as written between the braces) of a stat name."""
    rest, labels = _cut_labels(name)
    return "envoy_" + _NOT_IN_A_NAME.sub("_", rest), labels


def _cut_labels(name: str) -> tuple[str, str]:
    """(what is left of a stat name, labels)."""
    labels: list[str] = []
    for label, pattern in _RULES:
        found = pattern.search(name)
        if found:
            labels.append(f'{label}="{_escaped(found["value"])}"')
            name = name[: found.start("cut")] + name[found.end("cut") :]
    return name, ",".join(labels)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def render(
    counters: Mapping[str, int],
    gauges: Mapping[str, int],
    histograms: Mapping[str, HistogramPair],
    *,
    summaries: bool = False,
) -> str:
    """The text of /stats/prometheus: counters, gauges and histograms, each metric's lines together.

    ``summaries``: histograms as quantiles of the last interval instead of buckets (?histogram_buckets=summary).
    """
    parts: list[str] = []
    for kind, values in (("counter", counters), ("gauge", gauges)):
        for metric, series in _families(values):
            parts.append(f"# TYPE {metric} {kind}\n")
            parts.extend(f"{metric}{{{labels}}} {values[name]}\n" for name, labels in series)
    for metric, series in _families(histograms):
        parts.append(f"# TYPE {metric} {'summary' if summaries else 'histogram'}\n")
        for name, labels in series:
            write = _summary if summaries else _histogram
            parts.extend(write(metric, labels, histograms[name]))
    return "".join(parts)


def _families(names: Iterable[str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Metric → its (stat name, labels): a metric's lines must not be interrupted by another's.

    Ordered as Envoy orders them, by what is left of the stat name.
    """
    cut = sorted((*_cut_labels(name), name) for name in names)
    families: dict[str, list[tuple[str, str]]] = {}
    for rest, labels, name in cut:
        families.setdefault("envoy_" + _NOT_IN_A_NAME.sub("_", rest), []).append((name, labels))
    return list(families.items())


def _histogram(metric: str, labels: str, pair: HistogramPair) -> Iterable[str]:
    before = f"{labels}," if labels else ""
    histogram = pair.cumulative
    for bound, count in zip(BUCKETS, histogram.cumulative_buckets(), strict=True):
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
