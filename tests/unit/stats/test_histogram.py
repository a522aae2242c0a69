"""Bins, quantiles, sums and buckets against figures that real Envoy 1.40 printed for the same samples."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkproxy.stats.histogram import BINS, BinnedHistogram, bin_bounds, bin_index


@pytest.mark.parametrize(
    ("value", "lower", "width"),
    [
        (-3, 0, 0),
        (0, 0, 0),
        (1, 1, 0.1),
        (9, 9, 0.1),
        (10, 10, 1),
        (42, 42, 1),
        (99, 99, 1),
        (100, 100, 10),
        (109, 100, 10),
        (14512, 14000, 1000),
        (10**10 - 1, 9.9e9, 1e8),
        (10**15, 9.9e9, 1e8),
    ],
)
def test_a_value_goes_into_the_bin_of_its_first_two_digits(value, lower, width):
    assert bin_bounds(bin_index(value)) == (lower, width)


@given(st.integers(0, 10**10 - 1))
def test_every_value_lies_in_its_bin(value):
    lower, width = bin_bounds(bin_index(value))
    assert lower - 1e-5 <= value < lower + width or value == lower == 0


def test_bins_are_numbered_without_gaps_and_ascend():
    lowers = [bin_bounds(index)[0] for index in range(BINS)]
    assert lowers == sorted(set(lowers))
    assert [bin_index(round(lower)) for lower in lowers] == list(range(BINS))


def test_quantiles_of_one_sample_are_the_middle_of_its_bin():
    assert BinnedHistogram.of([22]).quantiles() == [22.5] * 10


def test_quantiles_of_eight_samples_in_one_bin():
    # listener.….connections_accepted_per_socket_event of real Envoy after 8 connections
    assert BinnedHistogram.of([1] * 8).quantiles() == [
        *(1.011111111111111, 1.0222222222222221, 1.0444444444444445, 1.0666666666666667),
        *[1.0888888888888888] * 6,
    ]


def test_quantiles_over_several_bins():
    # http.ingress.downstream_rq_time of real Envoy for these nine requests
    samples = [0] * 6 + [1] * 2 + [14100]
    assert BinnedHistogram.of(samples).quantiles() == [0, 0, 0, 1.0333333333333334, *[14500] * 6]


def test_quantiles_of_nothing_are_not_a_number():
    assert all(math.isnan(value) for value in BinnedHistogram().quantiles())


@pytest.mark.parametrize(
    ("samples", "total"),
    [([], "0"), ([0, 0], "0"), ([1], "1.0476190476190476719153821250075"), ([22], "22.488888888888887152006645919755")],
)
def test_a_sum_counts_each_sample_as_the_harmonic_mean_of_its_bin(samples, total):
    assert f"{BinnedHistogram.of(samples).sum:.32g}" == total


def test_buckets_count_bins_that_begin_at_or_below_the_bound():
    histogram = BinnedHistogram.of([0] * 6 + [1] * 2 + [14100])
    assert histogram.cumulative_buckets([0.5, 1, 5, 10000, 30000, 60000]) == [6, 8, 8, 8, 9, 9]
    assert histogram.disjoint_buckets([0.5, 1, 5, 10000, 30000, 60000]) == [6, 2, 0, 0, 1, 0]


def test_since_is_what_came_in_between():
    earlier, later = BinnedHistogram.of([1, 5]), BinnedHistogram.of([1, 5, 5, 700])
    assert later.since(earlier).detail() == [(5, 0.1, 1), (700, 10, 1)]
    assert later.since(later).detail() == []


def test_merge_adds():
    histogram = BinnedHistogram.of([3])
    histogram.merge(BinnedHistogram.of([3, 4]))
    assert (histogram.count, histogram.detail()) == (3, [(3, 0.1, 2), (4, 0.1, 1)])
