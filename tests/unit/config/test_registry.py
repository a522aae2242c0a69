"""Names of extensions, old and new, and the messages that belong to them."""

from __future__ import annotations

import pytest

from forkproxy.config import registry
from forkproxy.config.registry import category_of, extension, extensions, message_name, named, type_url
from forkproxy.config.schema import schema


def test_every_message_in_the_table_is_in_the_schema():
    for category, name in extensions():
        found = extension(category, name)
        assert found.v3 or found.v2, name
        for message in (found.v3, found.v2, found.per_route, found.per_route_v2):
            assert not message or schema().is_message(message), (name, message)


def test_every_holder_is_in_the_schema_and_every_category_in_the_table():
    for holder, category in registry._HOLDERS.items():
        assert schema().is_message(holder)
        assert category in set(registry.categories())


def test_no_name_means_two_things_in_one_category():
    for category, rows in registry._TABLE.items():
        names = [name for row in rows for name in (row[0], *row[2])]
        assert len(names) == len(set(names)), category


@pytest.mark.parametrize(
    ("category", "old", "new", "message"),
    [
        ("http", "envoy.router", "envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router"),
        ("network", "envoy.http_connection_manager", "envoy.filters.network.http_connection_manager",
         "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        ("http", "envoy.ext_authz", "envoy.filters.http.ext_authz", "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"),
        ("network", "envoy.ext_authz", "envoy.filters.network.ext_authz",
         "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz"),
        ("access_log", "envoy.file_access_log", "envoy.access_loggers.file",
         "envoy.extensions.access_loggers.file.v3.FileAccessLog"),
        ("transport_socket.upstream", "tls", "envoy.transport_sockets.tls",
         "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
    ],
)  # fmt: skip
def test_old_and_new_names(category, old, new, message):
    assert extension(category, old) == extension(category, new)
    assert extension(category, new).name == new
    assert extension(category, new).v3 == message
    assert extension(category, new).type_url == f"type.googleapis.com/{message}"


@pytest.mark.parametrize(
    ("category", "name", "v2"),
    [
        ("http", "envoy.router", "envoy.config.filter.http.router.v2.Router"),
        ("http", "envoy.ext_authz", "envoy.config.filter.http.ext_authz.v2.ExtAuthz"),
        ("http", "envoy.squash", "envoy.config.filter.http.squash.v2.Squash"),
        ("tracer", "envoy.zipkin", "envoy.config.trace.v2.ZipkinConfig"),
        ("transport_socket.downstream", "tls", "envoy.api.v2.auth.DownstreamTlsContext"),
        ("http", "envoy.filters.http.basic_auth", ""),
    ],
)
def test_v2_messages(category, name, v2):
    assert extension(category, name).v2 == v2


def test_per_route_messages():
    buffer = extension("http", "envoy.buffer")
    assert buffer.per_route == "envoy.extensions.filters.http.buffer.v3.BufferPerRoute"
    assert buffer.per_route_v2 == "envoy.config.filter.http.buffer.v2.BufferPerRoute"
    assert extension("http", "envoy.router").per_route == ""


def test_unknown_names():
    assert extension("http", "acme") is None
    assert named("acme") == []
    assert {found.category for found in named("envoy.ratelimit")} == {"http", "network"}
    assert extension("http", "envoy.squash").type_url == ""


def test_categories_follow_from_the_holder():
    assert category_of("envoy.config.listener.v3.Filter") == "network"
    assert category_of("envoy.api.v2.listener.ListenerFilter") == "listener"
    socket = "envoy.config.core.v3.TransportSocket"
    assert category_of(socket, "envoy.config.listener.v3.FilterChain") == "transport_socket.downstream"
    assert category_of(socket, "envoy.config.cluster.v3.Cluster") == "transport_socket.upstream"
    assert category_of("envoy.config.cluster.v3.Cluster") is None


@pytest.mark.parametrize(("url", "name"), [("type.googleapis.com/a.B", "a.B"), ("h/x/a.B", "a.B"), ("a.B", None), ("/a.B", None),
                                           ("type.googleapis.com/", None), ("", None)])  # fmt: skip
def test_type_urls(url, name):
    assert message_name(url) == name


def test_type_url_of_a_message():
    assert type_url("a.B") == "type.googleapis.com/a.B"
