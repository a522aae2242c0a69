"""Rolling reload: nothing is lost, and what is refused changes nothing."""

import os
import signal
import socket
from contextlib import ExitStack

import pytest

from tests.support.proxy import free_ports
from tests.support.supervised import Load, Supervised, exchange, is_alive, until


@pytest.fixture
def supervised(tmp_path):
    with Supervised(tmp_path) as running:
        yield running


def test_a_reload_replaces_every_worker_and_fails_no_connection(supervised):
    before = supervised.pids()
    with Load(supervised) as load:
        for generation in range(2, 7):
            assert supervised.ask({"op": "reload"}) == {"ok": True, "generation": generation, "workers": 2}
        until(lambda: 6 in load.generations)
    assert load.failures == []
    assert load.done > 20
    assert not supervised.pids() & before
    until(lambda: not any(is_alive(pid) for pid in before))


def test_hup_reloads(supervised):
    supervised.signal(signal.SIGHUP)
    until(lambda: supervised.status()["generation"] == 2)
    assert {worker["generation"] for worker in supervised.workers()} == {2}


def test_connections_finish_on_the_generation_that_took_them(supervised):
    with supervised.connect() as sock:
        pid, generation, _ = exchange(sock)
        assert generation == 1
        supervised.ask({"op": "reload"})
        assert exchange(sock)[:2] == (pid, 1)
        until(lambda: [worker["pid"] for worker in supervised.workers("draining")] == [pid])
    until(lambda: not is_alive(pid))


def test_new_workers_run_the_new_file(supervised):
    supervised.configure({"listeners": {"main": "127.0.0.1:0"}, "say": "two"})
    supervised.ask({"op": "reload"})
    with supervised.connect() as sock:
        assert exchange(sock)[1:] == (2, "two")


def test_a_refused_file_changes_nothing_and_says_why(supervised):
    before = supervised.pids()
    supervised.configure({"listeners": {"main": "127.0.0.1:0"}, "fault": "refuse"})
    answer = supervised.ask({"op": "reload"})
    assert answer["ok"] is False
    assert answer["exit"] == 78
    assert answer["reason"].endswith("refused")
    assert supervised.pids() == before
    assert supervised.status()["generation"] == 1
    assert supervised.status()["last_refusal"] == answer["reason"]


@pytest.mark.parametrize(("fault", "code"), [("start", 78), ("bind", 69), ("die", 1)])
def test_workers_that_do_not_get_ready_stop_the_roll_out(supervised, fault, code):
    before = supervised.pids()
    supervised.configure({"listeners": {"main": "127.0.0.1:0"}, "fault": fault})
    answer = supervised.ask({"op": "reload"})
    assert (answer["ok"], answer["exit"]) == (False, code)
    assert supervised.pids() == before
    supervised.configure({"listeners": {"main": "127.0.0.1:0"}})
    assert supervised.ask({"op": "reload"})["ok"] is True
    assert supervised.status()["last_refusal"] == ""


def test_a_worker_that_is_not_ready_in_time_stops_the_roll_out(tmp_path):
    with Supervised(tmp_path, ready_timeout_s=1.5) as supervised:
        before = supervised.pids()
        supervised.configure({"listeners": {"main": "127.0.0.1:0"}, "fault": "stuck"})
        assert supervised.ask({"op": "reload"})["ok"] is False
        assert supervised.pids() == before


def test_a_roll_out_that_fails_half_way_is_rolled_back(supervised):
    supervised.configure({"listeners": {"main": "127.0.0.1:0"}, "fault": "die-in-slot-1"})
    answer = supervised.ask({"op": "reload"})
    assert answer["ok"] is False
    until(lambda: "rolled back" in supervised.log())
    assert [worker["generation"] for worker in supervised.workers()] == [1, 1]
    with supervised.connect() as sock:
        assert exchange(sock)[1] == 1


def test_a_crash_during_a_roll_out_restarts_the_generation_of_its_slot(supervised):
    supervised.configure({"listeners": {"main": "127.0.0.1:0"}, "fault": "slow"})
    second = supervised.workers()[1]
    supervised.signal(signal.SIGHUP)
    until(lambda: supervised.workers("starting"))
    os.kill(second["pid"], signal.SIGKILL)
    until(lambda: {worker["generation"] for worker in supervised.workers()} == {2})
    assert "no further worker" not in supervised.log()


def test_listeners_come_go_and_stay(supervised):
    (port,) = free_ports(1)
    kept = supervised.address()
    supervised.configure({"listeners": {"main": "127.0.0.1:0", "more": f"127.0.0.1:{port}"}})
    supervised.ask({"op": "reload"})
    assert supervised.address() == kept
    with supervised.connect("more") as sock:
        assert exchange(sock)[1] == 2
    supervised.configure({"listeners": {"main": "127.0.0.1:0"}})
    supervised.ask({"op": "reload"})
    with pytest.raises(ConnectionRefusedError):
        until(lambda: socket.create_connection(("127.0.0.1", port)).close())
    with supervised.connect() as sock:
        assert exchange(sock)[1] == 3


def test_a_renamed_listener_keeps_its_sockets(tmp_path):
    (port,) = free_ports(1)
    with Supervised(tmp_path, {"listeners": {"old": f"127.0.0.1:{port}"}}) as supervised:
        with Load(supervised, "old") as load:
            supervised.configure({"listeners": {"new": f"127.0.0.1:{port}"}})
            assert supervised.ask({"op": "reload"})["ok"] is True
            until(lambda: 2 in load.generations)
        assert load.failures == []


def test_an_address_that_is_taken_refuses_the_reload(supervised):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        supervised.configure({"listeners": {"main": "127.0.0.1:0", "more": f"127.0.0.1:{port}"}})
        answer = supervised.ask({"op": "reload"})
    assert (answer["ok"], answer["exit"]) == (False, 69)
    assert f"127.0.0.1:{port}" in answer["reason"]
    assert [entry["name"] for entry in supervised.status()["listeners"]] == ["main"]


def test_two_listeners_of_one_address_are_refused(supervised):
    (port,) = free_ports(1)
    supervised.configure({"listeners": {"a": f"127.0.0.1:{port}", "b": f"127.0.0.1:{port}"}})
    answer = supervised.ask({"op": "reload"})
    assert answer["exit"] == 78
    assert f'listener "b" has the address 127.0.0.1:{port} of listener "a"' in answer["reason"]


def test_the_file_changes_the_number_of_workers(tmp_path):
    settings = {"listeners": {"main": "127.0.0.1:0"}}
    with Supervised(tmp_path, {**settings, "concurrency": 1}, concurrency=None) as supervised:
        assert len(supervised.pids()) == 1
        for count in (3, 2):
            supervised.configure({**settings, "concurrency": count})
            supervised.ask({"op": "reload"})
            until(lambda count=count: len(supervised.pids()) == count)


def test_old_generations_are_told_and_not_too_many(tmp_path):
    with Supervised(tmp_path, drain_time_s=60.0, max_old_generations=2) as supervised, ExitStack() as stack:
        socks = []
        for generation in range(1, 5):
            sock = stack.enter_context(supervised.connect())
            assert exchange(sock)[1] == generation
            socks.append(sock)
            supervised.ask({"op": "reload"})
        # The third reload ended the first generation, the fourth the second.
        for sock in socks[:2]:
            assert sock.recv(1) == b""
            sock.close()
        until(lambda: [old["connections"] for old in supervised.status()["old_generations"]] == [1, 1])
        old = supervised.status()["old_generations"]
        assert [entry["generation"] for entry in old] == [3, 4]
        assert all(40 < entry["time_left_s"] <= 60 for entry in old)
        assert supervised.log().count("an old generation is cut off") == 2
        for sock in socks[2:]:
            exchange(sock)
            sock.close()
        until(lambda: not supervised.status()["old_generations"])


def test_drain_time_0_cuts_at_once(tmp_path):
    with Supervised(tmp_path, drain_time_s=0.0) as supervised, supervised.connect() as sock:
        exchange(sock)
        supervised.ask({"op": "reload"})
        assert sock.recv(1) == b""
        until(lambda: len(supervised.workers("draining")) == 0)
        with supervised.connect() as other:
            assert exchange(other)[1] == 2
