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


# -- slots that retire


@pytest.fixture
def sockets(slots):
    sockets = SlotSockets()
    sockets.bind([ANY], slots, slots)
    yield sockets
    sockets.close_parked()


def test_what_a_slot_leaves_is_parked_and_served_by_all_others(slots, sockets):
    left = slots[1].sockets[ANY]
    assert sockets.park(slots[1], slots[:1]) == [(ANY, left)]
    assert slots[1].sockets == {}
    assert sockets.all_of(slots[0], ANY) == [slots[0].sockets[ANY], left]
    # Who is in its queue, or comes to it, is not reset.
    with socket.create_connection(left.getsockname()):
        pass


def test_a_slot_to_come_gets_what_is_parked(slots, sockets):
    left = slots[1].sockets[ANY]
    sockets.park(slots[1], slots[:1])
    more = [Slot(2, None, "run"), Slot(3, None, "run")]
    sockets.bind([ANY], more, slots[:1])
    assert more[0].sockets[ANY] is left
    assert more[1].sockets[ANY].getsockname() == left.getsockname()
    assert sockets.all_of(slots[0], ANY) == [slots[0].sockets[ANY]]
    for slot in more:
        slot.close_sockets()


def test_a_failure_parks_what_was_parked(slots, sockets):
    left = slots[1].sockets[ANY]
    sockets.park(slots[1], slots[:1])
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Binding(AddressConfig(host="127.0.0.1", port=other.getsockname()[1]))
        with pytest.raises(CannotBind):
            sockets.bind([ANY, taken], [Slot(2, None, "run")], slots[:1])
    assert sockets.parked[ANY] == [left]
    assert left.fileno() >= 0


def test_a_shared_queue_is_not_parked(slots, tmp_path):
    sockets = SlotSockets()
    path = Binding(AddressConfig(pipe_path=str(tmp_path / "x")))
    sockets.bind([path], slots, slots)
    own = slots[1].sockets[path]
    assert sockets.park(slots[1], slots[:1]) == []
    assert own.fileno() == -1
    assert sockets.all_of(slots[0], path) == [slots[0].sockets[path]]


@pytest.mark.parametrize("end", ["close", "keep_only", "leave"])
def test_what_is_parked_goes_with_its_listener(slots, sockets, end):
    left = slots[1].sockets[ANY]
    sockets.park(slots[1], slots[:1])
    {
        "close": lambda: sockets.close([ANY], slots),
        "keep_only": lambda: sockets.keep_only([], slots),
        "leave": lambda: sockets.leave([], [], slots),
    }[end]()
    assert left.fileno() == -1
    assert sockets.all_of(slots[0], ANY) == []
