"""Filter chains on fake connections; write filters on real ones, raw and under TLS."""

import pytest

from forkproxy.net.filter import (
    READ,
    READ_WRITE,
    STOP_ITERATION,
    WRITE,
    NetworkFilter,
    NetworkFilterChain,
    WriteFilteredConnection,
    check_direction,
    continue_reading,
    inject_write,
)
from tests.support.fakes import FakeConnection
from tests.support.live_loop import socket_pair


class Sink(NetworkFilter):
    terminal = True

    def __init__(self):
        self.log = []

    def on_new_connection(self, connection):
        self.log.append("new")

    def on_data(self, connection, data, end_stream):
        self.log.append((data, end_stream))

    def on_close(self, connection, reason):
        self.log.append(reason)


class Gate(NetworkFilter):
    """Holds data until told otherwise."""

    def __init__(self, log):
        self.log = log
        self.shut = True

    def on_data(self, connection, data, end_stream):
        self.log.append(("gate", data, end_stream))
        return STOP_ITERATION if self.shut else None


class Upper(NetworkFilter):
    def on_data(self, connection, data, end_stream):
        return data.upper()


def attach(*filters):
    connection = FakeConnection()
    connection.half_close = True
    NetworkFilterChain(filters).attach(connection)
    return connection


def test_data_passes_in_order_and_may_be_replaced():
    sink = Sink()
    connection = attach(Upper(), NetworkFilter(), sink)
    connection.receive(b"abc")
    connection.receive_end()
    assert sink.log == ["new", (b"ABC", False), (b"", True)]


def test_every_filter_is_told_of_the_close():
    first, second = Sink(), Sink()
    connection = attach(first, second)
    connection.peer_closes("remote_reset")
    assert first.log == second.log == ["new", "remote_reset"]


def test_stop_holds_what_comes_and_continue_hands_it_over_in_one_piece():
    sink = Sink()
    gate = Gate([])
    connection = attach(gate, sink)
    connection.receive(b"a")
    connection.receive(b"b")
    connection.receive_end()
    assert gate.log == [("gate", b"a", False)], "a stopped filter is not asked again"
    assert sink.log == ["new"]
    continue_reading(connection)
    assert sink.log == ["new", (b"ab", True)]
    continue_reading(connection)
    assert len(sink.log) == 2


def test_after_continue_data_passes_the_gate_again():
    sink, gate = Sink(), Gate([])
    connection = attach(gate, sink)
    connection.receive(b"a")
    gate.shut = False
    continue_reading(connection)
    connection.receive(b"b")
    assert sink.log == ["new", (b"a", False), (b"b", False)]


def test_held_data_is_bounded_by_a_pause_of_its_own():
    sink, gate = Sink(), Gate([])
    connection = attach(gate, sink)
    connection.high_watermark = 10
    connection.receive(b"x" * 6)
    assert connection.read_pauses == 0
    connection.receive(b"x" * 6)
    assert connection.read_pauses == 1
    connection.pause_reading()  # somebody else's
    continue_reading(connection)
    assert connection.read_pauses == 1, "only its own pause is taken back"
    assert sink.log == ["new", (b"x" * 12, False)]


def test_stop_on_a_new_connection_holds_the_connection_and_its_data_from_the_filters_after():
    class Later(Sink):
        def on_new_connection(self, connection):
            super().on_new_connection(connection)
            return STOP_ITERATION

    first, sink = Later(), Sink()
    connection = attach(first, sink)
    connection.receive(b"early")
    assert (first.log, sink.log) == (["new"], [])
    continue_reading(connection)
    assert sink.log == ["new", (b"early", False)]


def test_a_filter_that_closes_ends_the_iteration():
    class Refuse(NetworkFilter):
        def on_data(self, connection, data, end_stream):
            connection.abort()

    sink = Sink()
    connection = attach(Refuse(), sink)
    connection.receive(b"x")
    assert sink.log == ["new", "local_close"]


class Relay(NetworkFilter):
    """As tcp_proxy: an object per connection reads."""

    terminal = True

    def __init__(self):
        self.log = []

    def reader(self, connection):
        connection.on_end = lambda: self.log.append("end")
        return self.log.append


@pytest.mark.parametrize("before", [(), (Upper(),)])
def test_a_reader_gets_the_bytes_and_the_end(before):
    relay = Relay()
    connection = attach(*before, relay)
    connection.receive(b"abc")
    connection.receive_end()
    assert relay.log == [b"ABC" if before else b"abc", "end"]


def test_a_lone_reader_is_called_without_a_pipeline_between():
    relay = Relay()
    connection = attach(relay)
    assert connection.on_data == relay.log.append
    assert connection.filter_state == {}


class Session:
    def __init__(self):
        self.closed = []
        self.on_close = self.closed.append


class Host(Relay):
    """As the HTTP connection manager: that object hears of the end too."""

    def reader(self, connection):
        connection.session = self.session = Session()
        return super().reader(connection)

    def on_close(self, connection, reason):
        self.log.append(reason)
        connection.session.on_close(reason)


@pytest.mark.parametrize("before", [(), (Upper(),)])
def test_a_session_is_told_of_the_end_by_the_filter_only_where_there_are_others(before):
    host = Host()
    connection = attach(*before, host)
    connection.peer_closes("remote_reset")
    assert host.session.closed == ["remote_reset"]
    assert host.log == (["remote_reset"] if before else [])
    assert connection.session is None


# -- directions


class Reads(NetworkFilter):
    def on_data(self, connection, data, end_stream):
        return None


class Writes(NetworkFilter):
    direction = WRITE

    def on_write(self, connection, data, end_stream):
        return None


def declared(base, direction):
    return type("Declared", (base,), {"direction": direction})


class Both(Reads, Writes):
    direction = READ_WRITE


@pytest.mark.parametrize("filter_class", [NetworkFilter, Reads, Writes, Both, Relay, Sink])
def test_agreeing_directions(filter_class):
    assert check_direction(filter_class) == ""


@pytest.mark.parametrize(
    ("filter_class", "complaint"),
    [
        (declared(Writes, READ), "overrides on_write but declares direction READ"),
        (declared(Reads, WRITE), "overrides on_data but declares direction WRITE"),
        (declared(Reads, READ_WRITE), "does not override on_write"),
        (declared(NetworkFilter, WRITE), "does not override on_write"),
        (declared(NetworkFilter, "BOTH"), "'BOTH'"),
    ],
)
def test_disagreeing_directions(filter_class, complaint):
    assert complaint in check_direction(filter_class)


# -- writes


class Suffix(NetworkFilter):
    direction = WRITE

    def __init__(self, text):
        self.text = text

    def on_write(self, connection, data, end_stream):
        return data + self.text if data else None


class Keep(NetworkFilter):
    direction = WRITE

    def __init__(self):
        self.kept = b""

    def on_write(self, connection, data, end_stream):
        self.kept += data
        return self.kept if end_stream else STOP_ITERATION


def written_connection(loop, *filters):
    connection, _record, peer = socket_pair(loop, make=WriteFilteredConnection)
    connection.half_close = True
    chain = NetworkFilterChain(filters)
    assert chain.has_write_filters
    chain.attach(connection)
    connection.start()
    return connection, peer


def test_writes_pass_in_reverse_order(loop):
    connection, peer = written_connection(loop, Suffix(b"1"), Suffix(b"2"))
    connection.write(b"x")
    loop.passes()
    assert peer.recv(100) == b"x21"
    connection.abort()
    peer.close()


def test_a_write_filter_may_keep_data_and_give_it_at_the_end(loop):
    connection, peer = written_connection(loop, Suffix(b"!"), Keep())
    connection.write(b"a")
    connection.write(b"b")
    loop.passes()
    connection.end_write()
    loop.passes()
    assert peer.recv(100) == b"ab!"
    assert peer.recv(100) == b""
    connection.abort()
    peer.close()


def test_kept_data_is_injected_past_the_filter_that_kept_it(loop):
    keep = Keep()
    connection, peer = written_connection(loop, Suffix(b"!"), keep)
    connection.write(b"a")
    inject_write(connection, keep, keep.kept)
    loop.passes()
    assert peer.recv(100) == b"a!"
    connection.abort()
    peer.close()


def test_a_chain_without_write_filters_needs_no_special_connection():
    assert not NetworkFilterChain([Sink()]).has_write_filters
