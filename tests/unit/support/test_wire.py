"""The tests' own message cutter: what it takes for complete decides when a differential test stops reading."""

import pytest

from tests.support.wire import complete_finals, cut_message, cut_responses, join_chunks

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\nx-t: 1\r\n\r\n"


@pytest.mark.parametrize("message", [OK, CHUNKED], ids=["length", "chunked"])
def test_a_response_is_complete_with_its_last_byte(message):
    for end in range(len(message)):
        assert complete_finals(message[:end], [b"GET"]) == 0
    assert complete_finals(message, [b"GET"]) == 1


def test_head_has_no_body():
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"
    assert complete_finals(head, [b"HEAD"]) == 1
    assert complete_finals(head, [b"GET"]) == 0


def test_interim_responses_do_not_count():
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert complete_finals(interim, [b"POST"]) == 0
    assert [m.status for m in cut_responses(interim + OK, [b"POST"])] == [100, 200]


def test_methods_follow_the_responses():
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    assert [m.body for m in cut_responses(head + OK, [b"HEAD", b"GET"])] == [b"", b"ok"]


def test_without_framing_it_ends_by_close():
    (message,) = cut_responses(b"HTTP/1.1 200 OK\r\n\r\nhello", [b"GET"])
    assert message.close_delimited
    assert not message.complete


def test_a_request_without_framing_has_no_body():
    data = b"\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\nGET /2"
    message, end = cut_message(data, 0, request_method=None)
    assert message.complete
    assert data[end:] == b"GET /2"


def test_chunks_are_joined_and_nothing_else_changes():
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    apart = head + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nx-t: 1\r\n\r\n" + OK
    assert join_chunks(apart, request_methods=[b"GET"]) == head + b"5\r\nabcde\r\n0\r\nx-t: 1\r\n\r\n" + OK
    cut = head + b"3\r\nabc\r\n2\r\nd"
    assert join_chunks(cut, request_methods=[b"GET"]) == head + b"3\r\nabc\r\n2\r\nd"
    assert join_chunks(head + OK, request_methods=[b"HEAD", b"GET"]) == head + OK
    assert join_chunks(b"garbage", request_methods=[b"GET"]) == b"garbage"
