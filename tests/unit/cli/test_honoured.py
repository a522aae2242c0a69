"""`forkproxy config schema`."""

import pytest

from forkproxy.cli import honoured
from forkproxy.cli.field_path import NoSuchPath


def fields(path):
    return {row["field"]: row for row in honoured.describe(path)}


def test_a_path_of_the_file_leads_to_a_message():
    found = fields("static_resources.clusters")
    assert found["connect_timeout"] == {"field": "connect_timeout", "type": "duration", "honoured": "yes"}
    assert found["lrs_server"]["honoured"] == honoured.NOT_IMPLEMENTED
    assert (
        fields("static_resources.clusters[0]")
        == found
        == fields("Cluster")
        == fields("envoy.config.cluster.v3.Cluster")
    )


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("Cluster.connect_timeout", "duration"),
        ("Cluster.max_requests_per_connection", "uint32"),
        ("static_resources.listeners", "list of envoy.config.listener.v3.Listener"),
        ("HttpConnectionManager.route_config.virtual_hosts.domains", "list of string"),
        ("HttpConnectionManager.routeConfig.virtualHosts.domains", "list of string"),
    ],
)
def test_types(path, kind):
    if kind.startswith("list of envoy"):
        assert fields(path.rpartition(".")[0])[path.rpartition(".")[2]]["type"] == kind
    else:
        (row,) = honoured.describe(path)
        assert row["type"] == kind


def test_our_own_key():
    assert set(fields("forkproxy")) == {"concurrency", "cpuset", "user", "pid_file", "drain_time_s"}
    (row,) = honoured.describe("forkproxy.user")
    assert row["honoured"].startswith("yes: the user")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nonsense", 'there is no message and no field "nonsense"'),
        ("static_resources.clusters.nonsense", 'Cluster has no field "nonsense"'),
        ("Nonsense", 'there is no message and no field "Nonsense"'),
        ("Cluster.LbPolicy", "is an enum"),
        ("Cluster.name.x", '"name" is of type string'),
        ("forkproxy.nonsense", 'forkproxy has no setting "nonsense"'),
        ("Filter.typed_config.stat_prefix", '"typed_config" holds any message'),
    ],
)
def test_a_path_that_leads_nowhere(path, reason):
    with pytest.raises(NoSuchPath) as info:
        honoured.describe(path if path[:6] != "Filter" else "envoy.config.listener.v3." + path)
    assert reason in str(info.value)


def test_the_index_names_what_is_honoured():
    rows = {row["message"]: row for row in honoured.index()}
    row = rows["envoy.config.cluster.v3.Cluster"]
    assert 0 < row["honoured"] <= row["fields"]
