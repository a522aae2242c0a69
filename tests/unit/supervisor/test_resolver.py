"""For which generations names are resolved."""

from types import SimpleNamespace

import pytest

from forkproxy.supervisor.resolver import Resolvers
from tests.support.fakes import FakeLoop


def run(*sources, caches=()):
    return SimpleNamespace(sources=list(sources), generation=SimpleNamespace(dns_caches=dict.fromkeys(caches)))


@pytest.fixture
def started(monkeypatch):
    found = []
    monkeypatch.setattr(Resolvers, "_start", lambda self, run: found.append(run))
    return found


def test_only_generations_that_have_names_get_a_resolver(started):
    named, cached = run("a.test"), run(caches=["outside"])
    Resolvers(FakeLoop(), lambda *_: None, lambda *_: None).want([run(), named, cached])
    assert started == [named, cached]


def test_workers_that_drain_may_ask_for_hosts_when_the_last_cache_is_gone(started):
    resolvers = Resolvers(FakeLoop(), lambda *_: None, lambda *_: None)
    resolvers.needed_for_good = True
    resolvers.want([last := run()])
    assert started == [last]
