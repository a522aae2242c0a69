"""Filters that are not ours, named ``module:Class`` in the file: they work on real traffic, and their bugs stay theirs."""

import http.client
import os
import socket

import pytest

from tests.support import bootstrap as b
from tests.support.forkproxy import Forkproxy
from tests.support.proxy import free_ports
from tests.support.supervised import until
from tests.support.upstream import Early, Gap, ScriptedUpstream

MODULE = '''
from forkproxy.http.filter import HttpFilter
from forkproxy.net.filter import STOP_ITERATION, NetworkFilter, continue_reading


class Tag(HttpFilter):
    """Adds a header on the way up and one on the way down."""

    def __init__(self, config, context):
        self.text = config["text"].encode()
        self.seen = context.registry.counter("tag.seen")

    @classmethod
    def from_config(cls, config, context):
        return cls(config, context)

    def decode_headers(self, stream, headers, end_stream):
        self.seen.value += 1
        headers.append((b"x-tag", self.text))
        stream.filter_state[self] = stream.path

    def encode_headers(self, stream, headers, end_stream):
        headers.append((b"x-was", stream.filter_state[self]))


class Faulty(HttpFilter):
    """Raises in the hook that the request names."""

    def fail_in(self, hook, stream):
        if (b"x-fault", hook.encode()) in stream.request_headers:
            raise RuntimeError("fault in " + hook)

    def decode_headers(self, stream, headers, end_stream):
        self.fail_in("decode_headers", stream)

    def decode_data(self, stream, data, end_stream):
        self.fail_in("decode_data", stream)

    def decode_trailers(self, stream, trailers):
        self.fail_in("decode_trailers", stream)

    def encode_headers(self, stream, headers, end_stream):
        self.fail_in("encode_headers", stream)

    def encode_data(self, stream, data, end_stream):
        self.fail_in("encode_data", stream)

    def encode_trailers(self, stream, trailers):
        self.fail_in("encode_trailers", stream)

    def on_stream_complete(self, stream):
        self.fail_in("on_stream_complete", stream)


class Upper(NetworkFilter):
    direction = "READ"

    def on_data(self, connection, data, end_stream):
        if data == b"on_data":
            raise RuntimeError("fault in on_data")
        return data.upper()


class Bang(NetworkFilter):
    direction = "WRITE"

    def on_write(self, connection, data, end_stream):
        if data == b"(ON_WRITE)":
            raise RuntimeError("fault in on_write")
        return data + b"!" if data else None

    def on_close(self, connection, reason):
        if connection.filter_state.get("fault"):
            raise RuntimeError("fault in on_close")


class Brackets(NetworkFilter):
    direction = "READ_WRITE"

    def on_data(self, connection, data, end_stream):
        connection.filter_state["fault"] = data == b"ON_CLOSE"
        return b"(" + data if data else None

    def on_write(self, connection, data, end_stream):
        return data + b")" if data else None


class Refuses(NetworkFilter):
    def on_new_connection(self, connection):
        raise RuntimeError("fault in on_new_connection")

    def on_data(self, connection, data, end_stream):
        return None


class Later(NetworkFilter):
    """Holds the first data until a timer lets go."""

    def start(self, worker):
        self.loop = worker.loop

    def on_data(self, connection, data, end_stream):
        if self in connection.filter_state:
            return None
        connection.filter_state[self] = True
        self.loop.call_later(0.01, lambda: continue_reading(connection))
        return STOP_ITERATION
'''
ROUTER = {"name": "envoy.filters.http.router", "typed_config": {"@type": b.ROUTER}}
ECHO = {
    "name": "envoy.filters.network.echo",
    "typed_config": {"@type": b.TYPE + "envoy.extensions.filters.network.echo.v3.Echo"},
}
TAG = {
    "name": "theirs:Tag",
    "typed_config": {"@type": b.TYPE + "google.protobuf.Struct", "value": {"text": "blue"}},
}
ANSWER = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-end: yes\r\n\r\n"
# The head first: what goes wrong later goes wrong in the middle of a response.
ANSWER_IN_TWO = (ANSWER[:47], Gap(), ANSWER[47:])


def network_listener(name, *filters):
    return {"name": name, "address": b.port(name), "filter_chains": [{"filters": [*filters]}]}


def named(name):
    return {"name": f"theirs:{name}"}


class Proxy(Forkproxy):
    """forkproxy with the listeners of this file."""

    def __init__(self):
        names = ("main", "admin", "net", "refuses", "held", "http")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.upstream = ScriptedUpstream()
        trailers = {"http_protocol_options": {"enable_trailers": True}}
        routes = {"virtual_hosts": [b.vhost(b.route("/"))]}
        hcm = b.hcm(routes, access_log=[], http_filters=[TAG, named("Faulty"), ROUTER], **trailers)
        plain = b.hcm(routes, access_log=[], stat_prefix="plain")
        wrapped = [named("Upper"), named("Bang"), named("Brackets"), ECHO]
        data = b.bootstrap(
            [hcm],
            [b.cluster("up", "upstream", **trailers)],
            more_listeners=[
                network_listener("net", *wrapped),
                network_listener("refuses", named("Refuses"), ECHO),
                network_listener("held", named("Later"), ECHO),
                network_listener("http", named("Later"), named("Bang"), plain),
            ],
        )
        super().__init__(b.render(data, {**self.ports, "upstream": self.upstream.port}), admin_port=self.ports["admin"])
        (self.directory / "theirs.py").write_text(MODULE)

    def close(self):
        super().close()
        self.upstream.stop()

    def failures(self):
        return self.counters()["forkproxy.filter_exception"]

    def connect(self, name):
        return socket.create_connection(("127.0.0.1", self.ports[name]), timeout=10)


@pytest.fixture
def proxy():
    running = Proxy()
    running.start()
    yield running
    running.close()


def request(proxy, fault="", path="/"):
    """(status, body, whether it was complete) of a request with a body and trailers."""
    with proxy.connect("main") as sock:
        sock.sendall(
            f"POST {path} HTTP/1.1\r\nhost: a\r\nx-fault: {fault}\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n".encode()
            + b"3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n"
        )
        answer = http.client.HTTPResponse(sock)
        try:
            answer.begin()
            return answer.status, answer.read(), answer
        except http.client.HTTPException:
            return 0, b"", None


def test_an_http_filter_works(proxy):
    proxy.upstream.script([(ANSWER,)])
    status, body, answer = request(proxy, path="/here")
    assert (status, body) == (200, b"body")
    assert answer.headers["x-was"] == "/here"
    assert b"\r\nx-tag: blue\r\n" in b"".join(proxy.upstream.received())
    assert proxy.counters()["tag.seen"] == 1


@pytest.mark.parametrize(
    ("hook", "outcome"),
    [
        ("decode_headers", 500),
        ("decode_data", 500),
        ("decode_trailers", 500),
        ("encode_headers", 500),
        ("encode_data", "broken off"),
        ("encode_trailers", "broken off"),
        ("on_stream_complete", 200),
    ],
)
def test_an_http_filter_s_bug_ends_its_stream(proxy, hook, outcome):
    before = proxy.pids()
    early = (Early(),) if hook.startswith("decode") else ()
    proxy.upstream.script([(*early, *ANSWER_IN_TWO)])
    for total in (1, 2):
        status, body, _ = request(proxy, hook)
        if outcome == "broken off":
            # The head has left: the client must not take what came for the whole.
            assert status == 0
        else:
            assert status == outcome
            assert body == (b"body" if outcome == 200 else b"")
        until(lambda total=total: proxy.failures() == total)
    # Everything else goes on, in the same processes; the log has the traceback once.
    proxy.upstream.script([(ANSWER,)])
    assert request(proxy)[:2] == (200, b"body")
    assert proxy.pids() == before
    log = proxy.output()
    assert log.count("Traceback") == 1
    assert log.count(f"RuntimeError: fault in {hook}") == 1
    assert "filter=Faulty" in log
    assert "theirs.py" in log


def talk(proxy, data, name="net"):
    """What comes back for ``data`` until the end."""
    with proxy.connect(name) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: receive(sock), b""))


def receive(sock):
    try:
        return sock.recv(65536)
    except ConnectionResetError:
        return b""


def test_network_filters_of_each_kind_work(proxy):
    # READ in the order of the file, WRITE in reverse: upper, "(", echo, ")", "!".
    assert talk(proxy, b"hello") == b"(HELLO)!"
    with proxy.connect("held") as sock:
        sock.sendall(b"kept back")
        assert sock.recv(100) == b"kept back"


def test_network_filters_before_http(proxy):
    proxy.upstream.script([(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",)])
    with proxy.connect("http") as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        got = b"".join(iter(lambda: receive(sock), b""))
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"ok!")


@pytest.mark.parametrize(
    ("hook", "data", "name"),
    [
        ("on_new_connection", b"", "refuses"),
        ("on_data", b"on_data", "net"),
        ("on_write", b"on_write", "net"),
        ("on_close", b"on_close", "net"),
    ],
)
def test_a_network_filter_s_bug_ends_its_connection(proxy, hook, data, name):
    before = proxy.pids()
    with proxy.connect("net") as other:
        other.sendall(b"a")
        assert other.recv(10) == b"(A)!"
        for total in (1, 2):
            got = talk(proxy, data, name)
            assert got == (b"(ON_CLOSE)!" if hook == "on_close" else b"")
            until(lambda total=total: proxy.failures() == total)
        # The connection beside it does not notice.
        other.sendall(b"b")
        assert other.recv(10) == b"(B)!"
    prefix = f"listener.127.0.0.1_{proxy.ports[name]}"
    until(lambda: proxy.counters()[f"{prefix}.downstream_cx_active"] == 0)
    assert proxy.pids() == before
    log = proxy.output()
    assert log.count("Traceback") == 1
    assert log.count(f"RuntimeError: fault in {hook}") == 1
    assert "its connection ends" in log


def test_a_filter_that_cannot_be_made_refuses_the_reload(proxy):
    good = proxy.config_path.read_text()
    before = proxy.pids()
    proxy.config_path.write_text(good.replace("text: blue", "colour: blue"))
    os.kill(before[0], 1)
    until(lambda: "reload refused" in proxy.output())
    assert "KeyError: 'text'" in proxy.output()
    assert proxy.pids() == before
    assert talk(proxy, b"still here") == b"(STILL HERE)!"
