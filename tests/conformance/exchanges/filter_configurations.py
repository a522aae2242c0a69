"""The configurations of the exchanges in filters.py: HTTP filters before the router, and what routes say about them."""

from __future__ import annotations

from tests.support.bootstrap import ROUTER, TYPE, Data, bootstrap, cluster, hcm, route, vhost

EXTENSION = TYPE + "envoy.extensions.filters.http."
FILTER_CONFIG = TYPE + "envoy.config.route.v3.FilterConfig"
UP = cluster("up", "up")
NAMED = cluster("named", "up")
POLICY = EXTENSION + "cors.v3.CorsPolicy"
OFF = {"@type": FILTER_CONFIG, "disabled": True}
ON = {"@type": FILTER_CONFIG, "config": {}}
ROUTER_FILTER = {"name": "router", "typed_config": {"@type": ROUTER}}
ALWAYS = {"default_value": {"numerator": 100}}
NEVER = {"default_value": {"numerator": 0}}


def http_filter(name: str, kind: str, **fields: object) -> Data:
    """A filter of the chain; `disabled` is its own field, the others its configuration's."""
    outer = {key: fields.pop(key) for key in ("disabled",) if key in fields}
    return {"name": name, **outer, "typed_config": {"@type": EXTENSION + kind, **fields}}


def policy(*origins: Data, **fields: object) -> Data:
    """A CorsPolicy of `typed_per_filter_config`."""
    return {"@type": POLICY, "allow_origin_string_match": list(origins), **fields}


def on(name: str, prefix: str, said: Data | None, **more: object) -> Data:
    """A route that says something about the filter `name`."""
    more.update({} if said is None else {"typed_per_filter_config": {name: said}})
    return route(prefix, **more)  # type: ignore[arg-type]


def cors() -> Data:
    """Typed policies on every level but the table's; the deprecated field on hosts of their own."""
    name = "my-cors"
    exact = {"exact": "https://vhost.example"}
    weighted = {"name": "up", "weight": 1, "typed_per_filter_config": {name: policy(max_age="7")}}
    typed = vhost(
        on(name, "/both", policy({"prefix": "https://route"}, allow_headers="x-a", expose_headers="x-b,x-c")),
        on(name, "/star", policy({"prefix": "*"}, allow_private_network_access=True)),
        on(name, "/literal", policy({"exact": "*"})),
        on(name, "/suffix", policy({"suffix": ".example"}, allow_credentials=False, max_age="600")),
        on(
            name,
            "/regex",
            policy({"safe_regex": {"regex": "https://[a-z]+\\.regex\\.example"}}, {"exact": "https://CASE", "ignore_case": True}),
        ),
        on(name, "/off", OFF),
        on(name, "/on", ON),
        on(name, "/never", policy({"prefix": "*"}, filter_enabled=NEVER)),
        on(name, "/shadow", policy({"prefix": "https://s"}, filter_enabled=NEVER, shadow_enabled=ALWAYS)),
        on(name, "/watched", policy({"prefix": "https://s"}, filter_enabled=ALWAYS, shadow_enabled=ALWAYS)),
        on(name, "/forward", policy({"prefix": "https://s"}, forward_not_matching_preflights=True)),
        on(
            name, "/hold",
            policy({"prefix": "https://s"}, forward_not_matching_preflights=False, allow_private_network_access=True),
        ),
        on(name, "/cors-field", policy(max_age="5"), action={"cors": {"max_age": "6", "expose_headers": "x-never"}}),
        on(
            name, "/mutate", None,
            response_headers_to_add=[{"header": {"key": "access-control-allow-origin", "value": "route"}}],
        ),
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "hello"}}},
        {"match": {"prefix": "/redirect"}, "redirect": {"path_redirect": "/new"}},
        {"match": {"prefix": "/weighted"}, "route": {"weighted_clusters": {"clusters": [weighted]}}},
        route("/"),
        name="typed", domains=("typed.example",),
        typed_per_filter_config={name: policy(exact, allow_methods="GET, PUT", max_age="1", allow_credentials=True)},
    )  # fmt: skip
    old = vhost(
        route("/route", action={"cors": {"allow_origin_string_match": [{"prefix": "*"}], "allow_headers": "x-r"}}),
        route("/inherit", action={"cors": {"allow_headers": "x-r", "allow_credentials": True}}),
        route("/off", action={"cors": {"filter_enabled": NEVER}}),
        on(name, "/typed", policy({"prefix": "https://typed"})),
        route("/"),
        name="old", domains=("old.example",),
        cors={"allow_origin_string_match": [{"prefix": "https://old"}], "allow_methods": "GET", "max_age": "60",
              "expose_headers": "x-e"},
    )  # fmt: skip
    tls = vhost(
        route("/"),
        name="tls",
        domains=("tls.example",),
        require_tls="ALL",
        typed_per_filter_config={name: policy({"prefix": "*"})},
    )
    none = vhost(route("/"), name="none", domains=("none.example",))
    filters = [http_filter(name, "cors.v3.Cors"), ROUTER_FILTER]
    return bootstrap([hcm({"virtual_hosts": [typed, old, tls, none]}, http_filters=filters)], [UP])


def switched() -> Data:
    """A filter that the chain has disabled, switched on here and there; the table has a policy."""
    anyone = policy({"prefix": "*"}, max_age="9")
    wrapped = {"@type": FILTER_CONFIG, "config": policy({"prefix": "https://w"}), "is_optional": True}
    weighted = {"name": "up", "weight": 1, "typed_per_filter_config": {"cors": OFF}}
    host = vhost(
        on("cors", "/on", ON),
        on("cors", "/off", OFF),
        on("cors", "/typed", policy(max_age="8")),
        on("cors", "/wrapped", wrapped),
        on("cors", "/both", {**wrapped, "disabled": True}),
        on("other", "/other", ON),
        {
            "match": {"prefix": "/weighted"},
            "route": {"weighted_clusters": {"clusters": [weighted]}},
            "typed_per_filter_config": {"cors": ON},
        },
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}, "typed_per_filter_config": {"cors": ON}},
        route("/"),
        name="host", domains=("host.example",),
    )  # fmt: skip
    off = vhost(
        on("cors", "/on", ON), route("/"), name="off", domains=("off.example",), typed_per_filter_config={"cors": OFF}
    )
    enabled = vhost(
        on("cors", "/off", OFF),
        route("/"),
        name="on",
        domains=("on.example",),
        typed_per_filter_config={"cors": ON},
        cors={"allow_origin_string_match": [{"prefix": "*"}], "max_age": "3"},
    )
    table = {"virtual_hosts": [host, off, enabled], "typed_per_filter_config": {"cors": anyone}}
    filters = [http_filter("cors", "cors.v3.Cors", disabled=True), ROUTER_FILTER]
    return bootstrap([hcm(table, http_filters=filters)], [UP])


def disabled() -> Data:
    """The same with a table that says nothing, so that only those routes have the filter that ask for it."""
    data = switched()
    manager = data["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["route_config"]["typed_per_filter_config"]
    return data


def buffering() -> Data:
    """Bodies of up to 20 bytes, or what the route says; the listener's own limit is 1,000."""

    def limit(size: int) -> Data:
        return {"@type": EXTENSION + "buffer.v3.BufferPerRoute", "buffer": {"max_request_bytes": size}}

    per_route = {"@type": EXTENSION + "buffer.v3.BufferPerRoute", "disabled": True}
    host = vhost(
        on("b", "/off", OFF),
        on("b", "/streamed", per_route),
        on("b", "/more", limit(2000)),
        on("b", "/less", limit(5)),
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
        route("/"),
    )
    small = vhost(route("/"), name="small", domains=("small",), typed_per_filter_config={"b": limit(3)})
    filters = [http_filter("b", "buffer.v3.Buffer", max_request_bytes=20), ROUTER_FILTER]
    data = bootstrap([hcm({"virtual_hosts": [host, small]}, http_filters=filters)], [UP])
    data["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = 1000
    return data


def mutations(level: str, *more: Data) -> Data:
    """Every kind of mutation, marked with `level`, on requests and responses."""

    def append(key: str, value: str, action: str = "APPEND_IF_EXISTS_OR_ADD", **fields: object) -> Data:
        return {"append": {"header": {"key": key, "value": value}, "append_action": action, **fields}}

    steps = [
        append("x-append", level),
        append("x-overwrite", level, "OVERWRITE_IF_EXISTS_OR_ADD"),
        append("x-if-absent", level, "ADD_IF_ABSENT"),
        append("x-if-exists", level, "OVERWRITE_IF_EXISTS"),
        append("x-format", level + " %REQ(x-in)% %REQ(x-append)%"),
        append("x-empty", "%REQ(x-none)%"),
        append("x-kept", "%REQ(x-none)%", keep_empty_value=True),
        {"remove": "X-Remove"},
        append("x-gone", level),
        {"remove": "x-gone"},
        append("x-response", "%RESP(x-append)% %RESPONSE_CODE%"),
        *more,
    ]
    return {"mutations": {"request_mutations": steps, "response_mutations": steps}}


def mutating(wins: bool) -> Data:
    """Mutations of the filter itself and of every level."""
    name = "m"

    def per_route(level: str) -> Data:
        return {name: {"@type": EXTENSION + "header_mutation.v3.HeaderMutationPerRoute", **mutations(level)}}

    weighted = {"name": "up", "weight": 1, "typed_per_filter_config": per_route("weighted")}
    host = vhost(
        on(name, "/off", OFF),
        route("/route", typed_per_filter_config=per_route("route")),
        {"match": {"prefix": "/weighted"}, "route": {"weighted_clusters": {"clusters": [weighted]}}},
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 202, "body": {"inline_string": "hi"}}},
        route("/"),
        domains=("host",),
        typed_per_filter_config=per_route("host"),
    )
    table = {
        "virtual_hosts": [host, vhost(route("/"), name="o", domains=("o",))],
        "typed_per_filter_config": per_route("t"),
    }
    own = mutations("filter", {"remove": "x-own"})
    mutation = http_filter(name, "header_mutation.v3.HeaderMutation", most_specific_header_mutations_wins=wins, **own)
    return bootstrap([hcm(table, http_filters=[mutation, ROUTER_FILTER])], [UP])


FILTERED = {
    "mutating": mutating(False),
    "mutating_reversed": mutating(True),
    "buffering": buffering(),
    "cors": cors(),
    "switched": switched(),
    "disabled": disabled(),
}
