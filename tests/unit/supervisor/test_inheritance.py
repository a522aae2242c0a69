"""What is left to a successor is a list of descriptors, and both sides may be of different versions."""

import os
import socket

import pytest

from forkproxy.config.build.core import AddressConfig
from forkproxy.supervisor.inheritance import PARKED, VARIABLE, Inheritance, are_alike, is_successor, likeness, take
from forkproxy.supervisor.listening import Binding
from forkproxy.supervisor.slot import Slot
from forkproxy.supervisor.slot_sockets import SlotSockets

BINDING = Binding(
    AddressConfig(host="127.0.0.1", port=80), socket_options=((1, 2, b"\0\1", "STATE_BOUND"),), listener="main"
)


def test_it_arrives_as_it_was_left():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        left = Inheritance(
            pid=1, epoch=2, generation=7, fails_health_check=True, slots=[(0, likeness(BINDING), sock.fileno())],
            passed=[("web", sock.fileno())], admin=None, pid_file=("/run/x.pid", sock.fileno()), control=None,
        )  # fmt: skip
        channel = os.dup(sock.fileno())
        environment = {VARIABLE: f"{os.getpid()}:{channel}:{left.write()}", "WATCHDOG_PID": "1"}
        found = take(environment)
        os.close(channel)
    assert environment == {"WATCHDOG_PID": str(os.getpid())}
    assert found.channel == channel
    found.channel = -1
    for name in Inheritance.__slots__:
        assert getattr(found, name) == getattr(left, name)
    assert are_alike(found.slots[0][1], likeness(BINDING))


@pytest.mark.parametrize("value", ["", "1:5:6", "nonsense"])
def test_a_copied_environment_is_no_inheritance(value):
    environment = {VARIABLE: value}
    assert not is_successor(environment)
    assert take(environment) is None
    assert environment == {}


def test_bindings_are_alike_when_all_is_that_both_know():
    known = likeness(BINDING)
    assert "listener" not in known
    assert are_alike(known, {**known, "invented": 1})
    assert are_alike({**known, "address": {**known["address"], "invented": 1}}, known)
    assert not are_alike({**known, "backlog": 1}, known)
    assert not are_alike({**known, "address": {**known["address"], "port": 81}}, known)


@pytest.fixture
def slots():
    slots = [Slot(0, None, "run"), Slot(1, None, "run")]
    yield slots
    for slot in slots:
        slot.close_sockets()


def test_a_slot_gets_the_very_socket_it_had(slots):
    binding = Binding(AddressConfig(host="127.0.0.1"), any_port_of="a/0")
    before = SlotSockets()
    before.bind([binding], slots, slots)
    left = [(slot.number, likeness(binding), os.dup(slot.sockets[binding].fileno())) for slot in slots]
    port = before.bound_address(binding).port
    fresh = [Slot(0, None, "run"), Slot(1, None, "run"), Slot(2, None, "run")]
    sockets = SlotSockets()
    sockets.inherit(left)
    sockets.bind([binding], fresh, fresh)
    assert [slot.sockets[binding].fileno() for slot in fresh[:2]] == [fd for _slot, _binding, fd in left]
    assert {slot.sockets[binding].getsockname()[1] for slot in fresh} == {port}
    assert sockets.adopted.keys() == {fd for _slot, _binding, fd in left}
    for slot in fresh:
        slot.close_sockets()


def test_paths_of_what_a_successor_has_not_kept_go(tmp_path, slots):
    kept, gone, rebound = (
        Binding(AddressConfig(pipe_path=str(tmp_path / name))) for name in ("kept", "gone", "rebound")
    )
    sockets = SlotSockets()
    sockets.bind([kept, gone, rebound], slots, slots)
    sockets.leave({slot.sockets[kept].fileno() for slot in slots}, [rebound.address.pipe_path], slots)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "rebound"]
    assert not any(slot.sockets for slot in slots)


def inherited(slots, numbers):
    """Likeness and sockets of ``slots``, which a predecessor had in slots with these numbers."""
    binding = Binding(AddressConfig(host="127.0.0.1"), any_port_of="a/0")
    before = SlotSockets()
    before.bind([binding], slots, slots)
    left = [
        (n, likeness(binding), os.dup(slot.sockets[binding].fileno())) for n, slot in zip(numbers, slots, strict=True)
    ]
    sockets = SlotSockets()
    sockets.inherit(left)
    return binding, sockets, [fd for _slot, _binding, fd in left]


def test_what_was_parked_is_for_a_slot_that_has_nothing(slots):
    binding, sockets, (own, parked) = inherited(slots, [0, PARKED])
    fresh = [Slot(0, None, "run"), Slot(1, None, "run")]
    sockets.bind([binding], fresh[:1], fresh[:1])
    assert fresh[0].sockets[binding].fileno() == own
    sockets.bind([binding], fresh, fresh)
    assert fresh[1].sockets[binding].fileno() == parked
    for slot in fresh:
        slot.close_sockets()


def test_with_fewer_slots_the_rest_is_parked_and_kept(slots):
    binding, sockets, fds = inherited(slots, [0, 7])
    fresh = [Slot(0, None, "run")]
    sockets.bind([binding], fresh, fresh)
    sockets.park_inherited([binding], fresh)
    sockets.close_unused()
    assert [sock.fileno() for sock in sockets.all_of(fresh[0], binding)] == fds
    assert sockets.adopted.keys() == set(fds)
    fresh[0].close_sockets()
    sockets.close_parked()


def test_a_path_s_queue_is_not_parked(tmp_path, slots):
    binding = Binding(AddressConfig(pipe_path=str(tmp_path / "x")))
    before = SlotSockets()
    before.bind([binding], slots, slots)
    sockets = SlotSockets()
    sockets.inherit([(n, likeness(binding), os.dup(slot.sockets[binding].fileno())) for n, slot in enumerate(slots)])
    fresh = [Slot(0, None, "run")]
    sockets.bind([binding], fresh, fresh)
    sockets.park_inherited([binding], fresh)
    sockets.close_unused()
    assert sockets.parked == {}
    assert len(sockets.adopted) == 1
    fresh[0].close_sockets()
