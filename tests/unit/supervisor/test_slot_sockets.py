"""Sockets come and go with the bindings; a failure changes nothing."""

import socket

import pytest

from forkproxy.config.build.core import AddressConfig
from forkproxy.supervisor.listening import Binding, CannotBind
from forkproxy.supervisor.slot import Slot
from forkproxy.supervisor.slot_sockets import SlotSockets

ANY = Binding(AddressConfig(host="127.0.0.1"), any_port_of="a/0")


@pytest.fixture
def slots():
    slots = [Slot(0, None, "run"), Slot(1, None, "run")]
    yield slots
    for slot in slots:
        slot.close_sockets()


def test_every_slot_has_its_own_socket_on_the_same_port(slots):
    sockets = SlotSockets()
    sockets.bind([ANY], slots, slots)
    first, second = (slot.sockets[ANY] for slot in slots)
    assert first.fileno() != second.fileno()
    assert first.getsockname() == second.getsockname()
    assert sockets.bound_address(ANY).port == first.getsockname()[1]


def test_what_is_bound_stays(slots):
    sockets = SlotSockets()
    sockets.bind([ANY], slots, slots)
    before = [slot.sockets[ANY] for slot in slots]
    sockets.bind([ANY], slots, slots)
    assert [slot.sockets[ANY] for slot in slots] == before
    assert sockets.keep_only([ANY], slots) == []


def test_what_is_not_needed_is_closed(slots, tmp_path):
    sockets = SlotSockets()
    path = Binding(AddressConfig(pipe_path=str(tmp_path / "x")))
    sockets.bind([ANY, path], slots, slots)
    assert sockets.keep_only([ANY], slots) == [path]
    assert [list(slot.sockets) for slot in slots] == [[ANY], [ANY]]
    assert not (tmp_path / "x").exists()


def test_a_failure_leaves_what_was_there(slots, tmp_path):
    sockets = SlotSockets()
    sockets.bind([ANY], slots, slots)
    path = Binding(AddressConfig(pipe_path=str(tmp_path / "x")))
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Binding(AddressConfig(host="127.0.0.1", port=other.getsockname()[1]))
        with pytest.raises(CannotBind):
            sockets.bind([ANY, path, taken], slots, slots)
    assert [list(slot.sockets) for slot in slots] == [[ANY], [ANY]]
    assert not (tmp_path / "x").exists()


def test_our_own_port_under_other_options_is_not_foreign(slots):
    sockets = SlotSockets()
    sockets.bind([ANY], slots, slots)
    port = sockets.bound_address(ANY).port
    again = Binding(AddressConfig(host="127.0.0.1", port=port), backlog=5)
    sockets.bind([again], slots, slots)
    assert slots[0].sockets[again].getsockname()[1] == port
