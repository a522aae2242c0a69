"""Which sockets of a group the kernel gives connections to, with the kernel as the judge."""

import socket

import pytest

from forkproxy.config.build.core import AddressConfig
from forkproxy.supervisor import steering as module
from forkproxy.supervisor.listening import Binding, bind, bound_port
from forkproxy.supervisor.steering import Steering, one_of

ANY = Binding(AddressConfig(host="127.0.0.1"), any_port_of="a/0")
PATH = Binding(AddressConfig(pipe_path="@forkproxy-steering-test"))


class Group:
    """Listening sockets of one port, and the Steering that knows them."""

    def __init__(self, size):
        self.steering = Steering()
        self.port = 0
        self.socks = []
        for _ in range(size):
            self.add()

    def add(self):
        sock = bind(ANY, self.port)
        self.port = bound_port(sock)
        self.steering.bound(ANY, sock)
        self.socks.append(sock)
        return sock

    def close(self, sock):
        sock.close()
        self.steering.closed({ANY: sock})
        self.socks.remove(sock)

    def chosen(self, connections=60):
        """The sockets that got connections."""
        found = set()
        made = [socket.create_connection(("127.0.0.1", self.port), timeout=5) for _ in range(connections)]
        for sock in self.socks:
            while True:
                try:
                    accepted, _ = sock.accept()
                except BlockingIOError:
                    break
                accepted.close()
                found.add(sock)
        for connection in made:
            connection.close()
        return found


@pytest.fixture
def group():
    made = []

    def make(size):
        made.append(Group(size))
        return made[-1]

    yield make
    for each in made:
        for sock in each.socks:
            sock.close()


@pytest.mark.parametrize("number", range(4))
def test_nothing_new_comes_to_what_is_avoided(group, number):
    four = group(4)
    going = four.socks[number]
    assert four.chosen() == set(four.socks)
    assert four.steering.avoid({ANY: going})
    assert four.chosen() == set(four.socks) - {going}
    four.close(going)
    assert four.chosen() == set(four.socks)


def test_the_order_is_followed_over_closing_and_binding(group):
    five = group(5)
    for number in (1, 0, 2):
        going = five.socks[number]
        assert five.steering.avoid({ANY: going})
        late = five.add()
        assert going not in five.chosen()
        five.close(going)
        for each in five.socks[:-1]:
            assert five.steering.avoid({ANY: each})
            assert five.chosen(20) == {sock for sock in five.socks if sock not in five.steering._avoided}
        assert five.chosen(20) == {late}
        five.steering.end()
        assert five.chosen(100) == set(five.socks)


def test_several_go_at_once(group):
    four = group(4)
    _, second, third, _ = four.socks
    assert four.steering.avoid({ANY: second})
    assert four.steering.avoid({ANY: third})
    assert four.chosen().isdisjoint({second, third})
    four.close(second)
    assert third not in four.chosen()
    four.close(third)
    assert four.chosen() == set(four.socks)


def test_the_only_socket_cannot_be_avoided(group):
    one = group(1)
    assert not one.steering.avoid({ANY: one.socks[0]})
    assert one.chosen(3) == set(one.socks)


def test_the_last_that_is_left_cannot_be_avoided(group):
    two = group(2)
    first, second = two.socks
    assert two.steering.avoid({ANY: first})
    assert not two.steering.avoid({ANY: second})
    assert second in two.chosen(20)


def test_what_came_from_elsewhere_is_not_steered_and_loses_its_program(group):
    two = group(2)
    first, second = two.socks
    assert two.steering.avoid({ANY: first})
    heir = Steering()
    heir.lost_sight_of(ANY, first)
    assert two.chosen() == {first, second}
    assert not heir.avoid({ANY: first})
    heir.bound(ANY, second)
    assert not heir.avoid({ANY: second})


def test_what_was_closed_as_a_whole_is_not_steered_any_more(group):
    two = group(2)
    first, second = two.socks
    assert two.steering.avoid({ANY: first})
    two.steering.forget(ANY)
    assert two.chosen() == {first, second}
    two.add()
    two.add()
    assert not two.steering.avoid({ANY: two.socks[2]})
    two.steering.forget(PATH)


def test_another_kind_of_socket_on_the_same_port_ends_it(group):
    two = group(2)
    other = Binding(ANY.address, backlog=7, any_port_of=ANY.any_port_of)
    sock = bind(other, two.port)
    two.steering.bound(other, sock)
    assert not two.steering.avoid({ANY: two.socks[0]})
    sock.close()


def test_a_shared_path_needs_no_steering(group):
    two = group(2)
    assert two.steering.avoid({ANY: two.socks[0], PATH: two.socks[0]})
    assert Steering().avoid({PATH: two.socks[0]})


def test_a_kernel_that_refuses_changes_nothing(group, monkeypatch):
    two = group(2)
    monkeypatch.setattr(module, "_attach", lambda sock, program: False)
    assert not two.steering.avoid({ANY: two.socks[0]})
    assert two.chosen() == set(two.socks)
    monkeypatch.undo()
    assert not module._attach(two.socks[0], one_of(range(5000)))
    with socket.socket(socket.AF_UNIX) as sock:
        assert not module._attach(sock, [])


def test_the_program():
    assert one_of([3])[2:] == [(0x06, 0, 0, 3)]
    assert one_of([0, 2, 5])[1:] == [
        (0x94, 0, 0, 3),
        (0x15, 0, 1, 0),
        (0x06, 0, 0, 0),
        (0x15, 0, 1, 1),
        (0x06, 0, 0, 2),
        (0x06, 0, 0, 5),
    ]
