"""What a route configuration says for all its routes: where the host is read, what of a path counts, what is kept of bodies."""

from __future__ import annotations

from tests.conformance.exchanges.route_actions import substitution, template
from tests.support.bootstrap import Data, bootstrap, cluster, hcm, route, vhost
from tests.support.exchange import Exchange

RETRY: Data = {"timeout": "0s", "retry_policy": {"retry_on": "5xx", "num_retries": 1}}
FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

CONFIGURATION = bootstrap(
    [
        hcm(
            {
                "name": "table",
                "vhost_header": "X-Virtual-Host",
                "ignore_path_parameters_in_path_matching": True,
                "internal_only_headers": ["X-Only", "x-envoy-foo"],
                "virtual_hosts": [
                    vhost(
                        route("/", match={"path": "/p/q"}, action={"prefix_rewrite": "/path"}),
                        route("/pre/", action={"prefix_rewrite": "/prefix/"}),
                        route("/", match={"prefix": "/ci/", "case_sensitive": False}, action={"prefix_rewrite": "/C/"}),
                        route("/", match={"safe_regex": {"regex": "/re/[a-z]+"}}, action={"prefix_rewrite": "/R"}),
                        route("/", match={"safe_regex": {"regex": "/rr/[a-z]+"}},
                              action={"regex_rewrite": substitution(";", "!")}),
                        route("/", match={"path_separated_prefix": "/sep/a"}, action={"prefix_rewrite": "/S"}),
                        route("/", match={
                            "prefix": "/q", "query_parameters": [{"name": "a", "string_match": {"exact": "1;b"}}]}),
                        route("/", match=template("/t/{x}")),
                        {"match": {"path": "/d/e"}, "redirect": {"prefix_rewrite": "/D"}},
                        {"match": {"prefix": "/"}, "direct_response": {"status": 404}},
                        name="paths", domains=("paths.example",),
                    ),
                    vhost(
                        route("/inherited", action=RETRY),
                        route("/own", action=RETRY, request_body_buffer_limit=100),
                        route("/old", action=RETRY, per_request_buffer_limit_bytes=10),
                        name="bodies", domains=("bodies.example",), request_body_buffer_limit=20,
                    ),
                    vhost(
                        route("/inherited", action=RETRY),
                        route("/old", action=RETRY, per_request_buffer_limit_bytes=10),
                        route("/unretried", per_request_buffer_limit_bytes=10),
                        name="older", domains=("older.example",), per_request_buffer_limit_bytes=3000,
                    ),
                ],
            }
        )
    ],
    [cluster("up", "up")],
)  # fmt: skip
CONFIGURATION["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = 1000


def to(name: str, target: bytes, lines: bytes = b"x-virtual-host: Paths.Example\r\n") -> Exchange:
    """A request for `target`."""
    head = b"GET " + target + b" HTTP/1.1\r\nhost: older.example\r\n" + lines + b"\r\n"
    return Exchange(f"route table: {name}", (head,), config="route_tables")


def post(host: bytes, target: bytes, size: int) -> Exchange:
    """A body of `size` bytes for an upstream that fails first."""
    head = b"POST %b HTTP/1.1\r\nhost: h\r\nx-virtual-host: %b\r\ncontent-length: %d\r\n\r\n" % (target, host, size)
    name = f"route table: {size} bytes to {target.decode()} of {host.decode()}"
    return Exchange(name, (head + b"x" * size,), answers=((FAILED,), (OK,)), config="route_tables")


PATHS = (
    *(b"/p;1/q", b"/p/q;1", b"/p/q;1/", b"/p/q;?x;y", b"/pre;x/y;z/w", b"/pre/;x;y/z", b"/pre;a?b;c/d", b"/CI;a/x"),
    *(b"/cI/x;y", b"/re;q/abc", b"/re/abc;1/d", b"/rr;1/abc;2?x;y", b"/sep;1/a", b"/sep/a;1/b", b"/q?a=1;b"),
    *(b"/t/a;b", b"/t;c/a", b"/d;1/e", b"/d/e;1?x"),
)
EXCHANGES = [
    *[to(path.decode(), path) for path in PATHS],
    to("no line that names the virtual host", b"/p/q", b""),
    to("a line that names none", b"/p/q", b"x-virtual-host: nobody\r\n"),
    to("a line with a port", b"/p/q", b"x-virtual-host: paths.example:80\r\n"),
    to("two lines, the first counts", b"/p/q", b"x-virtual-host: paths.example\r\nx-virtual-host: nobody\r\n"),
    to("internal only", b"/p/q", b"x-virtual-host: paths.example\r\nx-only: 1\r\nX-ONLY: 2\r\nx-envoy-foo: 3\r\n"),
    post(b"bodies.example", b"/inherited", 20),
    post(b"bodies.example", b"/inherited", 21),
    post(b"bodies.example", b"/own", 100),
    post(b"bodies.example", b"/own", 101),
    post(b"bodies.example", b"/old", 20),
    post(b"older.example", b"/inherited", 2000),
    post(b"older.example", b"/old", 10),
    post(b"older.example", b"/old", 11),
    post(b"older.example", b"/unretried", 11),
]
