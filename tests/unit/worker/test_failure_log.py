"""One line per cluster and reason, and not too often."""

from types import SimpleNamespace

import pytest

from forkproxy.worker import failure_log
from forkproxy.worker.failure_log import INTERVAL_S, FailureLog
from tests.support.fakes import FakeLoop


@pytest.fixture
def lines(monkeypatch):
    seen = []
    monkeypatch.setattr(
        failure_log, "_log", SimpleNamespace(warning=lambda message, **more: seen.append((message, more)))
    )
    return seen


LOOP_START = 1000.0


def cluster(loop, name="up"):
    return SimpleNamespace(name=name, loop=loop)


ENDPOINT = SimpleNamespace(address="192.0.2.1:80", hostname="h.example")


def test_what_it_says(lines):
    FailureLog().on_upstream_failure(cluster(FakeLoop()), ENDPOINT, "delayed connect error: Connection refused", 0.0126)
    assert lines == [
        (
            "cannot connect to upstream",
            {
                "cluster": "up",
                "address": "192.0.2.1:80",
                "hostname": "h.example",
                "reason": "delayed connect error: Connection refused",
                "errno": "ECONNREFUSED",
                "elapsed_ms": 13,
                "hint": "nothing listens on that address and port: is the service up, and is the port right?",
            },
        )
    ]


def test_a_name_that_is_not_there_is_not_told(lines):
    nameless = SimpleNamespace(address="192.0.2.1:80", hostname="")
    FailureLog().on_upstream_failure(cluster(FakeLoop()), nameless, "connect timeout", 0.0)
    assert "hostname" not in lines[0][1]


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("connect timeout", "firewall"),
        ("delayed connect error: Connection timed out", "firewall"),
        ("immediate connect error: Network is unreachable", "no route"),
        ("TLS_error:|268435581", "sni"),
        ("immediate connect error: Too many open files", "LimitNOFILE"),
        ("immediate connect error: Cannot assign requested address", "upstream_bind_config"),
        ("delayed connect error: No route to host", "machine up"),
        ("immediate connect error: No such file or directory", "unix socket"),
        ("immediate connect error: Permission denied", "mode"),
        ("delayed connect error: Connection reset by peer", "hung up"),
        ("something new", ""),
    ],
)
def test_what_to_look_at(lines, reason, word):
    FailureLog().on_upstream_failure(cluster(FakeLoop()), ENDPOINT, reason, 0.0)
    hint = lines[0][1]["hint"]
    assert word in hint
    assert bool(hint) is bool(word)


def test_the_same_failure_is_told_once_in_a_while_with_the_number_kept_quiet(lines):
    loop = FakeLoop(LOOP_START)
    log = FailureLog()
    for _ in range(5):
        log.on_upstream_failure(cluster(loop), ENDPOINT, "refused", 0.0)
    loop.advance(INTERVAL_S - 0.1)
    log.on_upstream_failure(cluster(loop), ENDPOINT, "refused", 0.0)
    assert len(lines) == 1
    loop.advance(0.2)
    told = {"cluster": "up", "times": 5, "in_s": INTERVAL_S, "last_address": "192.0.2.1:80", "reason": "refused"}
    assert lines[1:] == [("cannot connect to upstream, as before", told)]
    # The interval after it is a quiet one too, and ends without a word when nothing happened.
    log.on_upstream_failure(cluster(loop), ENDPOINT, "refused", 0.0)
    assert len(lines) == 2
    loop.advance(INTERVAL_S)
    assert lines[2][1]["times"] == 1
    loop.advance(INTERVAL_S)
    assert len(lines) == 3
    log.on_upstream_failure(cluster(loop), ENDPOINT, "refused", 0.0)
    assert lines[3][0] == "cannot connect to upstream"


def test_what_it_remembers_has_a_limit(lines, monkeypatch):
    monkeypatch.setattr(failure_log, "MOST_KINDS", 3)
    loop = FakeLoop(LOOP_START)
    log = FailureLog()
    for _ in range(2):
        for number in range(4):
            log.on_upstream_failure(cluster(loop), ENDPOINT, f"reason {number}", 0.0)
    loop.advance(INTERVAL_S)
    assert len(log._told) <= 3
    assert {more["reason"] for _, more in lines} == {f"reason {number}" for number in range(4)}


def test_other_clusters_and_reasons_are_told_apart(lines):
    loop = FakeLoop(LOOP_START)
    log = FailureLog()
    for name in ("one", "two"):
        for reason in ("refused", "timeout"):
            log.on_upstream_failure(cluster(loop, name), ENDPOINT, reason, 0.0)
    assert len(lines) == 4
