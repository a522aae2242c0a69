"""Cross-site request forgery: whose origins are let through."""

from __future__ import annotations

from tests.conformance.exchanges.filter_configurations import (
    ALWAYS,
    EXTENSION,
    NEVER,
    OFF,
    ROUTER_FILTER,
    UP,
    http_filter,
    on,
)
from tests.support.bootstrap import Data, bootstrap, hcm, route, vhost
from tests.support.exchange import Exchange

NAME = "csrf"
POLICY = EXTENSION + "csrf.v3.CsrfPolicy"


def policy(**fields: object) -> Data:
    return {"@type": POLICY, "filter_enabled": ALWAYS, **fields}


def csrf() -> Data:
    more = [
        {"suffix": ".friend.example"},
        {"safe_regex": {"regex": "[a-z]+:80"}},
        {"exact": "HOST", "ignore_case": True},
    ]
    routes = [
        on(NAME, "/never", policy(filter_enabled=NEVER)),
        on(NAME, "/shadow", policy(filter_enabled=NEVER, shadow_enabled=ALWAYS)),
        on(NAME, "/both", policy(shadow_enabled=ALWAYS)),
        on(NAME, "/more", policy(additional_origins=more)),
        on(NAME, "/runtime", policy(filter_enabled={"default_value": {"numerator": 100}, "runtime_key": "csrf.on"})),
        on(NAME, "/off", OFF),
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
        {"match": {"prefix": "/alone"}, "direct_response": {"status": 200},
         "typed_per_filter_config": {NAME: policy(filter_enabled=NEVER)}},
        route("/"),
    ]  # fmt: skip
    filters = [http_filter(NAME, "csrf.v3.CsrfPolicy", filter_enabled=ALWAYS), ROUTER_FILTER]
    host = vhost(*routes, domains=("h", "h:*", "H2.example"))
    guarded = vhost(route("/"), name="g", domains=("g",), typed_per_filter_config={NAME: policy(filter_enabled=NEVER)})
    runtime = {"layers": [{"name": "static", "static_layer": {"csrf.on": 0}}]}
    return bootstrap([hcm({"virtual_hosts": [host, guarded]}, http_filters=filters)], [UP], layered_runtime=runtime)


CONFIGURATIONS = {"csrf": csrf()}


def ask(path: str, lines: bytes = b"", method: bytes = b"POST", host: bytes = b"h") -> Exchange:
    length = b"" if method in (b"GET", b"HEAD", b"DELETE") else b"content-length: 0\r\n"
    head = method + b" " + path.encode() + b" HTTP/1.1\r\nhost: " + host + b"\r\n" + length + lines + b"\r\n"
    shown = lines.replace(b"\r\n", b"; ").decode()
    return Exchange(f"csrf: {method.decode()} {host.decode()}{path} {shown}".rstrip(" ;"), (head,), config="csrf")


GOOD, EVIL = b"origin: http://h\r\n", b"origin: http://evil\r\n"
ORIGINS = [
    b"http://h", b"https://h", b"http://h:80", b"https://h:443", b"h", b"http://h/", b"http://h/path?q#f", b"http://H", b"//h",
    b"null", b"", b"http://", b"ftp://h", b"http://user@h", b"http://h:", b"HTTP://h", b"http://h.evil", b"h/", b"http:/h",
    b"http://h?x", b"http://h#x", b"http://h:abc", b"http://h:99999", b"http://[::1]", b"http://h h", b"http://h\\x", b" http://h",
]  # fmt: skip
EXCHANGES = [
    *(ask("/", b"origin: " + origin + b"\r\n") for origin in ORIGINS),
    *(ask("/", b"referer: " + origin + b"\r\n") for origin in (*ORIGINS[:9], b"http://user@h", b"http://h/@", b"h#", b"http://h?@x")),
    *(ask("/", lines, method)
      for method in (b"GET", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"post", b"TRACE")
      for lines in (GOOD, EVIL)),
    *(ask(path, lines)
      for path in ("/never", "/shadow", "/both", "/more", "/runtime", "/off", "/direct", "/alone")
      for lines in (GOOD, EVIL, b"")),
    ask("/"), ask("/", EVIL), ask("/", b"origin: null\r\nreferer: http://h\r\n"), ask("/", b"origin:\r\nreferer: http://h\r\n"),
    ask("/", EVIL + b"referer: http://h\r\n"), ask("/", GOOD + EVIL), ask("/", EVIL + GOOD),
    *(ask("/more", b"origin: " + origin + b"\r\n")
      for origin in (b"https://a.friend.example", b"http://abc:80", b"http://hOST", b"http://a.friend.example:1", b"abc:80")),
    *(ask("/", b"origin: http://" + host + b"\r\n", host=host) for host in (b"h:8080", b"H", b"h2.example", b"nobody")),
    *(ask("/", b"origin: " + origin + b"\r\n", host=b"h:80") for origin in (b"http://h", b"http://h:80", b"https://h:80")),
    ask("/", EVIL, host=b"nobody"), ask("/", EVIL, host=b"g"),
    ask("/", EVIL + b"content-type: application/grpc\r\n"),
]  # fmt: skip
