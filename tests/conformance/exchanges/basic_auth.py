"""Basic authentication."""

from __future__ import annotations

from base64 import b64encode

from tests.conformance.exchanges.filter_configurations import EXTENSION, OFF, ROUTER_FILTER, UP, http_filter, on
from tests.support.bootstrap import Data, bootstrap, hcm, route, vhost
from tests.support.exchange import Exchange

NAME = "auth"
# Passwords: "secret", "" and "a:b".
USERS = """# users

ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=
nopass:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=
colon:{SHA}3OptnM09ILoVSfbZtd3mB0IViII=
"""
OTHERS = "bob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n"


def basic_auth(**own: object) -> Data:
    routes = [
        on(
            NAME,
            "/others",
            {"@type": EXTENSION + "basic_auth.v3.BasicAuthPerRoute", "users": {"inline_string": OTHERS}},
        ),
        on(NAME, "/off", OFF),
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
        route("/added", response_headers_to_add=[{"header": {"key": "x-added", "value": "1"}}]),
        route("/rewritten", action={"prefix_rewrite": "/new"}),
        route("/"),
    ]
    filters = [http_filter(NAME, "basic_auth.v3.BasicAuth", users={"inline_string": USERS}, **own), ROUTER_FILTER]
    return bootstrap([hcm({"virtual_hosts": [vhost(*routes, domains=("h",))]}, http_filters=filters)], [UP])


CONFIGURATIONS = {
    "basic_auth": basic_auth(),
    "basic_auth_named": basic_auth(forward_username_header="X-User", authentication_header="X-Auth"),
}


def ask(
    path: str,
    *values: bytes,
    config: str = "basic_auth",
    header: bytes = b"authorization",
    more: bytes = b"",
    method: bytes = b"GET",
    host: bytes = b"h",
) -> Exchange:
    lines = b"".join([header + b": " + value + b"\r\n" for value in values]) + more
    head = b"%b %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (method, path.encode(), host, lines)
    shown = lines.replace(b"\r\n", b"; ").decode("latin-1")
    title = f"{config}: {method.decode()} {host.decode()}{path[:30]} {shown}"
    return Exchange(title, (head,), config=config)


def basic(text: bytes) -> bytes:
    return b"Basic " + b64encode(text)


GOOD = basic(b"ann:secret")
VALUES = [
    GOOD, GOOD.rstrip(b"="), GOOD + b"=", basic(b"ann:wrong"), basic(b"ann:"), basic(b"ann"), basic(b""), basic(b"nobody:secret"),
    basic(b"nopass:"), basic(b"colon:a:b"), basic(b"ann :secret"), basic(b"Ann:secret"), basic(b":secret"), b"Basic",
    b"basic " + GOOD[6:], b"Bearer x", b"", b"Basic  " + GOOD[6:], b"Basic %%%", b"Basic a", b"Basic " + GOOD[6:] + b" ",
    b"Basic " + GOOD[6:].replace(b"Y", b"-", 1), basic(b"bob:secret"), basic(b"ann:secret\n"), b"Basic\t" + GOOD[6:],
]  # fmt: skip

EXCHANGES = [
    *(ask("/", value) for value in VALUES),
    *(ask(path, *values)
      for path in ("/others", "/off", "/direct", "/added", "/rewritten/x?y=1", "/" + "l" * 300, "/")
      for values in ((), (GOOD,), (basic(b"bob:secret"),))
      if (path, values) != ("/", (GOOD,)) and (path, values) != ("/", (basic(b"bob:secret"),))),
    ask("/", GOOD, basic(b"ann:wrong")), ask("/", basic(b"ann:wrong"), GOOD),
    ask("/", host=b"nobody"), ask("/", GOOD, host=b"nobody"), ask("/", method=b"HEAD"),
    ask("/", more=b"content-type: application/grpc\r\n"),
    ask("/", more=b"x-envoy-original-path: /other\r\n"),
    ask("/", more=b"x-forwarded-proto: https\r\n"),
    *(ask("/", *values, config="basic_auth_named", header=header, more=more)
      for header, values in ((b"x-auth", (GOOD,)), (b"authorization", (GOOD,)), (b"x-auth", ()))
      for more in (b"", b"x-user: root\r\nx-last: 1\r\nx-user: two\r\n")),
]  # fmt: skip
