"""Which filters can be made of a configuration, and what is said of those that cannot."""

import pytest

from forkproxy.config.build.core import Where
from forkproxy.config.build.listener import FilterEntry
from forkproxy.config.build.router import RouterConfig
from forkproxy.config.problems import ConfigError
from forkproxy.filters import factory
from forkproxy.filters.context import WorkerContext
from forkproxy.filters.http.router import Router
from forkproxy.net.filter import NetworkFilter
from forkproxy.stats.counters import Registry
from tests.support.fakes import FakeLoop
from tests.support.playbook import ROUTER, filter_context, play
from tests.unit.filters import third_party

MODULE = "tests.unit.filters.third_party:"
ECHO = "envoy.extensions.filters.network.echo.v3.Echo"


def entry(name, config=None, line=3, type_url="", disabled=False):
    return FilterEntry(name, type_url, {} if config is None else config, Where(f"filters[{line}]", line, 5), disabled)


def own(name, **more):
    return entry(MODULE + name, **more)


def router(**more):
    return entry("router", RouterConfig(), type_url=ROUTER, **more)


def http(*entries):
    return factory.http_filters(entries, filter_context(Registry(), stat_prefix="http.x"))


def network(*entries):
    return factory.network_filters(entries, filter_context(Registry()))


def wrong(make, *entries):
    with pytest.raises(ConfigError) as raised:
        make(*entries)
    error = raised.value
    return f"{error.line}:{error.column}: {error.path}: {error.message}"


def test_filters_in_order():
    made = http(own("AddsHeader", config={"name": "a", "value": "b"}), router())
    assert [type(each) for each in made] == [third_party.AddsHeader, Router]


def test_a_filter_is_told_where_it_stands():
    first, second, _ = http(
        own("AddsHeader", config={"name": "a", "value": "b"}, line=7),
        own("AddsHeader", config={"name": "a", "value": "b"}, line=8),
        router(),
    )
    assert (first.where.line, second.where.line, first.prefix) == (7, 8, "http.x")


def test_every_name_of_the_tables_can_be_loaded():
    for table, base in ((factory.NETWORK_FILTERS, NetworkFilter), (factory.HTTP_FILTERS, factory.HttpFilter)):
        for type_url, spec in table.items():
            assert issubclass(factory._load(spec, entry(type_url), base), base)


@pytest.mark.parametrize("make", [http, network])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module_anywhere:X", "cannot be loaded: No module named 'no_such_module_anywhere'"),
        (
            MODULE + "NoSuchClass",
            "cannot be loaded: module 'tests.unit.filters.third_party' has no attribute 'NoSuchClass'",
        ),
    ],
)
def test_what_cannot_be_loaded(make, name, message):
    assert wrong(make, entry(name)) == f'3:5: filters[3]: filter "{name}" {message}'


@pytest.mark.parametrize(
    ("make", "name", "base"),
    [
        (http, "NOT_A_CLASS", "HttpFilter"),
        (http, "Upper", "HttpFilter"),
        (network, "AddsHeader", "NetworkFilter"),
        (network, "ConfigError", "NetworkFilter"),
    ],
)
def test_what_is_no_filter(make, name, base):
    assert wrong(make, own(name)) == f'3:5: filters[3]: "{MODULE}{name}" is not a {base}'


def test_a_filters_own_refusal():
    assert wrong(http, own("Refuses", line=9), router()) == "9:5: filters[9]: I will not"


def test_terminal_filters_are_last_and_only_last():
    assert (
        wrong(http, router(line=1), router(line=2))
        == '1:5: filters[1]: terminal filter "router" must be the last of its chain'
    )
    adds = own("AddsHeader", config={"name": "a", "value": "b"})
    assert wrong(http, adds) == f'3:5: filters[3]: non-terminal filter "{adds.name}" is the last of its chain'
    assert wrong(network, own("Last", line=1), own("Last")).startswith("1:5: filters[1]: terminal filter")
    assert wrong(network, own("Upper")).startswith("3:5: filters[3]: non-terminal filter")
    assert len(network(own("Upper"), own("Last"))) == 2
    assert http() == network() == []


def test_a_direction_that_is_not_that_of_the_hooks():
    said = wrong(network, own("Writes"), own("Last"))
    assert said == f'3:5: filters[3]: filter "{MODULE}Writes" overrides on_write but declares direction READ'


def test_a_third_partys_http_filter_at_work():
    p = play(filters=[own("AddsHeader", config={"name": "x-third", "value": "party"})])
    p.downstream(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect_upstream(
        b"GET / HTTP/1.1\r\nhost: a\r\nx-third: party\r\n\r\n"
    )
    adds = p.manager.chain.filters[0]
    assert adds.life == [("start", 0)]
    p.filter.stop()
    assert adds.life[1:] == ["stop"]


def test_a_third_partys_counter():
    registry = Registry()
    context = filter_context(registry)
    assert context.registry.counter("mine.seen") is registry.counter("mine.seen")
    assert context.cluster("none") is None


def test_contexts_have_what_filters_read():
    loop = FakeLoop()
    assert (WorkerContext(loop).slot, WorkerContext(loop, 3).loop) == (0, loop)
    context = filter_context(Registry(), tls=True)
    assert (context.tls, context.local_ip, context.node.id, context.report_exception) == (True, "", "", None)
