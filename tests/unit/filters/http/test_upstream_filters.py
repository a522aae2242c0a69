"""Upstream filters with what else may stand between router and endpoint; alone, they are compared with Envoy."""

import pytest

from forkproxy.config.build.header_mutation import build
from forkproxy.config.build.listener import FilterEntry
from forkproxy.config.build.router import HEADER_MUTATION, RouterConfig
from forkproxy.config.problems import ConfigError
from forkproxy.filters.http import upstream_log
from tests.support.playbook import WHERE, play
from tests.unit.config.build.building import value_of

TEXT = """
mutations:
  request_mutations: [{append: {header: {key: x-sent, value: "yes"}}}]
  response_mutations: [{append: {header: {key: x-back, value: "%RESPONSE_CODE%"}}}]
"""
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def entry(name="m"):
    return FilterEntry(name, HEADER_MUTATION, value_of(build, HEADER_MUTATION, TEXT), WHERE)


def there_and_back(talk):
    talk.downstream(GET).expect_upstream(b"GET / HTTP/1.1\r\nhost: a\r\nx-sent: yes\r\n\r\n")
    talk.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    # As in Envoy, the filters' formats do not know the status yet.
    talk.expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-back: 0\r\n\r\n").expect_quiet()


def test_every_exchange_passes_them():
    talk = play(router=RouterConfig(upstream_filters=(entry(),)))
    there_and_back(talk)
    there_and_back(talk)


def test_whoever_weighs_attempts_weighs_what_they_leave():
    talk = play(router=RouterConfig(upstream_filters=(entry(),)))
    upstream_log.observe(talk.router)  # as the manager does where a log wants to know about wire bytes
    there_and_back(talk)
    assert talk.router.kind_of(object).__mro__[1].__name__ == "Filtered"


def test_two_of_one_name():
    with pytest.raises(ConfigError, match='two upstream filters are named "m"'):
        play(router=RouterConfig(upstream_filters=(entry(), entry())))


def test_without_any_nothing_is_imported_or_asked():
    talk = play()
    assert talk.router.upstream_filters == ()
    assert talk.router.request_type.__name__ == "UpstreamRequest"
