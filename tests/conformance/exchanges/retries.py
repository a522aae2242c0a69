"""Attempts after the first: which answers and failures ask for one, what it is sent, and what is counted."""

from __future__ import annotations

from tests.support.bootstrap import TYPE, Data, bootstrap, cluster, hcm, route, vhost
from tests.support.exchange import Exchange, Gap, ReadUntil, Reset, SendStep, UpstreamHas
from tests.support.upstream import Answer, Close, Early, Hang
from tests.support.upstream import Gap as UpstreamGap
from tests.support.upstream import Reset as UpstreamReset

H = b"host: h.example\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BACK_OFF = {"base_interval": "0.001s"}
# With a whole timeout the second attempt's expected time is less by some milliseconds; with none there is no such header.
NO_TIMEOUT = "0s"
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
BRIEF = {
    OPTIONS: {
        "@type": TYPE + OPTIONS,
        "common_http_protocol_options": {"max_stream_duration": "0.2s"},
        "explicit_http_config": {"http_protocol_options": {}},
    }
}


def status(code: int, headers: bytes = b"", body: bytes = b"") -> Answer:
    """A whole answer."""
    return (b"HTTP/1.1 %d Odd\r\n%scontent-length: %d\r\n\r\n%s" % (code, headers, len(body), body),)


def retrying(path: str, on: str, cluster_name: str = "up", timeout: str = NO_TIMEOUT, **policy: object) -> Data:
    """A route with a retry policy."""
    entry = {"retry_on": on, "retry_back_off": BACK_OFF, **policy}
    return route(path, cluster_name, action={"timeout": timeout, "retry_policy": entry})


def configuration() -> Data:
    """A route per policy, by path."""
    present = {"present_match": True}
    seconds = {"reset_headers": [{"name": "retry-after"}, {"name": "x-reset", "format": "UNIX_TIMESTAMP"}]}
    routes = [
        retrying("/5xx", "5xx"),
        retrying("/two", "5xx", num_retries=2),
        retrying("/none", "5xx", num_retries=0),
        retrying("/gateway", "gateway-error"),
        retrying("/reset-before", "reset-before-request"),
        retrying("/reset", "reset"),
        retrying("/connect", "connect-failure"),
        retrying("/4xx", "retriable-4xx"),
        retrying("/refused", "refused-stream"),
        retrying("/codes-off", "5xx", retriable_status_codes=[418]),
        retrying("/codes", "retriable-status-codes", retriable_status_codes=[418, 200]),
        retrying("/headers-off", "reset", retriable_headers=[{"name": "x-again", **present}]),
        retrying(
            "/headers",
            "retriable-headers",
            retriable_headers=[
                {"name": "X-Again", **present},
                {"name": ":status", "string_match": {"exact": "419"}},
                {"name": "x-absent", "present_match": True, "invert_match": True},
            ],
        ),
        retrying("/requests", "5xx", retriable_request_headers=[{"name": "x-may", "string_match": {"exact": "yes"}}]),
        retrying("/ratelimited", "envoy-ratelimited"),
        retrying("/grpc", "cancelled,deadline-exceeded,resource-exhausted,unavailable,internal"),
        retrying("/unknown", "5xx,nonsense, reset"),
        retrying("/spaced", "nonsense, 5xx"),
        retrying("/empty", "", per_try_timeout="0.1s"),
        retrying("/per-try", "5xx", per_try_timeout="0.1s"),
        retrying("/try-on-connect", "connect-failure", per_try_timeout="0.1s"),
        retrying("/try-within", "5xx", timeout="30s", per_try_timeout="5s"),
        retrying("/try-longer", "5xx", timeout="0.2s", per_try_timeout="5s"),
        retrying("/idle", "5xx", per_try_idle_timeout="0.1s"),
        retrying("/late", "5xx", timeout="0.3s", retry_back_off={"base_interval": "0.001s"}, num_retries=1),
        retrying("/waiting", "5xx", timeout="0.2s", rate_limited_retry_back_off=seconds),
        retrying("/asked", "5xx", rate_limited_retry_back_off=seconds),
        retrying("/dead-5xx", "5xx", "dead", num_retries=3),
        retrying("/dead-before", "reset-before-request", "dead"),
        retrying("/dead-reset", "reset", "dead"),
        retrying("/dead-4xx", "retriable-4xx", "dead"),
        retrying("/dead", "connect-failure", "dead"),
        retrying("/half", "connect-failure", "half", num_retries=1, retry_host_predicate=[{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }], host_selection_retry_max_attempts=5),
        retrying("/closed", "5xx", "closed"),
        retrying("/overflow", "5xx", "no_requests"),
        retrying("/nowhere", "5xx", "nowhere"),
        retrying("/brief/5xx", "5xx", "brief"),
        route("/brief", "brief", action={"timeout": NO_TIMEOUT, "retry_policy": {"retry_on": "connect-failure"}}),
        route("/vhost", action={"timeout": NO_TIMEOUT}),
        route("/own", action={"timeout": NO_TIMEOUT, "retry_policy": {"retry_on": "retriable-4xx"}}),
    ]  # fmt: skip
    counted = [
        retrying("/late", "5xx", timeout="0.3s"),
        retrying("/dead", "5xx", "dead"),
        retrying("/overflow", "5xx", "no_requests"),
        retrying("/nowhere", "5xx", "nowhere"),
        retrying("/per-try", "5xx", per_try_timeout="0.1s"),
        {
            **retrying("/added", "5xx"),
            "request_headers_to_add": [{"header": {"key": "x-added", "value": "%REQ(x-envoy-attempt-count)%"}}],
        },
        retrying("/", "5xx", num_retries=2),
    ]
    named = [{**retrying("/", "5xx", "named")}]
    named[0]["route"]["auto_host_rewrite"] = True
    no_more = {"thresholds": [{"max_retries": 0}]}
    none = {"thresholds": [{"max_requests": 0}]}
    host = cluster("named", "up")
    host["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["hostname"] = "named.example"
    return bootstrap(
        [
            hcm(
                {
                    "virtual_hosts": [
                        vhost(*routes, retry_policy={"retry_on": "5xx", "retry_back_off": BACK_OFF}),
                        vhost(
                            *counted,
                            name="counted",
                            domains=("counted.example",),
                            include_request_attempt_count=True,
                            include_attempt_count_in_response=True,
                        ),
                        vhost(*named, name="named", domains=("auto.example",)),
                    ]
                }
            )
        ],
        [
            {**cluster("up", "up"), "circuit_breakers": {"thresholds": [{"max_retries": 3}]}},
            cluster("dead", "dead"),
            cluster("half", "dead", "up"),
            cluster("closed", "up", circuit_breakers=no_more),
            cluster("no_requests", "up", circuit_breakers=none),
            cluster("nowhere"),
            cluster("brief", "up", typed_extension_protocol_options=BRIEF),
            host,
        ],
    )


def get(path: str, headers: bytes = b"", host: bytes = H) -> bytes:
    """A GET."""
    return b"GET %s HTTP/1.1\r\n%s%s\r\n" % (path.encode(), host, headers)


def retry(name: str, send: bytes | tuple[SendStep, ...], *answers: Answer, **more: object) -> Exchange:
    """An exchange on the configuration above."""
    sends = send if isinstance(send, tuple) else (send,)
    return Exchange(f"retry: {name}", sends, answers, config="retries", **more)  # type: ignore[arg-type]


FINE: Answer = (OK,)
HANG: Answer = (Hang(),)
CUT: Answer = (Close(),)
POST = b"POST /5xx HTTP/1.1\r\n" + H + b"content-length: 10\r\n\r\n0123456789"
CHUNKED = b"POST /5xx HTTP/1.1\r\n" + H + b"transfer-encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"
LARGE = b"a" * (1 << 20) + b"b"
COUNTED = b"host: counted.example\r\n"
# How often reading pauses for so large a body depends on the sizes of what is read.
WITHOUT_STATS = ("downstream", "ending", "upstream", "log")
EXCHANGES = [
    *(
        retry(f"{path} on {code}", get(path), status(code), FINE)
        for path, code in (
            ("/5xx", 503), ("/5xx", 500), ("/5xx", 599), ("/5xx", 404), ("/5xx", 429), ("/5xx", 600),
            ("/gateway", 500), ("/gateway", 502), ("/gateway", 503), ("/gateway", 504), ("/gateway", 505),
            ("/4xx", 409), ("/4xx", 404), ("/4xx", 503), ("/reset", 503), ("/connect", 503), ("/refused", 503),
            ("/codes", 418), ("/codes", 503), ("/codes-off", 418), ("/headers", 419), ("/headers", 503),
            ("/unknown", 503), ("/spaced", 503), ("/vhost", 503), ("/own", 503), ("/own", 409), ("/grpc", 503),
            ("/requests", 503), ("/empty", 503), ("/none", 503), ("/closed", 503), ("/ratelimited", 429),
        )
    ),
    retry("a code of the list that is 200", get("/codes"), FINE, status(404)),
    retry("answers with bodies", get("/5xx"), status(503, body=b"no"), FINE),
    retry("answers with bodies, none succeeds", get("/two"), *[status(503, body=b"no %d" % n) for n in range(3)]),
    retry("the second fails too", get("/5xx"), status(503), status(502, body=b"bad")),
    retry("two retries", get("/two"), status(503), status(500), FINE),
    retry("two retries are not enough", get("/two"), status(503), status(500), status(502), FINE),
    retry("another status ends it", get("/5xx"), status(503), status(404)),
    retry("HEAD", b"HEAD /5xx HTTP/1.1\r\n" + H + b"\r\n", (b"HTTP/1.1 503 No\r\ncontent-length: 9\r\n\r\n",), FINE),
    retry("chunked answer", get("/5xx"), (b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",), FINE),
    retry("an answer without end", get("/5xx"), (b"HTTP/1.1 503 No\r\ncontent-length: 9\r\n\r\nno", Hang()), FINE),
    retry(
        "header", get("/headers", b"x-absent: 1\r\n"), status(200, b"x-absent: 1\r\nx-again: 1\r\n"),
        status(404, b"x-absent: 1\r\n"),
    ),
    retry("no header", get("/headers"), status(200, b"x-absent: 1\r\n"), FINE),
    retry("header absent", get("/headers"), status(200), status(404, b"x-absent: 1\r\n")),
    retry("header without the condition", get("/headers-off"), status(200, b"x-again: 1\r\n"), FINE),
    retry("request header", get("/requests", b"x-may: yes\r\n"), status(503), FINE),
    retry("request header, other value", get("/requests", b"x-may: no\r\n"), status(503), FINE),
    retry("rate limited by envoy", get("/ratelimited"), status(429, b"x-envoy-ratelimited: true\r\n"), FINE),
    retry("rate limited by envoy, not asked for", get("/5xx"), status(503, b"x-envoy-ratelimited: true\r\n"), FINE),
    retry("overloaded", get("/5xx"), status(503, b"x-envoy-overloaded: true\r\n"), FINE),
    *(
        retry(f"grpc-status {code}", get("/grpc"), status(200, b"grpc-status: %d\r\n" % code), FINE)
        for code in (0, 1, 4, 8, 13, 14, 2)
    ),
    *(
        retry(f"{path}, cut", get(path), CUT, FINE)
        for path in ("/5xx", "/gateway", "/reset", "/reset-before", "/connect", "/4xx", "/codes", "/refused", "/vhost")
    ),
    retry("cut twice", get("/5xx"), CUT, CUT, FINE),
    retry("reset", get("/reset"), (UpstreamReset(),), FINE),
    retry("reset, counted", get("/5xx"), (UpstreamReset(),), (UpstreamReset(),)),
    retry("nonsense", get("/reset"), (b"nonsense\r\n\r\n",), FINE),
    retry("nonsense twice", get("/5xx"), (b"nonsense\r\n\r\n",), (b"nonsense\r\n\r\n",)),
    retry("cut inside the head", get("/5xx"), (b"HTTP/1.1 200 OK\r\n", UpstreamGap(), Close()), FINE),
    retry("cut inside the body", get("/5xx"), (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nno", UpstreamGap(), Close()), FINE),
    retry(
        "after 100", b"POST /5xx HTTP/1.1\r\n" + H + b"content-length: 2\r\n\r\nok",
        (b"HTTP/1.1 100 Continue\r\n\r\n", UpstreamGap(), *status(503)), FINE,
    ),
    retry("after 103", get("/5xx"), (b"HTTP/1.1 103 Early Hints\r\n\r\n", UpstreamGap(), *status(503)), FINE),
    *(retry(f"{path}, nobody listens", get(path)) for path in ("/dead", "/dead-5xx", "/dead-before", "/dead-reset", "/dead-4xx")),
    # Envoy connects before it sees that a limit of 0 requests is reached, and counts it as another overflow.
    retry("max_requests", get("/overflow"), compare=("downstream", "ending", "log")),
    retry("max_retries, cut", get("/closed"), CUT, FINE),
    retry("no endpoints", get("/nowhere")),
    retry("body", POST, status(503), FINE),
    retry("body, after a cut", POST, CUT, FINE),
    retry("chunked body", CHUNKED, status(503), FINE),
    retry("body in pieces", (POST[:-5], Gap(), POST[-5:]), status(503), FINE),
    retry(
        "answered early",
        (POST[:-5], UpstreamHas(b"01234"), Gap(0.05), POST[-5:]),
        (Early(), *status(503), Close()),
        FINE,
        compare=("downstream", "ending", "log", "stats"),
    ),
    retry("no length", b"POST /5xx HTTP/1.1\r\n" + H + b"\r\n", status(503), FINE),
    retry(
        "too large a body", b"POST /5xx HTTP/1.1\r\n" + H + b"content-length: %d\r\n\r\n" % len(LARGE) + LARGE, status(503),
        FINE, compare=WITHOUT_STATS,
    ),
    retry(
        "a body that just fits", b"POST /5xx HTTP/1.1\r\n" + H + b"content-length: %d\r\n\r\n" % (1 << 19) + LARGE[: 1 << 19],
        status(503), FINE,
    ),
    retry("counted", get("/", host=COUNTED), status(503), status(503), FINE),
    retry("counted, none succeeds", get("/", host=COUNTED), status(503)),
    retry("counted, cut", get("/", host=COUNTED), CUT),
    retry("counted already", get("/", b"x-envoy-attempt-count: 9\r\n", host=COUNTED), status(503), FINE),
    retry("automatic host", get("/", host=b"host: auto.example\r\n"), status(503), FINE),
    retry("counted, timed out", get("/late", host=COUNTED), status(503), HANG, compare=("downstream", "ending", "log", "stats")),
    retry("counted, nobody listens", get("/dead", host=COUNTED)),
    retry("counted, no endpoints", get("/nowhere", host=COUNTED)),
    retry("counted, per try", get("/per-try", host=COUNTED), HANG),
    retry(
        "left in the back-off", (get("/waiting"), UpstreamHas(b"/waiting"), Gap(0.1), Reset()),
        status(503, b"retry-after: 5\r\n"), responses=0,
    ),
    retry("left in the second attempt", (get("/5xx"), UpstreamHas(b"/5xx"), Gap(0.2), Reset()), status(503), HANG, responses=0),
    # Which endpoint is asked first is chance.
    retry("one endpoint refuses", get("/half"), compare=("downstream", "ending")),
    retry("counted, max_requests", get("/overflow", host=COUNTED), compare=("downstream", "ending", "log")),
    retry(
        "body too large in the back-off",
        (b"POST /waiting HTTP/1.1\r\n" + H + b"content-length: 2000000\r\n\r\n", UpstreamHas(b"/waiting"), Gap(0.1), LARGE),
        (Early(), *status(503, b"retry-after: 5\r\n")), compare=("downstream", "log", "stats"),
    ),
    retry(
        "body in the back-off",
        (b"POST /asked HTTP/1.1\r\n" + H + b"content-length: 4\r\n\r\nab", UpstreamHas(b"ab"), Gap(0.1), b"cd"),
        (Early(), *status(503, b"retry-after: 1\r\n")), FINE, compare=("downstream", "log", "stats"),
    ),
    retry("per-try timeout", get("/per-try"), HANG, FINE),
    retry("per-try timeout twice", get("/per-try"), HANG),
    retry("per-try timeout without a condition", get("/try-on-connect"), HANG),
    retry("per-try timeout without retries", get("/empty"), HANG),
    retry("per-try timeout, answer under way", get("/per-try"), (OK[:-1], UpstreamGap(0.2), b"k")),
    retry("per-try timeout, cut", get("/try-within"), FINE),
    retry("per-try timeout beyond the whole", get("/try-longer"), HANG),
    retry("per-try timeout, body", b"POST /per-try HTTP/1.1\r\n" + H + b"content-length: 2\r\n\r\nok", HANG, FINE),
    retry("per-try idle timeout", get("/idle"), HANG, FINE),
    retry("per-try idle timeout twice", get("/idle"), HANG),
    retry("per-try idle timeout, answer under way", get("/idle"), (OK[:-1], Hang())),
    retry(
        "whole timeout in the second attempt", get("/late"), status(503), HANG,
        compare=("downstream", "ending", "log", "stats"),
    ),
    retry(
        "whole timeout in the back-off", get("/waiting"), status(503, b"retry-after: 5\r\n"),
        compare=("downstream", "ending", "upstream", "log", "stats"),
    ),
    retry("asked for a second", get("/asked"), status(503, b"retry-after: 1\r\n"), FINE),
    retry("asked for too long", get("/asked"), status(503, b"retry-after: 301\r\n"), FINE),
    retry("asked for nothing", get("/asked"), status(503, b"retry-after: 0\r\n"), FINE),
    retry("asked for nonsense", get("/asked"), status(503, b"retry-after: soon\r\n"), FINE),
    retry("asked for a time gone by", get("/asked"), status(503, b"x-reset: 1000\r\n"), FINE),
    retry(
        "retry headers from outside", get("/connect", b"x-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 3\r\n"), status(503),
        FINE,
    ),
    *(
        retry(f"after 103, {name}", get("/late"), (b"HTTP/1.1 103 Early Hints\r\n\r\n", UpstreamGap(), *steps), FINE)
        for name, steps in (
            ("silence", (Hang(),)), ("cut", (Close(),)), ("nonsense", (b"nonsense\r\n\r\n",)),
            ("cut in the head", (b"HTTP/1.1 200 OK\r\n", UpstreamGap(), Close())),
        )
    ),
    retry("whole timeout in the answer", get("/late"), (OK[:-1], Hang())),
    retry("an answer that announces its close", get("/5xx"), status(503, b"connection: close\r\n"), FINE),
    retry("an answer that is closed", get("/5xx"), (*status(503, b"connection: close\r\n"), Close()), FINE),
    retry(
        "expecting 100",
        (b"POST /5xx HTTP/1.1\r\n" + H + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n", ReadUntil(b"nue\r\n\r\n"), b"ok"),
        status(503), FINE,
    ),
    retry("an empty body", b"POST /5xx HTTP/1.1\r\n" + H + b"content-length: 0\r\n\r\n", status(503), FINE),
    retry("pipelined behind it", get("/5xx") + get("/connect"), status(503), FINE, FINE, responses=2, log_lines=2),
    retry("headers added, counted", get("/added", host=COUNTED), status(503), FINE),
    retry("asked for a second and a half", get("/asked"), status(503, b"retry-after: 1.5\r\n"), FINE),
    retry("asked twice", get("/asked"), status(503, b"retry-after: 0\r\nx-reset: 5\r\n"), FINE),
    retry("trailers", CHUNKED[:-2] + b"x-trailer: 1\r\n\r\n", status(503), FINE),
    retry("brief, in the request", POST.replace(b"/5xx", b"/brief")[:-5], HANG, compare=("downstream", "ending", "log", "stats")),
    retry("brief", get("/brief"), HANG),
    retry("brief, retried", get("/brief/5xx"), HANG, FINE),
    retry("brief, in the answer", get("/brief"), (OK[:-1], Hang())),
    retry(
        "the next request", (get("/5xx"), ReadUntil(b"ok"), get("/5xx")), status(503), FINE, status(503), FINE, responses=2,
        log_lines=2,
    ),
]  # fmt: skip
