"""Which hooks a chain is compiled of."""

from forkproxy.http.chain import HttpFilterChain
from forkproxy.http.filter import HttpFilter


class Nothing(HttpFilter):
    pass


class Heads(HttpFilter):
    def decode_headers(self, stream, headers, end_stream):
        pass

    def encode_headers(self, stream, headers, end_stream):
        pass


class Everything(Heads):
    def decode_data(self, stream, data, end_stream):
        pass

    def decode_trailers(self, stream, trailers):
        pass

    def encode_data(self, stream, data, end_stream):
        pass

    def encode_trailers(self, stream, trailers):
        pass

    def on_stream_complete(self, stream):
        pass


HOOKS = ("decode_headers", "decode_data", "decode_trailers", "encode_headers", "encode_data", "encode_trailers")


def test_what_nobody_overrides_is_left_out():
    chain = HttpFilterChain([Nothing(), Nothing()])
    assert [getattr(chain, hook) for hook in (*HOOKS, "on_stream_complete")] == [()] * 7


def test_only_the_hooks_that_are_overridden():
    nothing, heads, everything = Nothing(), Heads(), Everything()
    chain = HttpFilterChain([heads, nothing, everything])
    assert chain.decode_data == ((2, everything.decode_data),)
    assert chain.on_stream_complete == (everything.on_stream_complete,)
    assert [len(getattr(chain, hook)) for hook in HOOKS] == [2, 1, 1, 2, 1, 1]


def test_decode_in_order_encode_in_reverse_positions_growing_along_the_way():
    first, second = Heads(), Heads()
    chain = HttpFilterChain([first, second])
    assert chain.decode_headers == ((0, first.decode_headers), (1, second.decode_headers))
    assert chain.encode_headers == ((-1, second.encode_headers), (0, first.encode_headers))


def test_an_inherited_override_counts():
    class Child(Heads):
        pass

    assert len(HttpFilterChain([Child()]).decode_headers) == 1


def test_the_base_filter_does_nothing():
    bare = HttpFilter.from_config({}, None)
    bare.start(None)
    bare.stop()
    assert [bare.decode_headers(None, [], True), bare.decode_data(None, b"", True), bare.decode_trailers(None, [])] == [
        None
    ] * 3
    assert [bare.encode_headers(None, [], True), bare.encode_data(None, b"", True), bare.encode_trailers(None, [])] == [
        None
    ] * 3
    assert bare.on_stream_complete(None) is None
    assert not bare.terminal


def test_names_for_the_log():
    chain = HttpFilterChain([])
    assert chain.name_of(Heads().decode_headers) == "Heads"
    assert chain.name_of(Heads()) == "Heads"
