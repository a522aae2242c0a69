"""What must be bound, and how a refusal reads."""

import errno
import os
import socket

import pytest

from forkproxy.config.build.core import AddressConfig
from forkproxy.config.problems import ConfigError
from forkproxy.supervisor.listening import (
    Binding,
    CannotBind,
    bind,
    bound_port,
    plan,
    refusal,
    refuse_if_taken,
    socket_address,
)
from tests.support.echo_program import address, listener


def entry(name, where, index=0):
    return (name, index, address(where), listener(name, where))


def test_a_renamed_listener_has_an_equal_binding():
    before = plan([entry("a", "127.0.0.1:80")])
    after = plan([entry("b", "127.0.0.1:80")])
    assert before["a", 0] == after["b", 0]


def test_any_port_is_another_for_each_listener():
    bindings = plan([entry("a", "127.0.0.1:0"), entry("b", "127.0.0.1:0"), entry("b", "127.0.0.1:0", 1)])
    assert len(set(bindings.values())) == 3


def test_one_address_for_two_listeners_is_an_error():
    with pytest.raises(ConfigError, match=r'"b" has the address 127\.0\.0\.1:80 of listener "a"'):
        plan([entry("a", "127.0.0.1:80"), entry("b", "127.0.0.1:80")])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (AddressConfig(host="::1", port=5), ("::1", 5)),
        (AddressConfig(pipe_path="/a/b"), "/a/b"),
        (AddressConfig(pipe_path="@name"), "\0name"),
    ],
)
def test_socket_address(config, expected):
    assert socket_address(config) == expected


def test_the_slots_of_one_binding_share_the_port_that_port_0_became():
    binding = Binding(AddressConfig(host="127.0.0.1"))
    with bind(binding) as first:
        port = bound_port(first)
        with bind(binding, port) as second:
            assert bound_port(second) == port


def test_a_port_that_another_program_shares_is_taken_all_the_same():
    # SO_REUSEPORT on both sides: the kernel itself would not object.
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        binding = Binding(AddressConfig(host="127.0.0.1", port=port), listener="web")
        with pytest.raises(CannotBind) as refused:
            refuse_if_taken(binding)
    text = str(refused.value)
    assert text.startswith(f'cannot bind 127.0.0.1:{port} (listener "web"): address already in use')
    assert f"(pid {os.getpid()})" in text
    assert not refused.value.denied


def test_a_free_port_is_not_taken():
    refuse_if_taken(Binding(AddressConfig(host="127.0.0.1")))
    refuse_if_taken(Binding(AddressConfig(pipe_path="/nowhere/at/all")))


def test_a_foreign_address_cannot_be_bound():
    with pytest.raises(CannotBind, match="Cannot assign requested address"):
        bind(Binding(AddressConfig(host="192.0.2.1", port=1)))


def test_want_of_permission_is_told_apart():
    low = refusal(AddressConfig(host="0.0.0.0", port=80), PermissionError(errno.EACCES, ""), whose="x")
    assert low.denied
    assert "CAP_NET_BIND_SERVICE" in str(low)
    assert refusal(AddressConfig(pipe_path="/root/x"), PermissionError(errno.EACCES, ""), whose="x").denied


def test_socket_options_are_set_at_their_time():
    value = (1).to_bytes(4, "little")
    options = (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, value, "STATE_PREBIND"),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, value, "STATE_LISTENING"),
    )
    with bind(Binding(AddressConfig(host="127.0.0.1"), socket_options=options)) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
