"""Header mutations of routes on all levels, with every action, and every operator that means something in a header."""

from __future__ import annotations

from tests.conformance.exchanges.filter_configurations import UP
from tests.conformance.exchanges.messages import added, listeners
from tests.support.bootstrap import Data, cluster, route, vhost
from tests.support.exchange import Exchange
from tests.support.upstream import Close

ACTIONS = ("APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS")


def level(name: str) -> Data:
    """Every action on headers of the peer's, of another level's, and of nobody's; empty values; removals."""
    options = []
    for number, action in enumerate(ACTIONS):
        options += [added(f"x-{number}", name, action), added(f"x-own-{name}-{number}", name, action)]
    options += [added(header, name) for header in ("accept", "via", "x-request-id", "user-agent", "vary", "server")]
    options += [
        added("x-empty", ""),
        {**added("x-kept", ""), "keep_empty_value": True},
        {**added("x-0", "", "OVERWRITE_IF_EXISTS_OR_ADD"), "keep_empty_value": name == "vhost"},
        added("x-none", "%REQ(x-nobody)%"),
        {**added("x-none-kept", "%REQ(x-nobody)%"), "keep_empty_value": True},
        {"header": {"key": "x-old-append", "value": name}, "append": True},
        {"header": {"key": "x-old-over", "value": name}, "append": False},
        added("x-sees", "%REQ(x-1)%|%REQ(x-2)%|%RESP(x-1)%|%RESP(x-2)%"),
    ]
    removed = [f"x-removed-by-{name}", "X-Removed-By-All"]
    return {
        "request_headers_to_add": options,
        "response_headers_to_add": options,
        "request_headers_to_remove": removed,
        "response_headers_to_remove": removed,
    }


OPERATORS = (
    "%REQ(A?B):5%",
    "%REQ(none?x-long):3%",
    "%REQ(x-long):0%",
    "%REQ(:METHOD)% %REQ(:PATH):4% %REQ(:AUTHORITY)% %REQ(:scheme)% %REQ(host)%",
    "%RESP(x-answer?x-other)% %RESP(:STATUS)% %RESP(x-answer):2%",
    "%PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%",
    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_PORT%",
    "%UPSTREAM_CLUSTER% %UPSTREAM_HOST% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT%",
    "%ROUTE_NAME% %VIRTUAL_CLUSTER_NAME% %HOSTNAME% %REQUESTED_SERVER_NAME%",
    "%BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "%DYNAMIC_METADATA(a)% %DYNAMIC_METADATA(a:b):3%",
    "%START_TIME(%Y)%",
    "%CONNECTION_TERMINATION_DETAILS%|%UPSTREAM_TRANSPORT_FAILURE_REASON%|%DOWNSTREAM_TLS_VERSION%|%GRPC_STATUS%",
    "%PATH(NQ)% %PATH(WQ:PATH)% %QUERY_PARAM(q)% %QUERY_PARAM(q):1% %QUERY_PARAMS(ORIG)%",
    "%ENVIRONMENT(NOBODY_HAS_THIS)% 100%% %%REQ(x)%% [%REQ(x-tab)%]",
    "%TRAILER(x)%|%STREAM_ID%|%RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%",
)


def operators(side: str) -> Data:
    return {f"{side}_headers_to_add": [added(f"x-op-{number}", text) for number, text in enumerate(OPERATORS)]}


def table(wins: bool) -> Data:
    weighted: Data = {"clusters": [{"name": "up", "weight": 1, **level("weighted")}]}
    routes = [
        {"match": {"prefix": "/weighted"}, "route": {"weighted_clusters": weighted}, **level("route")},
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 201, "body": {"inline_string": "d"}}, **level("route")},
        {"match": {"prefix": "/redirect"}, "redirect": {"path_redirect": "/x"}, **level("route")},
        route("/operators", name="named", **operators("request"), **{
            **operators("response"), "response_headers_to_remove": ["x-gone"]}),
        route("/refused", "refused", **operators("response")),
        route("/plain"),
        route("/", **level("route")),
    ]  # fmt: skip
    host = vhost(*routes, name="h", domains=("h",), include_request_attempt_count=True, **level("vhost"))
    counting = vhost(
        route("/refused", "refused"), route("/"), name="counting", domains=("counting",),
        include_request_attempt_count=True, include_attempt_count_in_response=True,
        request_headers_to_add=[added("x-sees-count", "%REQ(x-envoy-attempt-count)%")],
        response_headers_to_add=[added("x-sees-count", "%RESP(x-envoy-attempt-count)%")],
    )  # fmt: skip
    return {
        "virtual_hosts": [host, counting],
        "most_specific_header_mutations_wins": wins,
        "internal_only_headers": ["x-internal"],
        **level("table"),
    }


CLUSTERS = [UP, cluster("refused", "refused")]
CONFIGURATIONS = {
    "levels": listeners({"main": {"via": "1.1 own", "add_user_agent": True}}, table(False), CLUSTERS),
    "levels_reversed": listeners({"main": {}}, table(True), CLUSTERS),
}


def ask(path: str, config: str = "levels", host: bytes = b"h", **how: object) -> Exchange:
    head = b"GET %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (path.encode(), host, LINES)
    title = f"{config}: {host.decode()}{path}"
    if "answers" not in how:
        how["answers"] = ((ANSWER,),)
    return Exchange(title, (head,), config=config, **how)  # type: ignore[arg-type]


PEER = b"".join(b"x-%d: peer\r\nx-%d: peer2\r\n" % (number, number) for number in range(4))
REMOVED = b"".join(
    b"x-removed-by-%b: 1\r\n" % name for name in (b"table", b"vhost", b"route", b"weighted", b"all", b"nobody")
)
LINES = (
    PEER
    + REMOVED
    + b"accept: a\r\nA: aaaaaaaa\r\nx-long: long value\r\nx-tab: a\tb\r\nx-internal: 1\r\nx-request-id: mine\r\n"
)
TOLD = b"x-answer: answer\r\nx-gone: 1\r\nvary: a\r\nvia: theirs\r\nserver: s\r\ncontent-length: 2\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\n%b%b%b\r\nok" % (PEER, REMOVED, TOLD)
EXCHANGES = [
    *(ask(path, config)
      for config in ("levels", "levels_reversed")
      for path in ("/", "/plain", "/weighted", "/direct", "/redirect", "/refused", "/operators/x?q=abc&r=%20")),
    ask("/unknown", host=b"nobody"),
    *(ask(path, host=b"counting") for path in ("/", "/refused")),
    ask("/closed", answers=((Close(),),)),
]  # fmt: skip
