"""Start-up, what a worker inherits, and the end."""

import os
import pwd
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.support.proxy import free_ports
from tests.support.supervised import Supervised, descriptors, exchange, is_alive, until


@pytest.fixture
def supervised(tmp_path):
    with Supervised(tmp_path) as running:
        yield running


def test_every_worker_serves_its_own_queue(supervised):
    pids = supervised.pids()
    assert len(pids) == 2
    answered = set()
    for _ in range(200):
        with supervised.connect() as sock:
            answered.add(exchange(sock)[0])
        if answered == pids:
            break
    assert answered == pids


def test_a_worker_inherits_nothing_of_its_siblings(supervised):
    first, second = sorted(supervised.pids())
    mine, theirs = descriptors(first), descriptors(second)
    shared = {name for name in mine.values() if name.startswith("socket:")} & set(theirs.values())
    assert shared == set()
    # standard streams, epoll, signal pipe, control socket, one listening socket; the board, our queue, the other's; what brings
    # the sockets of slots that retire
    assert len(mine) == 3 + 1 + 2 + 1 + 1 + 3 + 1
    supervisor = descriptors(supervised.process.pid)
    assert not any(".pid" in name for name in mine.values())
    assert any(".pid" in name for name in supervisor.values())


def test_workers_are_pinned_within_the_mask(supervised):
    mask = os.sched_getaffinity(0)
    for worker in supervised.workers():
        assert os.sched_getaffinity(worker["pid"]) == {worker["cpu"]}
        assert worker["cpu"] in mask


def test_processes_have_names(supervised):
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in supervised.pids()}
    assert names == {"forkproxy:w0", "forkproxy:w1"}
    assert Path(f"/proc/{supervised.process.pid}/comm").read_text().strip() == "forkproxy"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_lets_connections_finish(supervised, number):
    address = supervised.address()
    with supervised.connect() as sock:
        pid = exchange(sock)[0]
        supervised.signal(number)
        until(lambda: "stopping" in supervised.log())
        assert exchange(sock)[0] == pid
        until(lambda: not can_connect(address))
    assert supervised.wait() == 0
    assert not supervised.pid_file.exists()
    assert not supervised.socket.exists()


def test_a_stop_ends_at_the_drain_time(tmp_path):
    with Supervised(tmp_path, drain_time_s=0.2) as supervised, supervised.connect() as sock:
        exchange(sock)
        before = time.monotonic()
        supervised.signal(signal.SIGTERM)
        assert supervised.wait() == 0
        assert 0.15 < time.monotonic() - before < 5
        assert sock.recv(1) == b""


def test_a_second_stop_is_fast(tmp_path):
    with Supervised(tmp_path, drain_time_s=600.0) as supervised, supervised.connect() as sock:
        exchange(sock)
        supervised.signal(signal.SIGTERM)
        until(lambda: supervised.workers("draining"))
        supervised.signal(signal.SIGTERM)
        assert supervised.wait() == 0


def test_a_worker_that_does_not_heed_the_drain_is_killed(tmp_path):
    with Supervised(tmp_path, drain_time_s=0.1) as supervised, supervised.connect() as sock:
        exchange(sock)
        sock.sendall(b"hang")
        supervised.signal(signal.SIGTERM)
        assert supervised.wait() == 0
        assert "worker cut off" in supervised.log()


def test_workers_follow_a_dead_supervisor(supervised):
    pids = supervised.pids()
    address = supervised.address()
    supervised.process.kill()
    supervised.process.wait()
    until(lambda: not any(is_alive(pid) for pid in pids))
    assert not can_connect(address)


def test_a_connection_outlives_a_dead_supervisor_for_the_drain_time(supervised):
    with supervised.connect() as sock:
        pid = exchange(sock)[0]
        supervised.process.kill()
        supervised.process.wait()
        until(lambda: not can_connect(sock.getpeername()))
        assert exchange(sock)[0] == pid
    until(lambda: not is_alive(pid))


def test_a_hanging_worker_does_not_outlive_its_supervisor_for_ever(tmp_path):
    with Supervised(tmp_path, drain_time_s=0.1) as supervised, supervised.connect() as sock:
        pid = exchange(sock)[0]
        sock.sendall(b"hang")
        supervised.process.kill()
        supervised.process.wait()
        until(lambda: not is_alive(pid))


def test_the_next_supervisor_serves_while_the_workers_of_a_killed_one_drain(tmp_path):
    (port,) = free_ports(1)
    settings = {"listeners": {"main": f"127.0.0.1:{port}"}}
    with Supervised(tmp_path, settings, drain_time_s=15.0) as first, first.connect() as old:
        pid = exchange(old)[0]
        first.process.kill()
        first.process.wait()
        until(lambda: not can_connect(old.getpeername()))
        with Supervised(tmp_path, settings) as second, second.connect() as fresh:
            assert exchange(fresh)[0] in second.pids()
            assert exchange(old)[0] == pid
            assert int(second.pid_file.read_text()) == second.process.pid
        old.close()
        until(lambda: not is_alive(pid))


def test_unix_listeners_are_shared_and_removed(tmp_path):
    path = tmp_path / "listener"
    with Supervised(tmp_path, {"listeners": {"main": str(path)}}) as supervised:
        with supervised.connect() as sock:
            assert exchange(sock)[0] in supervised.pids()
        supervised.signal(signal.SIGTERM)
        assert supervised.wait() == 0
    assert not path.exists()


def test_one_supervisor_per_pid_file(tmp_path, supervised):
    second = Supervised(tmp_path, wait=False)
    assert second.wait() == 1
    assert f"already running as pid {supervised.process.pid}" in second.log()


def test_what_a_killed_supervisor_left_behind_is_taken_over(tmp_path, supervised):
    pids = supervised.pids()
    supervised.process.kill()
    supervised.process.wait()
    until(lambda: not any(is_alive(pid) for pid in pids))
    assert supervised.log().count("the supervisor has died: this worker drains") == 2
    assert supervised.pid_file.exists()
    with Supervised(tmp_path) as second:
        assert second.pids()
        assert int(second.pid_file.read_text()) == second.process.pid


def test_all_worker_processes_are_gone_after_a_failed_start(tmp_path):
    with Supervised(tmp_path, {"listeners": {"main": "127.0.0.1:0"}, "fault": "start"}, wait=False) as supervised:
        assert supervised.wait() == 78
        assert "the workers do not start: 3:4: a.b: no such thing" in supervised.log()


def test_a_worker_that_cannot_bind_fails_the_start(tmp_path):
    with Supervised(tmp_path, {"listeners": {"main": "127.0.0.1:0"}, "fault": "bind"}, wait=False) as supervised:
        assert supervised.wait() == 69


def test_workers_that_die_at_once_fail_the_start(tmp_path):
    with Supervised(tmp_path, {"listeners": {"main": "127.0.0.1:0"}, "fault": "die"}, wait=False) as supervised:
        assert supervised.wait() == 1
        assert "exit code 5" in supervised.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run workers as somebody else")
def test_workers_run_as_the_configured_user(tmp_path):
    with Supervised(tmp_path, {"listeners": {"main": "127.0.0.1:0"}, "user": "nobody"}) as supervised:
        nobody = pwd.getpwnam("nobody")
        for pid in supervised.pids():
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            assert status["Uid"].split() == [str(nobody.pw_uid)] * 4
            assert status["Gid"].split() == [str(nobody.pw_gid)] * 4
            assert status["CapEff"].strip() == "0" * 16
        with supervised.connect() as sock:
            assert exchange(sock)[0] in supervised.pids()
        pids = supervised.pids()
        supervised.process.kill()
        supervised.process.wait()
        until(lambda: not any(is_alive(pid) for pid in pids))


def test_the_descriptor_limit_is_raised_to_what_is_allowed(supervised):
    limits = Path(f"/proc/{min(supervised.pids())}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    soft, hard = line.split()[3:5]
    assert soft == hard


def can_connect(address):
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True
