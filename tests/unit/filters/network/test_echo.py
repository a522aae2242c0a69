from forkproxy.filters.network.echo import Echo
from forkproxy.net.filter import NetworkFilter, NetworkFilterChain, check_direction
from tests.support.fakes import FakeConnection


def attached(*before):
    connection = FakeConnection()
    NetworkFilterChain([*before, Echo()]).attach(connection)
    return connection


def test_what_comes_goes_back():
    connection = attached()
    connection.receive(b"ab")
    connection.receive(b"c")
    assert connection.written == b"abc"


def test_behind_another_filter():
    class Upper(NetworkFilter):
        def on_data(self, connection, data, end_stream):
            return data.upper()

    connection = attached(Upper())
    connection.receive(b"ab")
    assert connection.written == b"AB"


def test_a_peer_that_does_not_read_is_not_read():
    connection = attached()
    connection.hold_writes = True
    connection.high_watermark = 10
    connection.receive(b"x" * 11)
    assert connection.read_pauses == 1
    connection.flush_all()
    assert connection.read_pauses == 0


def test_the_end_of_data_closes_as_in_envoy():
    connection = attached()
    connection.receive_end()
    assert connection.closed


def test_direction():
    assert check_direction(Echo) == ""
    assert Echo.terminal
