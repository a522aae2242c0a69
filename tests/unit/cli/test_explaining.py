"""`forkproxy config explain`: what is told of a field, and of the places where a file sets it."""

import json

import pytest

from forkproxy.cli import explaining
from forkproxy.cli.explaining import File
from forkproxy.cli.field_path import NoSuchPath
from forkproxy.config import tree
from forkproxy.config.load import load
from forkproxy.config.schema import schema

V3 = """\
static_resources:
  clusters:
  - name: one
    connect_timeout: 1s
    lb_policy: RANDOM
  - name: two
    lb_policy: MAGLEV
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          tls_certificates:
          - certificate_chain: { inline_string: "public" }
            private_key: { inline_string: "a secret" }
"""
V2 = """\
static_resources:
  clusters:
  - name: one
    connect_timeout: 1s
    hosts:
    - socket_address: { address: 127.0.0.1, port_value: 80 }
"""


def plain(text, _style):
    return text


def file(text):
    result = load(text, "f.yaml")
    raw = tree.load(text, "f.yaml").root
    return File("f.yaml", result.root, raw if "hosts" in text else None, result.problems)


def explained(path, text=None):
    about = explaining.explain(path, file(text) if text else None)
    json.dumps(about)
    return about


def shown(path, text=None):
    about = explaining.text(explained(path, text), plain)
    return [" ".join(line.split()) for line in about.splitlines()]


def test_a_duration():
    lines = shown("RouteAction.timeout")
    assert lines[:6] == [
        "RouteAction.timeout",
        "",
        "message envoy.config.route.v3.RouteAction",
        "type duration (as in 0.25s)",
        "honoured yes",
        "default 15s",
    ]
    assert lines[6].endswith("/route_components.proto#envoy-v3-api-field-config-route-v3-routeaction-timeout")


@pytest.mark.parametrize(
    ("path", "rules"),
    [
        ("Cluster.connect_timeout", ["must be greater than 0s"]),
        ("Cluster.name", ["must not be empty"]),
        ("VirtualHost.domains", ["must not be empty", "each must not hold NUL, CR or LF (an HTTP header value)"]),
        ("SocketAddress.port_value", ["must be at most 65535"]),
        ("Cluster.lb_policy", ["must be one of the values below"]),
        ("MaglevLbConfig.table_size", ["its value must be at most 5000011"]),
        ("RouteMatch.headers", []),
    ],
)
def test_rules(path, rules):
    assert explained(path)["rules"] == rules


def test_every_rule_has_words():
    for name in schema().names():
        if schema().is_message(name) and ".v3" in name:
            for field in schema().message(name).fields.values():
                assert "has a rule" not in " ".join(explaining.rules(field)), f"{name}.{field.name}"


def test_choices():
    about = explained("RouteMatch.prefix")
    assert about["one_of"]["name"] == "path_specifier"
    assert about["one_of"]["required"] is True
    assert "safe_regex" in about["one_of"]["others"]
    assert explained("RouteMatch")["one_of_required"][0][0] == "prefix"


def test_values():
    values = {each["value"]: each for each in explained("HttpConnectionManager.codec_type")["values"]}
    assert values["HTTP1"]["honoured"] is True
    assert values["HTTP3"]["honoured"] is False
    assert [each["value"] for each in explained("LbPolicy")["values"]][:2] == ["ROUND_ROBIN", "LEAST_REQUEST"]


def test_what_is_not_honoured():
    about = explained("JwtAuthentication.providers")
    assert about["honoured"] == "not implemented"
    assert about["guards"]
    assert "also with --allow-unsupported" in " ".join(shown("JwtAuthentication.providers"))
    assert "--allow-unsupported runs it without" in " ".join(shown("Cluster.lrs_server"))
    assert explained("Route.tracing")["honoured"].startswith("ignored: ")


def test_extensions_that_may_stand_there():
    assert "envoy.filters.http.router" in explained("HttpFilter.typed_config")["extensions"]


def test_our_own_key():
    assert "concurrency" in [each["field"] for each in explained("forkproxy")["fields"]]
    assert shown("forkproxy.user")[-1].startswith("user yes: the user")
    with pytest.raises(NoSuchPath, match='did you mean "cpuset"'):
        explained("forkproxy.cpuse")


def test_where_a_file_sets_it():
    found = explained("Cluster.lb_policy", V3)["set"]
    assert [(each["value"], each["path"], each["line"], each["column"]) for each in found] == [
        ("RANDOM", "static_resources.clusters[0].lb_policy", 5, 5),
        ("MAGLEV", "static_resources.clusters[1].lb_policy", 7, 5),
    ]
    (one,) = explained("static_resources.clusters[1].lb_policy", V3)["set"]
    assert one["value"] == "MAGLEV"
    assert "f.yaml:7:5" in " ".join(shown("static_resources.clusters[1].lb_policy", V3))


def test_one_of_a_list():
    (one,) = explained("static_resources.clusters[1]", V3)["set"]
    assert (one["path"], one["line"]) == ("static_resources.clusters[1]", 6)
    found = explained("Cluster", V3)["set"]
    assert [each["path"] for each in found] == ["static_resources.clusters[0]", "static_resources.clusters[1]"]


def test_through_an_any():
    (one,) = explained("TlsCertificate.certificate_chain", V3)["set"]
    assert one["value"] == "{inline_string}"
    assert one["path"].endswith("typed_config.common_tls_context.tls_certificates[0].certificate_chain")


def test_secrets_stay_out():
    assert "a secret" not in json.dumps(explained("TlsCertificate", V3))
    (one,) = explained("TlsCertificate.private_key", V3)["set"]
    assert one["value"] == "[redacted]"
    places = explained("DataSource.inline_string", V3)["set"]
    assert [each["value"] for each in places] == ["public", "[redacted]"]


def test_what_a_file_does_not_set():
    assert "f.yaml does not set it, which means 5s" in shown(
        "Cluster.connect_timeout", V3.replace("    connect_timeout: 1s\n", "")
    )


def test_problems_there_are_told():
    about = explained("Cluster.connect_timeout", V3.replace("1s", "1m"))
    assert [each["line"] for each in about["problems"]] == [4]


def test_a_field_of_version_2():
    about = explained("static_resources.clusters.hosts", V2)
    (before,), (after,) = about["version_2"]["set"], about["version_2"]["becomes"]
    assert (before["path"], before["line"]) == ("static_resources.clusters[0].hosts", 5)
    assert after["path"] == "static_resources.clusters[0].load_assignment"
    assert "becomes, in version 3," in shown("static_resources.clusters.hosts", V2)


def test_the_name_in_version_2():
    assert explained("RouteAction.host_rewrite_header")["version_2_name"] == "auto_host_rewrite_header"
    assert explained("RouteAction.timeout")["version_2_name"] == ""


def test_what_was_written_otherwise_in_version_2():
    (one,) = explained("Cluster.load_assignment", V2)["set"]
    assert one["written"].startswith("static_resources.clusters[0].hosts")
    (one,) = explained("Cluster.name", V2)["set"]
    assert one["written"] == ""


def test_every_honoured_field_is_explained():
    from forkproxy.cli.field_path import honoured

    for message, fields in honoured().items():
        explaining.text(explained(message), plain)
        for field in fields:
            explaining.text(explained(f"{message}.{field}"), plain)
