"""Role based access control: every kind of rule, shadow rules, and what routes say."""

from __future__ import annotations

from tests.conformance.exchanges.filter_configurations import EXTENSION, OFF, ROUTER_FILTER, UP, http_filter, on
from tests.support.bootstrap import LOG_FIELDS, TYPE, Data, bootstrap, file_log, hcm, route, vhost
from tests.support.exchange import Exchange

NAME = "envoy.filters.http.rbac"
ANY: Data = {"any": True}
LOOPBACK = {"address_prefix": "127.0.0.0", "prefix_len": 8}
NOWHERE = {"address_prefix": "10.0.0.0", "prefix_len": 8}
LOG = file_log(
    {
        **LOG_FIELDS,
        "rbac": "%DYNAMIC_METADATA(envoy.filters.http.rbac)%",
        "hint": "%DYNAMIC_METADATA(envoy.common:access_log_hint)%",
    }
)


def header(name: str, **match: object) -> Data:
    return {"header": {"name": name, **match}}


def policy(*permissions: Data, principals: tuple[Data, ...] = (ANY,)) -> Data:
    return {"permissions": list(permissions), "principals": list(principals)}


def rules(action: str = "ALLOW", **policies: Data) -> Data:
    return {"action": action, "policies": policies}


def path_is(**match: object) -> Data:
    return {"url_path": {"path": match}}


def metadata(value: Data, *path: str, **more: object) -> Data:
    return {"filter": NAME, "path": [{"key": each} for each in path], "value": value, **more}


def only(name: str, **config: object) -> Data:
    """A route with rules and metadata of its own."""
    return {"metadata": {"filter_metadata": {NAME: {"own": {"kind": "b"}}}}} | on(
        NAME, name, {"@type": EXTENSION + "rbac.v3.RBACPerRoute", "rbac": config}
    )


def sourced(source: str, value: Data, *path: str, **more: object) -> Data:
    return {"sourced_metadata": {"metadata_source": source, "metadata_matcher": metadata(value, *path, **more)}}


def template(path_template: str) -> Data:
    config = {"@type": TYPE + "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"}
    return {"uri_template": {"name": "t", "typed_config": {**config, "path_template": path_template}}}


def mutual(**config: object) -> Data:
    config_type = TYPE + "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config"
    return {
        "custom": {"name": "envoy.rbac.principals.mtls_authenticated", "typed_config": {"@type": config_type, **config}}
    }


PERMISSIONS = {
    "header": header("x-p", string_match={"exact": "yes"}),
    "header-absent": header("x-p", present_match=False),
    "header-inverted": header("x-p", string_match={"exact": "yes"}, invert_match=True),
    "method": header(":method", string_match={"exact": "POST"}),
    "path-header": header(":path", string_match={"suffix": "?q"}),
    "path-exact": path_is(exact="/path-exact/x"),
    "path-regex": path_is(safe_regex={"regex": "/path-regex/[a-z]+"}),
    "path-case": path_is(exact="/PATH-CASE", ignore_case=True),
    "host": header(":authority", string_match={"suffix": ".example"}),
    "ip": {"destination_ip": LOOPBACK},
    "other-ip": {"destination_ip": NOWHERE},
    "port": {"destination_port": 1},
    "ports": {"destination_port_range": {"start": 1024, "end": 65536}},
    "sni": {"requested_server_name": {"exact": "a"}},
    "no-sni": {"requested_server_name": {"exact": ""}},
    "not": {"not_rule": header("x-p", present_match=True)},
    "and": {"and_rules": {"rules": [header("x-p", present_match=True), path_is(prefix="/and/")]}},
    "or": {"or_rules": {"rules": [header("x-p", present_match=True), path_is(prefix="/or/")]}},
    "metadata": {"metadata": metadata({"string_match": {"exact": "denied"}}, "firstshadow_engine_result")},
    "no-metadata": {"metadata": metadata({"present_match": True}, "absent", "deeper")},
    "not-present": {"metadata": metadata({"present_match": False}, "absent")},
    "own-metadata": {"metadata": metadata({"present_match": True}, "shadowshadow_engine_result")},
    "inverted": {"metadata": metadata({"null_match": {}}, "absent", invert=True)},
    "of-route": sourced("ROUTE", {"string_match": {"exact": "b"}}, "own", "kind"),
    "of-other-route": sourced("ROUTE", {"string_match": {"exact": "other"}}, "own", "kind"),
    "absent-of-route": sourced("ROUTE", {"null_match": {}}, "absent", invert=True),
    "template": template("/template/{what}/*"),
    "template-all": template("/template-all/**.html"),
    "sourced": {
        "sourced_metadata": {
            "metadata_source": "DYNAMIC",
            "metadata_matcher": metadata(
                {"or_match": {"value_matchers": [{"bool_match": True}, {"string_match": {"contains": "enie"}}]}},
                "firstshadow_engine_result",
            ),
        }
    },
}
PRINCIPALS = {
    "authenticated": {"authenticated": {}},
    "source": {"source_ip": LOOPBACK},
    "direct": {"direct_remote_ip": NOWHERE},
    "remote": {"remote_ip": NOWHERE},
    "remote-here": {"remote_ip": LOOPBACK},
    "not-id": {"not_id": {"remote_ip": NOWHERE}},
    "and-ids": {"and_ids": {"ids": [{"remote_ip": NOWHERE}, {"direct_remote_ip": LOOPBACK}]}},
    "or-ids": {"or_ids": {"ids": [{"remote_ip": NOWHERE}, header("x-p", present_match=True)]}},
    "who": path_is(prefix="/p/who/"),
    "state": {"filter_state": {"key": "nobody.left.this", "string_match": {"suffix": "a"}}},
    "state-not": {"not_id": {"filter_state": {"key": "nobody.left.this", "string_match": {"suffix": "a"}}}},
    "mutual": mutual(any_validated_client_certificate=True),
    "mutual-name": mutual(san_matcher={"san_type": "DNS", "matcher": {"suffix": ".example"}}),
}


def rbac() -> Data:
    shadow = {"shadow_rules": rules(seen=policy(ANY))}
    routes = [
        *(only(f"/{name}", rules=rules(**{name: policy(rule)}), **shadow) for name, rule in PERMISSIONS.items()),
        *(
            only(f"/p/{name}", rules=rules(**{name: policy(ANY, principals=(rule,))}), **shadow)
            for name, rule in PRINCIPALS.items()
        ),
        only("/deny", rules=rules("DENY", **{"a name\twith  blanks": policy(header("x-p", present_match=True))})),
        only("/deny-nothing", rules=rules("DENY")),
        only("/allow-nothing", rules=rules()),
        only("/log", rules=rules("LOG", a=policy(header("x-p", present_match=True)))),
        only("/shadow-log", shadow_rules=rules("LOG", a=policy(header("x-p", present_match=True)))),
        only("/shadow-only", shadow_rules=rules("DENY", a=policy(ANY))),
        only(
            "/prefixed", rules=rules(b=policy(header("x-p", present_match=True))), rules_stat_prefix="mine",
            shadow_rules=rules(c=policy(ANY)), shadow_rules_stat_prefix="theirs.", track_per_rule_stats=True,
        ),
        only("/order", rules=rules("DENY", z=policy(ANY), B=policy(ANY), a=policy(ANY))),
        on(NAME, "/empty", {"@type": EXTENSION + "rbac.v3.RBACPerRoute"}),
        on(NAME, "/off", OFF),
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
        {"match": {"prefix": "/redirect"}, "redirect": {"path_redirect": "/new"},
         "typed_per_filter_config": {NAME: {"@type": EXTENSION + "rbac.v3.RBACPerRoute"}}},
        route("/"),
    ]  # fmt: skip
    routes.sort(key=lambda each: -len(each["match"]["prefix"]))
    own = http_filter(
        NAME, "rbac.v3.RBAC",
        rules=rules(b=policy(header("x-p", string_match={"exact": "yes"})), c=policy(header("x-c", present_match=True))),
        rules_stat_prefix="rules", shadow_rules=rules("DENY", s=policy(header("x-c", present_match=True))),
        shadow_rules_stat_prefix="shadow", track_per_rule_stats=True,
    )  # fmt: skip
    first = http_filter("first", "rbac.v3.RBAC", shadow_rules=rules(), shadow_rules_stat_prefix="first")
    table = {"virtual_hosts": [vhost(*routes, domains=("h", "x.example"))]}
    return bootstrap([hcm(table, http_filters=[first, own, ROUTER_FILTER], access_log=LOG)], [UP])


CONFIGURATIONS = {"rbac": rbac()}


def ask(path: str, lines: bytes = b"", method: bytes = b"GET", host: bytes = b"h", name: str = "") -> Exchange:
    head = method + b" " + path.encode() + b" HTTP/1.1\r\nhost: " + host + b"\r\n" + lines + b"\r\n"
    shown = lines.replace(b"\r\n", b"; ").decode()
    title = f"rbac: {method.decode()} {host.decode()}{path} {shown}{name}".rstrip(" ;")
    return Exchange(title, (head,), config="rbac")


P = b"x-p: yes\r\n"
FROM = b"x-forwarded-for: 10.1.2.3\r\n"

EXCHANGES = [
    *(ask(f"/{name}/x", lines) for name in PERMISSIONS for lines in (b"", P)),
    *(ask(f"/p/{name}/x", lines) for name in PRINCIPALS for lines in (b"", P, FROM)),
    ask("/header", b"x-p: no\r\n" + P),
    ask("/header-inverted", b"x-p: no\r\n" + P),
    ask("/header", b"x-p: no\r\n"),
    ask("/method", method=b"POST", lines=b"content-length: 0\r\n"),
    ask("/path-header?q"),
    ask("/path-exact/x?q"),
    ask("/path-exact/x#f"),
    ask("/path-case"),
    *(ask(f"/template/{rest}") for rest in ("a/b", "a/b?q", "a/b/c", "a", "a/b#f")),
    *(ask(f"/template-all/{rest}") for rest in ("a.html", "a/b.html?q=.htm", "a/b.htm")),
    ask("/host", host=b"x.example"),
    *(ask(f"/{name}", lines)
      for name in ("deny", "deny-nothing", "allow-nothing", "log", "shadow-log", "shadow-only", "prefixed", "order", "empty",
                   "off", "direct", "redirect", "", "other")
      for lines in (b"", P, b"x-c: 1\r\n")),
    ask("/", host=b"nobody"),
    ask("/", P, host=b"nobody"),
    ask("/", b"content-type: application/grpc\r\n", name="gRPC"),
    ask("/", method=b"HEAD"),
    ask("/", method=b"POST", lines=b"content-length: 3\r\n", name="body missing"),
]  # fmt: skip
