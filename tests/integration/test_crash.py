"""A worker dies or hangs: the slot has another one, and nothing else changes."""

import os
import signal
import threading

import pytest

from tests.support.supervised import Load, Supervised, exchange, is_alive, until


@pytest.fixture
def supervised(tmp_path):
    with Supervised(tmp_path) as running:
        yield running


def test_a_killed_worker_is_replaced_and_only_its_connections_break(supervised):
    first, second = sorted(supervised.pids())
    with supervised.connect_to(first) as lost, supervised.connect_to(second) as kept:
        os.kill(first, signal.SIGKILL)
        assert lost.recv(1) == b""
        assert exchange(kept)[0] == second
    until(lambda: len(supervised.pids()) == 2)
    assert second in supervised.pids()
    assert first not in supervised.pids()


def test_a_queue_waits_for_the_next_worker(supervised):
    # While a worker is stopped its queue fills; the successor on the same socket serves what waits there.
    first, second = sorted(supervised.pids())
    for pid in (first, second):
        os.kill(pid, signal.SIGSTOP)
    socks = [supervised.connect() for _ in range(8)]
    for sock in socks:
        sock.sendall(b"x")
    for pid in (first, second):
        os.kill(pid, signal.SIGKILL)
    answered = {int(sock.recv(100).split()[0]) for sock in socks}
    assert answered <= supervised.pids()
    assert answered.isdisjoint({first, second})
    for sock in socks:
        sock.close()


def test_a_worker_is_back_soon(supervised):
    first = min(supervised.pids())
    os.kill(first, signal.SIGKILL)
    until(lambda: len(supervised.pids() - {first}) == 2)
    assert "the next one starts in 0 s" in supervised.log()


def test_repeated_quick_deaths_are_spaced_out(supervised):
    for _ in range(4):
        (worker, *_) = until(lambda: [worker for worker in supervised.workers() if worker["slot"] == 0])
        os.kill(worker["pid"], signal.SIGKILL)
        until(lambda pid=worker["pid"]: pid not in supervised.pids())
    until(lambda: "the next one starts in 0.4 s" in supervised.log())


def test_a_worker_that_cannot_start_any_more_is_not_tried_for_ever(supervised):
    # The generation in memory is good, so this is played by the exit code alone: nothing but a reload brings the slot back.
    pids = supervised.pids()
    with supervised.connect() as sock:
        pid = exchange(sock, b"exit 78")[0]
    assert pid in pids
    until(lambda: "none is started until a reload" in supervised.log())
    assert supervised.pids() == pids - {pid}
    supervised.ask({"op": "reload"})
    assert len(supervised.pids()) == 2


def test_when_no_slot_can_start_the_program_ends(tmp_path):
    with Supervised(tmp_path, concurrency=1) as supervised:
        with supervised.connect() as sock:
            exchange(sock, b"exit 78")
        assert supervised.wait() == 78


def test_a_hanging_worker_is_aborted_with_its_stack_and_replaced(tmp_path):
    with Supervised(tmp_path, heartbeat_timeout_s=1.5) as supervised:
        with supervised.connect() as sock:
            pid = exchange(sock)[0]
            sock.sendall(b"hang")
            until(lambda: pid not in supervised.pids())
        until(lambda: len(supervised.pids()) == 2)
        assert not is_alive(pid)
        log = supervised.log()
        assert "worker hangs" in log
        assert "Fatal Python error: Aborted" in log
        assert "in answer" in log


def test_a_stopped_worker_is_noticed_tells_where_it_stood_and_is_replaced(tmp_path):
    with Supervised(tmp_path, heartbeat_timeout_s=1.5) as supervised:
        first, second = sorted(supervised.pids())
        os.kill(first, signal.SIGSTOP)
        until(lambda: supervised.pids() - {first, second})
        assert second in supervised.pids()
        until(lambda: not is_alive(first))
        log = supervised.log()
        assert log.count("worker hangs") == 1
        assert "Fatal Python error: Aborted" in log
        assert "in run_once" in log
        assert "signal SIGABRT" in log


def test_idle_workers_do_not_look_hung(tmp_path):
    with Supervised(tmp_path, heartbeat_timeout_s=1.5) as supervised:
        pids = supervised.pids()
        threading.Event().wait(2.5)
        assert supervised.pids() == pids


def test_a_supervisor_that_was_stopped_itself_blames_nobody(tmp_path):
    with Supervised(tmp_path, heartbeat_timeout_s=1.5) as supervised:
        pids = supervised.pids()
        everybody = [*pids, supervised.process.pid]
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        threading.Event().wait(2.5)
        for pid in reversed(everybody):
            os.kill(pid, signal.SIGCONT)
        until(lambda: supervised.status()["uptime_s"] > 3)
        assert supervised.pids() == pids


def test_a_worker_that_was_starting_while_everybody_was_stopped_gets_its_time(tmp_path):
    with Supervised(tmp_path, concurrency=1, heartbeat_timeout_s=1.5, ready_timeout_s=4.0) as supervised:
        supervised.configure({"listeners": {"main": "127.0.0.1:0"}, "fault": "slow"})
        supervised.signal(signal.SIGHUP)
        (starting,) = until(lambda: supervised.workers("starting"))
        for pid in (starting["pid"], supervised.process.pid):
            os.kill(pid, signal.SIGSTOP)
        threading.Event().wait(4.5)
        os.kill(supervised.process.pid, signal.SIGCONT)
        # It sees that the time is up before the worker can say anything.
        assert supervised.status()["uptime_s"] > 4.5
        os.kill(starting["pid"], signal.SIGCONT)
        until(lambda: starting["pid"] in supervised.pids())
        assert "reload refused" not in supervised.log()


def test_load_goes_on_over_a_crash(supervised):
    with Load(supervised) as load:
        until(lambda: load.done > 50)
        os.kill(min(supervised.pids()), signal.SIGKILL)
        done = load.done
        until(lambda: load.done > done + 50)
    # At most the one connection that the dead worker held.
    assert len(load.failures) <= 1
