"""Where forkproxy differs from Envoy on purpose: the one list, each with its reason.

A difference names the exchange, what of it differs, and the status forkproxy answers with. Everything else of that exchange
is still compared, and a difference that is no longer there fails its test, so that the list stays true.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Difference:
    """`aspects`: of "downstream", "ending", "upstream", "log", "stats"; `status`: forkproxy's first final status, 0 for none."""

    reason: str
    aspects: tuple[str, ...]
    status: int | None = None


ALL = ("downstream", "ending", "upstream", "log", "stats")
REFUSED = (
    "refused: {} RFC 9112 lets a recipient refuse it, and parsers that disagree about it are how requests are smuggled"
)


def refused(what: str, status: int = 400, aspects: tuple[str, ...] = ALL) -> Difference:
    """A message that Envoy repairs and forkproxy refuses."""
    return Difference(REFUSED.format(what), aspects, status)


SENT_AGAIN = Difference(
    "an idempotent request, whose body is short, is sent again on a fresh connection (RFC 9110 section 9.2.2); it counts in "
    "upstream_rq_total once more, and the log shows one attempt.",
    ("downstream", "upstream", "log", "stats"),
    200,
)
BODY_BEFORE_TUNNEL = Difference(
    "a body whose length is announced goes to the endpoint at once: no endpoint grants what it has read half of (Docker's "
    "exec is asked for so). Envoy lets it wait for an answer that waits for it.",
    ("downstream", "upstream"),
)
ORDINARY_ANSWER = Difference(
    "an answer that is not 101 grants nothing, whatever its Upgrade header says (RFC 9110 section 15.5.22): an ordinary "
    "response, whose end is its end. Envoy makes half a tunnel of it.",
    ("downstream", "log", "stats", "ending"),
)
DIFFERENCES: dict[str, Difference] = {
    "upgrade: two connection lines": Difference(
        "Envoy joins them; the one that asks for the upgrade is passed on.", ("upstream",)
    ),
    "upgrade: connection names another header": Difference(
        "what Connection names stays on this hop (RFC 9110 section 7.6.1), also beside an upgrade: it could name what the "
        "proxy adds.",
        ("upstream",),
    ),
    "upgrade: with a body": BODY_BEFORE_TUNNEL,
    "upgrade: with a body, not granted": BODY_BEFORE_TUNNEL,
    "upgrade: chunked": refused(
        "an upgrade with a body in chunks. Envoy passes the chunks on, but not the header that says so;", 403, ALL
    ),
    "upgrade: 426 with upgrade": ORDINARY_ANSWER,
    "upgrade: 200 with upgrade": ORDINARY_ANSWER,
    "upgrade: 101 without headers": Difference(
        "a 101 says to what it switches (RFC 9110 section 7.8).", ("downstream", "log", "upstream"), 502
    ),
    "upgrade: 1.0": Difference("HTTP/1.0 knows no upgrades (RFC 9110 section 7.8): refused.", ALL, 403),
    "connect: 200 with a length": Difference(
        "a 2xx answer to CONNECT has no length (RFC 9110 section 9.3.6): it would make a message of the tunnel.",
        ("downstream",),
        200,
    ),
    "connect: with an upgrade": Difference(
        "Envoy asks whether the upgrade is allowed, and then not whether CONNECT is.", ALL, 403
    ),
    "obs-fold": refused("a folded header line (section 5.2)."),
    "obs-fold tab": refused("a folded header line (section 5.2)."),
    "bare cr in value": refused("a bare CR (section 2.2)."),
    "bare lf": refused("a bare LF as line end (section 2.2)."),
    "bare lf in one header": refused("a bare LF as line end (section 2.2)."),
    "bare lf at the end": refused("a bare LF as line end (section 2.2)."),
    "chunk without crlf after": refused("a chunk without its CRLF (section 7.1)."),
    "chunk size with space": refused("white space after the chunk size (section 7.1)."),
    "two hosts": refused("two Host lines (section 3.2)."),
    "two equal hosts": refused("two Host lines (section 3.2)."),
    "1.0 with te": refused("Transfer-Encoding from an HTTP/1.0 sender (section 6.1)."),
    "tab between": refused("tabs in the request line (section 3).", 426),
    "trailing space after the version": refused("a space after the version (section 3)."),
    "cors: two origins": Difference(
        "Envoy makes one line of the values of some headers; the upstream gets the client's.", ("upstream",), None
    ),
    "method QUERY": Difference(
        "a draft's method that the parser does not know; Envoy knows it and then refuses it for want of a content type.",
        ("downstream", "log", "stats"),
        400,
    ),
    "http/0.9": Difference(
        "a request line without a version might yet become a head: the parser waits, and request_headers_timeout ends it.",
        ALL,
        None,
    ),
    "status 1000": Difference("a status has three digits (RFC 9110 section 15).", ALL, 502),
    "101 unasked": Difference("a switch of protocols that nobody asked for (RFC 9110 section 7.8).", ALL, 502),
    "close-delimited, reset": Difference(
        "a body that ends by close ends with a FIN: after a RST it may be cut short, and must not look whole (section 8).",
        ("downstream", "ending", "log", "stats"),
        200,
    ),
    "reused connection closed by upstream": SENT_AGAIN,
    "body on a reused connection closed by upstream": SENT_AGAIN,
    "chunks on a reused connection closed by upstream": SENT_AGAIN,
    "mutations: /q1?b=%20x": Difference(
        "Envoy sends the parameters decoded; a blank in a request's first line is how requests are smuggled.",
        ("upstream", "log"),
        200,
    ),
    **{
        f"local_replies: GET h/{path} {mapper}": Difference(
            "a response of 204 or 304 has no body (RFC 9110 sections 15.3.5, 15.4.5); Envoy sends that of the answer before.",
            ("downstream", "log"),
            status,
        )
        for path in ("direct", "refused")
        for mapper, status in (("no content", 204), ("not modified", 304))
    },
    "obs-fold from upstream": refused("a folded header line (section 5.2).", 502),
    "bare lf from upstream": refused("a bare LF as line end (section 2.2).", 502),
    "te with a tab behind it": refused("a tab behind the transfer coding (section 5.1 lets a recipient strip it)."),
    "a line end in a chunk extension": refused("a line end inside a quoted chunk extension (section 7.1.1)."),
    "white space before a chunk extension": refused("white space after the chunk size (section 7.1)."),
    "nul in a chunk extension": refused("a NUL in a chunk extension (section 7.1.1)."),
    "a chunk longer than its size": refused("a chunk without its CRLF (section 7.1)."),
    "a length among the trailers": refused("a length behind the body (section 6.5.1 of RFC 9110 forbids it)."),
    "folded trailers": refused("a folded header line (section 5.2)."),
    "absolute form, two hosts": refused("two Host lines (section 3.2)."),
    "a host among the trailers": Difference(
        "trailers that name what routing or framing goes by are dropped (RFC 9110 section 6.5.1).", ("upstream",), 200
    ),
    "connection: content-length": Difference(
        "the body keeps its length on the way; Envoy drops the header and sends chunks.", ("upstream",), 200
    ),
    "from upstream: a chunk longer than its size": Difference(
        REFUSED.format("a chunk without its CRLF (section 7.1)."), ("downstream", "ending", "log", "stats"), None
    ),
    "from upstream: 'HTTP/1.2 200 OK'": refused("a version that does not exist (section 2.3).", 502),
    "from upstream: a bare cr in a value": refused("a bare CR (section 2.2).", 502),
}
