"""Who the client is: x-forwarded-for, detection of its address, what is inside, and which headers it may set."""

from __future__ import annotations

from tests.support.bootstrap import TYPE, Data, bootstrap, cluster, file_log, hcm, port, route, vhost
from tests.support.exchange import Exchange

XFF = TYPE + "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig"
CUSTOM_HEADER = TYPE + "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig"
LOG = file_log(
    {
        "remote": "%DOWNSTREAM_REMOTE_ADDRESS%",
        "direct": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
        "code": "%RESPONSE_CODE%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "scheme": "%REQ(:SCHEME)%",
    }
)


def cidr(prefix: str, length: int) -> Data:
    """A range of addresses."""
    return {"address_prefix": prefix, "prefix_len": length}


INTERNAL = {"internal_address_config": {"cidr_ranges": [cidr("10.0.0.0", 8), cidr("127.0.0.0", 8), cidr("fd00::", 8)]}}
TRUSTED = {"cidrs": [cidr("127.0.0.0", 8), cidr("9.9.0.0", 16)]}


def detected(*configs: Data) -> Data:
    """``original_ip_detection_extensions``."""
    return {"original_ip_detection_extensions": [{"name": "d", "typed_config": each} for each in configs], **INTERNAL}


LISTENERS: dict[str, Data] = {
    "main": INTERNAL,
    "edge": {"use_remote_address": True},
    "edge_inside": {"use_remote_address": True, "append_x_forwarded_port": True, **INTERNAL},
    "edge_hops": {
        "use_remote_address": True,
        "append_x_forwarded_port": True,
        "xff_num_trusted_hops": 2,
        **INTERNAL,
    },
    "forwarded_port": {"append_x_forwarded_port": True},
    "hops": {"xff_num_trusted_hops": 1, "skip_xff_append": True},
    "xff_hops": detected({"@type": XFF, "xff_num_trusted_hops": 1}),
    "xff_trusted": detected({"@type": XFF, "xff_trusted_cidrs": TRUSTED, "skip_xff_append": False}),
    "xff_untrusted": detected({"@type": XFF, "xff_trusted_cidrs": {"cidrs": [cidr("9.9.0.0", 16)]}}),
    "xff_append": detected({"@type": XFF, "skip_xff_append": False}, {"@type": XFF, "skip_xff_append": False}),
    "header": detected(
        {"@type": CUSTOM_HEADER, "header_name": "X-Real-IP", "allow_extension_to_set_address_as_trusted": True}
    ),
    "header_or_xff": detected(
        {"@type": CUSTOM_HEADER, "header_name": "x-real-ip"}, {"@type": XFF, "skip_xff_append": False}
    ),
    "header_or_401": detected(
        {"@type": CUSTOM_HEADER, "header_name": "x-real-ip", "reject_with_status": {"code": "Unauthorized"}}
    ),
    "header_or_200": detected(
        {"@type": CUSTOM_HEADER, "header_name": "x-real-ip", "reject_with_status": {"code": "OK"}}
    ),
}


def configuration() -> Data:
    """A listener for every way."""
    routes = {"virtual_hosts": [vhost(route("/"))]}
    filters = {name: [hcm(routes, access_log=LOG, **more)] for name, more in LISTENERS.items()}
    more = [
        {"name": name, "address": port(name), "filter_chains": [{"filters": made}]}
        for name, made in filters.items()
        if name != "main"
    ]
    return bootstrap(filters["main"], [cluster("up", "up")], more_listeners=more)


CONFIGURATIONS = {"addresses": configuration()}

ENVOY = (
    b"x-envoy-decorator-operation: o\r\nx-envoy-downstream-service-cluster: c\r\nx-envoy-downstream-service-node: n\r\n"
    b"x-envoy-internal: false\r\nx-envoy-original-path: /o\r\nx-envoy-original-host: oh\r\nx-envoy-original-url: u\r\n"
    b"x-envoy-external-address: 1.2.3.4\r\nx-envoy-ip-tags: t\r\nx-envoy-is-timeout-retry: 1\r\n"
    b"x-envoy-attempt-count: 7\r\nx-envoy-degraded: 1\r\nx-envoy-something: 1\r\nx-envoy-peer-metadata: p\r\n"
    b"x-forwarded-client-cert: By=x\r\nx-request-id: 11111111-2222-4333-8444-555555555555\r\n"
)
FROM_OUTSIDE = (
    b"x-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 3\r\nx-envoy-retry-grpc-on: cancelled\r\n"
    b"x-envoy-retriable-status-codes: 404\r\nx-envoy-retriable-header-names: x-a\r\nx-envoy-force-trace: 1\r\n"
    b"x-envoy-upstream-alt-stat-name: alt\r\nx-envoy-upstream-rq-timeout-ms: 5000\r\n"
    b"x-envoy-upstream-rq-per-try-timeout-ms: 400\r\nx-envoy-upstream-rq-timeout-alt-response: 1\r\n"
    b"x-envoy-expected-rq-timeout-ms: 77\r\nx-envoy-hedge-on-per-try-timeout: true\r\n"
)
PROTO = b"x-forwarded-proto: https\r\nx-forwarded-port: 5\r\n"


def on(listener: str, name: str, lines: bytes) -> Exchange:
    """A request with these lines on a listener."""
    head = b"GET / HTTP/1.1\r\nhost: h.example\r\n" + lines + b"\r\n"
    return Exchange(f"addresses, {listener}: {name}", (head,), config="addresses", listener=listener)


def xff(value: bytes) -> bytes:
    """An x-forwarded-for line."""
    return b"x-forwarded-for: " + value + b"\r\n"


EXCHANGES = [
    *[
        on("main", "xff " + value.decode(), xff(value) + ENVOY)
        for value in (
            *(b"10.1.2.3", b"8.8.8.8", b"10.1.2.3, 10.4.5.6", b"FD00:0::1", b"[fd00::1]:80", b"10.1.2.3:99"),
            *(b"10.1.2.3,", b"", b"::ffff:10.0.0.1", b"10.1.2.03"),
        )
    ],
    on("main", "nothing", ENVOY + FROM_OUTSIDE),
    on("main", "outside", xff(b"8.8.8.8") + ENVOY + FROM_OUTSIDE),
    on("main", "two lines", xff(b"10.1.1.1") + xff(b"10.2.2.2")),
    on("main", "odd protocol", b"x-forwarded-proto: gopher\r\n"),
    on("main", "https in capitals", b"x-forwarded-proto: HTTPS\r\n"),
    on("edge", "nothing", ENVOY + FROM_OUTSIDE + PROTO),
    on("edge", "xff", xff(b"8.8.8.8") + ENVOY + PROTO),
    on("edge", "empty xff", xff(b"")),
    on("edge_inside", "nothing", ENVOY + PROTO),
    on("edge_inside", "xff", xff(b"10.1.2.3") + ENVOY + FROM_OUTSIDE + PROTO),
    on("edge_inside", "empty xff", xff(b"") + ENVOY),
    on("edge_hops", "nothing", ENVOY + PROTO),
    on("edge_hops", "one", xff(b"10.1.2.3")),
    on("edge_hops", "three", xff(b"8.8.8.8, 9.9.9.9, 10.1.2.3") + ENVOY + b"x-forwarded-port: 5\r\n"),
    on("edge_hops", "with a port", xff(b"8.8.8.8:80, 10.1.2.3")),
    on("edge_hops", "nonsense", xff(b"nonsense, 10.1.2.3")),
    on("forwarded_port", "none", b""),
    on("forwarded_port", "its own", PROTO),
    on("hops", "two", xff(b"8.8.8.8, 9.9.9.9")),
    on("hops", "one", xff(b"8.8.8.8")),
    *[
        on(listener, "xff " + value.decode(), xff(value) + ENVOY)
        for listener in ("xff_hops", "xff_trusted", "xff_append")
        for value in (b"10.1.2.3", b"8.8.8.8, 9.9.9.9", b"nonsense, 9.9.1.1")
    ],
    on("xff_trusted", "all trusted", xff(b"9.9.1.1,9.9.2.2")),
    on("xff_trusted", "an empty one", xff(b"9.9.1.1,,9.9.2.2")),
    *[on(listener, "nothing", b"") for listener in ("xff_trusted", "xff_append")],
    on("xff_untrusted", "xff 8.8.8.8", xff(b"8.8.8.8")),
    *[
        on(listener, "header " + value.decode(), b"x-real-ip: " + value + b"\r\n" + xff(b"8.8.4.4") + ENVOY)
        for listener in ("header", "header_or_xff", "header_or_401")
        for value in (b"10.1.2.3", b"10.1.2.3:80", b"fd00::1")
    ],
    *[on(listener, "nothing", b"") for listener in ("header_or_xff", "header_or_200")],
    on("header", "twice", b"x-real-ip: 10.1.1.1\r\nx-real-ip: 8.8.8.8\r\n"),
    on("header_or_401", "with a body", b"content-length: 3\r\n\r\nabc"),
]
