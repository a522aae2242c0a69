"""Faults in time: delays that end or are left, the pace of a slow response, limits; the rest is played beside Envoy."""

import pytest

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import FractionalPercent
from forkproxy.config.build.fault import AbortConfig, ClusterFaults, DelayConfig, FaultConfig, RateConfig, Share, build
from forkproxy.config.build.listener import FilterEntry
from forkproxy.filters.http.fault import abort_status, delay_ms, happens, response_rate
from tests.support.playbook import WHERE, play
from tests.unit.config.build.building import value_of

MESSAGE = "envoy.extensions.filters.http.fault.v3.HTTPFault"
ALWAYS = Share(FractionalPercent(100))
NEVER = Share(FractionalPercent(0))
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"


def talk(**fields):
    return play(filters=[FilterEntry("fault", MESSAGE, FaultConfig(**fields), WHERE)])


def stats(p):
    return p.manager.chain.filters[0].stats


def test_a_delay_passes():
    p = talk(delay=DelayConfig(ALWAYS, 500)).downstream(GET)
    p.advance(0.49).expect_upstream(b"")
    assert stats(p).active_faults == 1
    p.advance(0.02).expect_upstream(GET)
    p.upstream(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert (stats(p).active_faults, stats(p).delays_injected) == (0, 1)
    assert p.manager.chain.filters[0].active.total() == 0


def test_who_leaves_takes_the_delay_along():
    p = talk(delay=DelayConfig(ALWAYS, 500)).downstream(GET).downstream_resets()
    p.advance(1.0).expect_upstream(b"")
    assert stats(p).active_faults == 0


def test_a_body_waits_too_and_is_not_too_large():
    p = talk(delay=DelayConfig(ALWAYS, 500)).downstream(POST % (3 << 20))
    for _ in range(3):
        p.downstream(b"x" * (1 << 20))
    p.expect_downstream(b"")
    p.advance(0.6)
    head, _, body = b"".join(peer.read() for peer in p.upstreams).partition(b"\r\n\r\n")
    assert head.startswith(b"POST / ")
    assert body.count(b"x") > 1 << 20
    assert not p.down.read()


def test_a_request_that_is_aborted_after_its_delay():
    p = talk(delay=DelayConfig(ALWAYS, 100), abort=AbortConfig(ALWAYS, 503)).downstream(GET).advance(0.2)
    p.expect_upstream(b"")
    assert b"503 Service Unavailable" in p.down.read()


@pytest.mark.parametrize("length", [100, 64 * 7, 64 * 40])
def test_a_slow_response(length):
    p = talk(rate=RateConfig(ALWAYS, 1)).downstream(GET)  # 64 bytes 16 times a second
    p.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % length + b"#" * length)
    arrived = [p.advance(1 / 16).down.read().count(b"#") for _ in range(-(-length // 64) + 2)]
    assert sum(arrived) == length
    assert all(now <= 64 * 2 for now in arrived)
    assert sum(arrived[: len(arrived) // 2]) <= 64 * (len(arrived) // 2 + 1)
    assert stats(p).active_faults == 0


def test_a_slow_response_holds_its_upstream_back():
    p = talk(rate=RateConfig(ALWAYS, 1)).downstream(GET)
    p.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (3 << 20))
    p.upstream(b"x" * (1 << 20))
    p.upstream(b"x" * 1000)
    assert p.cluster.stats.upstream_flow_control_paused_reading_total == 1
    p.downstream_resets()
    assert stats(p).active_faults == 0


def test_at_most_so_many_at_a_time():
    p = talk(delay=DelayConfig(ALWAYS, 100), max_active_faults=1).downstream(GET)
    p.expect_upstream(b"")
    p.manager.chain.filters[0].active.add(1)
    other = talk(delay=DelayConfig(ALWAYS, 100), max_active_faults=0).downstream(GET)
    other.expect_upstream(GET)
    assert stats(other).faults_overflow == 1


HEADER = b"x-envoy-fault-"


@pytest.mark.parametrize(
    ("share", "asked", "drawn"),
    [
        (ALWAYS, None, True),
        (NEVER, None, False),
        (NEVER, b"100", False),
        (ALWAYS, b"0", False),
        (ALWAYS, b"200", True),
        (ALWAYS, b"-5", True),
        (Share(FractionalPercent(100), True), b"0", True),
        (Share(FractionalPercent(1_000_000, 1_000_000)), None, True),
    ],
)
def test_shares(share, asked, drawn):
    headers = [] if asked is None else [(b"p", asked)]
    assert happens(share, headers, b"p") is drawn


@pytest.mark.parametrize(
    ("delay", "by_cluster", "found"),
    [
        (DelayConfig(ALWAYS, 5), None, 5),
        (DelayConfig(ALWAYS, 5, 9), None, 9),
        (DelayConfig(ALWAYS, None), None, 3),
        (DelayConfig(NEVER, 5), ClusterFaults(), None),
        (DelayConfig(NEVER, 5, 9), ClusterFaults(FractionalPercent(100), 7), 7),
        (DelayConfig(NEVER, 5, 9), ClusterFaults(FractionalPercent(100)), 9),
    ],
)
def test_how_long(delay, by_cluster, found):
    assert delay_ms(delay, [(HEADER + b"delay-request", b"3")], by_cluster) == found


@pytest.mark.parametrize(
    ("abort", "by_cluster", "found"),
    [
        (AbortConfig(ALWAYS, 500), None, (500, None)),
        (AbortConfig(ALWAYS, 500, runtime_http_status=501), None, (501, None)),
        (AbortConfig(ALWAYS, grpc_status=3), None, (200, 3)),
        (AbortConfig(ALWAYS, grpc_status=3, runtime_grpc_status=4), None, (200, 4)),
        (AbortConfig(ALWAYS, grpc_status=3), ClusterFaults(grpc_status=9), (200, 9)),
        (AbortConfig(ALWAYS), None, None),
        (AbortConfig(NEVER, 500), ClusterFaults(abort_share=FractionalPercent(100), http_status=409), (409, None)),
    ],
)
def test_which_status(abort, by_cluster, found):
    assert abort_status(abort, [], by_cluster) == found


def test_how_fast():
    assert response_rate(RateConfig(NEVER, 5), []) is None
    assert response_rate(RateConfig(ALWAYS, None), []) is None
    assert response_rate(RateConfig(ALWAYS, None), [(HEADER + b"throughput-response", b"7")]) == 7


def test_runtime_layers():
    context = BuildContext(
        runtime={
            "fault.http.abort.abort_percent": 7,
            "fault.http.abort.http_status": 99,
            "fault.http.delay.fixed_duration_ms": 3,
            "fault.http.max_active_faults": 2,
            "fault.http.a.b.delay.fixed_duration_ms": 4,
            "fault.http.a.b.abort.http_status": 410,
        }
    )
    text = "{abort: {http_status: 500, percentage: {numerator: 1}}, delay: {fixed_delay: 1s}, max_active_faults: 9}"
    made = value_of(build, MESSAGE, text, context)
    assert made.abort.share == Share(FractionalPercent(7, 100, "fault.http.abort.abort_percent"), True)
    assert made.abort.runtime_http_status is None  # Envoy would send it
    assert made.delay == DelayConfig(Share(FractionalPercent(0)), 1000, 3)
    assert made.max_active_faults == 2
    assert made.by_cluster == {"a.b": ClusterFaults(delay_ms=4, http_status=410)}
