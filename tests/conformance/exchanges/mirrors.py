"""Requests of which other clusters get a copy."""

from __future__ import annotations

from tests.support.bootstrap import Data, hcm, route, vhost
from tests.support.exchange import Exchange, ReadUntil, SendStep, UpstreamHas
from tests.support.upstream import Answer, Close, Early, Hang

H = b"host: h.example\r\n"
OTHER = {"cluster": "other"}


def mirroring(path: str, *policies: Data, **action: object) -> Data:
    """A route with mirror policies."""
    return route(path, action={"request_mirror_policies": list(policies), **action})


def added(key: str, value: str, action: str = "APPEND_IF_EXISTS_OR_ADD") -> Data:
    """A header to add."""
    return {"header": {"key": key, "value": value}, "append_action": action}


def manager() -> Data:
    """A route per policy, by path. The upstream that exchanges have a script for is "up": under /copy it is the mirror."""
    never, always = ({"default_value": {"numerator": share}} for share in (0, 100))
    changes = [
        {"remove": "x-gone"},
        {"append": added("x-copied", "%REQ(:path)% %PROTOCOL%")},
        {"append": added("x-over", "2", "OVERWRITE_IF_EXISTS_OR_ADD")},
    ]
    retries = {"retry_on": "5xx", "retry_back_off": {"base_interval": "0.001s"}}
    routes = [
        mirroring("/one", OTHER),
        mirroring("/two", OTHER, {"cluster": "third"}),
        mirroring("/header", {"cluster_header": "x-mirror"}),
        mirroring("/never", {**OTHER, "runtime_fraction": never}),
        mirroring("/always", {**OTHER, "runtime_fraction": always, "trace_sampled": True}),
        mirroring("/same", {**OTHER, "disable_shadow_host_suffix_append": True}),
        mirroring("/host", {**OTHER, "host_rewrite_literal": "copy.example"}),
        mirroring("/changed", {**OTHER, "request_headers_mutations": changes}),
        mirroring("/dead", {"cluster": "dead"}),
        mirroring("/nowhere", {"cluster": "nowhere"}),
        mirroring("/full", {"cluster": "full"}),
        mirroring("/copy/quick", {"cluster": "up"}, timeout="0.2s", cluster="other"),
        mirroring("/copy", {"cluster": "up"}, cluster="other"),
        mirroring("/forever", OTHER, timeout="0s"),
        mirroring("/rewritten", OTHER, prefix_rewrite="/new", host_rewrite_literal="new.example"),
        mirroring("/again", OTHER, timeout="0s", retry_policy=retries),
        mirroring("/try", OTHER, retry_policy={**retries, "per_try_timeout": "5s"}),
        mirroring("/unanswered", OTHER, cluster="nowhere"),
        {**mirroring("/added", OTHER), "request_headers_to_add": [added("x-added", "1")]},
        route("/own"),
    ]
    own = route("/own", action={"request_mirror_policies": [{"cluster": "third"}]})
    return hcm(
        {
            "virtual_hosts": [
                vhost(*routes, name="all"),
                vhost(
                    own,
                    route("/"),
                    name="vhost",
                    domains=("vhost.example",),
                    request_mirror_policies=[OTHER],
                    include_request_attempt_count=True,
                ),
            ],
        }
    )


def everywhere() -> Data:
    """A route configuration whose requests are all mirrored."""
    return hcm({"virtual_hosts": [vhost(route("/"))], "request_mirror_policies": [OTHER]})


def get(path: str, headers: bytes = b"", host: bytes = H) -> bytes:
    """A GET."""
    return b"GET %s HTTP/1.1\r\n%s%s\r\n" % (path.encode(), host, headers)


def mirror(
    name: str, send: bytes | tuple[SendStep, ...], *answers: Answer, copy: bytes = b"-shadow", **more: object
) -> Exchange:
    """An exchange on that listener. The copy arrives a moment after the answer, or before it: it is known by ``copy``."""
    sends = send if isinstance(send, tuple) else (send,)
    waits = (UpstreamHas(copy),) if copy else ()
    fields = {"config": "policies", "listener": "mirrors", "quiet_s": 0.1, **more}
    return Exchange(f"mirror: {name}", (*sends, *waits), answers, **fields)  # type: ignore[arg-type]


NO: Answer = (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",)
OK: Answer = (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",)
POST = b"POST /%s HTTP/1.1\r\n" + H + b"content-length: 10\r\n\r\n0123456789"
CHUNKED = (
    b"POST /one HTTP/1.1\r\n" + H + b"transfer-encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\nx-t: 1\r\n\r\n"
)
LARGE = b"POST /one HTTP/1.1\r\n" + H + b"content-length: 300000\r\n\r\n" + b"x" * 300_000
COPIED = ("/one", "/two", "/always", "/rewritten", "/added", "/forever", "/try")
NOT_COPIED = ("/never", "/same", "/host", "/dead", "/nowhere", "/full", "/unanswered", "/header")
EXCHANGES = [
    *(mirror(path, get(path)) for path in COPIED),
    *(mirror(path, get(path), copy=b"") for path in NOT_COPIED),
    mirror("header with a name", get("/header", b"x-mirror: other\r\n")),
    mirror("header with an unknown name", get("/header", b"x-mirror: unknown\r\n"), copy=b""),
    mirror("changed", get("/changed", b"x-gone: 1\r\nx-over: 1\r\nx-b: 2\r\n")),
    mirror("port", get("/one", host=b"host: h.example:8080\r\n")),
    mirror("IPv6", get("/one", host=b"host: [::1]:8080\r\n")),
    mirror("body", POST % b"one"),
    mirror("chunked", CHUNKED),
    mirror("HEAD", b"HEAD /one HTTP/1.1\r\n" + H + b"\r\n"),
    mirror("virtual host's", get("/", host=b"host: vhost.example\r\n")),
    mirror("the route's own instead of the virtual host's", get("/own", host=b"host: vhost.example\r\n")),
    mirror("route configuration's", get("/"), listener="mirrors_everywhere"),
    mirror("retried", POST % b"again", NO, OK),
    mirror("from elsewhere", get("/one", b"x-forwarded-for: 9.9.9.9\r\nx-envoy-internal: true\r\n")),
    mirror("large", LARGE, compare=("downstream", "ending", "upstream", "log")),
    mirror("the copy hangs", (get("/copy"), UpstreamHas(b"/copy")), (Hang(),)),
    mirror("the copy times out", (get("/copy/quick"), ReadUntil(b"ok"), UpstreamHas(b"/copy")), (Hang(),), quiet_s=0.4),
    mirror("the copy is answered with 500", get("/copy"), (b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno",)),
    mirror(
        "the copy's answer is chunked",
        get("/copy"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",),
    ),
    mirror("the copy is cut", get("/copy"), (Close(),)),
    mirror("the copy's answer is nonsense", get("/copy"), (b"nonsense\r\n\r\n",)),
    mirror(
        "answered before the body's end",
        (POST % b"one")[:-5],
        (Early(), *NO, Hang()),
        compare=("downstream", "log", "stats"),
    ),
]
