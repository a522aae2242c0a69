"""Streams and their way through filters, played as conversations."""

import pytest

from forkproxy.config.build.core import HeaderMutations, HeaderValueOption
from forkproxy.http import response_flags
from forkproxy.http.filter import STOP_ITERATION, HttpFilter
from tests.support.playbook import WHERE, play, route

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED_POST = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKED_OK = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
TRAILERS = {"enable_trailers": True, "cluster": {"enable_trailers": True}}


class Recorder(HttpFilter):
    """Writes down every call under its name, and does what ``on`` says: hook → result, or a callable."""

    def __init__(self, log, name, **on):
        self.log = log
        self.name = name
        self.on = on
        self.stream = None

    def _do(self, hook, stream, *arguments):
        self.stream = stream
        self.log.append((self.name, hook, *arguments))
        result = self.on.get(hook)
        return result(stream, *arguments) if callable(result) else result

    def decode_headers(self, stream, headers, end_stream):
        return self._do("decode_headers", stream, end_stream)

    def decode_data(self, stream, data, end_stream):
        return self._do("decode_data", stream, data, end_stream)

    def decode_trailers(self, stream, trailers):
        return self._do("decode_trailers", stream, list(trailers))

    def encode_headers(self, stream, headers, end_stream):
        return self._do("encode_headers", stream, end_stream)

    def encode_data(self, stream, data, end_stream):
        return self._do("encode_data", stream, data, end_stream)

    def encode_trailers(self, stream, trailers):
        return self._do("encode_trailers", stream, list(trailers))

    def on_stream_complete(self, stream):
        return self._do("complete", stream)


def recorders(first=None, second=None):
    log = []
    return log, Recorder(log, "a", **(first or {})), Recorder(log, "b", **(second or {}))


def hooks(log, *wanted):
    """(name, hook) of the log, of the hooks wanted."""
    return [entry[:2] for entry in log if not wanted or entry[1] in wanted]


def of(log, hook):
    """What one hook was given, with the filter's name."""
    return [(entry[0], *entry[2:]) for entry in log if entry[1] == hook]


# -- order


def test_decoding_in_order_encoding_in_reverse():
    log, a, b = recorders()
    p = play(a, b, **TRAILERS)
    p.downstream(CHUNKED_POST, b"1\r\nx\r\n0\r\nt: 1\r\n\r\n")
    p.expect_upstream(CHUNKED_POST + b"1\r\nx\r\n0\r\nt: 1\r\n\r\n")
    p.upstream(CHUNKED_OK, b"1\r\ny\r\n0\r\nu: 2\r\n\r\n")
    p.expect_downstream(CHUNKED_OK + b"1\r\ny\r\n0\r\nu: 2\r\n\r\n")
    assert log == [
        ("a", "decode_headers", False),
        ("b", "decode_headers", False),
        ("a", "decode_data", b"x", False),
        ("b", "decode_data", b"x", False),
        ("a", "decode_trailers", [(b"t", b"1")]),
        ("b", "decode_trailers", [(b"t", b"1")]),
        ("b", "encode_headers", False),
        ("a", "encode_headers", False),
        ("b", "encode_data", b"y", False),
        ("a", "encode_data", b"y", False),
        ("b", "encode_trailers", [(b"u", b"2")]),
        ("a", "encode_trailers", [(b"u", b"2")]),
        ("a", "complete"),
        ("b", "complete"),
    ]


def test_a_body_without_trailers_ends_with_an_empty_piece():
    log, a, _ = recorders()
    p = play(a)
    p.downstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").upstream(OK)
    assert of(log, "decode_data") == [("a", b"hi", False), ("a", b"", True)]
    assert of(log, "encode_data") == [("a", b"ok", False), ("a", b"", True)]


# -- holding requests


def test_a_request_is_held_until_the_filter_goes_on():
    log, a, b = recorders({"decode_headers": STOP_ITERATION})
    p = play(a, b).downstream(GET).expect_upstream()
    assert hooks(log) == [("a", "decode_headers")]
    a.stream.continue_decoding()
    p.run()
    p.expect_upstream(GET)
    assert of(log, "decode_headers") == [("a", True), ("b", True)]
    p.upstream(OK).expect_downstream(OK).expect_quiet()


class HeadHolder(HttpFilter):
    """Holds the head and does not look at bodies."""

    def decode_headers(self, stream, headers, end_stream):
        self.stream = stream
        return STOP_ITERATION


def test_a_body_waits_with_its_held_head():
    log, _, b = recorders()
    holder = HeadHolder()
    p = play(holder, b).downstream(CHUNKED_POST, b"1\r\nx\r\n", b"1\r\ny\r\n0\r\n\r\n").expect_upstream()
    assert log == []
    holder.stream.continue_decoding()
    p.run()
    p.expect_upstream(CHUNKED_POST + b"2\r\nxy\r\n0\r\n\r\n")
    assert log == [("b", "decode_headers", False), ("b", "decode_data", b"xy", True)]


def test_what_comes_after_going_on_passes():
    holder = HeadHolder()
    p = play(holder).downstream(CHUNKED_POST, b"1\r\nx\r\n")
    holder.stream.continue_decoding()
    p.run()
    p.expect_upstream(CHUNKED_POST + b"1\r\nx\r\n").downstream(b"1\r\ny\r\n0\r\n\r\n").expect_upstream(
        b"1\r\ny\r\n0\r\n\r\n"
    )


def test_a_held_head_whose_body_turned_out_empty_says_so():
    log, _, b = recorders()
    holder = HeadHolder()
    p = play(holder, b).downstream(CHUNKED_POST, b"0\r\n\r\n")
    holder.stream.continue_decoding()
    p.run()
    assert log == [("b", "decode_headers", True)]


def test_trailers_wait_with_a_held_head():
    log, _, b = recorders()
    holder = HeadHolder()
    p = play(holder, b, **TRAILERS).downstream(CHUNKED_POST, b"1\r\nx\r\n0\r\nt: 1\r\n\r\n")
    holder.stream.continue_decoding()
    p.run()
    p.expect_upstream(CHUNKED_POST + b"1\r\nx\r\n0\r\nt: 1\r\n\r\n")
    assert hooks(log) == [("b", "decode_headers"), ("b", "decode_data"), ("b", "decode_trailers")]


def test_two_filters_hold_one_after_the_other():
    log, _, b = recorders(second={"decode_headers": STOP_ITERATION, "decode_data": STOP_ITERATION})
    first = HeadHolder()
    p = play(first, b).downstream(CHUNKED_POST, b"1\r\nx\r\n0\r\n\r\n")
    first.stream.continue_decoding()
    p.run()
    assert log == [("b", "decode_headers", False), ("b", "decode_data", b"x", True)]
    p.expect_upstream()
    b.stream.continue_decoding()
    p.run()
    p.expect_upstream(CHUNKED_POST + b"1\r\nx\r\n0\r\n\r\n").upstream(OK).expect_downstream(OK).expect_quiet()


def test_a_filter_lets_go_by_letting_a_piece_pass():
    """Gather the whole body, then look at it: the usual buffering filter."""
    log = []
    gather = Recorder(
        log,
        "a",
        decode_headers=lambda stream, end_stream: None if end_stream else STOP_ITERATION,
        decode_data=lambda stream, data, end_stream: None if end_stream else STOP_ITERATION,
    )
    p = play(gather).downstream(CHUNKED_POST, b"1\r\nx\r\n", b"1\r\ny\r\n").expect_upstream()
    p.downstream(b"0\r\n\r\n").expect_upstream(CHUNKED_POST + b"2\r\nxy\r\n0\r\n\r\n")


def test_a_gathering_filter_is_told_of_trailers():
    log = []
    gather = Recorder(log, "a", decode_headers=STOP_ITERATION, decode_data=STOP_ITERATION)
    p = play(gather, **TRAILERS).downstream(CHUNKED_POST, b"1\r\nx\r\n0\r\nt: 1\r\n\r\n")
    assert hooks(log)[-1] == ("a", "decode_trailers")
    p.expect_upstream(CHUNKED_POST + b"1\r\nx\r\n0\r\nt: 1\r\n\r\n")


def test_trailers_can_be_held():
    log, a, b = recorders({"decode_trailers": STOP_ITERATION})
    p = play(a, b, **TRAILERS).downstream(CHUNKED_POST, b"1\r\nx\r\n0\r\nt: 1\r\n\r\n")
    p.expect_upstream(CHUNKED_POST + b"1\r\nx\r\n")
    assert of(log, "decode_trailers") == [("a", [(b"t", b"1")])]
    a.stream.continue_decoding()
    p.run()
    p.expect_upstream(b"0\r\nt: 1\r\n\r\n")


def test_data_alone_can_be_held():
    held = iter([STOP_ITERATION, STOP_ITERATION])
    log, a, b = recorders({"decode_data": lambda *_: next(held, None)})
    p = play(a, b).downstream(CHUNKED_POST).expect_upstream(CHUNKED_POST)
    p.downstream(b"1\r\nx\r\n", b"1\r\ny\r\n").expect_upstream()
    a.stream.continue_decoding()
    p.run()
    p.expect_upstream(b"2\r\nxy\r\n")
    assert of(log, "decode_data")[-1] == ("b", b"xy", False)
    p.downstream(b"0\r\n\r\n").expect_upstream(b"0\r\n\r\n")


def test_going_on_without_being_held_is_nothing():
    log, a, _ = recorders()
    p = play(a).downstream(GET)
    a.stream.continue_decoding()
    a.stream.continue_encoding()
    p.run()
    assert len(of(log, "decode_headers")) == 1
    p.expect_upstream(GET).upstream(OK).expect_downstream(OK)
    a.stream.continue_decoding()
    a.stream.continue_encoding()
    p.run()
    p.expect_downstream().expect_quiet()


# -- replaced data


def test_data_hooks_replace_the_piece_for_the_filters_after():
    log, a, b = recorders(
        {"decode_data": lambda stream, data, end: data.upper(), "encode_data": lambda stream, data, end: data + b"!"},
        {"encode_data": lambda stream, data, end: data.upper()},
    )
    p = play(a, b).downstream(CHUNKED_POST, b"1\r\nx\r\n").expect_upstream(CHUNKED_POST + b"1\r\nX\r\n")
    assert of(log, "decode_data") == [("a", b"x", False), ("b", b"X", False)]
    p.downstream(b"0\r\n\r\n").upstream(CHUNKED_OK, b"1\r\ny\r\n").expect_downstream(CHUNKED_OK + b"2\r\nY!\r\n")


def test_the_last_piece_may_be_replaced_by_something():
    _, a, _ = recorders({"encode_data": lambda stream, data, end: b"end" if end else None})
    p = play(a).downstream(GET).upstream(CHUNKED_OK, b"0\r\n\r\n")
    p.expect_downstream(CHUNKED_OK + b"3\r\nend\r\n0\r\n\r\n")


def test_heads_may_be_changed():
    class Changes(HttpFilter):
        def decode_headers(self, stream, headers, end_stream):
            stream.path = b"/other"
            stream.authority = b"b"
            headers.append((b"x-more", b"1"))

        def encode_headers(self, stream, headers, end_stream):
            stream.status = 299
            headers.append((b"x-less", b"2"))

    p = play(Changes()).downstream(GET).expect_upstream(b"GET /other HTTP/1.1\r\nhost: b\r\nx-more: 1\r\n\r\n")
    p.upstream(OK).expect_downstream(b"HTTP/1.1 299 Unknown\r\ncontent-length: 2\r\nx-less: 2\r\n\r\nok")
    assert p.codes == {299: 1}


# -- holding responses


def test_a_response_is_held_until_the_filter_goes_on():
    log, a, b = recorders(second={"encode_headers": STOP_ITERATION, "encode_data": STOP_ITERATION})
    p = play(a, b).downstream(GET).upstream(OK).expect_downstream()
    assert of(log, "encode_headers") == [("b", False)]
    assert of(log, "encode_data") == [("b", b"ok", False), ("b", b"", True)]
    b.stream.continue_encoding()
    p.run()
    p.expect_downstream(OK).expect_quiet()
    assert of(log, "encode_data")[2:] == [("a", b"ok", True)]


def test_the_route_timeout_does_not_end_a_response_that_a_filter_holds():
    _, a, _ = recorders({"encode_headers": STOP_ITERATION, "encode_data": STOP_ITERATION})
    p = play(a).downstream(GET).upstream(OK).advance(20).expect_downstream()
    a.stream.continue_encoding()
    p.run()
    p.expect_downstream(OK).expect_quiet()


def test_a_held_response_does_not_free_a_connection_whose_request_is_still_under_way():
    _, a, _ = recorders({"encode_headers": STOP_ITERATION, "encode_data": STOP_ITERATION})
    p = play(a).downstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").upstream(OK)
    p.expect_upstream_closed(0)
    p.connect()
    p.downstream(GET)
    assert len(p.upstreams) == 2


def test_a_gathering_filter_is_told_of_response_trailers():
    log = []
    gather = Recorder(log, "a", encode_headers=STOP_ITERATION, encode_data=STOP_ITERATION)
    p = play(gather, **TRAILERS).downstream(GET).upstream(CHUNKED_OK, b"1\r\ny\r\n0\r\nu: 2\r\n\r\n")
    assert hooks(log)[-2] == ("a", "encode_trailers")
    p.expect_downstream(CHUNKED_OK + b"1\r\ny\r\n0\r\nu: 2\r\n\r\n")


def test_response_trailers_can_be_held():
    _, a, _ = recorders({"encode_trailers": STOP_ITERATION})
    p = play(a, **TRAILERS).downstream(GET).upstream(CHUNKED_OK, b"1\r\ny\r\n0\r\nu: 2\r\n\r\n")
    p.expect_downstream(CHUNKED_OK + b"1\r\ny\r\n")
    a.stream.continue_encoding()
    p.run()
    p.expect_downstream(b"0\r\nu: 2\r\n\r\n").expect_quiet()


# -- the buffer limit


def test_a_held_request_above_the_limit_is_413():
    _, a, _ = recorders({"decode_headers": STOP_ITERATION, "decode_data": STOP_ITERATION})
    p = play(a, buffer_limit_bytes=10)
    p.downstream(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n", b"0123456789").expect_downstream()
    p.downstream(b"x")
    p.expect_downstream(
        b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 17\r\ncontent-type: text/plain\r\n"
        b"connection: close\r\n\r\nPayload Too Large"
    )
    assert p.logged == [(b"POST", b"/", 413, "request_payload_too_large", "")]
    assert p.stats.downstream_rq_too_large == 1
    p.expect_upstream().expect_quiet()


TOO_LARGE = (
    b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 21\r\ncontent-type: text/plain\r\n\r\nInternal Server Error"
)


def test_a_held_response_above_the_limit_is_500():
    _, a, _ = recorders({"encode_headers": STOP_ITERATION, "encode_data": STOP_ITERATION})
    p = play(a, buffer_limit_bytes=10).downstream(GET)
    p.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", b"01234567890")
    p.expect_downstream(TOO_LARGE).expect_quiet().expect_upstream_closed()
    assert p.logged == [(b"GET", b"/", 500, "response_payload_too_large", "")]
    assert p.stats.rs_too_large == 1


def test_a_held_body_above_the_limit_whose_head_has_left_is_broken_off():
    _, a, _ = recorders({"encode_data": STOP_ITERATION})
    p = play(a, buffer_limit_bytes=200).downstream(GET)
    p.upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", b"x" * 201)
    p.expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    assert p.down.sock.write_shut or p.down.closed
    assert p.logged == [(b"GET", b"/", 200, "response_payload_too_large", "")]
    p.expect_quiet()


# -- filters that answer


class Answers(HttpFilter):
    """Answers in one hook by a local reply."""

    def __init__(self, hook, result=STOP_ITERATION):
        self.result = result
        setattr(type(self), hook, self._answer)

    def _answer(self, stream, *_):
        stream.send_local_reply(403, b"no", [(b"x-why", b"1")], details="mine", flags=response_flags.UAEX)
        return self.result


def answering(hook, result=STOP_ITERATION):
    return type("Answering", (Answers,), {})(hook, result)


def forbidden(*more):
    lines = [b"x-why: 1", b"content-length: 2", b"content-type: text/plain", *more]
    return b"HTTP/1.1 403 Forbidden\r\n" + b"\r\n".join(lines) + b"\r\n\r\nno"


@pytest.mark.parametrize("result", [STOP_ITERATION, None])
def test_a_filter_answers_a_head(result):
    log, _, after = recorders()
    p = play(answering("decode_headers", result), after).downstream(GET).expect_downstream(forbidden())
    p.expect_upstream().expect_quiet()
    assert hooks(log) == [("b", "encode_headers"), ("b", "encode_data"), ("b", "complete")]
    assert p.logged == [(b"GET", b"/", 403, "mine", "UAEX")]


@pytest.mark.parametrize("result", [STOP_ITERATION, None])
def test_a_filter_answers_a_body(result):
    p = play(answering("decode_data", result)).downstream(CHUNKED_POST).expect_upstream(CHUNKED_POST)
    p.downstream(b"1\r\nx\r\n").expect_downstream(
        forbidden(b"connection: close")
    ).expect_upstream_closed().expect_quiet()


def test_a_filter_answers_later():
    holder = HeadHolder()
    p = play(holder).downstream(GET)
    holder.stream.send_local_reply(403, b"no", [(b"x-why", b"1")])
    p.run()
    p.expect_downstream(forbidden())
    holder.stream.continue_decoding()
    holder.stream.send_local_reply(500)
    p.run()
    p.expect_downstream().expect_upstream().expect_quiet()


def test_a_filter_answers_while_the_exchange_runs():
    log, a, _ = recorders()
    p = play(a).downstream(GET).expect_upstream(GET)
    a.stream.send_local_reply(403, b"no", [(b"x-why", b"1")])
    p.run()
    p.expect_downstream(forbidden()).expect_upstream_closed().expect_quiet()
    assert len(of(log, "complete")) == 1


def test_a_local_reply_after_the_head_breaks_the_message_off():
    _, a, _ = recorders()
    p = play(a).downstream(GET).upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok")
    a.stream.send_local_reply(403, b"no", details="mine")
    p.run()
    p.expect_downstream(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok")
    assert p.down.sock.write_shut or p.down.closed
    assert p.logged == [(b"GET", b"/", 200, "mine", "")]
    assert p.stats.downstream_rq_tx_reset == 1
    p.expect_quiet()


def test_a_local_reply_to_head_has_no_body():
    p = play(answering("decode_headers")).downstream(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert p.down.read().endswith(b"\r\n\r\n")


def test_a_local_reply_without_a_body():
    class Bare(HttpFilter):
        def decode_headers(self, stream, headers, end_stream):
            stream.send_local_reply(204)
            return STOP_ITERATION

    play(Bare()).downstream(GET).expect_downstream(b"HTTP/1.1 204 No Content\r\n\r\n")


def test_the_content_type_of_a_local_reply_may_be_given():
    class Json(HttpFilter):
        def decode_headers(self, stream, headers, end_stream):
            stream.send_local_reply(400, b"{}", [(b"content-type", b"application/json")])
            return STOP_ITERATION

    sent = play(Json()).downstream(GET).down.read()
    assert sent.count(b"content-type") == 1
    assert b"content-type: application/json\r\n" in sent


def test_routes_change_local_replies_too():
    added = HeaderValueOption("x-route", "r", "APPEND_IF_EXISTS_OR_ADD", False, WHERE)
    p = play(answering("decode_data"), routes=[route(mutations=HeaderMutations(response_add=(added,)))])
    p.downstream(CHUNKED_POST, b"1\r\nx\r\n")
    assert b"x-route: r\r\n" in p.down.read()


@pytest.mark.parametrize(
    ("status", "grpc"), [(403, 7), (404, 12), (429, 14), (503, 14), (401, 16), (400, 13), (500, 2)]
)
def test_grpc_clients_read_the_status_from_the_head(status, grpc):
    class Refuses(HttpFilter):
        def decode_headers(self, stream, headers, end_stream):
            stream.send_local_reply(status, "no ä%\n".encode())
            return STOP_ITERATION

    p = play(Refuses()).downstream(
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n"
    )
    close = b"connection: close\r\n" if status == 400 else b""  # what is a bad request may be followed by anything
    p.expect_downstream(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: %d\r\n"
        b"grpc-message: no %%C3%%A4%%25%%0A\r\n%bcontent-length: 0\r\n\r\n" % (grpc, close)
    )


def test_a_filter_answers_with_a_head_and_a_body_of_its_own():
    class Streams(HttpFilter):
        def decode_headers(self, stream, headers, end_stream):
            stream.encode_headers(200, [(b"x", b"y")], False)
            stream.encode_data(b"one", False)
            stream.encode_data(b"two", True)
            return STOP_ITERATION

    p = play(Streams()).downstream(GET)
    p.expect_downstream(
        b"HTTP/1.1 200 OK\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    )
    p.expect_upstream().expect_quiet()


# -- filters that raise


def raising(*_):
    raise ValueError("mine")


INTERNAL = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("hook", ["decode_headers", "encode_headers"])
def test_an_exception_at_a_head_is_500(hook):
    log, a, b = recorders({hook: raising})
    p = play(a, b).downstream(GET)
    if hook == "encode_headers":
        p.expect_upstream(GET).upstream(OK)
    p.expect_downstream(INTERNAL).expect_quiet()
    assert p.exceptions == [("Recorder", "mine")]
    assert p.logged == [(b"GET", b"/", 500, "filter_exception", "")]
    assert of(log, "complete") == [("a",), ("b",)]
    a.on.clear()
    p.exchange()


@pytest.mark.parametrize("hook", ["decode_data", "decode_trailers"])
def test_an_exception_at_a_request_body_is_500(hook):
    _, a, b = recorders({hook: raising})
    p = play(a, b, **TRAILERS).downstream(CHUNKED_POST, b"1\r\nx\r\n0\r\nt: 1\r\n\r\n")
    assert p.down.read().startswith(b"HTTP/1.1 500 ")
    assert p.exceptions == [("Recorder", "mine")]
    p.expect_upstream_closed(0).expect_quiet()


@pytest.mark.parametrize("hook", ["encode_data", "encode_trailers"])
def test_an_exception_at_a_response_body_breaks_it_off(hook):
    log, a, _ = recorders({hook: raising})
    p = play(a, **TRAILERS).downstream(GET).upstream(CHUNKED_OK, b"1\r\nx\r\n", b"0\r\nt: 1\r\n\r\n")
    sent = p.down.read()
    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert not sent.endswith(b"0\r\n\r\n")
    assert p.down.sock.write_shut or p.down.closed
    assert p.exceptions == [("Recorder", "mine")]
    assert len(of(log, "complete")) == 1
    p.expect_quiet()


def test_an_exception_after_going_on_is_500():
    _, _, b = recorders(second={"decode_headers": raising})
    holder = HeadHolder()
    p = play(holder, b).downstream(GET)
    holder.stream.continue_decoding()
    p.run()
    p.expect_downstream(INTERNAL).expect_quiet()


def test_an_exception_while_an_answer_goes_on_is_500():
    _, a, b = recorders({"encode_headers": raising}, {"encode_headers": STOP_ITERATION, "encode_data": STOP_ITERATION})
    p = play(a, b).downstream(GET).upstream(OK)
    b.stream.continue_encoding()
    p.run()
    p.expect_downstream(INTERNAL).expect_quiet()


def test_an_exception_at_the_end_hurts_nobody():
    log, a, b = recorders({"complete": raising})
    p = play(a, b).exchange().exchange()
    assert p.exceptions == [("Recorder", "mine")] * 2
    assert of(log, "complete") == [("a",), ("b",)] * 2
    assert len(p.logged) == 2


def test_an_answer_to_an_exception_passes_no_filter_that_might_raise_again():
    _, a, b = recorders({"encode_headers": raising, "encode_data": raising}, {"decode_headers": raising})
    p = play(a, b).downstream(GET).expect_downstream(INTERNAL)
    assert len(p.exceptions) == 1


# -- the end


@pytest.mark.parametrize("end", ["answered", "downstream gone", "upstream gone", "refused", "timeout"])
def test_on_stream_complete_comes_exactly_once(end):
    log, a, _ = recorders()
    p = play(a).downstream(b"GET / HTTP/1.1\r\n\r\n" if end == "refused" else GET)
    if end == "answered":
        p.upstream(OK)
    elif end == "downstream gone":
        p.downstream_resets()
    elif end == "upstream gone":
        p.upstream_resets()
    elif end == "timeout":
        p.advance(15)
    p.advance(10_000)
    assert of(log, "complete") == [("a",)]
    assert len(p.logged) == 1
    p.expect_quiet()


def test_filter_state_is_the_streams_own():
    seen = []

    class Counts(HttpFilter):
        def decode_headers(self, stream, headers, end_stream):
            assert self not in stream.filter_state
            stream.filter_state[self] = stream.path

        def on_stream_complete(self, stream):
            seen.append(stream.filter_state[self])

    play(Counts()).exchange(b"/1").exchange(b"/2")
    assert seen == [b"/1", b"/2"]


def test_metadata_and_defaults_are_there_without_being_set():
    _, a, _ = recorders()
    play(a).downstream(GET)
    stream = a.stream
    assert stream.dynamic_metadata == {}
    stream.dynamic_metadata["x"] = {"y": 1}
    assert stream.dynamic_metadata == {"x": {"y": 1}}
    assert (stream.scheme, stream.request_trailers, stream.virtual_host.name) == (b"http", None, "all")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = stream.nonsense
    assert "GET" in repr(stream)


def test_what_access_logs_read():
    _, a, _ = recorders()
    p = play(a, xff_num_trusted_hops=0)
    p.downstream(b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 198.51.100.7\r\n\r\n").advance(2)
    stream = a.stream
    assert stream.downstream_direct_remote_address == "192.0.2.1:40000"
    assert stream.downstream_remote_address == "198.51.100.7:0"
    assert stream.downstream_local_address == "192.0.2.2:10000"
    assert stream.wall_start == p.loop.wall() - 2
