"""How heads are tidied: paths, authorities, counts, ids, and what proxies say of themselves. A listener for each way."""

from __future__ import annotations

from tests.conformance.exchanges.filter_configurations import UP
from tests.conformance.exchanges.messages import listeners
from tests.support.bootstrap import ROUTER, Data, route, vhost
from tests.support.exchange import Exchange

ESCAPES = ("KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD")
PATHS: dict[str, Data] = {
    f"path_{number}{'n' * normal}{'m' * merge}": {
        "path_with_escaped_slashes_action": action, "normalize_path": normal, "merge_slashes": merge}
    for number, action in enumerate(ESCAPES)
    for normal in (False, True)
    for merge in (False, True)
}  # fmt: skip
SUPPRESSED = [{"name": "router", "typed_config": {"@type": ROUTER, "suppress_envoy_headers": True}}]
WAYS: dict[str, Data] = {
    "main": {},
    **PATHS,
    "matching_port": {"strip_matching_host_port": True},
    "any_port": {"strip_any_host_port": True, "strip_trailing_host_dot": True},
    "count": {"common_http_protocol_options": {"max_headers_count": 5}},
    "id": {"always_set_request_id_in_response": True},
    "id_edge": {
        "always_set_request_id_in_response": True, "use_remote_address": True, "preserve_external_request_id": True},
    "no_id": {"generate_request_id": False, "always_set_request_id_in_response": True},
    "no_id_edge": {"generate_request_id": False, "use_remote_address": True},
    "agent": {"add_user_agent": True, "via": "1.1 x", "server_name": "srv"},
    "pass": {"server_header_transformation": "PASS_THROUGH", "via": "1.1 x"},
    "absent": {"server_header_transformation": "APPEND_IF_ABSENT", "server_name": "srv"},
    "proper": {"http_protocol_options": {"header_key_format": {"proper_case_words": {}}}, "via": "1.1 x"},
    "suppressed": {"http_filters": SUPPRESSED},
}  # fmt: skip


def configuration() -> Data:
    routes = [
        route("/rewritten", action={"prefix_rewrite": "/new"}),
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
        route("/host", action={"host_rewrite_literal": "new.host"}),
        route("/"),
    ]
    host = vhost(*routes, include_attempt_count_in_response=True, include_request_attempt_count=True)
    made = listeners(WAYS, {"virtual_hosts": [host]}, [UP])
    made["node"] = {"id": "nid", "cluster": "nc"}
    return made


CONFIGURATIONS = {"heads": configuration()}


def ask(listener: str, path: str = "/", lines: bytes = b"", host: bytes = b"h", answer: bytes = b"") -> Exchange:
    head = b"GET %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (path.encode(), host, lines)
    told = (lines + b"/" + answer).replace(b"\r\n", b"; ").decode("latin-1")[:60]
    answers = ((b"HTTP/1.1 200 OK\r\n%bcontent-length: 2\r\n\r\nok" % answer,),)
    title = f"heads: {listener} {host.decode()}{path} {told}"
    return Exchange(title, (head,), answers, config="heads", listener=listener, quiet_s=0.0)


def many(number: int) -> bytes:
    return b"".join(b"x-%d: 1\r\n" % each for each in range(number))


UUID = b"X-Request-ID: 4a3bb7a8-1c4b-9a1e-8c33-1b3a4f9a1b2c\r\n"
EXCHANGES = [
    *(ask(way, path) for way in PATHS for path in ("/a//b/../%41%2e/%2F..%5cb?x=%2f", "/%2f%2f", "/a%00b")),
    *(ask(way, path) for way in ("path_3nm", "path_0n") for path in ("/..", "//", "/a\\..\\b", "/a/./b/..", "/%zz%2")),
    *(ask(way, host=host)
      for way in ("matching_port", "any_port")
      for host in (b"h:80", b"h:@PORT:matching_port@", b"h.:1", b"h.", b"[::1]:80", b"h:", b"h:x", b".")),
    *(ask("count", lines=many(number)) for number in (4, 5)), ask("count", answer=many(6)),
    *(ask(way, lines=lines, answer=answer)
      for way in ("id", "id_edge", "no_id", "no_id_edge")
      for lines in (b"", b"x-request-id: abc\r\n", b"x-request-id: a\r\nx-request-id: b\r\n", UUID)
      for answer in ((b"",) if b"abc" in lines else (b"x-request-id: theirs\r\n",))),
    *(ask(way, "/direct", b"x-request-id: abc\r\n") for way in ("id", "id_edge", "no_id", "no_id_edge")),
    *(ask(way, answer=answer)
      for way in ("agent", "pass", "absent", "proper", "suppressed")
      for answer in (b"server: s\r\n", b"via: v\r\n", b"date: d\r\n", b"x-envoy-upstream-service-time: 9\r\n",
                     b"x-envoy-attempt-count: 7\r\n")),
    ask("agent", answer=b"server: s\r\nserver: t\r\nvia: v\r\nvia: w\r\n"),
    *(ask("agent", lines=lines)
      for lines in (b"via: a\r\nvia: b\r\n", b"user-agent: u\r\n", b"user-agent:\r\n",
                    b"x-envoy-downstream-service-cluster: c\r\nx-envoy-downstream-service-node: n\r\n")),
    *(ask(way, path, b"x-envoy-attempt-count: 5\r\nx-envoy-expected-rq-timeout-ms: 3\r\n")
      for way in ("agent", "proper", "suppressed") for path in ("/rewritten/x", "/host", "/direct")),
]  # fmt: skip
