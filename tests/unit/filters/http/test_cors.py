"""The cors filter: whose settings count, what a preflight is answered, what a response says, what is counted."""

import pytest

from forkproxy.config.build.context import PerFilterConfig
from forkproxy.config.build.core import FractionalPercent, StringMatcher
from forkproxy.config.build.cors import CorsConfig, CorsPolicy
from forkproxy.config.build.listener import FilterEntry
from forkproxy.config.load import load
from forkproxy.filters.http.cors import Cors
from tests.support.playbook import WHERE, play, route

CORS = FilterEntry("my-cors", "envoy.extensions.filters.http.cors.v3.Cors", CorsConfig(), WHERE)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
ANYONE = (StringMatcher("prefix", "*"),)
NEVER = FractionalPercent(0)


def asked(method=b"GET", origin=b"https://a", lines=b""):
    return b"%b / HTTP/1.1\r\nhost: a\r\norigin: %b\r\n%b\r\n" % (method, origin, lines)


PREFLIGHT = asked(b"OPTIONS", lines=b"access-control-request-method: PUT\r\n")


def typed(policy):
    return {"my-cors": PerFilterConfig(policy)}


def talk(policy, **fields):
    return play(filters=[CORS], routes=[route(per_filter_config=typed(policy))], **fields)


def answered(p, response=OK):
    """The head that the client got, line by line."""
    if any(peer.sock.outbox for peer in p.upstreams):
        for peer in p.upstreams:
            peer.read()
        p.upstream(response)
    head = p.down.read().decode().partition("\r\n\r\n")[0]
    return [line for line in head.split("\r\n")[1:] if line.startswith("access-control-")]


def counted(p):
    stats = p.manager.chain.filters[0].stats
    return stats.origin_valid, stats.origin_invalid


def test_a_response_to_an_allowed_origin():
    p = talk(CorsPolicy(ANYONE, allow_credentials=True, expose_headers="x-a", allow_methods="GET", max_age="1"))
    assert answered(p.downstream(asked())) == [
        "access-control-allow-origin: https://a",
        "access-control-allow-credentials: true",
        "access-control-expose-headers: x-a",
    ]
    assert counted(p) == (1, 0)


def test_what_the_upstream_says_gives_way():
    p = talk(CorsPolicy(ANYONE))
    own = b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: own\r\ncontent-length: 0\r\n\r\n"
    assert answered(p.downstream(asked()), own) == ["access-control-allow-origin: https://a"]


def test_another_origin_passes_untouched():
    p = talk(CorsPolicy((StringMatcher("exact", "https://b"),), expose_headers="x-a"))
    own = b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: own\r\ncontent-length: 0\r\n\r\n"
    assert answered(p.downstream(asked()), own) == ["access-control-allow-origin: own"]
    assert counted(p) == (0, 1)


@pytest.mark.parametrize(
    ("matcher", "allowed"),
    [
        (StringMatcher("exact", "https://a"), True),
        (StringMatcher("exact", "https://A"), False),
        (StringMatcher("exact", "https://A", ignore_case=True), True),
        (StringMatcher("suffix", "a"), True),
        (StringMatcher("contains", "//"), True),
        (StringMatcher("safe_regex", "https://[ab]"), True),
        (StringMatcher("safe_regex", "https://"), False),
        # Whatever matches the text "*" allows everybody.
        (StringMatcher("prefix", "*"), True),
        (StringMatcher("exact", "*"), True),
        (StringMatcher("safe_regex", "\\*"), True),
        (StringMatcher("prefix", "*."), False),
    ],
)
def test_which_origins_are_allowed(matcher, allowed):
    p = talk(CorsPolicy((matcher,)))
    assert answered(p.downstream(asked())) == (["access-control-allow-origin: https://a"] if allowed else [])


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\norigin: \r\n\r\n",
    ],
)
def test_without_an_origin_nothing_is_looked_at(request_bytes):
    p = talk(CorsPolicy(ANYONE))
    assert answered(p.downstream(request_bytes)) == []
    assert counted(p) == (0, 0)


def test_a_preflight_is_answered_here():
    policy = CorsPolicy(
        ANYONE, allow_methods="PUT", allow_headers="x-h", max_age="600", allow_credentials=True, expose_headers="x-e"
    )
    p = talk(policy).downstream(PREFLIGHT)
    p.expect_upstream(b"")
    assert answered(p) == [
        "access-control-allow-origin: https://a",
        "access-control-allow-credentials: true",
        "access-control-allow-methods: PUT",
        "access-control-allow-headers: x-h",
        "access-control-max-age: 600",
        "access-control-expose-headers: x-e",
    ]
    assert p.logged == [(b"OPTIONS", b"/", 200, "cors_response", "")]
    p.expect_open().expect_quiet()


@pytest.mark.parametrize("lines", [b"", b"access-control-request-method: \r\n"])
def test_options_without_a_requested_method_is_no_preflight(lines):
    p = talk(CorsPolicy(ANYONE, allow_methods="PUT")).downstream(asked(b"OPTIONS", lines=lines))
    assert any(peer.sock.outbox for peer in p.upstreams)
    assert answered(p) == ["access-control-allow-origin: https://a"]


@pytest.mark.parametrize(("forward", "upstreams"), [(None, 1), (True, 1), (False, 0)])
def test_a_preflight_of_another_origin(forward, upstreams):
    policy = CorsPolicy((StringMatcher("exact", "b"),), allow_methods="PUT", forward_not_matching_preflights=forward)
    p = talk(policy).downstream(PREFLIGHT)
    assert len(p.upstreams) == upstreams
    assert answered(p) == ([] if upstreams else ["access-control-allow-methods: PUT"])


@pytest.mark.parametrize(
    ("allow", "asks", "allowed"),
    [(True, b"true", True), (True, b"false", False), (False, b"true", False), (None, b"true", False)],
)
def test_private_networks(allow, asks, allowed):
    line = b"access-control-request-method: GET\r\naccess-control-request-private-network: %b\r\n" % asks
    p = talk(CorsPolicy(ANYONE, allow_private_network_access=allow)).downstream(asked(b"OPTIONS", lines=line))
    assert ("access-control-allow-private-network: true" in answered(p)) is allowed


@pytest.mark.parametrize(
    ("enabled", "shadow", "headers", "figures"),
    [
        (NEVER, None, 0, (0, 0)),
        (NEVER, NEVER, 0, (0, 0)),
        (NEVER, FractionalPercent(100), 0, (1, 0)),
        (FractionalPercent(100), FractionalPercent(100), 1, (1, 0)),
        (None, NEVER, 1, (1, 0)),
    ],
)
def test_enabled_and_shadow(enabled, shadow, headers, figures):
    p = talk(CorsPolicy(ANYONE, filter_enabled=enabled, shadow_enabled=shadow))
    assert len(answered(p.downstream(asked()))) == headers
    assert counted(p) == figures


def test_each_setting_comes_from_the_most_specific_level_that_has_it():
    near = CorsPolicy(allow_headers="near", allow_credentials=False)
    far = CorsPolicy(ANYONE, allow_headers="far", allow_methods="far", allow_credentials=True, max_age="1")
    p = talk(near, virtual_host={"per_filter_config": typed(far)}).downstream(PREFLIGHT)
    assert answered(p) == [
        "access-control-allow-origin: https://a",
        "access-control-allow-methods: far",
        "access-control-allow-headers: near",
        "access-control-max-age: 1",
    ]


def test_the_nearest_level_says_whether_it_is_enabled():
    far = CorsPolicy(ANYONE, filter_enabled=NEVER)
    assert len(answered(talk(CorsPolicy(), virtual_host={"per_filter_config": typed(far)}).downstream(asked()))) == 1
    near = CorsPolicy(filter_enabled=NEVER)
    assert (
        answered(
            talk(near, virtual_host={"per_filter_config": typed(CorsPolicy(ANYONE))}).downstream(asked()),
        )
        == []
    )


def test_the_deprecated_fields():
    host = {"cors": CorsPolicy(ANYONE, max_age="1")}
    p = play(filters=[CORS], routes=[route(cors=CorsPolicy(max_age="2"))], virtual_host=host)
    assert answered(p.downstream(PREFLIGHT)) == ["access-control-allow-origin: https://a", "access-control-max-age: 2"]
    p = play(filters=[CORS], virtual_host=host)
    assert answered(p.downstream(PREFLIGHT)) == ["access-control-allow-origin: https://a", "access-control-max-age: 1"]


def test_a_typed_policy_shuts_the_deprecated_fields_out():
    p = play(
        filters=[CORS],
        virtual_host={"cors": CorsPolicy(ANYONE), "per_filter_config": typed(CorsPolicy(expose_headers="x"))},
    )
    assert answered(p.downstream(asked())) == []


def test_without_the_filter_the_deprecated_field_does_nothing():
    assert answered(play(virtual_host={"cors": CorsPolicy(ANYONE)}).downstream(asked())) == []


def test_what_forwards_nothing_has_no_policy():
    p = play(
        filters=[CORS],
        routes=[route(direct=(200, b"hi"), per_filter_config=typed(CorsPolicy(ANYONE)))],
    ).downstream(asked())
    assert answered(p) == []
    assert counted(p) == (0, 0)


def test_no_route_no_policy():
    p = play(filters=[CORS], routes=[route("/only", per_filter_config=typed(CorsPolicy(ANYONE)))]).downstream(asked())
    assert answered(p) == []
    assert p.logged[0][2] == 404


def test_routes_of_one_virtual_host_share_its_policy():
    routes = [route("/a"), route("/b", per_filter_config={"other": PerFilterConfig(disabled=True)}), route("/")]
    p = play(filters=[CORS], routes=routes, virtual_host={"per_filter_config": typed(CorsPolicy(ANYONE))})
    assert isinstance(p.manager.chain.filters[0], Cors)
    found = {id(each.per_filter_config["my-cors"]) for each in p.filter.routes.all_routes()}
    assert len(found) == 1


V2 = """
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 1}}
    filter_chains:
    - filters:
      - name: envoy.http_connection_manager
        config:
          stat_prefix: i
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              cors: {allow_origin: ["*"], allow_methods: GET, enabled: false}
              routes:
              - match: {prefix: /}
                route: {cluster: up, cors: {allow_origin_regex: ["https://.*"], max_age: "5"}}
          http_filters: [{name: envoy.cors}, {name: envoy.router}]
  clusters:
  - {name: up, type: STATIC, connect_timeout: 1s, hosts: [{socket_address: {address: 127.0.0.1, port_value: 2}}]}
"""


def test_policies_of_a_version_2_file():
    result = load(V2, "f.yaml")
    assert result.verdict == "runs"
    [chain] = result.bootstrap.listeners[0].filter_chains
    [host] = chain.filters[0].config.route_table.virtual_hosts
    assert host.cors.allow_origins == (StringMatcher("exact", "*"),)
    assert (host.cors.allow_methods, host.cors.filter_enabled) == ("GET", FractionalPercent(0))
    near = host.routes[0].action.cors
    assert near.allow_origins == (StringMatcher("safe_regex", "https://.*"),)
    assert (near.max_age, near.filter_enabled) == ("5", None)
