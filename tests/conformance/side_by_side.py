"""What the differential tests share: two programs on one configuration at a time, and the judgement of what both did."""

from __future__ import annotations

from collections.abc import Iterable

from tests.conformance.differences import DIFFERENCES
from tests.conformance.exchanges.configurations import CONFIGURATIONS, RAW_UPSTREAM
from tests.support import leaks
from tests.support.envoy import Envoy
from tests.support.exchange import Exchange, ProxyUnderTest, difference, play_both
from tests.support.forkproxy import Forkproxy
from tests.support.wire import cut_responses


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
                    self.running.append(ProxyUnderTest(kind, data, raw_upstream=raw, wait=False))
                for each in self.running:
                    each.await_ready()
            self.config = config
        return self.running

    def close(self):
        """Stop what runs."""
        self.config = ""
        while self.running:
            self.running.pop().close()


def sorted_by_configuration(exchanges: Iterable[Exchange]) -> list[Exchange]:
    """In the order of CONFIGURATIONS."""
    order = list(CONFIGURATIONS)
    return sorted(exchanges, key=lambda exchange: order.index(exchange.config))


def assert_same(exchange: Exchange, pairs: Pairs) -> None:
    """Play it on both: no aspect differs, or just those that are listed do. After a failure the programs are started anew."""
    try:
        _judge(exchange, pairs)
    except BaseException:
        pairs.close()
        raise


def _judge(exchange: Exchange, pairs: Pairs) -> None:
    listed = DIFFERENCES.get(exchange.name)
    alike = tuple(aspect for aspect in exchange.compare if listed is None or aspect not in listed.aspects)
    expected, got = play_both(exchange, *pairs.on(exchange.config), alike=alike)
    if listed is None:
        shown = difference(exchange.compare, expected, got)
        assert not shown, "\n" + shown
        return
    assert not difference(alike, expected, got), "\n" + difference(alike, expected, got)
    assert difference(listed.aspects, expected, got), "no longer differs: take it off the list"
    if listed.status is not None:
        answered = [message.status for message in cut_responses(got.downstream, [b"GET"]) if message.status >= 200]
        assert answered[:1] == [listed.status]
