"""What routes do with a request beyond the usual: templates, formats, choices among clusters, answers of their own."""

from __future__ import annotations

from tests.support.bootstrap import TYPE, Data, bootstrap, cluster, hcm, route, vhost
from tests.support.exchange import Exchange

PATHS = "envoy.extensions.path"


def template(text: str) -> Data:
    """A match by a URI template."""
    typed = {"@type": f"{TYPE}{PATHS}.match.uri_template.v3.UriTemplateMatchConfig", "path_template": text}
    return {"path_match_policy": {"name": "envoy.path.match.uri_template.uri_template_matcher", "typed_config": typed}}


def rewritten(text: str) -> Data:
    """An action that rewrites with the variables of the template."""
    typed = {"@type": f"{TYPE}{PATHS}.rewrite.uri_template.v3.UriTemplateRewriteConfig", "path_template_rewrite": text}
    name = "envoy.path.rewrite.uri_template.uri_template_rewriter"
    return {"path_rewrite_policy": {"name": name, "typed_config": typed}}


def substitution(pattern: str, text: str) -> Data:
    """A RegexMatchAndSubstitute."""
    return {"pattern": {"regex": pattern}, "substitution": text}


def marked(mark: str, **more: object) -> Data:
    """A weighted cluster that the response tells."""
    return {"response_headers_to_add": [{"header": {"key": "x-cluster", "value": mark}}], **more}


def weighted(prefix: str, *clusters: Data, hash_policy: list[Data] | None = None, **more: object) -> Data:
    """A route to weighted clusters."""
    action: Data = {"weighted_clusters": {"clusters": list(clusters), **more}}
    if hash_policy:
        action["hash_policy"] = hash_policy
    return {"match": {"prefix": prefix}, "route": action}


def answered(prefix: str, status: int = 200, body: str = "", body_format: Data | None = None, **more: object) -> Data:
    """A direct response."""
    response: Data = {"status": status}
    if body:
        response["body"] = {"inline_string": body}
    if body_format:
        response["body_format"] = body_format
    return {"match": {"prefix": prefix}, "direct_response": response, "name": prefix, **more}


def source(text: str) -> Data:
    """A SubstitutionFormatString of text."""
    return {"text_format_source": {"inline_string": text}}


def added(key: str, value: str, **more: object) -> Data:
    """response_headers_to_add."""
    return {"response_headers_to_add": [{"header": {"key": key, "value": value}, **more}]}


TOLD = (
    "<%LOCAL_REPLY_BODY%|%RESPONSE_CODE%|%REQ(x-a)%|%RESP(x-b)%|%RESP(location)%|%RESPONSE_CODE_DETAILS%|%RESPONSE_FLAGS%"
    "|%ROUTE_NAME%|%REQ(:path)%|%PROTOCOL%|%RESP(content-type)%|%BYTES_RECEIVED%>"
)
TWO = (marked("up", name="up", weight=10), marked("up2", name="up2", weight=90))

CONFIGURATION = bootstrap(
    [
        hcm(
            {
                "name": "actions",
                "virtual_hosts": [
                    vhost(
                        route("/", match=template("/a/{x}/b/{y=*}"), action=rewritten("/{y}/z/{x}")),
                        route("/", match=template("/one/*/end")),
                        route("/", match=template("/any/**")),
                        route("/", match=template("/rest/{rest=**}"), action=rewritten("/w/{rest}")),
                        route("/", match=template("/pre/{rest=*/mid/**}.m3u8"), action=rewritten("/{rest}.ts")),
                        route("/", match=template("/odd**")),
                        route("/", match=template("/sub-delims=+.($)&':@,~!;/x")),
                        route(
                            "/", match=template("/regex/{v=**}"),
                            action={"regex_rewrite": substitution("^/regex/", "/z/")},
                        ),
                        {"match": template("/moved/{v=**}"),
                         "redirect": {"regex_rewrite": substitution("^/moved/", "/z/")}},
                        {"match": template("/moved-path/{v=**}"), "redirect": {"path_redirect": "/q"}},
                        route("/emptied/", action={"regex_rewrite": substitution(".*", "")}),
                        route("/path-format", action={"path_rewrite": "/new/%REQ(x-a)%/%REQ(:method)%"}),
                        route("/path-only", action={"path_rewrite": "%REQ(x-a)%"}),
                        route("/host-format",
                              action={"host_rewrite": "%REQ(x-a)%.example", "append_x_forwarded_host": True}),
                        route("/host-only", action={"host_rewrite": "%REQ(x-a)%"}),
                        route("/host-regex/", action={
                            "host_rewrite_path_regex": substitution("^/host-regex/([^/]+)/.*$", r"\1.example"),
                            "prefix_rewrite": "/"}),
                        route("/both", action={"host_rewrite": "%REQ(:path)%", "path_rewrite": "/%REQ(:authority)%"}),
                        weighted("/by-number", *TWO, header_name="X-Number"),
                        weighted("/by-hash", *TWO, use_hash_policy=True,
                                 hash_policy=[{"header": {"header_name": "x-h"}}]),
                        weighted("/by-cookie", *TWO, use_hash_policy=True,
                                 hash_policy=[{"filter_state": {"key": "nobody sets it"}},
                                              {"cookie": {"name": "c", "ttl": "0s"}}]),
                        weighted("/weighted-header",
                                 {"cluster_header": "x-to", "weight": 1, "host_rewrite_literal": "weighted.example"}),
                        {"match": {"prefix": "/not-forwarded"}, "non_forwarding_action": {}, "name": "not-forwarded",
                         "response_headers_to_add": [{"header": {"key": "x-route", "value": "%ROUTE_NAME%"}}]},
                        {"match": {"prefix": "/filter-action"}, "filter_action": {}},
                        answered("/told-of-nothing", 200, "", source(TOLD)),
                        answered("/told-created", 201, "hi", source(TOLD), **added("x-b", "b")),
                        answered("/told-sparsely", 200, "hi", {**source("%REQ(x-a)%"), "omit_empty_values": True}),
                        answered("/told-json", 200, "hi", {"json_format": {
                            "b": "%LOCAL_REPLY_BODY%", "c": "%RESPONSE_CODE%", "n": "%REQ(x-a)%"}}),
                        answered("/told-html", 200, "hi", {**source("%REQ(x-a)%"), "content_type": "text/html"}),
                        answered("/told-typed-twice", 200, "hi", {**source("x"), "content_type": "text/html"},
                                 **added("content-type", "text/x")),
                        answered("/told", 200, "hi", source(TOLD), **added("x-b", "b")),
                        answered("/created", 201, "made", **added("x-b", "b")),
                        answered("/found", 302, "there"),
                        answered("/not-modified", 304),
                        answered("/use-proxy", 305),
                        answered("/located", 300, **added("location", "/own")),
                        answered("/relocated", 302, **added("location", "/own", append_action="ADD_IF_ABSENT")),
                        answered("/unknown", 299),
                        {"match": {"prefix": "/"}, "direct_response": {"status": 404}},
                    )
                ],
            }
        )
    ],
    [cluster("up", "up"), cluster("up2", "up")],
)  # fmt: skip


def to(name: str, target: bytes, lines: bytes = b"", method: bytes = b"GET") -> Exchange:
    """A request for `target`."""
    head = method + b" " + target + b" HTTP/1.1\r\nhost: h.example\r\n" + lines + b"\r\n"
    return Exchange(f"route action: {name}", (head,), config="route_actions")


TEMPLATES = [
    to("two variables", b"/a/1/b/2?q=/1"),
    to("an empty segment is none", b"/a//b/2"),
    to("a segment too many", b"/a/1/b/2/"),
    to("another case", b"/A/1/b/2"),
    to("escapes stay", b"/a/%20/b/%2f"),
    to("one segment", b"/one/x*y/end"),
    to("one segment, not two", b"/one/x/y/end"),
    to("one segment with a brace", b"/one/a{b/end"),
    to("one segment with a bar", b"/one/a|b/end"),
    to("one segment with a quote", b"/one/a'b/end"),
    to("any segments", b"/any/x/y?z"),
    to("any segments, none", b"/any/"),
    to("any segments, not even the slash", b"/any"),
    to("rest", b"/rest/a/b?x=/y"),
    to("rest, empty", b"/rest/"),
    to("suffix", b"/pre/a/mid/b/c.m3u8?x"),
    to("suffix, nothing before it", b"/pre/a/mid/.m3u8"),
    to("suffix, another", b"/pre/a/mid/b.m3u9"),
    to("a star that repeats nothing", b"/odd**"),
    to("sub-delimiters are literal", b"/sub-delims=+.($)&':@,~!;/x"),
    to("template and regex_rewrite", b"/regex/a?x"),
    to("template and redirect by regex", b"/moved/a?x"),
    to("template and redirect by path", b"/moved-path/a?x"),
]
REWRITES = [
    to("a path is not rewritten to nothing", b"/emptied/a?x"),
    to("path format", b"/path-format/x?a=1", b"x-a: 1\r\n"),
    to("path format, a part missing", b"/path-format"),
    to("path format, all missing", b"/path-only?x"),
    to("path format without a slash", b"/path-only?x", b"x-a: zz\r\n"),
    to("host format", b"/host-format", b"x-a: one\r\n"),
    to("host format, a part missing", b"/host-format"),
    to("host format, all missing", b"/host-only"),
    to("host by the path", b"/host-regex/abc/d?x"),
    to("host by the path, no match", b"/host-regex/"),
    to("host first, then path", b"/both?x"),
]
NUMBERS = (b"0", b"9", b"10", b"99", b"105", b"18446744073709551615", b"+5", b"007")
CHOICES = [
    *[to(f"weighted by the number {n.decode()}", b"/by-number", b"x-number: " + n + b"\r\n") for n in NUMBERS],
    *[to(f"weighted by the hash of {n}", b"/by-hash", b"x-h: %d\r\n" % n) for n in range(6)],
    to("weighted by a cookie", b"/by-cookie", b"cookie: c=0\r\n"),
    to("weighted by another cookie", b"/by-cookie", b"cookie: c=12\r\n"),
    to("weighted, cluster by header", b"/weighted-header", b"x-to: up2\r\n"),
    to("weighted, cluster by absent header", b"/weighted-header"),
    to("weighted, unknown cluster by header", b"/weighted-header", b"x-to: nobody\r\n"),
]
OTHERS = [
    to("non-forwarding", b"/not-forwarded"),
    to("non-forwarding, HEAD", b"/not-forwarded", method=b"HEAD"),
    to("filter action", b"/filter-action"),
]
ANSWERS = [
    *[
        to(f"answer {path.decode()}", path)
        for path in (
            *(b"/told?x", b"/told-of-nothing", b"/told-created?x", b"/told-sparsely", b"/told-json", b"/told-html"),
            *(b"/told-typed-twice", b"/created?x", b"/found?x", b"/not-modified", b"/use-proxy", b"/located"),
            *(b"/relocated", b"/unknown"),
        )
    ],
    to("answer with a header", b"/told", b"x-a: 1\r\n"),
    to("answer in JSON with a header", b"/told-json", b"x-a: 1\r\n"),
    to("answer to HEAD", b"/told", method=b"HEAD"),
    to("answer to gRPC", b"/told", b"content-type: application/grpc\r\n"),
    to("found, https before", b"/found", b"x-forwarded-proto: https\r\n"),
    to("found, HEAD", b"/found", method=b"HEAD"),
]
EXCHANGES = [*TEMPLATES, *REWRITES, *CHOICES, *OTHERS, *ANSWERS]
