"""RBAC: what the exchanges beside Envoy (tests/conformance/exchanges/rbac.py) cannot show: certificates, refusals, sharing."""

from types import SimpleNamespace

import pytest

from forkproxy.config.build.core import StringMatcher
from forkproxy.config.build.listener import FilterEntry
from forkproxy.config.build.rbac import Policy, RbacConfig, RbacRules, Rule, UpstreamAddress, build
from forkproxy.config.load import load
from forkproxy.config.problems import ConfigError
from forkproxy.filters.http.rbac import compile_rule
from forkproxy.router.filter_state import UPSTREAM_ADDRESS
from forkproxy.router.ranges import client_ip, compile_range
from tests.support.playbook import WHERE, play
from tests.unit.config.build.building import value_of

ANY = Rule("any", None, WHERE)
NONE = Rule("none", None, WHERE)
MESSAGE = "envoy.extensions.filters.http.rbac.v3.RBAC"
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def certificate(**fields):
    return SimpleNamespace(getpeercert=lambda: fields)


def peer(tls):
    return SimpleNamespace(connection=SimpleNamespace(tls=tls))


SUBJECT = ((("organizationName", "o"),), (("commonName", "bob"),))
BOB = certificate(subject=SUBJECT, subjectAltName=(("DNS", "bob.example"), ("URI", "spiffe://bob"), ("email", "b@x")))


@pytest.mark.parametrize(
    ("tls", "name", "is_one"),
    [
        (None, None, False),
        (certificate(), None, True),
        (None, "", False),
        (certificate(), "", True),
        (BOB, "spiffe://bob", True),
        (BOB, "bob.example", True),
        (BOB, "b@x", False),
        (BOB, "CN=bob,O=o", True),
        (BOB, "bob", False),
    ],
)
def test_who_a_certificate_is_of(tls, name, is_one):
    test = compile_rule(Rule("authenticated", None if name is None else StringMatcher("exact", name), WHERE))
    assert test(peer(tls)) is is_one


@pytest.mark.parametrize(
    ("tls", "wanted", "is_one"),
    [
        (None, None, False),
        (certificate(), None, False),
        (BOB, None, True),
        (certificate(), ("DNS", StringMatcher("exact", "bob.example")), False),
        (BOB, ("DNS", StringMatcher("exact", "bob.example")), True),
        (BOB, ("URI", StringMatcher("exact", "bob.example")), False),
        (BOB, ("DNS", StringMatcher("suffix", ".other")), False),
    ],
)
def test_whether_a_certificate_was_presented_and_for_whom(tls, wanted, is_one):
    assert compile_rule(Rule("client_certificate", wanted, WHERE))(peer(tls)) is is_one


@pytest.mark.parametrize(
    ("ip", "ports", "address", "goes_there"),
    [
        ("10.0.0.0/8", None, "10.1.1.1:80", True),
        ("10.0.0.0/8", None, "11.1.1.1:80", False),
        ("fd00::/8", None, "[fd00::1]:80", True),
        (None, (80, 81), "10.1.1.1:80", True),
        (None, (80, 81), "10.1.1.1:81", False),
        ("10.0.0.0/8", (80, 81), "10.1.1.1:79", False),
        ("10.0.0.0/8", None, None, False),
    ],
)
def test_where_a_request_goes(ip, ports, address, goes_there):
    stream = peer(None)
    stream.filter_state = {} if address is None else {UPSTREAM_ADDRESS: address}
    stream.connection.filter_state = None
    assert compile_rule(Rule("upstream", UpstreamAddress(ip, ports), WHERE))(stream) is goes_there


@pytest.mark.parametrize(
    ("cidr", "address", "inside"),
    [
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("0.0.0.0/0", "1.2.3.4", True),
        ("0.0.0.0/0", "::1", False),
        ("1.2.3.4/32", "1.2.3.4", True),
        ("fd00::/8", "fd12::1", True),
        ("fd00::/8", "fe80::1", False),
        ("::/0", "1.2.3.4", False),
        ("0.0.0.0/0", "", False),
        ("0.0.0.0/0", "/run/socket", False),
    ],
)
def test_ranges(cidr, address, inside):
    assert compile_range(cidr)(address) is inside


@pytest.mark.parametrize(
    ("told", "peer_address", "ip"),
    [
        (None, ("10.0.0.1", 5), "10.0.0.1"),
        (None, "/run/socket", ""),
        ("1.2.3.4:0", ("10.0.0.1", 5), "1.2.3.4"),
        ("[fd00::1]:0", ("10.0.0.1", 5), "fd00::1"),
    ],
)
def test_whose_address_counts(told, peer_address, ip):
    stream = SimpleNamespace(remote_address=told, connection=SimpleNamespace(remote_address=peer_address))
    assert client_ip(stream) == ip


def rules(action, *policies):
    return RbacRules(action, tuple(Policy(name, (rule,), (ANY,)) for name, rule in policies))


def talk(config):
    entry = FilterEntry("rbac", MESSAGE, config, WHERE)
    return play(filters=[entry])


def test_a_refused_request_reaches_nobody():
    p = talk(RbacConfig(rules("ALLOW", ("a", NONE)))).downstream(GET)
    p.expect_upstream(b"")
    assert b"403 Forbidden" in p.down.read()
    assert p.manager.chain.filters[0].stats.denied == 1


def test_routes_with_one_configuration_share_their_rules():
    shared = RbacConfig(rules("ALLOW", ("a", ANY)))
    asked = talk(RbacConfig(rules("ALLOW"))).manager.chain.filters[0]
    first, second = asked.route_config([shared, RbacConfig()], None), asked.route_config([shared], None)
    assert first is second
    assert first[0].allows(first[0].matched(None))
    assert asked.route_config([], None) is None


def test_a_policy_is_asked_in_the_order_of_names():
    text = "{rules: {policies: {z: &p {permissions: [{any: true}], principals: [{any: true}]}, B: *p, a: *p}}}"
    assert [policy.name for policy in value_of(build, MESSAGE, text).rules.policies] == ["B", "a", "z"]


def test_a_bad_expression_refuses_the_file():
    bad = Rule("url_path", StringMatcher("safe_regex", "("), WHERE)
    with pytest.raises(ConfigError, match="invalid regex"):
        compile_rule(bad)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ("{start: -1, end: 5}", "range start -1 is out of bounds"),
        ("{start: 1, end: 65537}", "range end 65537 is out of bounds"),
        ("{start: 5, end: 5}", "range start 5 cannot be greater or equal than range end 5"),
    ],
)
def test_ports_that_are_none(bounds, text):
    assert text in verdict(f"[{{destination_port_range: {bounds}}}]", "[{any: true}]")


@pytest.mark.parametrize(
    ("permissions", "principals", "path"),
    [
        ("[{any: true}]", "[{any: true}], condition: {const_expr: {bool_value: true}}", "condition"),
    ],
)
def test_what_is_not_implemented_is_refused_and_cannot_be_waived(permissions, principals, path):
    said = verdict(permissions, principals, allow_unsupported=True)
    assert path in said
    assert "does not waive this" in said


FILE = """
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: s
          route_config: {}
          http_filters:
          - name: rbac
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules: {policies: {p: {permissions: PERMISSIONS, principals: PRINCIPALS}}}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"""


def verdict(permissions, principals, **options):
    text = FILE.replace("PERMISSIONS", permissions).replace("PRINCIPALS", principals)
    result = load(text, "f", **options)
    assert result.verdict != "runs"
    return "\n".join(problem.text("f") for problem in result.problems)
