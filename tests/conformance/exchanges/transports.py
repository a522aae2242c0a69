"""TLS on both sides, clusters found by name, endpoints that never answer a SYN, and the operators of access logs."""

from __future__ import annotations

from tests.support.exchange import Exchange, ReadResponses
from tests.support.upstream import Answer, Close

GET = b"GET /t HTTP/1.1\r\nhost: h.example\r\n\r\n"
CLOSE = b"GET /t HTTP/1.1\r\nhost: h.example\r\nconnection: close\r\n\r\n"
POST = b"POST /t HTTP/1.1\r\nhost: h.example\r\ncontent-length: 5\r\n\r\nhello"
LOGGED = b'GET /l?x="1" HTTP/1.1\r\nhost: h.example\r\nx-long: quoted " \\ and \xc3\xa9\r\n\r\n'
ANSWERED: tuple[Answer, ...] = ((b"HTTP/1.1 200 OK\r\nx-answer: yes\r\ncontent-length: 2\r\n\r\nok",),)
LARGE = b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + b"z" * 300_000
TLS = {"config": "tls", "tls_name": "good.example"}

# The text of an upstream's TLS failure is the TLS library's own: "upstream" and "log" say where it stands.
NO_TEXT = ("ending", "stats")

EXCHANGES = [
    Exchange("tls downstream", (GET,), **TLS),
    Exchange("tls downstream, two requests", (GET, ReadResponses(1), POST), **TLS, responses=2, log_lines=2),
    Exchange("tls downstream, large answer", (GET,), ((LARGE,),), **TLS),
    Exchange("tls downstream, close", (CLOSE,), **TLS),
    Exchange("tls downstream, cut short", (GET,), ((LARGE[:1000], Close()),), **TLS),
    Exchange(
        "plain text to a tls listener", (GET,), config="tls", responses=0, log_lines=0, compare=("ending", "stats")
    ),
    Exchange("tls upstream", (GET,), config="tls_upstream"),
    Exchange("tls upstream, post", (POST,), config="tls_upstream"),
    Exchange("tls upstream, large answer", (GET,), ((LARGE,),), config="tls_upstream"),
    Exchange("tls upstream, cut short", (GET,), ((LARGE[:1000], Close()),), config="tls_upstream"),
    Exchange("tls upstream, nothing validated", (GET,), config="tls_trusting"),
    Exchange("tls upstream, wrong authority", (GET,), config="tls_wrong_authority", compare=NO_TEXT),
    Exchange("tls upstream, wrong name", (GET,), config="tls_wrong_name", compare=NO_TEXT),
    Exchange("tls to a plain upstream", (GET,), config="tls_to_plain", compare=NO_TEXT),
    Exchange("connect timeout", (GET,), config="stuck"),
    Exchange("connect timeout, post", (POST,), config="stuck"),
    Exchange("logical dns", (GET,), config="logical_dns"),
    Exchange("strict dns", (GET,), config="strict_dns"),
    Exchange("unresolvable name", (GET,), config="unresolvable"),
    Exchange("operators", (LOGGED,), ANSWERED, config="operators"),
    Exchange("operators, nothing there", (b"nonsense\r\n\r\n",), config="operators"),
    Exchange("json log", (LOGGED,), ANSWERED, config="json_log"),
    Exchange("json log, nothing there", (b"nonsense\r\n\r\n",), config="json_log"),
]
