"""Upgrade: a new process takes the place of the old one and nothing is lost; or it cannot, and nothing has changed."""

import os
import signal
import socket
import threading

import pytest

from forkproxy.supervisor.pid_file import holder_of, read_pid
from tests.support.supervised import Load, Supervised, exchange, is_alive, until

MAIN = {"main": "127.0.0.1:0"}


@pytest.fixture
def supervised(tmp_path):
    with Supervised(tmp_path) as running:
        yield running


def upgraded(supervised):
    """Upgrade; the new pid."""
    answer = supervised.ask({"op": "upgrade"})
    assert answer["ok"], answer
    return answer["pid"]


def test_load_goes_on_over_upgrade_after_upgrade(supervised):
    before, address = supervised.pids(), supervised.address()
    with Load(supervised) as load:
        for generation in (2, 3):
            pid = upgraded(supervised)
            until(lambda pid=pid: supervised.status() and supervised.status()["pid"] == pid)
            assert supervised.status()["generation"] == generation
            until(lambda: "predecessor" not in supervised.status())
        until(lambda: 3 in load.generations)
    assert load.failures == []
    assert load.done > 20
    assert supervised.wait() == 0
    assert supervised.address() == address
    assert not supervised.pids() & before
    assert [worker["slot"] for worker in supervised.workers()] == [0, 1]
    assert holder_of(supervised.pid_file) == pid


def test_usr2_upgrades(supervised):
    supervised.signal(signal.SIGUSR2)
    assert supervised.wait() == 0
    assert supervised.status()["generation"] == 2


def test_connections_finish_where_they_are(supervised):
    with supervised.connect() as sock:
        pid, _, _ = exchange(sock)
        upgraded(supervised)
        assert exchange(sock)[:2] == (pid, 1)
        assert supervised.status()["predecessor"]["pid"] == supervised.process.pid
        until(lambda: supervised.status()["predecessor"]["connections"] == 1)
    assert supervised.wait() == 0
    until(lambda: "predecessor" not in supervised.status())


def test_the_drain_time_is_the_longest_that_the_old_one_stays(tmp_path):
    with Supervised(tmp_path, drain_time_s=0.3) as supervised, supervised.connect() as sock:
        exchange(sock)
        upgraded(supervised)
        assert sock.recv(1) == b""
        assert supervised.wait() == 0


def test_unix_sockets_and_listeners_of_another_file(tmp_path):
    path = str(tmp_path / "listening")
    with Supervised(tmp_path, {"listeners": {"main": path, "gone": "127.0.0.1:0"}}) as supervised:
        gone = supervised.connect("gone")
        supervised.configure({"listeners": {"main": path, "fresh": "127.0.0.1:0"}, "say": "new"})
        with Load(supervised) as load:
            upgraded(supervised)
            gone.close()
            assert supervised.wait() == 0, supervised.log()
            until(lambda: 2 in load.generations)
        assert load.failures == []
        assert os.path.exists(path)
        with supervised.connect() as sock:
            assert exchange(sock)[2] == "new"
        with supervised.connect("fresh") as sock:
            exchange(sock)
        assert [entry["name"] for entry in supervised.status()["listeners"]] == ["main", "fresh"]


def test_what_waits_for_a_listener_that_goes_is_served(tmp_path):
    with Supervised(tmp_path, {"listeners": {"main": "127.0.0.1:0", "gone": "127.0.0.1:0"}}) as supervised:
        address = supervised.address("gone")
        for pid in supervised.pids():
            os.kill(pid, signal.SIGSTOP)
        waiting = [socket.create_connection(address, timeout=15) for _ in range(8)]
        supervised.configure({"listeners": MAIN})
        answer = threading.Thread(target=lambda: supervised.ask({"op": "upgrade"}))
        answer.start()
        until(lambda: "upgrading" in supervised.log())
        for worker in supervised.ask({"op": "status"})["workers"]:
            os.kill(worker["pid"], signal.SIGCONT)
        answer.join()
        for sock in waiting:
            assert exchange(sock)[1] == 1
            sock.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)


@pytest.mark.parametrize(
    ("fault", "code", "reason"),
    [
        ("refuse", 78, "echo.json:1:1: refused"),
        ("start", 78, "no such thing"),
        ("die", 1, "exit code 5"),
        ("no-start", 1, "its output tells why"),
    ],
)
def test_one_that_cannot_start_changes_nothing(tmp_path, fault, code, reason):
    with Supervised(tmp_path) as supervised:
        before = supervised.pids()
        supervised.configure({"listeners": MAIN, "fault": fault})
        with Load(supervised) as load:
            answer = supervised.ask({"op": "upgrade"})
            assert not answer["ok"]
            assert answer["exit"] == code
            assert reason in answer["reason"]
            done = load.done
            until(lambda: load.done > done + 10)
        assert load.failures == []
        assert supervised.pids() == before
        assert read_pid(supervised.pid_file) == supervised.process.pid
        supervised.configure({"listeners": MAIN})
        upgraded(supervised)
        assert supervised.wait() == 0


def test_one_that_takes_too_long_is_given_up(tmp_path):
    with Supervised(tmp_path, upgrade_timeout_s=1.5) as supervised:
        before = supervised.pids()
        supervised.configure({"listeners": MAIN, "fault": "stuck"})
        with Load(supervised) as load:
            assert supervised.ask({"op": "upgrade"})["reason"] == "the new process was not ready within 1.5 s"
        assert load.failures == []
        assert supervised.pids() == before


def begun(supervised, reply):
    """Ask for an upgrade whose process does not get ready; the thread that waits for the verdict, and the new pid."""
    supervised.configure({"listeners": MAIN, "fault": "stuck"})
    thread = threading.Thread(target=lambda: reply.append(supervised.ask({"op": "upgrade"})))
    thread.start()
    return thread, until(lambda: successor_of(supervised))


def successor_of(supervised):
    """The process that gets ready to take over; its workers are there."""
    for line in supervised.log().splitlines():
        pid = int(line.partition("supervisor[")[2].partition("]")[0] or 0)
        if "listening listener" in line and pid != supervised.process.pid:
            return pid
    return 0


def test_a_second_one_meanwhile_is_refused_and_a_stop_ends_both(supervised):
    reply = []
    thread, pid = begun(supervised, reply)
    assert supervised.ask({"op": "upgrade"})["reason"] == "an upgrade is under way"
    supervised.ask({"op": "stop", "now": True})
    thread.join()
    assert reply[0]["reason"] == "stopping"
    assert supervised.wait() == 0
    until(lambda: not is_alive(pid))
    assert not supervised.pid_file.exists()


def test_a_reload_meanwhile_waits_for_the_verdict(supervised):
    reply, reloaded = [], []
    thread, pid = begun(supervised, reply)
    reload = threading.Thread(target=lambda: reloaded.append(supervised.ask({"op": "reload"})))
    reload.start()
    supervised.configure({"listeners": MAIN, "say": "again"})
    os.kill(pid, signal.SIGKILL)
    thread.join()
    reload.join()
    assert not reply[0]["ok"]
    assert reloaded[0]["ok"]
    with supervised.connect() as sock:
        assert exchange(sock)[2] == "again"


def test_a_reload_meanwhile_is_for_the_new_one_once_it_serves(supervised):
    supervised.configure({"listeners": MAIN, "fault": "slow"})
    reply, reloaded = [], []
    upgrade = threading.Thread(target=lambda: reply.append(supervised.ask({"op": "upgrade"})))
    upgrade.start()
    until(lambda: successor_of(supervised))
    supervised.configure({"listeners": MAIN, "say": "newest"})
    reload = threading.Thread(target=lambda: reloaded.append(supervised.ask({"op": "reload"})))
    reload.start()
    upgrade.join()
    reload.join()
    assert reply[0]["ok"]
    assert reloaded[0] == {"ok": True, "generation": 3, "workers": 2}
    with supervised.connect() as sock:
        assert exchange(sock)[1:] == (3, "newest")


def test_when_the_old_one_dies_meanwhile_the_new_one_takes_over(supervised):
    supervised.configure({"listeners": MAIN, "fault": "slow"})
    supervised.signal(signal.SIGUSR2)
    pid = until(lambda: successor_of(supervised))
    with Load(supervised) as load:
        supervised.process.kill()
        supervised.wait()
        until(lambda: read_pid(supervised.pid_file) == pid)
        until(lambda: 2 in load.generations)
    assert load.failures == []
    assert supervised.status()["pid"] == pid


def test_when_the_new_one_dies_meanwhile_its_workers_leave(supervised):
    reply = []
    thread, pid = begun(supervised, reply)
    os.kill(pid, signal.SIGKILL)
    thread.join()
    assert "did not start" in reply[0]["reason"]
    assert len(supervised.pids()) == 2
    with supervised.connect() as sock:
        assert exchange(sock)[1] == 1


def test_a_stop_of_the_new_one_waits_for_what_the_old_one_serves(supervised):
    with supervised.connect() as sock:
        exchange(sock)
        pid = upgraded(supervised)
        os.kill(pid, signal.SIGTERM)
        until(lambda: "stopping" in supervised.log())
        exchange(sock)
        assert is_alive(pid)
    assert supervised.wait() == 0
    until(lambda: not is_alive(pid))


def test_no_upgrade_while_the_one_before_is_not_complete(supervised):
    with supervised.connect() as sock:
        exchange(sock)
        upgraded(supervised)
        answer = supervised.ask({"op": "upgrade"})
        assert answer["reason"] == f"the upgrade before is not complete: pid {supervised.process.pid} still drains"
