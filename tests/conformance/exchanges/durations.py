"""How long streams and attempts may last: max_stream_duration, and gRPC's own timeouts."""

from __future__ import annotations

from tests.support.bootstrap import Data, hcm, route, vhost
from tests.support.exchange import Exchange, SendStep
from tests.support.upstream import Answer, Hang
from tests.support.upstream import Gap as UpstreamGap

H = b"host: h.example\r\n"


def timed(path: str, **action: object) -> Data:
    """A route."""
    return route(path, action=dict(action))


def lasting(
    path: str, whole: str | None = None, most: str | None = None, offset: str | None = None, **action: object
) -> Data:
    """A route with a max_stream_duration."""
    said = {"max_stream_duration": whole, "grpc_timeout_header_max": most, "grpc_timeout_header_offset": offset}
    return timed(path, max_stream_duration={name: value for name, value in said.items() if value}, **action)


def manager() -> Data:
    """A route per policy, by path."""
    routes = [
        lasting("/short", "0.2s"),
        lasting("/zero", "0s"),
        lasting("/unset", timeout="0.2s"),
        lasting("/over", "0.2s", timeout="0.1s"),
        lasting("/grpc/most", "5s", "0.3s"),
        lasting("/grpc/any", "5s", "0s"),
        lasting("/grpc/offset", "5s", "0s", "0.3s"),
        lasting(
            "/retried",
            "0.3s",
            retry_policy={
                "retry_on": "5xx",
                "num_retries": 3,
                "per_try_timeout": "0.15s",
                "retry_back_off": {"base_interval": "0.001s"},
            },
        ),
        timed("/old/most", max_grpc_timeout="0.2s", timeout="5s"),
        timed("/old/any", max_grpc_timeout="0s", timeout="5s"),
        timed("/old/offset", max_grpc_timeout="0s", grpc_timeout_offset="0.1s", timeout="5s"),
        timed(
            "/old/try", max_grpc_timeout="0s", timeout="5s", retry_policy={"retry_on": "5xx", "per_try_timeout": "2s"}
        ),
        timed("/flush", flush_timeout="1s"),
    ]
    return hcm(
        {
            "virtual_hosts": [
                vhost(*routes),
                vhost(
                    timed(
                        "/told",
                        timeout="0s",
                        retry_policy={
                            "retry_on": "5xx",
                            "num_retries": 2,
                            "per_try_timeout": "0.2s",
                            "retry_back_off": {"base_interval": "0.001s"},
                        },
                    ),
                    name="told",
                    domains=("told.example",),
                    include_is_timeout_retry_header=True,
                    include_request_attempt_count=True,
                ),
            ]
        }
    )


def get(path: str, headers: bytes = b"", host: bytes = H) -> bytes:
    """A GET."""
    return b"GET %s HTTP/1.1\r\n%s%s\r\n" % (path.encode(), host, headers)


def lasts(name: str, send: bytes | tuple[SendStep, ...], *answers: Answer, **more: object) -> Exchange:
    """An exchange on the configuration above."""
    sends = send if isinstance(send, tuple) else (send,)
    return Exchange(f"duration: {name}", sends, answers, **{"config": "policies", "listener": "durations", **more})  # type: ignore[arg-type]


def grpc(path: str, timeout: bytes = b"") -> bytes:
    """A gRPC request."""
    line = b"grpc-timeout: %s\r\n" % timeout if timeout else b""
    return b"POST %s HTTP/1.1\r\n%scontent-type: application/grpc\r\n%scontent-length: 2\r\n\r\nok" % (
        path.encode(),
        H,
        line,
    )


OK: Answer = (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",)
NO: Answer = (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",)
HANG: Answer = (Hang(),)
PART: Answer = (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nno", Hang())
POST = b"POST %s HTTP/1.1\r\n" + H + b"content-length: 10\r\n\r\n01234"
EXCHANGES = [
    lasts("answered", get("/short"), OK),
    lasts("short", get("/short"), HANG),
    lasts("short, in the answer", get("/short"), PART),
    lasts("short, in the request", POST % b"/short", HANG),
    lasts("the timeout does not count", get("/unset"), (UpstreamGap(0.4), *OK)),
    lasts("the timeout does not count beside it", get("/over"), HANG),
    lasts("with retries", get("/retried"), HANG, compare=("downstream", "ending", "log", "stats")),
    lasts("most, and none asked for", grpc("/grpc/most"), OK),
    lasts("most, not gRPC", get("/grpc/most"), (UpstreamGap(0.4), *OK)),
    lasts("less than most", grpc("/grpc/most", b"100m"), HANG),
    lasts("more than most", grpc("/grpc/most", b"9S"), HANG),
    lasts("any", grpc("/grpc/any", b"200m"), HANG),
    lasts("any, microseconds", grpc("/grpc/any", b"200000u"), HANG),
    lasts("any, nonsense", grpc("/grpc/any", b"soon"), OK),
    lasts("less the offset", grpc("/grpc/offset", b"500m"), HANG),
    lasts("shorter than the offset", grpc("/grpc/offset", b"200m"), HANG, compare=("downstream", "ending")),
    lasts("timeout of gRPC", grpc("/old/most"), HANG),
    lasts("timeout of gRPC, less", grpc("/old/most", b"100m"), HANG),
    lasts("timeout of gRPC, more", grpc("/old/most", b"1H"), HANG),
    lasts("timeout of gRPC, not gRPC", get("/old/most"), OK),
    lasts("timeout of gRPC, any", grpc("/old/any", b"200m"), HANG),
    lasts("timeout of gRPC, none", grpc("/old/any"), OK),
    lasts("timeout of gRPC, zero", grpc("/old/any", b"0m"), OK),
    lasts("timeout of gRPC less the offset", grpc("/old/offset", b"300m"), HANG),
    lasts("timeout of gRPC shorter than the offset", grpc("/old/offset", b"100m"), HANG),
    lasts("timeout of gRPC and of an attempt", grpc("/old/try", b"9S"), OK),
    lasts("timeout of gRPC and of an attempt, less", grpc("/old/try", b"1S"), OK),
    *(
        lasts(f"timeout of gRPC {text.decode()}", grpc("/old/any", text), OK)
        for text in (
            b"1H",
            b"1M",
            b"99999999m",
            b"123456789m",
            b"m",
            b"1x",
            b"5",
            b"-5m",
        )
    ),
    lasts("flush timeout", get("/flush"), OK),
    lasts("told", get("/told", host=b"host: told.example\r\n"), NO, HANG, OK),
    lasts("told already", get("/told", b"x-envoy-is-timeout-retry: 7\r\n", host=b"host: told.example\r\n"), OK),
]
