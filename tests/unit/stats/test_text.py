"""The bytes of /stats against lines that real Envoy 1.40 printed."""

import json

import pytest

from forkproxy.stats.histogram import BinnedHistogram, HistogramPair
from forkproxy.stats.text import CUMULATIVE, DETAILED, DISJOINT, number, render_json, render_text

RQ_TIME = HistogramPair(BinnedHistogram.of([0] * 6 + [1] * 2 + [14100]), BinnedHistogram.of([0] * 3 + [1] + [14100]))
UNUSED = HistogramPair(BinnedHistogram(), BinnedHistogram())
QUIET = HistogramPair(BinnedHistogram.of([22]), BinnedHistogram())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0"), (14500.0, "14500"), (1.05, "1.05"), (1.011111111111111, "1.011111111111111")),
        *((30000.0, "30000"), (300000, "3e+05"), (600000, "6e+05"), (1800000, "1800000"), (1e10, "1e+10")),
        (float("nan"), "nan"),
    ],
)
def test_numbers_are_the_shortest_text(value, text):
    assert number(value) == text


def test_figures_come_sorted_and_before_histograms():
    assert render_text({"b": 2, "a": 1}, {"A": UNUSED}) == "a: 1\nb: 2\nA: No recorded values\n"


def test_quantiles():
    assert render_text({}, {"t": RQ_TIME}) == (
        "t: P0(0,0) P25(0,0) P50(0,0) P75(1.05,1.0333333333333334) P90(14500,14500) P95(14500,14500) P99(14500,14500) "
        "P99.5(14500,14500) P99.9(14500,14500) P100(14500,14500)\n"
    )
    assert render_text({}, {"t": QUIET}).startswith("t: P0(nan,22.5) P25(nan,22.5) ")


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        (
            CUMULATIVE,
            "t: B0.5(3,6) B1(4,8) B5(4,8) B10(4,8) B25(4,8) B50(4,8) B100(4,8) B250(4,8) B500(4,8) B1000(4,8) B2500(4,8) "
            "B5000(4,8) B10000(4,8) B30000(5,9) B60000(5,9) B300000(5,9) B600000(5,9) B1.8e+06(5,9) B3.6e+06(5,9)\n",
        ),
        (
            DISJOINT,
            "t: B0.5(3,6) B1(1,2) B5(0,0) B10(0,0) B25(0,0) B50(0,0) B100(0,0) B250(0,0) B500(0,0) B1000(0,0) B2500(0,0) "
            "B5000(0,0) B10000(0,0) B30000(1,1) B60000(0,0) B300000(0,0) B600000(0,0) B1.8e+06(0,0) B3.6e+06(0,0)\n",
        ),
    ],
)
def test_buckets(mode, line):
    assert render_text({}, {"t": RQ_TIME}, mode) == line
    assert render_text({}, {"t": UNUSED}, mode) == "t: No recorded values\n"


def test_details():
    assert render_text({}, {"t": RQ_TIME}, DETAILED).startswith(
        "t:\n  totals=0,0:6, 1,0.1:2, 14000,1000:1\n  intervals=0,0:3, 1,0.1:1, 14000,1000:1\n  summary=P0(0,0) P25(0,0) "
    )


def test_json_figures():
    assert render_json({"server.live": 1}, {}) == '{"stats":[{"name":"server.live","value":1}]}'
    assert render_json({}, {}) == '{"stats":[]}'


def test_json_quantiles():
    stats = json.loads(render_json({"a": 1}, {"t": QUIET}))["stats"]
    histograms = stats[-1]["histograms"]
    assert histograms["supported_quantiles"] == [0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100]
    assert histograms["computed_quantiles"] == [{"name": "t", "values": [{"cumulative": 22.5, "interval": None}] * 10}]


def test_json_buckets():
    text = render_json({}, {"t": RQ_TIME}, CUMULATIVE)
    assert text.startswith(
        '{"stats":[{"histograms":[{"name":"t","buckets":[{"upper_bound":0.5,"interval":3,"cumulative":6},'
    )
    assert '{"upper_bound":3e+05,"interval":5,"cumulative":9}' in text
    assert '{"upper_bound":1,"interval":1,"cumulative":2}' in render_json({}, {"t": RQ_TIME}, DISJOINT)


def test_json_details():
    entry = json.loads(render_json({}, {"t": RQ_TIME}, DETAILED))["stats"][0]["histograms"]
    assert entry["supported_percentiles"][-1] == 100
    details = entry["details"][0]
    assert details["totals"][1] == {"lower_bound": 1, "width": 0.1, "count": 2}
    assert details["percentiles"][3] == {"cumulative": 1.0333333333333334, "interval": 1.05}
