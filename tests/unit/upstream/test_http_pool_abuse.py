"""Upstreams that answer at the wrong moment, stop reading, or break off."""

from tests.support.playbook import play

HEAD = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
UNFRAMED = b"HTTP/1.1 200 OK\r\n\r\nhello"


def test_an_early_answer_that_ends_by_close_is_counted_once():
    p = play().downstream(HEAD % 10)
    p.upstream(UNFRAMED).upstream_ends().expect_quiet()
    p.advance(1.5).expect_closed()


def test_a_reset_is_no_end_of_an_answer_without_length():
    p = play().downstream(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    p.upstream(UNFRAMED).upstream_resets()
    assert not p.down.read().endswith(b"0\r\n\r\n")
    p.advance(1.5).expect_closed().expect_quiet()


def test_a_connection_with_an_unsent_request_is_not_used_again():
    # The upstream has answered, but does not read: the next request would wait behind the rest of this one, unbounded.
    p = play()
    p.auto_accept = False
    p.downstream(HEAD % 10)
    p.upstreams[0].sock.window = 5
    p.upstreams[0].accept()
    p.downstream(b"0123456789").upstream(OK, on=0)
    assert p.upstreams[0].closed
    p.expect_quiet()


def test_endless_interim_answers_end_with_the_timeout():
    p = play().downstream(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    for _ in range(16):
        p.advance(1.0)
        if not p.upstreams[0].closed:
            p.upstream(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 100, on=0)
    assert b" 504 " in p.down.read()
    p.expect_quiet()
