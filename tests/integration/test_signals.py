"""What each signal does, and that the terminal's signals reach the supervisor only."""

import os
import signal
import socket

import pytest

from tests.support.supervised import Supervised, exchange, until


@pytest.fixture
def supervised(tmp_path):
    with Supervised(tmp_path) as running:
        yield running


def test_ttin_and_ttou_change_the_number_of_workers(supervised):
    supervised.signal(signal.SIGTTIN)
    until(lambda: len(supervised.pids()) == 3)
    for count in (2, 1):
        supervised.signal(signal.SIGTTOU)
        until(lambda count=count: len(supervised.pids()) == count)
    # The last one stays, and every new connection finds it.
    supervised.signal(signal.SIGTTOU)
    supervised.signal(signal.SIGUSR1)
    until(lambda: "logs opened again" in supervised.log())
    (pid,) = supervised.pids()
    for _ in range(20):
        with supervised.connect() as sock:
            assert exchange(sock)[0] == pid


def test_a_retired_slot_serves_what_it_has(supervised):
    retired = max(supervised.workers(), key=lambda worker: worker["slot"])["pid"]
    with supervised.connect_to(retired) as sock:
        supervised.signal(signal.SIGTTOU)
        until(lambda: len(supervised.pids()) == 1)
        assert exchange(sock)[0] == retired


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE]
)
def test_workers_ignore_the_terminal_and_the_operator(supervised, number):
    pids = supervised.pids()
    for pid in pids:
        os.kill(pid, number)
    with supervised.connect() as sock:
        assert exchange(sock)[0] in pids
    assert supervised.pids() == pids


def test_a_terminated_worker_drains_and_is_replaced(supervised):
    with supervised.connect() as sock:
        pid = exchange(sock)[0]
        os.kill(pid, signal.SIGTERM)
        assert exchange(sock)[0] == pid
    until(lambda: len(supervised.pids() - {pid}) == 2)


def test_winch_drains_the_listeners(supervised):
    address = supervised.address()
    supervised.signal(signal.SIGWINCH)
    until(lambda: is_refused(address))
    supervised.ask({"op": "reload"})
    with supervised.connect() as sock:
        exchange(sock)


def is_refused(address):
    try:
        with socket.create_connection(address):
            return False
    except ConnectionRefusedError:
        return True


def test_many_signals_at_once_lose_no_stop(supervised):
    for _ in range(50):
        supervised.signal(signal.SIGHUP)
    supervised.signal(signal.SIGTERM)
    assert supervised.wait() == 0
