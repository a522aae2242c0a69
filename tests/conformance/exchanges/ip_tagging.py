"""Tags of client addresses."""

from __future__ import annotations

import dataclasses

from tests.conformance.exchanges.filter_configurations import OFF, ROUTER_FILTER, UP, http_filter, on
from tests.support.bootstrap import Data, bootstrap, hcm, route, vhost
from tests.support.exchange import Exchange

NAME = "tags"


def tag(name: str, *ranges: str) -> Data:
    found = [each.partition("/") for each in ranges]
    return {
        "ip_tag_name": name,
        "ip_list": [{"address_prefix": address, "prefix_len": int(length)} for address, _, length in found],
    }


TAGS = [
    tag("wide", "10.0.0.0/8", "192.168.0.0/16"), tag("narrow", "10.1.0.0/16"), tag("one", "10.1.2.3/32"),
    tag("also", "10.1.2.3/32"), tag("six", "fd00::/8"), tag("six-more", "fd12::/16"),
    tag("zz", "172.16.0.0/12"), tag("yy", "172.16.5.0/24"),
    tag("xx", "172.16.5.5/32"), tag("ww", "172.16.5.4/31"), tag("same", "10.2.0.0/16", "10.2.2.0/24"), tag("here", "127.0.0.0/8"),
    tag("empty"),
]  # fmt: skip


def tagging(**own: object) -> Data:
    routes = [
        on(NAME, "/off", OFF),
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
        {"match": {"prefix": "/", "headers": [{"name": "x-envoy-ip-tags", "string_match": {"contains": "six"}}]},
         "direct_response": {"status": 299}, "name": "by tag"},
        route("/"),
    ]  # fmt: skip
    filters = [http_filter(NAME, "ip_tagging.v3.IPTagging", ip_tags=TAGS, **own), ROUTER_FILTER]
    return bootstrap([hcm({"virtual_hosts": [vhost(*routes, domains=("h",))]}, http_filters=filters)], [UP])


CONFIGURATIONS = {
    "ip_tagging": tagging(),
    "ip_tagging_internal": tagging(request_type="INTERNAL"),
    "ip_tagging_external": tagging(request_type="EXTERNAL"),
    "ip_tagging_sanitize": tagging(ip_tag_header={"header": "x-tags"}),
    "ip_tagging_append": tagging(ip_tag_header={"header": "x-tags", "action": "APPEND_IF_EXISTS_OR_ADD"}),
}


def ask(path: str, address: bytes = b"", more: bytes = b"", config: str = "ip_tagging", host: bytes = b"h") -> Exchange:
    lines = (b"x-forwarded-for: " + address + b"\r\n" if address else b"") + more
    head = b"GET %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (path.encode(), host, lines)
    shown = lines.replace(b"\r\n", b"; ").decode()
    return Exchange(f"{config}: {host.decode()}{path} {shown}".rstrip(" ;"), (head,), config=config)


THERE = b"x-envoy-ip-tags: old\r\nx-tags: a\r\nx-last: 1\r\nx-tags: b\r\n"
# In which order Envoy names several tags is left to its hash tables.
SEVERAL = (b"10.1.9.9", b"10.1.2.3", b"10.2.2.3", b"172.16.5.5", b"172.16.5.6")
EXCHANGES = [
    *(ask("/", address) for address in (b"", b"10.9.9.9", b"192.168.1.1", b"8.8.8.8", b"fd12::1", b"::1", b"nonsense")),
    *(dataclasses.replace(ask("/", address), compare=("downstream", "ending", "log", "stats")) for address in SEVERAL),
    *(ask(path, address, more)
      for path in ("/off", "/direct")
      for address in (b"10.9.9.9", b"8.8.8.8")
      for more in (b"", THERE)),
    ask("/", b"10.9.9.9", THERE), ask("/", b"10.1.2.3", host=b"nobody"),
    *(ask("/", address, more, f"ip_tagging_{kind}")
      for kind in ("internal", "external", "sanitize", "append")
      for address in (b"10.9.9.9", b"8.8.8.8")
      for more in (b"", THERE)),
]  # fmt: skip
