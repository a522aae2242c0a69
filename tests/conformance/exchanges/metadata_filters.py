"""Filters that fill dynamic metadata: from the file, from headers and cookies."""

from __future__ import annotations

from tests.conformance.exchanges.filter_configurations import EXTENSION, OFF, ROUTER_FILTER, UP, http_filter, on
from tests.support.bootstrap import LOG_FIELDS, Data, bootstrap, file_log, hcm, route, vhost
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


CONFIGURATIONS = {"set_metadata": setting()}


def ask(config: str, path: str, lines: bytes = b"", host: bytes = b"h", **how: object) -> Exchange:
    head = b"GET %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (path.encode(), host, lines)
    shown = lines.replace(b"\r\n", b"; ").decode("latin-1")[:60]
    title = f"{config}: {host.decode()}{path} {shown}".rstrip(" ;")
    return Exchange(title, (head,), config=config, **how)  # type: ignore[arg-type]


EXCHANGES = [
    *(ask("set_metadata", path, host=host)
      for path in ("/keep", "/merge", "/other", "/old", "/half", "/empty", "/off", "/direct", "/level", "/late", "/")
      for host in (b"h", b"v")),
    ask("set_metadata", "/", host=b"nobody"),
]  # fmt: skip
