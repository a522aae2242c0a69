"""Listening sockets on their way to a worker: while it reads, when it does not, and when it is gone."""

import os
import socket

import pytest

from forkproxy.worker.adoption import Adoption, Giver
from tests.support.live_loop import LiveLoop


@pytest.fixture
def loop():
    loop = LiveLoop()
    yield loop
    loop.close()


@pytest.fixture
def giver():
    giver = Giver()
    yield giver
    giver.close()
    giver.receiver.close()


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_a_socket_arrives_with_its_key(loop, giver, listening):
    got = []
    Adoption(giver.receiver).start(loop, lambda key, sock: got.append((key, sock)))
    giver.give(("web", 1), listening)
    loop.run_until(lambda: got)
    ((key, sock),) = got
    assert key == ("web", 1)
    assert os.path.sameopenfile(sock.fileno(), listening.fileno())
    assert not sock.get_inheritable()
    sock.close()


def test_what_has_no_room_is_sent_later_but_for_what_is_closed_by_then(loop, giver, listening):
    keys = []

    def adopt(key, sock):
        keys.append(key)
        sock.close()

    number = 2000
    gone = listening.dup()
    for index in range(number):
        giver.give(("web", index), listening)
    giver.give(("gone", 0), gone)
    gone.close()
    Adoption(giver.receiver).start(loop, adopt)
    loop.run_until(lambda: keys)
    assert len(keys) < number

    def has_all():
        giver.send_owed()
        return len(keys) == number

    loop.run_until(has_all)
    assert keys == [("web", index) for index in range(number)]


def test_without_the_supervisor_it_is_quiet(loop, giver):
    Adoption(giver.receiver).start(loop, lambda *_: None)
    giver.close()
    loop.run_until(lambda: giver.receiver.fileno() == -1)


def test_nothing_is_sent_to_who_is_gone(giver, listening):
    giver.receiver.close()
    giver.give(("web", 0), listening)
    giver.send_owed()
