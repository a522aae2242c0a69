import pytest

from forkproxy.config.build.direct_response import DirectResponseConfig
from forkproxy.filters.network.direct_response import DirectResponse
from forkproxy.net.filter import NetworkFilterChain, check_direction
from tests.support.fakes import FakeConnection
from tests.support.live_loop import LiveLoop, socket_pair


@pytest.mark.parametrize("response", [b"hello\n", b""])
def test_a_new_connection_is_answered_and_closed(response):
    connection = FakeConnection()
    NetworkFilterChain([DirectResponse.from_config(DirectResponseConfig(response), None)]).attach(connection)
    assert connection.written == response
    assert connection.closed


def test_a_peer_that_speaks_first_reads_the_answer_all_the_same():
    loop = LiveLoop()
    connection, _record, peer = socket_pair(loop)
    peer.send(b"x" * 100_000)
    NetworkFilterChain([DirectResponse(b"hello")]).attach(connection)
    connection.start()
    loop.passes()
    assert peer.recv(100) == b"hello"
    assert peer.recv(100) == b""
    peer.close()
    loop.run_until(lambda: connection.closed)
    loop.passes(1)
    loop.close()


def test_direction():
    assert check_direction(DirectResponse) == ""
    assert DirectResponse.terminal
