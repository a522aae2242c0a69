"""Times and limits of downstream connections: what ends when, with which status, flag and details."""

from __future__ import annotations

from tests.conformance.exchanges.requests import H
from tests.support.bootstrap import (
    Data,
    bootstrap,
    cluster,
    file_log,
    hcm,
    port,
    route,
    tcp_proxy,
    tls_downstream,
    vhost,
)
from tests.support.exchange import Exchange, Gap, ReadResponses, ReadToEnd
from tests.support.upstream import Gap as UpstreamGap
from tests.support.upstream import Hang

LOG = file_log(
    {
        "path": "%REQ(:PATH)%",
        "code": "%RESPONSE_CODE%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "rx": "%BYTES_RECEIVED%",
        "tx": "%BYTES_SENT%",
        "termination": "%CONNECTION_TERMINATION_DETAILS%",
    }
)
TCP_LOG = file_log(text="%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n")
LISTENERS: dict[str, Data] = {
    "main": {"request_headers_timeout": "0.3s"},
    "request": {"request_timeout": "0.3s"},
    "stream_idle": {"stream_idle_timeout": "0.3s", "request_headers_timeout": "0.9s"},
    "idle": {"common_http_protocol_options": {"idle_timeout": "0.3s"}, "drain_timeout": "1s"},
    "duration": {"common_http_protocol_options": {"max_connection_duration": "0.3s"}, "drain_timeout": "1s"},
    "requests": {"common_http_protocol_options": {"max_requests_per_connection": 2}},
    "kb": {"max_request_headers_kb": 1, "stream_flush_timeout": "0.1s"},
    "one_message": {"http_protocol_options": {"override_stream_error_on_invalid_http_message": True}},
}


def configuration() -> Data:
    """A listener for every time."""
    table = {
        "virtual_hosts": [
            vhost(
                route("/idle", action={"idle_timeout": "0.3s", "timeout": "0s"}), route("/", action={"timeout": "0s"})
            )
        ]
    }

    def listener(name: str, *filters: Data, **chain: object) -> Data:
        return {"name": name, "address": port(name), "filter_chains": [{"filters": list(filters), **chain}]}

    listeners = [listener(name, hcm(table, access_log=LOG, **more)) for name, more in LISTENERS.items()]
    once = hcm(table, access_log=LOG)
    listeners += [
        listener("handshake", once, transport_socket=tls_downstream(), transport_socket_connect_timeout="0.3s"),
        listener("no_handshake", once, transport_socket_connect_timeout="0.3s"),
        listener(
            "jitter",
            tcp_proxy(
                "up",
                access_log=TCP_LOG,
                max_downstream_connection_duration="0.2s",
                max_downstream_connection_duration_jitter_percentage={"value": 50},
            ),
        ),
        listener(
            "backoff",
            tcp_proxy(
                "refused",
                access_log=TCP_LOG,
                max_connect_attempts=3,
                backoff_options={"base_interval": "0.01s", "max_interval": "0.02s"},
                downstream_idle_timeout="0.01s",
                upstream_idle_timeout="0.01s",
            ),
        ),
    ]
    data = bootstrap([], [cluster("up", "up"), cluster("refused", "refused")])
    data["static_resources"]["listeners"] = listeners
    return data


CONFIGURATIONS = {"timeouts": configuration()}

GET = b"GET /g HTTP/1.1\r\n" + H + b"\r\n"
POST = b"POST /p HTTP/1.1\r\n" + H + b"content-length: 5\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def on(listener: str, name: str, *send: object, answer: tuple[object, ...] = (), **more: object) -> Exchange:
    """A conversation on a listener."""
    options = {"responses": 0, "config": "timeouts", "listener": listener, **more}
    return Exchange(f"{listener}: {name}", send, (answer,) if answer else (), **options)  # type: ignore[arg-type]


def sized(size: int) -> bytes:
    """A head of so many bytes."""
    head = b"GET / HTTP/1.1\r\n" + H + b"x: %b\r\n\r\n"
    return head % (b"y" * (size - len(head % b"")))


# Not the statistics: on a slow machine Envoy's idle timeout passes once more while the connection is closing.
DRAINED = ("downstream", "ending", "upstream", "log")

EXCHANGES = [
    on("main", "a head byte by byte", *[step for byte in b"GET" for step in (bytes([byte]), Gap(0.05))], ReadToEnd()),
    on("main", "a second head that stalls", GET, ReadResponses(1), b"GET /2", ReadToEnd(), log_lines=2),
    on("main", "a body that stalls is none of its business", POST, Gap(0.5), b"hello", responses=1),
    on("request", "a body that stalls", POST + b"he", ReadToEnd()),
    on("request", "a body in time, an answer late", GET, answer=(UpstreamGap(0.5), OK), responses=1),
    on("stream_idle", "a head that stalls", b"GET / HTTP/1.1\r\n", ReadToEnd()),
    on("stream_idle", "a body that stalls", POST + b"he", ReadToEnd()),
    on("stream_idle", "no answer", GET, answer=(Hang(),), responses=1),
    on(
        "stream_idle",
        "half an answer",
        GET,
        ReadToEnd(),
        answer=(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", Hang()),
    ),
    on("main", "no answer, idle on its route", b"GET /idle HTTP/1.1\r\n" + H + b"\r\n", answer=(Hang(),), responses=1),
    on("idle", "who says nothing", ReadToEnd(), log_lines=0),
    on("idle", "who says no more", GET, ReadResponses(1), ReadToEnd()),
    on(
        "idle",
        "one more while it drains",
        GET,
        ReadResponses(1),
        Gap(0.45),
        GET,
        ReadResponses(2),
        ReadToEnd(),
        log_lines=2,
        compare=DRAINED,
    ),
    on("duration", "who says nothing", ReadToEnd(), log_lines=0),
    on(
        "duration",
        "one more while it drains",
        GET,
        ReadResponses(1),
        Gap(0.45),
        GET,
        ReadResponses(2),
        ReadToEnd(),
        log_lines=2,
        compare=DRAINED,
    ),
    on("requests", "two", GET, ReadResponses(1), GET, ReadResponses(2), ReadToEnd(), log_lines=2),
    on("requests", "three at once", GET * 3, ReadResponses(2), ReadToEnd(), log_lines=2),
    *[on("kb", f"a head of {size} bytes", sized(size), responses=1) for size in (1000, 1024, 1025, 1100)],
    on("kb", "a target of 1 KiB", b"GET /" + b"p" * 1024 + b" HTTP/1.1\r\n" + H + b"\r\n", responses=1),
    on("one_message", "no host", b"GET / HTTP/1.1\r\n\r\n", ReadResponses(1), GET, responses=2, log_lines=2),
    on("handshake", "none", ReadToEnd(), log_lines=0),
    on("handshake", "half of one", b"\x16\x03\x01\x02\x00\x01", ReadToEnd(), log_lines=0),
    on("no_handshake", "raw", Gap(0.5), GET, responses=1),
    on("jitter", "tcp", ReadToEnd(), compare=("downstream", "ending", "stats")),
    on("backoff", "tcp", ReadToEnd()),
]
