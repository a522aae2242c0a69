"""The picture of `forkproxy top`."""

import os

from forkproxy.cli.screen import Look, cpu_seconds, picture


def worker(pid, *, requests=0, connections=0, state="ready", **more):
    known = {"slot": 0, "cpu": None, "generation": 1, "uptime_s": 5.0}
    return {**known, "pid": pid, "requests": requests, "connections": connections, "state": state, **more}


def seen(at, workers, cpu_s=None):
    status = {
        "version": "0.1.0", "state": "serving", "pid": 10, "uptime_s": 7200.0, "generation": 2, "config_path": "a.yaml",
        "workers": workers,
    }  # fmt: skip
    return Look(at, status, cpu_s or {})


def test_rates_are_of_the_time_between_two_looks():
    before = seen(100.0, [worker(11, requests=50)], {10: 1.0, 11: 5.0})
    now = seen(102.0, [worker(11, requests=250, connections=3, memory_bytes=8 << 20)], {10: 1.0, 11: 6.0})
    head, sums, _, _, row = picture(before, now).splitlines()
    assert head == "forkproxy 0.1.0 serving, pid 10, up 2.0 h, generation 2, a.yaml"
    assert sums == "100 requests/s, 3 connections, supervisor 0.0 % CPU"
    assert row.split() == ["0", "11", "-", "1", "ready", "100", "50.0", "%", "3", "8.0", "MiB", "5", "s"]


def test_a_worker_that_was_not_there_before_has_no_rate_yet():
    row = picture(seen(1.0, []), seen(2.0, [worker(12, requests=9)])).splitlines()[-1]
    assert row.split()[5:8] == ["-", "-", "0"]


def test_cpu_seconds():
    before = cpu_seconds(os.getpid())
    while cpu_seconds(os.getpid()) <= before:
        pass
    assert cpu_seconds(2**22 + 1) == 0.0
