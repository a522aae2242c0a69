"""The health check filter: what /healthcheck/fail changes, what is cached and counted; the rest is played beside Envoy."""

import pytest

from forkproxy.access_log.filters import Compilers, compile_filter
from forkproxy.config.build.access_log import AccessLogFilter
from forkproxy.config.build.core import HeaderMatcher, StringMatcher
from forkproxy.config.build.health_check_filter import HealthCheckFilterConfig, build
from forkproxy.config.build.listener import FilterEntry
from forkproxy.router.matcher import compile_header_matcher
from forkproxy.router.metadata import compile_value
from tests.support.playbook import WHERE, play
from tests.unit.config.build.building import built, value_of

MESSAGE = "envoy.extensions.filters.http.health_check.v3.HealthCheck"
CHECKS = (HeaderMatcher(":path", "string", StringMatcher("exact", "/h")),)
CHECK, OTHER = b"GET /h HTTP/1.1\r\nhost: a\r\n\r\n", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
OK, SICK = b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 503 x\r\nx-envoy-degraded: 1\r\ncontent-length: 0\r\n\r\n"

COMPILERS = Compilers(compile_header_matcher, compile_value)


def talk(pass_through=False, **fields):
    config = HealthCheckFilterConfig(pass_through, headers=CHECKS, where=WHERE, **fields)
    return play(filters=[FilterEntry("h", MESSAGE, config, WHERE)])


def read(p):
    return p.down.read().decode()


def test_the_proxy_answers_for_itself():
    p = talk().downstream(CHECK)
    p.expect_upstream(b"")
    assert read(p).startswith("HTTP/1.1 200 OK\r\n")
    assert p.manager.codes[200] == 0
    assert p.manager.chain.filters[0].stats.ok == 1
    assert p.manager.stats.tracing__health_check == 1


def test_a_check_with_a_body_is_answered_at_its_end():
    p = talk().downstream(b"POST /h HTTP/1.1\r\nhost: a\r\ncontent-length: 2000000\r\n\r\n")
    p.downstream(b"x" * 1_500_000)
    assert read(p) == ""
    p.downstream(b"x" * 500_000)
    assert read(p).startswith("HTTP/1.1 200 OK\r\n")


def test_a_host_that_is_to_go():
    p = talk(pass_through=True)
    p.manager.fail_health_check(True)
    said = read(p.downstream(CHECK))
    assert said.startswith("HTTP/1.1 503 Service Unavailable\r\n")
    assert "x-envoy-immediate-health-check-fail: true\r\n" in said
    p.expect_upstream(b"")


def test_other_responses_say_so_too():
    p = talk()
    p.manager.fail_health_check(True)
    p.downstream(OTHER).upstream(OK)
    assert "x-envoy-immediate-health-check-fail: true\r\n" in read(p)
    assert p.manager.stats.tracing__health_check == 0


def test_the_application_answers_and_is_not_counted():
    p = talk(pass_through=True).downstream(CHECK)
    p.expect_upstream(CHECK)
    p.upstream(OK)
    assert "x-envoy-upstream-healthchecked-cluster: " in read(p)
    assert p.cluster.stats.external__upstream_rq[204] == 0
    assert p.manager.codes[204] == 0
    p.downstream(OTHER).upstream(OK)
    assert p.cluster.stats.external__upstream_rq[204] == 1
    assert p.manager.codes[204] == 1


def test_its_answer_is_kept_for_a_while():
    p = talk(pass_through=True, cache_s=5.0).downstream(CHECK)
    p.upstream(SICK)
    read(p)
    said = read(p.advance(4.0).downstream(CHECK))
    assert said.startswith("HTTP/1.1 503 Service Unavailable\r\n")
    assert "x-envoy-degraded: \r\n" in said
    assert p.manager.chain.filters[0].stats.cached_response == 1
    for peer in p.upstreams:
        peer.read()
    p.advance(1.5).downstream(CHECK).expect_upstream(CHECK)


@pytest.mark.parametrize(("healthy", "degraded", "status"), [(1, 0, 503), (1, 1, 200), (2, 0, 200), (0, 0, 503)])
def test_clusters_with_too_few_healthy_endpoints(healthy, degraded, status):
    p = talk(min_healthy=(("up", 50),))
    stats = p.cluster.stats
    stats.membership_total, stats.membership_healthy, stats.membership_degraded = 4, healthy, degraded
    assert read(p.downstream(CHECK)).startswith(f"HTTP/1.1 {status} ")


def test_a_log_without_checks():
    logged = []
    p = talk(pass_through=True)
    test = compile_filter(
        AccessLogFilter("not_health_check"), WHERE, Compilers(compile_header_matcher, compile_value), "DownstreamEnd"
    )
    p.manager.access_logs = (lambda stream: logged.append((stream.path, test(stream))),)
    p.downstream(CHECK).upstream(OK)
    p.downstream(OTHER).upstream(OK)
    assert logged == [(b"/h", False), (b"/", True)]


def test_configuration():
    text = "{pass_through_mode: false, cluster_min_healthy_percentages: {a: {value: 50.9}}}"
    assert value_of(build, MESSAGE, text).min_healthy == (("a", 50),)
    outcome = built(build, MESSAGE, "{pass_through_mode: false, cache_time: 1s}")
    assert outcome.errors == ["cache_time: cache_time_ms must not be set when path_through_mode is disabled"]
