"""Which route takes a request, and what it does to it."""

from __future__ import annotations

from tests.support.exchange import Exchange

SECRETS = (
    b"HTTP/1.1 200 OK\r\nx-secret: 1\r\nx-config-secret: 2\r\nx-from: upstream\r\n"
    b"x-resp-append: upstream\r\ncontent-length: 2\r\n\r\nok"
)


def to(
    name: str,
    target: bytes,
    *,
    host: bytes = b"exact.example",
    lines: bytes = b"",
    method: bytes = b"GET",
    **more: object,
) -> Exchange:
    """A request for `target` of `host`."""
    head = method + b" " + target + b" HTTP/1.1\r\nhost: " + host + b"\r\n" + lines + b"\r\n"
    return Exchange(name, (head,), config="rewriting", **more)  # type: ignore[arg-type]


MATCHING = [
    to("path match", b"/exact"),
    to("path match ignores the query", b"/exact?a=1"),
    to("path match is whole", b"/exact/more"),
    to("prefix rewritten", b"/prefix/a/b?q=1"),
    to("prefix rewritten to the root", b"/strip/a"),
    to("prefix rewritten to the root, nothing left", b"/strip"),
    to("prefix rewritten to the root, query", b"/strip?x=1"),
    to("prefix matches inside a segment", b"/stripped"),
    to("host rewritten", b"/host/a"),
    to("host rewritten by header", b"/toheader", lines=b"x-to: elsewhere.example\r\n"),
    to("host rewritten by absent header", b"/toheader"),
    to("auto host rewrite", b"/autohost"),
    to("regex match and rewrite", b"/re/12/a/b?q=1"),
    to("regex does not match", b"/re/x/a"),
    to("regex must match the whole path", b"/x/re/12/a"),
    to("path separated prefix", b"/sep/a"),
    to("path separated prefix, exact", b"/sep"),
    to("path separated prefix, with query", b"/sep?a"),
    to("path separated prefix, inside a segment", b"/separate"),
    to("case insensitive", b"/CaSe/a"),
    to("header exact", b"/h", lines=b"x-v: 1\r\n"),
    to("header prefix", b"/h", lines=b"x-v: pre\r\n"),
    to("header absent", b"/h"),
    to("header range", b"/h", lines=b"x-v: 15\r\n"),
    to("header regex", b"/h", lines=b"x-v: rrr\r\n"),
    to("header else", b"/h", lines=b"x-v: 20\r\n"),
    to("header twice", b"/h", lines=b"x-v: 1\r\nx-v: 2\r\n"),
    to("query exact", b"/q?x=0&a=1"),
    to("query other value", b"/q?a=2"),
    to("query present", b"/q?b"),
    to("query escaped value", b"/q?a=%31"),
    to("query none", b"/q"),
    to("host port matters", b"/exact", host=b"port.example:8080"),
    to("host port missing", b"/exact", host=b"port.example"),
    to("host with unexpected port", b"/exact", host=b"exact.example:80"),
    to("host case", b"/exact", host=b"EXACT.Example"),
    to("host trailing dot", b"/exact", host=b"exact.example."),
    to("host suffix", b"/a", host=b"x.suffix.example"),
    to("host longest suffix", b"/a", host=b"x.b.suffix.example"),
    to("host suffix needs something", b"/a", host=b"suffix.example"),
    to("host suffix with port", b"/a", host=b"x.suffix.example:99"),
    to("host prefix", b"/a", host=b"prefix.anything"),
    to("host prefix needs something", b"/a", host=b"prefix."),
    to("no virtual host", b"/a", host=b"nobody.example"),
    to("tls required", b"/a?b=1", host=b"tls.example:8080"),
    to("tls required, forwarded proto https", b"/a", host=b"tls.example", lines=b"x-forwarded-proto: https\r\n"),
    to("cluster by header", b"/byheader", lines=b"x-cluster-name: up\r\n"),
    to("cluster by absent header", b"/byheader"),
    to("cluster by header, unknown", b"/byheader", lines=b"x-cluster-name: nobody\r\n"),
]

ANSWERS = [
    to("direct response", b"/direct"),
    to("direct response to HEAD", b"/direct", method=b"HEAD"),
    to("direct response to a POST", b"/direct", method=b"POST", lines=b"content-length: 0\r\n"),
    to("direct response without body", b"/nobody"),
    to("redirect https", b"/redirect/https/a?b=1"),
    to("redirect https, port 80", b"/redirect/https", host=b"exact.example:80"),
    to("redirect https, other port", b"/redirect/https", host=b"port.example:8080"),
    to("redirect host", b"/redirect/host?x=1"),
    to("redirect port", b"/redirect/port"),
    to("redirect default port", b"/redirect/httpsport"),
    to("redirect path", b"/redirect/path?x=1"),
    to("redirect plain path", b"/redirect/plainpath?x=1"),
    to("redirect prefix", b"/redirect/prefix/more?x=1"),
    to("redirect strip query", b"/redirect/strip/more?x=1"),
    to("redirect regex", b"/redirect/regex/more?x=1"),
    to("redirect, forwarded proto https", b"/redirect/host", lines=b"x-forwarded-proto: https\r\n"),
    to("redirect head", b"/redirect/host", method=b"HEAD"),
]

MUTATIONS = [
    to(
        "header mutations",
        b"/mutate",
        answers=((SECRETS,),),
        lines=b"x-in: hello\r\nx-remove: 1\r\nx-append: own\r\nx-overwrite: own\r\nx-if-absent: own\r\nx-if-exists: own\r\n",
    ),
    to("header mutations, nothing there before", b"/mutate", answers=((SECRETS,),)),
    to("weighted cluster", b"/weighted", answers=((SECRETS,),)),
    to("response removal on another route", b"/strip", answers=((SECRETS,),)),
    to("mutations on a local reply", b"/redirect/host"),
]

EXCHANGES = [*MATCHING, *ANSWERS, *MUTATIONS]
