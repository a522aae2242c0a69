"""Filters that fill dynamic metadata: from the file, from headers and cookies."""

from __future__ import annotations

from tests.conformance.exchanges.filter_configurations import EXTENSION, OFF, ROUTER_FILTER, UP, http_filter, on
from tests.support.bootstrap import LOG_FIELDS, TYPE, Data, bootstrap, file_log, hcm, route, vhost
from tests.support.exchange import Exchange

NAME = "m"
CONFIG = EXTENSION + "set_metadata.v3.Config"
DEFAULT = "envoy.filters.http.header_to_metadata"
LOG = file_log({**LOG_FIELDS, **{each: f"%DYNAMIC_METADATA({each})%" for each in ("a", "b", "c", "d", DEFAULT)}})
FIRST: Data = {
    "text": "first", "number": 1, "list": [1, {"x": 1}], "struct": {"one": 1, "inner": {"a": 1, "l": [1]}}, "flag": True,
    "nothing": None,
}  # fmt: skip
SECOND: Data = {
    "text": 2, "number": 3, "list": ["more"], "struct": {"two": 2, "inner": {"a": 2, "l": [2]}}, "flag": {"now": "struct"},
    "nothing": [], "new": "n",
}  # fmt: skip


TYPED: Data = {"@type": TYPE + "envoy.type.v3.Percent", "value": 1}


def entry(namespace: str, value: Data, overwrite: bool = False) -> Data:
    return {"metadata_namespace": namespace, "value": value, "allow_overwrite": overwrite}


def setting() -> Data:
    def own(prefix: str, **config: object) -> Data:
        return on(NAME, prefix, {"@type": CONFIG, **config})

    routes = [
        own("/keep", metadata=[entry("a", SECOND)]),
        own("/merge", metadata=[entry("a", SECOND, True)]),
        own("/other", metadata=[entry("b", FIRST), entry("b", SECOND, True), entry("b", {"text": "no"})]),
        own("/old", metadata_namespace="b", value=FIRST, metadata=[entry("b", SECOND, True)]),
        own("/half", metadata_namespace="b"),
        own(
            "/untyped",
            metadata=[{"metadata_namespace": "b", "typed_value": TYPED}, entry("b", FIRST), entry("b", SECOND)],
        ),
        own("/nothing", metadata=[{"metadata_namespace": "b"}, entry("b", FIRST)]),
        own("/empty"),
        own("/level", metadata=[entry("c", {"own": "route", "route": "r"}, True), entry("d", {"level": "route"})]),
        own("/late", metadata=[entry("c", {"own": "route", "route": "r"})]),
        on(NAME, "/off", OFF),
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
        route("/"),
    ]
    filters = [
        http_filter("first", "set_metadata.v3.Config", metadata=[entry("a", FIRST)]),
        http_filter(
            NAME,
            "set_metadata.v3.Config",
            metadata=[entry("c", {"own": "filter"}), entry("d", {"level": "filter", "f": "f"}, True)],
        ),
        ROUTER_FILTER,
    ]
    levelled = {
        "@type": CONFIG,
        "metadata": [entry("c", {"own": "vhost", "vhost": "v"}, True), entry("d", {"level": "vhost"})],
    }
    hosts = [
        vhost(*routes, domains=("h",)),
        vhost(*routes, name="v", domains=("v",), typed_per_filter_config={NAME: levelled}),
    ]
    return bootstrap([hcm({"virtual_hosts": hosts}, http_filters=filters, access_log=LOG)], [UP])


HTM = EXTENSION + "header_to_metadata.v3.Config"


def pair(key: str, namespace: str = "a", **more: object) -> Data:
    return {"metadata_namespace": namespace, "key": key, **more}


def rewrite(regex: str, substitution: str) -> Data:
    return {"pattern": {"regex": regex}, "substitution": substitution}


def header_to_metadata() -> Data:
    def own(prefix: str, *request: Data, response: tuple[Data, ...] = ()) -> Data:
        rules = {"request_rules": list(request), "response_rules": list(response)}
        return on(NAME, prefix, {"@type": HTM, "stat_prefix": "route", **rules})

    routes = [
        own("/default", {"header": "x-a", "on_header_present": {"key": "k"}}),
        own("/fixed", {"header": "x-a", "on_header_present": pair("k", value="fixed")}),
        own("/missing", {"header": "X-A", "on_header_present": pair("k"), "on_header_missing": pair("gone", value="none")}),
        own("/only-missing", {"header": "x-a", "on_header_missing": pair("gone", value="none", type="STRING")}),
        own("/remove", {"header": "x-a", "on_header_present": pair("k"), "remove": True},
            {"header": "x-a", "on_header_present": pair("again"), "on_header_missing": pair("again", value="gone")}),
        own("/remove-missing", {"header": "x-a", "on_header_missing": pair("k", value="v"), "remove": True}),
        own("/number", {"header": "x-a", "on_header_present": pair("k", type="NUMBER")}),
        own("/base64", {"header": "x-a", "on_header_present": pair("k", encode="BASE64")}),
        own("/base64-number", {"header": "x-a", "on_header_present": pair("k", encode="BASE64", type="NUMBER")}),
        own("/regex", {"header": "x-a", "on_header_present": pair("k", regex_value_rewrite=rewrite("([0-9]+)", "<\\1>"))}),
        own("/emptied", {"header": "x-a", "on_header_present": pair("k", regex_value_rewrite=rewrite(".*", ""))}),
        own("/cut", {"header": ":path", "on_header_present": pair("k", regex_value_rewrite=rewrite("^/cut/(\\w+).*$", "\\1"))}),
        own("/pseudo", *(
            {"header": name, "on_header_present": pair(name)} for name in (":method", ":authority", ":scheme", "host"))),
        own("/cookie", {"cookie": "c", "on_header_present": pair("k"), "on_header_missing": pair("k", value="none")}),
        own("/two", {"header": "x-a", "on_header_present": pair("k", "a")},
            {"header": "x-b", "on_header_present": pair("k", "b")},
            {"header": "x-b", "on_header_present": pair("k", "a")}),
        own("/response", response=(
            {"header": "x-r", "on_header_present": pair("r"), "on_header_missing": pair("r", value="none"), "remove": True},
            {"header": ":status", "on_header_present": pair("status", type="NUMBER")},
            {"header": "content-length", "on_header_present": pair("length", "b")})),
        on(NAME, "/off", OFF),
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
        route("/"),
    ]  # fmt: skip
    routes.sort(key=lambda each: -len(each["match"]["prefix"]))
    rules = [{"header": "x-own", "on_header_present": pair("own")}]
    answered = [
        {"header": "server", "on_header_present": pair("server"), "on_header_missing": pair("no-server", value="yes")}
    ]
    filters = [
        http_filter(
            NAME, "header_to_metadata.v3.Config", request_rules=rules, response_rules=answered, stat_prefix="counted"
        ),
        ROUTER_FILTER,
    ]
    table = {"virtual_hosts": [vhost(*routes, domains=("h",))]}
    return bootstrap([hcm(table, http_filters=filters, access_log=LOG)], [UP])


CONFIGURATIONS = {"set_metadata": setting(), "header_to_metadata": header_to_metadata()}


def ask(config: str, path: str, lines: bytes = b"", host: bytes = b"h", **how: object) -> Exchange:
    head = b"GET %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (path.encode(), host, lines)
    shown = lines.replace(b"\r\n", b"; ").decode("latin-1")[:60]
    title = f"{config}: {host.decode()}{path} {shown}".rstrip(" ;")
    return Exchange(title, (head,), config=config, **how)  # type: ignore[arg-type]


TELLING = b"HTTP/1.1 201 Created\r\nx-r: one\r\nx-r: two\r\nserver: theirs\r\ncontent-length: 2\r\n\r\nok"
EXCHANGES = [
    *(ask("set_metadata", path, host=host)
      for path in ("/keep", "/merge", "/other", "/old", "/half", "/untyped", "/nothing",
                   "/empty", "/off", "/direct", "/level", "/late", "/")
      for host in (b"h", b"v")),
    ask("set_metadata", "/", host=b"nobody"),
    *(ask("header_to_metadata", path, lines)
      for path in ("/default", "/fixed", "/missing", "/only-missing", "/remove", "/remove-missing", "/number", "/base64",
                   "/regex", "/off", "/")
      for lines in (b"", b"x-a: 1\r\n", b"x-a:\r\n", b"x-a: 1\r\nx-b: 2\r\nX-A: 2\r\nx-own: o\r\n")),
    *(ask("header_to_metadata", "/number", b"x-a: " + value + b"\r\n")
      for value in (b"1.5", b"-2e3", b"0x10", b"1_0", b"nope", b"007", b"1.0", b".5", b"5.", b"+1", b"12345678901234567890",
                    b"1 2")),
    *(ask("header_to_metadata", path, b"x-a: " + value + b"\r\n")
      for path in ("/base64", "/base64-number") for value in (b"MTI=", b"MTI", b"YQ==", b"%%%", b"=", b"IDEg")),
    ask("header_to_metadata", "/regex", b"x-a: a12b3\r\n"), ask("header_to_metadata", "/regex", b"x-a: abc\r\n"),
    ask("header_to_metadata", "/emptied", b"x-a: abc\r\n"),
    ask("header_to_metadata", "/cut/one/two?x"), ask("header_to_metadata", "/cut"), ask("header_to_metadata", "/pseudo"),
    *(ask("header_to_metadata", "/cookie", lines)
      for lines in (b"", b"cookie: a=b; c=d\r\n", b'cookie: c="q"\r\n', b"cookie: c=\r\n", b"cookie: a=b\r\ncookie: c=2\r\n",
                    b"cookie: cc=1\r\n", b"cookie: c=1; c=2\r\n")),
    ask("header_to_metadata", "/two", b"x-a: 1\r\nx-b: 2\r\n"), ask("header_to_metadata", "/two", b"x-a: 1\r\n"),
    ask("header_to_metadata", "/response"), ask("header_to_metadata", "/direct"),
    ask("header_to_metadata", "/response", b"x-is: told\r\n", answers=((TELLING,),)),
    ask("header_to_metadata", "/", b"x-is: told\r\n", answers=((TELLING,),)),
    ask("header_to_metadata", "/", b"x-own: o\r\n", host=b"nobody"),
    ask("header_to_metadata", "/default", b"x-a: " + b"l" * 8191 + b"\r\n"),
    ask("header_to_metadata", "/fixed", b"x-a: " + b"l" * 8192 + b"\r\n"),
    ask("header_to_metadata", "/two", b"x-a: " + b"l" * 8192 + b"\r\n"),
]  # fmt: skip
