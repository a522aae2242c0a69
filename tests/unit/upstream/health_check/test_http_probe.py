"""What an HTTP check sends, and what it makes of what comes back."""

import pytest

from forkproxy.access_log.formatter import compile_header_value
from forkproxy.config.build.core import HeaderMutations, HeaderValueOption, Where
from forkproxy.config.build.health_check import HttpCheck
from forkproxy.net.connection import REMOTE_CLOSE
from forkproxy.router.header_mutation import compile_request
from forkproxy.upstream import health
from forkproxy.upstream.health_check import http_probe
from tests.support.health_checks import Rig

REQUEST = b"GET /health HTTP/1.1\r\nhost: up\r\nuser-agent: Envoy/HC\r\n\r\n"
FAILED = "/failed_active_hc"
EXCLUDED = "/excluded_via_immediate_hc_fail"


def rig(flags=0, finalize=None, matches_service=None, **check):
    fields = {"path": "/health", **check}
    return Rig(HttpCheck(**fields), flags=flags, finalize=finalize, matches_service=matches_service)


def response(status=200, *headers, body=b""):
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{lines}\r\n".encode() + body


def verdict(answer, end=False, **fields):
    """The flags after one check that was answered so, and its failure's status."""
    checked = rig(**fields).start(is_known=True)
    checked.last.connect()
    checked.last.receive(answer)
    if end:
        checked.last.peer_closes(REMOTE_CLOSE)
    return checked


def test_the_request():
    checked = rig().start()
    checked.last.connect()
    assert checked.last.written == REQUEST


def test_a_request_with_everything():
    add = [
        HeaderValueOption("x-a", "%PROTOCOL% %DOWNSTREAM_REMOTE_ADDRESS%", "APPEND_IF_EXISTS_OR_ADD", False, Where()),
        HeaderValueOption("x-b", "1", "APPEND_IF_EXISTS_OR_ADD", False, Where()),
    ]
    mutations = HeaderMutations(request_add=tuple(add), request_remove=("user-agent",))
    finalize = compile_request([(mutations, Where())], compile_header_value)
    checked = rig(finalize=finalize, host="h.example", method="POST", send=b"ping").start()
    assert checked.last.written == (
        b"POST /health HTTP/1.1\r\nhost: h.example\r\nx-a: HTTP/1.1 127.0.0.1:0\r\nx-b: 1\r\ncontent-length: 4\r\n\r\nping"
    )


@pytest.mark.parametrize(
    "operator",
    [
        *("UPSTREAM_HOST", "UPSTREAM_CLUSTER", "UPSTREAM_REMOTE_ADDRESS", "CONNECTION_ID", "START_TIME", "HOSTNAME"),
        *("DOWNSTREAM_LOCAL_ADDRESS", "REQUESTED_SERVER_NAME", "REQ(:path)", "RESPONSE_FLAGS", "DYNAMIC_METADATA(a:b)"),
        *("DOWNSTREAM_TLS_VERSION", "ROUTE_NAME", "BYTES_SENT", "DURATION", "UPSTREAM_TRANSPORT_FAILURE_REASON"),
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    ],
)
def test_formats_find_what_they_ask_for(operator):
    option = HeaderValueOption("x-a", f"a%{operator}%", "APPEND_IF_EXISTS_OR_ADD", False, Where())
    finalize = compile_request([(HeaderMutations(request_add=(option,)), Where())], compile_header_value)
    assert b"x-a: a" in rig(finalize=finalize).start().last.written


def test_a_post_without_a_payload_says_so():
    assert b"\r\ncontent-length: 0\r\n" in rig(method="POST").start().last.written


def test_the_host_of_an_endpoint_counts_before_that_of_the_check():
    checked = rig(host="of.the.check")
    config = checked.cluster.endpoints[0].config
    checked.cluster.set_endpoints([type(config)(config.address, check_hostname="of.the.endpoint")])
    assert b"\r\nhost: of.the.endpoint\r\n" in checked.start().last.written


@pytest.mark.parametrize(
    ("answer", "fields", "flags"),
    [
        (response(200), {}, ()),
        (response(201), {}, (FAILED,)),
        (response(503), {}, (FAILED,)),
        (response(201), {"expected": ((201, 203),)}, ()),
        (response(203), {"expected": ((201, 203),)}, (FAILED,)),
        (response(503), {"retriable": ((500, 600),)}, ()),
        (response(503, "x-envoy-immediate-health-check-fail: 1"), {}, (FAILED, EXCLUDED)),
        (response(503, "x-envoy-immediate-health-check-fail: 1"), {"retriable": ((500, 600),)}, (EXCLUDED,)),
        (response(200, "x-envoy-immediate-health-check-fail: 1"), {}, ()),
        (response(200, "x-envoy-degraded: 1"), {}, ("/degraded_active_hc",)),
        (response(200, body=b"so ok"), {"receive": (b"o", b"k")}, ()),
        (response(200, body=b"ko"), {"receive": (b"o", b"k")}, (FAILED,)),
        (response(200, body=b"....ok"), {"receive": (b"ok",), "response_buffer_bytes": 5}, (FAILED,)),
        (response(200, body=b"....ok"), {"receive": (b"ok",), "response_buffer_bytes": 0}, ()),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + response(200), {}, ()),
    ],
)
def test_verdicts(answer, fields, flags):
    assert verdict(answer, **fields).flags() == flags


def test_a_body_may_come_in_pieces_and_end_with_the_connection():
    checked = rig(receive=(b"ok",)).start()
    checked.last.connect()
    checked.last.receive(b"HTTP/1.1 200 OK\r\n\r\n.o")
    checked.last.receive(b"k.")
    assert checked.flags() == (FAILED,) or checked.told == []
    checked.last.peer_closes(REMOTE_CLOSE)
    assert checked.stats == {"attempt": 1, "success": 1, "healthy": 1}


def test_a_body_without_end_is_bounded_in_memory_and_time(monkeypatch):
    monkeypatch.setattr(http_probe, "MAX_BODY_BYTES", 1000)
    checked = rig(receive=(b"never",), response_buffer_bytes=0).start()
    checked.last.connect()
    checked.last.receive(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(10):
        checked.last.receive(b"x" * 500)
    (session,) = checked.checker.sessions.values()
    assert len(session._probe._body) == 1000
    checked.loop.advance(1.0)
    assert checked.last.closed
    assert checked.stats["network_failure"] == 1


def test_a_body_that_nobody_looks_at_is_not_kept():
    checked = verdict(response(200, body=b"x" * 5000))
    (session,) = checked.checker.sessions.values()
    assert not session._probe._body


@pytest.mark.parametrize("garbage", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", b"\0" * 100])
def test_garbage_is_a_network_failure(garbage):
    checked = verdict(garbage)
    assert checked.last.closed
    assert checked.stats == {"attempt": 1, "failure": 1, "network_failure": 1, "healthy": 1}


def test_a_head_without_end_is_cut():
    checked = rig().start()
    checked.last.connect()
    for _ in range(400):
        if checked.last.closed:
            break
        checked.last.receive(b"HTTP/1.1 200 OK\r\n" if not checked.last.bytes_received else b"x-a: " + b"b" * 995)
    assert checked.last.closed
    assert checked.stats["network_failure"] == 1


def test_the_connection_is_kept_for_the_next_check():
    checked = verdict(response(200))
    checked.loop.advance(10.0)
    assert len(checked.connections) == 1
    assert checked.last.written == REQUEST * 2
    checked.last.receive(response(503))
    assert checked.flags() == (FAILED,)


@pytest.mark.parametrize(
    "answer", [response(200, "connection: close"), response(200) + b"more", response(503, "connection: close")]
)
def test_a_connection_that_may_not_be_kept_is_closed(answer):
    checked = verdict(answer)
    assert checked.last.closed
    assert checked.stats.get("network_failure") is None


def test_no_connection_is_kept_where_the_configuration_says_so():
    checked = Rig(HttpCheck(path="/health"), flags=0, reuse_connection=False).start(is_known=True)
    checked.last.connect()
    checked.last.receive(response(200))
    assert checked.last.closed
    assert checked.stats == {"attempt": 1, "success": 1, "healthy": 1}
    checked.loop.advance(10.0)
    assert len(checked.connections) == 2


def test_an_idle_connection_that_ends_or_speaks_is_no_failure():
    for event in (
        lambda connection: connection.peer_closes(REMOTE_CLOSE),
        lambda connection: connection.receive(b"hello"),
    ):
        checked = verdict(response(200))
        event(checked.last)
        assert checked.last.closed
        assert checked.stats == {"attempt": 1, "success": 1, "healthy": 1}
        checked.loop.advance(10.0)
        assert len(checked.connections) == 2


def test_a_connection_that_ends_inside_a_response_is_a_network_failure():
    checked = rig().start()
    checked.last.connect()
    checked.last.receive(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
    checked.last.peer_closes(REMOTE_CLOSE)
    assert checked.stats == {"attempt": 1, "failure": 1, "network_failure": 1, "healthy": 1}


def test_a_late_answer_is_not_taken_for_that_of_the_next_check():
    checked = rig().start(is_known=True)
    first = checked.last
    first.connect()
    checked.loop.advance(1.0)
    assert first.closed
    checked.loop.advance(25.0)
    assert len(checked.connections) == 2


def test_the_service_name_is_verified():
    matches = lambda name: name == b"mine"  # noqa: E731
    header = "x-envoy-upstream-healthchecked-cluster: "
    for answer, flags in (
        (response(200, header + "mine"), ()),
        (response(200, header + "other"), (FAILED,)),
        (response(200), (FAILED,)),
    ):
        checked = verdict(answer, matches_service=matches)
        assert checked.flags() == flags
        assert checked.stats["verify_cluster"] == 1
    assert "verify_cluster" not in verdict(response(503), matches_service=matches).stats


def test_degraded_comes_and_goes():
    checked = verdict(response(200, "x-envoy-degraded: 1"))
    assert checked.stats["degraded"] == 1
    checked.loop.advance(10.0)
    checked.last.receive(response(200))
    assert checked.flags() == ()
    assert "degraded" not in checked.stats
    assert checked.events() == [("degraded_healthy_host", {}), ("no_longer_degraded_host", {})]


def test_a_status_stands_in_the_event_log():
    checked = verdict(response(503))
    assert checked.events() == [("eject_unhealthy_event", {"failure_type": "ACTIVE", "http_status_code": 503})]


def test_an_excluded_endpoint_that_was_failed_stays_so():
    checked = verdict(response(503, "x-envoy-immediate-health-check-fail: 1"), flags=health.FAILED_ACTIVE_HC)
    assert checked.flags() == (FAILED, EXCLUDED)


def test_the_service_name_of_a_share_of_checks_is_verified():
    checked = Rig(HttpCheck(path="/health"), flags=0, matches_service=lambda name: False, verify_percent=0)
    checked.start(is_known=True)
    checked.last.connect()
    checked.last.receive(response(200))
    assert checked.flags() == ()
    assert "verify_cluster" not in checked.stats


def test_each_check_looks_at_its_own_body():
    checked = verdict(response(200, body=b"o"), receive=(b"ok",), flags=0, expected=((200, 201),))
    assert checked.flags() == (FAILED,)
    checked.loop.advance(20.0)
    checked.last.receive(response(200, body=b"k"))
    assert "success" not in checked.stats
