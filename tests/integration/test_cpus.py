"""Pins of a live program while its affinity mask changes, as a service manager changes it."""

import os

import pytest

from tests.support.supervised import Supervised, until

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU is one pin")


@pytest.fixture
def supervised(tmp_path):
    with Supervised(tmp_path) as running:
        yield running


def pins(supervised):
    return [os.sched_getaffinity(worker["pid"]) for worker in supervised.workers()]


def test_a_changed_mask_is_followed(supervised):
    first, second, *_ = sorted(os.sched_getaffinity(0))
    both = {first, second}
    pids = supervised.pids()
    # Every process of the service, as the kernel does it.
    for pid in (supervised.process.pid, *pids):
        os.sched_setaffinity(pid, {second})
    until(lambda: "2 workers share 1 CPU" in supervised.log())
    assert [worker["cpu"] for worker in supervised.workers()] == [second, second]
    for pid in (supervised.process.pid, *pids):
        os.sched_setaffinity(pid, both)
    until(lambda: sorted(map(sorted, pins(supervised))) == [[first], [second]])
    assert supervised.pids() == pids
    assert supervised.log().count("2 workers share 1 CPU") == 1


def test_a_worker_without_privileges_pins_itself(tmp_path):
    if os.getuid():
        pytest.skip("only root can give up root")
    tmp_path.chmod(0o755)
    settings = {"listeners": {"main": "127.0.0.1:0"}, "user": "nobody"}
    with Supervised(tmp_path, settings) as supervised:
        pid = min(supervised.pids())
        pin = os.sched_getaffinity(pid)
        os.sched_setaffinity(pid, os.sched_getaffinity(0))
        until(lambda: os.sched_getaffinity(pid) == pin)
