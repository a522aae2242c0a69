"""What a service manager passes is adopted by the listener with its address, and by nothing else."""

import os
import socket

import pytest

from forkproxy.config.build.core import AddressConfig
from forkproxy.supervisor import listening, passed_sockets
from forkproxy.supervisor.listening import Binding, CannotBind
from forkproxy.supervisor.passed_sockets import PassedSockets
from forkproxy.supervisor.slot import Slot
from forkproxy.supervisor.slot_sockets import SlotSockets


@pytest.fixture
def slots():
    slots = [Slot(number, None, "run") for number in range(3)]
    yield slots
    for slot in slots:
        slot.close_sockets()


@pytest.fixture
def pass_on(monkeypatch):
    """Pass sockets as systemd does, but from the number that the first has here."""
    made = []

    def pass_on(*socks, names="", pid=None):
        fds = [os.dup(sock.fileno()) for sock in socks]
        assert fds == list(range(fds[0], fds[0] + len(fds)))
        monkeypatch.setattr(passed_sockets, "FIRST_FD", fds[0])
        environment = {"LISTEN_FDS": str(len(fds)), "LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDNAMES": names}
        made.append(PassedSockets())
        made[-1].take(environment)
        assert environment == {}
        for fd in fds if pid else ():
            os.close(fd)
        return made[-1]

    yield pass_on
    for passed in made:
        passed.close()


def listening_socket(*, reuse_port=False):
    return socket.create_server(("127.0.0.1", 0), reuse_port=reuse_port)


def binding_of(sock):
    return Binding(AddressConfig(host="127.0.0.1", port=sock.getsockname()[1]))


def inode(sock):
    return os.fstat(sock.fileno()).st_ino


def test_the_slots_share_a_socket_without_reuse_port(slots, pass_on):
    with listening_socket() as given:
        sockets = SlotSockets(pass_on(given))
        binding = binding_of(given)
        sockets.bind([binding], slots, slots)
        assert {inode(slot.sockets[binding]) for slot in slots} == {inode(given)}
        assert sockets.bound_address(binding) == binding.address
        assert not slots[0].sockets[binding].get_inheritable()
        assert slots[0].sockets[binding].getblocking() is False


def test_with_reuse_port_the_first_slot_has_it_and_the_others_bind_beside(slots, pass_on):
    with listening_socket(reuse_port=True) as given:
        sockets = SlotSockets(pass_on(given))
        binding = binding_of(given)
        sockets.bind([binding], slots, slots)
        inodes = [inode(slot.sockets[binding]) for slot in slots]
        assert inodes[0] == inode(given)
        assert len(set(inodes)) == 3
        assert {slot.sockets[binding].getsockname() for slot in slots} == {given.getsockname()}


def test_who_may_not_bind_beside_shares(slots, pass_on, monkeypatch):
    def refuse(binding, port=0):
        raise CannotBind(str(binding.address), "address already in use")

    with listening_socket(reuse_port=True) as given:
        sockets = SlotSockets(pass_on(given))
        # As for a socket that root made and somebody else got.
        monkeypatch.setattr(listening, "bind", refuse)
        binding = binding_of(given)
        sockets.bind([binding], slots, slots)
        assert {inode(slot.sockets[binding]) for slot in slots} == {inode(given)}


def test_another_address_is_bound_as_ever(slots, pass_on):
    with listening_socket() as given:
        sockets = SlotSockets(pass_on(given))
        other = Binding(AddressConfig(host="127.0.0.1"), any_port_of="a/0")
        sockets.bind([other], slots, slots)
        assert inode(given) not in {inode(slot.sockets[other]) for slot in slots}


def test_a_listener_that_comes_back_finds_its_socket(slots, pass_on):
    with listening_socket() as given:
        sockets = SlotSockets(pass_on(given))
        binding = binding_of(given)
        sockets.bind([binding], slots, slots)
        assert sockets.keep_only([], slots) == [binding]
        sockets.bind([binding], slots, slots)
        assert inode(slots[0].sockets[binding]) == inode(given)


def test_the_path_of_a_passed_socket_is_not_ours_to_remove(slots, pass_on, tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(path)
        given.listen()
        sockets = SlotSockets(pass_on(given))
        binding = Binding(AddressConfig(pipe_path=path))
        sockets.bind([binding], slots, slots)
        assert {inode(slot.sockets[binding]) for slot in slots} == {inode(given)}
        sockets.keep_only([], slots)
        assert os.path.exists(path)


def test_somebody_elses_are_left_alone(pass_on):
    with listening_socket() as given:
        assert pass_on(given, pid=1).get(given.getsockname()) is None


@pytest.mark.parametrize(
    "environment", [{}, {"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())}, {"LISTEN_PID": str(os.getpid())}]
)
def test_nothing_was_passed(environment):
    passed = PassedSockets()
    passed.take(environment)
    passed.close()
    assert environment == {}


def test_what_does_not_listen_is_told_and_closed(pass_on):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.socket() as idle:
        datagrams.bind(("127.0.0.1", 0))
        idle.bind(("127.0.0.1", 0))
        passed = pass_on(datagrams, idle, names="one:two")
        assert passed.get(datagrams.getsockname()) is None
        assert passed.get(idle.getsockname()) is None


def test_two_of_one_address(pass_on):
    with listening_socket() as given:
        passed = pass_on(given, given)
        assert inode(passed.get(given.getsockname())) == inode(given)
