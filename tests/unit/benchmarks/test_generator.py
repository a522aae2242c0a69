"""The benchmark's load generator: what it sends, when a latency begins, what fails."""

import contextlib
import socket
import threading

import pytest

from tests.benchmarks.generator import Generator, Order, counted, heads, missing_bytes, percentile

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npong"


@contextlib.contextmanager
def server(answer):
    """``answer(number, socket)`` is called for each request, over all connections; returns the port."""
    numbers = iter(range(10**6))

    def serve(sock):
        with sock, contextlib.suppress(OSError):
            while sock.recv(65536):
                answer(next(numbers), sock)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    listening = socket.create_server(("127.0.0.1", 0))
    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join()
        listening.close()


def run(answer, **order):
    with server(answer) as port:
        return Generator(Order(port, **order)).run()


def test_percentiles_are_of_the_nearest_rank():
    values = list(range(1, 101))
    assert [percentile(values, each) for each in (0, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    assert percentile([7], 0.999) == 7


def test_what_is_counted():
    found = counted([0.003, 0.001, 0.002], [0.0001], 1.5, 2, {})
    assert (found.requests, found.p50_ms, found.max_ms, found.late_p99_ms, found.reopened) == (3, 2, 3, 0.1, 2)
    assert counted([], [], 0.0, 0, {"closed": 3}).max_ms == 0


@pytest.mark.parametrize(
    ("data", "missing"),
    [(b"HTTP/1.1 200 OK\r\n", 1), (ANSWER, 0), (ANSWER[:-3], 3), (ANSWER + b"more", -4)],
)
def test_what_an_answer_lacks(data, missing):
    assert missing_bytes(data) == missing


@pytest.mark.parametrize("head", [b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"])
def test_answers_that_fail(head):
    with pytest.raises(ValueError):
        missing_bytes(head)


def test_every_request_has_its_own_head():
    made = heads(Order(1, 1, varied=True))
    assert len({made(number) for number in range(2000)}) == 2000
    assert heads(Order(1, 1, path="/a", host="b"))(5).startswith(b"GET /a HTTP/1.1\r\nHost: b\r\n")


@pytest.mark.parametrize("rate", [0, 5000])
def test_all_requests_are_sent_and_counted(rate):
    found = run(lambda _number, sock: sock.sendall(ANSWER), requests=50, rate=rate, connections=3)
    assert (found.requests, found.reopened, found.failures) == (50, 0, {})


def test_an_answer_in_pieces():
    def answer(_number, sock):
        for byte in ANSWER:
            sock.sendall(bytes([byte]))

    assert run(answer, requests=3, connections=1).requests == 3


def test_a_latency_counts_from_when_the_request_was_due():
    # All twenty are due in 19 ms, and the first answer takes 50: no other can come sooner.
    held = threading.Event()

    def answer(number, sock):
        if number == 0:
            held.wait(0.05)
        sock.sendall(ANSWER)

    with server(answer) as port:
        generator = Generator(Order(port, 20, rate=1000, connections=1))
        assert generator.run().requests == 20
    assert min(generator.latencies) >= 0.03


def test_a_connection_that_is_to_close_is_opened_again():
    def answer(_number, sock):
        sock.sendall(ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        sock.shutdown(socket.SHUT_WR)

    found = run(answer, requests=5, connections=1)
    assert (found.requests, found.failures) == (5, {})
    assert found.reopened == 5


def test_failures_are_told_by_what_happened():
    def answer(number, sock):
        if number == 0:
            sock.shutdown(socket.SHUT_RDWR)
        elif number == 1:
            sock.sendall(ANSWER[:-1])
            sock.shutdown(socket.SHUT_RDWR)
        elif number == 2:
            sock.sendall(ANSWER.replace(b"200 OK", b"503 No"))
        else:
            sock.sendall(ANSWER)

    found = run(answer, requests=5, connections=1)
    assert found.failures == {"closed": 1, "broken off": 1, "status 503": 1}
    assert found.requests == 2


def test_nobody_listens_any_more():
    def accept():
        sock, _ = listening.accept()
        listening.close()
        sock.close()

    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    found = Generator(Order(listening.getsockname()[1], 5, connections=1)).run()
    thread.join()
    assert found.requests == 0
    assert found.failures.keys() >= {"connect: ConnectionRefusedError", "no connection left"}
