"""Timeouts, retries and hedging that a request's own x-envoy-* headers ask for, from inside and from outside."""

from __future__ import annotations

from tests.support.bootstrap import ROUTER, TYPE, Data, hcm, route, vhost
from tests.support.exchange import Exchange, SendStep
from tests.support.upstream import Answer, Close, Hang
from tests.support.upstream import Gap as UpstreamGap

H = b"host: h.example\r\n"
INSIDE = b"x-forwarded-for: 10.0.0.1\r\n"
OUTSIDE = b"x-forwarded-for: 11.0.0.1\r\n"
MUTATION = TYPE + "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
BACK_OFF = {"base_interval": "0.001s"}


def added(key: str, value: str) -> Data:
    """A header to add."""
    return {"header": {"key": key, "value": value}}


def retrying(path: str, on: str = "5xx", timeout: str = "0s", **policy: object) -> Data:
    """A route with a retry policy."""
    return route(
        path, action={"timeout": timeout, "retry_policy": {"retry_on": on, "retry_back_off": BACK_OFF, **policy}}
    )


def hedging(path: str, timeout: str = "0s", hedge: Data | None = None, **policy: object) -> Data:
    """A route that hedges."""
    entry = retrying(path, "connect-failure", timeout, **{"per_try_timeout": "0.2s", **policy})
    entry["route"]["hedge_policy"] = hedge or {"hedge_on_per_try_timeout": True}
    return entry


def routes() -> list[Data]:
    """By path."""
    return [
        route("/plain", action={"timeout": "0s"}),
        route("/odd", action={"timeout": "1.001s"}),
        route("/timed", action={"timeout": "20s"}),
        retrying("/connect", "connect-failure"),
        retrying("/try", "connect-failure", per_try_timeout="5s", timeout="20s"),
        retrying("/codes", "retriable-status-codes", retriable_status_codes=[418]),
        retrying("/headers", "retriable-headers", retriable_headers=[{"name": "x-again", "present_match": True}]),
        retrying("/requests", retriable_request_headers=[{"name": "x-may", "present_match": True}]),
        {
            **route("/added", action={"timeout": "0s"}),
            "request_headers_to_add": [
                added("x-envoy-retry-on", "5xx"),
                added("x-envoy-max-retries", "2"),
                added("x-envoy-upstream-rq-timeout-ms", "9000"),
            ],
        },
        hedging("/hedge/two", num_retries=2),
        hedging("/hedge/timed", timeout="0.6s"),
        hedging("/hedge/odd", hedge={"initial_requests": 3, "additional_request_chance": {"numerator": 100}}),
        hedging("/hedge/5xx", retry_on="5xx"),
        retrying("/hedge/not", "connect-failure", per_try_timeout="0.2s"),
        hedging("/hedge"),
    ]


def manager(**router: object) -> Data:
    """Who is inside says so with x-forwarded-for."""
    inside = {"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}
    return hcm(
        {
            "virtual_hosts": [
                vhost(*routes()),
                vhost(
                    retrying("/hedged", "connect-failure", per_try_timeout="0.2s"),
                    name="counted",
                    domains=("counted.example",),
                    include_request_attempt_count=True,
                    include_attempt_count_in_response=True,
                    hedge_policy={"hedge_on_per_try_timeout": True},
                ),
            ]
        },
        internal_address_config=inside,
        http_filters=[{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER, **router}}],
    )


def strict() -> Data:
    """A router that refuses headers it cannot read, and heeds the expected timeout."""
    names = ["upstream-rq-timeout-ms", "upstream-rq-per-try-timeout-ms", "max-retries", "retry-on", "retry-grpc-on"]
    return manager(
        strict_check_headers=[f"x-envoy-{name}" for name in names],
        respect_expected_rq_timeout=True,
        suppress_envoy_headers=True,
    )


def mutated() -> Data:
    """A filter adds the headers, whoever the client is."""
    data = manager()
    mutation = {
        "name": "mutation",
        "typed_config": {
            "@type": MUTATION,
            "mutations": {
                "request_mutations": [
                    {"append": added("x-envoy-retry-on", "5xx")},
                    {"append": added("x-envoy-upstream-rq-timeout-ms", "9000")},
                ]
            },
        },
    }
    data["typed_config"]["http_filters"].insert(0, mutation)
    return data


def get(path: str, headers: bytes = b"", who: bytes = INSIDE, host: bytes = H) -> bytes:
    """A GET."""
    return b"GET %s HTTP/1.1\r\n%s%s%s\r\n" % (path.encode(), host, who, headers)


def directed(name: str, send: bytes | tuple[SendStep, ...], *answers: Answer, **more: object) -> Exchange:
    """An exchange on the configuration above."""
    sends = send if isinstance(send, tuple) else (send,)
    return Exchange(f"directed: {name}", sends, answers, **{"config": "policies", "listener": "directions", **more})  # type: ignore[arg-type]


def status(code: int, headers: bytes = b"") -> Answer:
    """An answer."""
    return (b"HTTP/1.1 %d Odd\r\n%scontent-length: 0\r\n\r\n" % (code, headers),)


OK: Answer = (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",)
NO = status(503)
HANG: Answer = (Hang(),)
RETRY = b"x-envoy-retry-on: 5xx\r\n"
ALL = (
    RETRY + b"x-envoy-retry-grpc-on: cancelled\r\nx-envoy-max-retries: 2\r\nx-envoy-upstream-rq-timeout-ms: 9000\r\n"
    b"x-envoy-upstream-rq-per-try-timeout-ms: 8000\r\nx-envoy-hedge-on-per-try-timeout: true\r\n"
    b"x-envoy-upstream-rq-timeout-alt-response: 1\r\nx-envoy-expected-rq-timeout-ms: 7000\r\n"
    b"x-envoy-retriable-status-codes: 418\r\nx-envoy-retriable-header-names: x-again\r\n"
    b"x-envoy-upstream-stream-duration-ms: 6000\r\nx-envoy-is-timeout-retry: 1\r\nx-envoy-attempt-count: 4\r\n"
)
TIMEOUT = b"x-envoy-upstream-rq-timeout-ms: %s\r\n"
PER_TRY = b"x-envoy-upstream-rq-per-try-timeout-ms: %s\r\n"
# What arrives at which connection, and when, is chance while two attempts run.
HEDGED = ("downstream", "ending", "log", "stats")
EXCHANGES = [
    directed("everything, from outside", get("/plain", ALL, OUTSIDE), OK),
    directed("everything, from inside", get("/plain", ALL), OK),
    directed("retry from inside", get("/plain", RETRY), NO, OK),
    directed("retry from outside", get("/plain", RETRY, OUTSIDE), NO, OK),
    directed("retry on nonsense", get("/plain", b"x-envoy-retry-on: nonsense\r\n"), NO, OK),
    directed("retry on two", get("/plain", b"x-envoy-retry-on: reset, retriable-4xx\r\n"), status(409), OK),
    directed("retry on two lines", get("/plain", b"x-envoy-retry-on: reset\r\nx-envoy-retry-on: 5xx\r\n"), NO, OK),
    directed(
        "gRPC conditions with the others",
        get("/plain", b"x-envoy-retry-on: cancelled\r\n"),
        status(200, b"grpc-status: 1\r\n"),
        OK,
    ),
    directed(
        "gRPC conditions",
        get("/plain", b"x-envoy-retry-grpc-on: cancelled\r\n"),
        status(200, b"grpc-status: 1\r\n"),
        OK,
    ),
    directed("other conditions with gRPC", get("/plain", b"x-envoy-retry-grpc-on: 5xx\r\n"), NO, OK),
    directed("conditions added", get("/connect", RETRY), NO, OK),
    directed("max retries", get("/plain", RETRY + b"x-envoy-max-retries: 3\r\n"), NO, NO, NO, OK),
    directed("max retries of the route", get("/codes", b"x-envoy-max-retries: 2\r\n"), status(418), status(418), OK),
    directed("max retries, none", get("/codes", b"x-envoy-max-retries: 0\r\n"), status(418), OK),
    directed("max retries, nonsense", get("/codes", b"x-envoy-max-retries: many\r\n"), status(418), OK),
    directed("max retries alone", get("/plain", b"x-envoy-max-retries: 2\r\n"), NO, OK),
    directed(
        "status codes",
        get("/plain", b"x-envoy-retry-on: retriable-status-codes\r\nx-envoy-retriable-status-codes: 404, 418,x\r\n"),
        status(418),
        OK,
    ),
    directed("status codes added", get("/codes", b"x-envoy-retriable-status-codes: 404\r\n"), status(404), OK),
    directed(
        "status codes without the condition",
        get("/connect", b"x-envoy-retriable-status-codes: 404\r\n"),
        status(404),
        OK,
    ),
    directed(
        "header names",
        get("/plain", b"x-envoy-retry-on: retriable-headers\r\nx-envoy-retriable-header-names: X-Upper, x-again\r\n"),
        status(200, b"x-again: 1\r\n"),
        OK,
    ),
    directed(
        "header names added",
        get("/headers", b"x-envoy-retriable-header-names: x-more\r\n"),
        status(200, b"x-more: 1\r\n"),
        OK,
    ),
    directed("retriable request headers hold", get("/requests", RETRY), NO, OK),
    directed("retriable request headers met", get("/requests", RETRY + b"x-may: 1\r\n"), NO, OK),
    directed("added by the route", get("/added", b"", OUTSIDE), NO, NO, OK),
    directed(
        "added by a filter",
        get("/timed", b"", OUTSIDE),
        NO,
        OK,
        listener="directions_mutated",
        compare=("downstream", "ending", "log", "stats"),
    ),
    directed("added by a filter, once", get("/timed", b"", OUTSIDE), OK, listener="directions_mutated"),
    directed("timeout", get("/plain", TIMEOUT % b"200"), HANG),
    directed("a timeout that is no float", get("/odd"), OK),
    directed("timeout from outside", get("/timed", TIMEOUT % b"200", OUTSIDE), OK),
    directed("timeout of the route", get("/timed", TIMEOUT % b"9000"), OK),
    directed("timeout of none", get("/timed", TIMEOUT % b"0"), OK),
    directed("timeout of nonsense", get("/timed", TIMEOUT % b"soon"), OK),
    directed("timeout with white space", get("/timed", TIMEOUT % b" +9000 "), OK),
    directed("timeout below zero", get("/timed", TIMEOUT % b"-1"), OK),
    directed("timeout with a fraction", get("/timed", TIMEOUT % b"9000.5"), OK),
    directed("two timeouts", get("/timed", TIMEOUT % b"1" + TIMEOUT % b"2"), OK),
    directed("timeout and attempt", get("/try", TIMEOUT % b"9000"), OK),
    directed("timeout shorter than an attempt's", get("/try", TIMEOUT % b"3000"), OK),
    directed("no timeout, but an attempt's", get("/try", TIMEOUT % b"0"), OK),
    directed("an attempt's timeout", get("/timed", PER_TRY % b"7000"), OK),
    directed("an attempt's timeout, longer", get("/timed", PER_TRY % b"70000"), OK),
    directed("an attempt's timeout, none", get("/try", PER_TRY % b"0"), OK),
    directed("an attempt's timeout passes", get("/plain", PER_TRY % b"100" + RETRY), HANG, OK),
    directed("an attempt's timeout passes without retries", get("/plain", PER_TRY % b"100"), HANG),
    directed(
        "alternative response",
        get("/plain", TIMEOUT % b"100" + b"x-envoy-upstream-rq-timeout-alt-response: no\r\n"),
        HANG,
    ),
    directed(
        "alternative response per try",
        get("/plain", PER_TRY % b"100" + b"x-envoy-upstream-rq-timeout-alt-response: 1\r\n"),
        HANG,
    ),
    directed("alternative response, answered", get("/timed", b"x-envoy-upstream-rq-timeout-alt-response: 1\r\n"), OK),
    directed("expected timeout not respected", get("/timed", b"x-envoy-expected-rq-timeout-ms: 7\r\n"), OK),
    directed("stream duration", get("/plain", b"x-envoy-upstream-stream-duration-ms: 100\r\n"), HANG),
    directed(
        "stream duration, in the answer",
        get("/plain", b"x-envoy-upstream-stream-duration-ms: 150\r\n"),
        (OK[0][:-1], Hang()),
    ),
    directed(
        "stream duration, retried", get("/plain", b"x-envoy-upstream-stream-duration-ms: 100\r\n" + RETRY), HANG, OK
    ),
    directed(
        "stream duration, in the request",
        b"POST /plain HTTP/1.1\r\n"
        + H
        + INSIDE
        + b"x-envoy-upstream-stream-duration-ms: 150\r\ncontent-length: 9\r\n\r\nabc",
        HANG,
        compare=("downstream", "ending", "log", "stats"),
    ),
    directed("stream duration of none", get("/timed", b"x-envoy-upstream-stream-duration-ms: 0\r\n"), OK),
    directed("stream duration of nonsense", get("/timed", b"x-envoy-upstream-stream-duration-ms: x\r\n"), OK),
    *(
        directed(
            f"strict, {name.decode()} {value.decode()}",
            get("/timed", b"x-envoy-%b: %b\r\n" % (name, value)),
            OK,
            listener="directions_strict",
        )
        for name, value in (
            (b"upstream-rq-timeout-ms", b"9000"),
            (b"upstream-rq-timeout-ms", b"soon"),
            (b"upstream-rq-timeout-ms", b"-1"),
            (b"upstream-rq-per-try-timeout-ms", b"x"),
            (b"max-retries", b"1.5"),
            (b"max-retries", b"99999999999999999999"),
            (b"retry-on", b"5xx, nonsense"),
            (b"retry-on", b"5xx, reset"),
            (b"retry-on", b"cancelled"),
            (b"retry-on", b""),
            (b"retry-grpc-on", b"5xx"),
            (b"retry-grpc-on", b"cancelled,"),
            (b"expected-rq-timeout-ms", b"8000"),
            (b"max-retries", b" 2 "),
        )
    ),
    directed(
        "expected timeout respected",
        get("/timed", b"x-envoy-expected-rq-timeout-ms: 200\r\n" + TIMEOUT % b"9000"),
        HANG,
        listener="directions_strict",
    ),
    directed("hedge, the second answers", get("/hedge"), HANG, OK, compare=HEDGED),
    directed("hedge, the first answers", get("/hedge"), (UpstreamGap(0.7), *OK), HANG, compare=HEDGED),
    directed("hedge, in time", get("/hedge"), OK),
    directed("hedge, not", get("/hedge/not"), HANG, OK),
    directed(
        "hedge by header", get("/hedge/not", b"x-envoy-hedge-on-per-try-timeout: true\r\n"), HANG, OK, compare=HEDGED
    ),
    directed("hedge not, by header", get("/hedge", b"x-envoy-hedge-on-per-try-timeout: false\r\n"), HANG, OK),
    directed(
        "hedge by a header that says neither",
        get("/hedge", b"x-envoy-hedge-on-per-try-timeout: 1\r\n"),
        HANG,
        OK,
        compare=HEDGED,
    ),
    directed("hedge by the virtual host", get("/hedged", host=b"host: counted.example\r\n"), HANG, OK, compare=HEDGED),
    directed("hedge, the second fails", get("/hedge"), (UpstreamGap(0.6), *OK), NO, compare=HEDGED),
    directed("hedge, the second is cut", get("/hedge"), (UpstreamGap(0.6), *OK), (Close(),), compare=HEDGED),
    directed(
        "hedge, the first fails late",
        get("/hedge/5xx"),
        (UpstreamGap(0.3), *NO),
        (UpstreamGap(0.5), *OK),
        compare=HEDGED,
    ),
    directed("hedge, the second asks for a retry", get("/hedge/5xx"), (UpstreamGap(0.6), *OK), NO, compare=HEDGED),
    directed("hedge, both fail", get("/hedge/5xx"), (UpstreamGap(0.3), *NO), status(502), compare=HEDGED),
    directed("hedge, both are cut", get("/hedge/5xx"), (UpstreamGap(0.3), Close()), (Close(),), compare=HEDGED),
    directed("hedge twice", get("/hedge/two"), HANG, HANG, OK, compare=HEDGED),
    directed("hedge until the end", get("/hedge/timed"), HANG, compare=HEDGED),
    directed("hedge, odd fields", get("/hedge/odd"), HANG, OK),
    directed(
        "hedge with a body",
        b"POST /hedge HTTP/1.1\r\n" + H + b"content-length: 5\r\n\r\n01234",
        HANG,
        OK,
        compare=HEDGED,
    ),
    directed(
        "hedge and 103", get("/hedge"), (b"HTTP/1.1 103 Early\r\n\r\n", UpstreamGap(0.25), *OK), NO, compare=HEDGED
    ),
    directed("hedge, timeout expected", get("/hedge/timed"), OK),
]
