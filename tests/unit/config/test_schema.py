"""The descriptor blob: messages, fields, enums and PGV rules as they are needed; the build that makes it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from forkproxy.config.schema import Schema, is_integral, schema

ROOT = Path(__file__).parents[3]


def field(message, name):
    return schema().message(message).fields[name]


def checks(message, name, value):
    return [wrong for check in field(message, name).checks if (wrong := check(value)) is not None]


def test_every_message_and_enum_compiles():
    known = schema()
    messages = [name for name in known.names() if known.is_message(name)]
    assert len(messages) > 1500
    for name in messages:
        message = known.message(name)
        assert message.full_name == name
        for each in message.fields.values():
            if each.type == "message" and each.shape != "map":
                assert each.message.full_name == each.type_name
            elif each.type == "enum":
                assert each.enum.names
    for name in known.names():
        if not known.is_message(name):
            assert known.enum(name).by_name


def test_both_apis_are_there():
    known = schema()
    assert "envoy.config.bootstrap.v3.Bootstrap" in known
    assert "envoy.config.bootstrap.v2.Bootstrap" in known
    assert "envoy.nothing" not in known
    assert not known.is_message("envoy.nothing")
    assert not known.is_message("envoy.config.cluster.v3.Cluster.LbPolicy")
    with pytest.raises(KeyError):
        known.message("envoy.nothing")


def test_v2_and_v3_know_each_other():
    known = schema()
    assert known.message("envoy.config.cluster.v3.Cluster").previous == "envoy.api.v2.Cluster"
    assert known.v3_of("envoy.api.v2.Cluster") == "envoy.config.cluster.v3.Cluster"
    assert known.v3_of("envoy.config.filter.http.router.v2.Router") == "envoy.extensions.filters.http.router.v3.Router"
    assert known.v3_of("envoy.config.cluster.v3.Cluster") == ""


@pytest.mark.parametrize(
    ("message", "name", "shape", "scalar", "repeated", "presence"),
    [
        ("envoy.config.cluster.v3.Cluster", "name", "string", "string", False, False),
        ("envoy.config.cluster.v3.Cluster", "type", "enum", "enum", False, True),
        ("envoy.config.cluster.v3.Cluster", "lb_policy", "enum", "enum", False, False),
        ("envoy.config.cluster.v3.Cluster", "connect_timeout", "duration", "message", False, True),
        ("envoy.config.cluster.v3.Cluster", "per_connection_buffer_limit_bytes", "wrapper", "uint32", False, True),
        ("envoy.config.cluster.v3.Cluster", "health_checks", "message", "message", True, False),
        ("envoy.config.cluster.v3.Cluster", "typed_extension_protocol_options", "map", "message", False, False),
        ("envoy.config.core.v3.Node", "metadata", "struct", "message", False, True),
        ("envoy.config.listener.v3.Filter", "typed_config", "any", "message", False, True),
    ],
)
def test_fields(message, name, shape, scalar, repeated, presence):
    found = field(message, name)
    assert (found.shape, found.scalar, found.repeated, found.has_presence) == (shape, scalar, repeated, presence)


def test_names_and_maps():
    cluster = schema().message("envoy.config.cluster.v3.Cluster")
    assert cluster.lookup["connectTimeout"] is cluster.fields["connect_timeout"] is cluster.lookup["connect_timeout"]
    assert (cluster.name, cluster.package) == ("Cluster", "envoy.config.cluster.v3")
    assert schema().message("envoy.config.cluster.v3.Cluster.RingHashLbConfig").name == "Cluster.RingHashLbConfig"
    options = cluster.fields["typed_extension_protocol_options"]
    assert (options.map_key, options.map_value.shape) == ("string", "any")
    assert (
        repr(cluster.fields["health_checks"]) == "FieldSchema(health_checks: repeated envoy.config.core.v3.HealthCheck)"
    )
    assert repr(cluster) == "MessageSchema(envoy.config.cluster.v3.Cluster)"


def test_oneofs_and_optional_fields():
    route = schema().message("envoy.config.route.v3.RouteMatch")
    assert route.oneofs["path_specifier"].required
    assert "prefix" in [each.name for each in route.oneofs["path_specifier"].fields]
    optional = [
        each.name
        for name in schema().names()
        if schema().is_message(name)
        for each in schema().message(name).fields.values()
        if each.oneof is not None and each.oneof.name.startswith("_")
    ]
    assert optional == []


def test_deprecation():
    assert field("envoy.config.bootstrap.v3.Admin", "access_log_path").deprecated
    assert field("envoy.config.bootstrap.v3.Admin", "access_log_path").deprecated_since == "3.0"
    assert not field("envoy.config.bootstrap.v3.Admin", "address").deprecated


def test_enums():
    policy = schema().enum("envoy.config.cluster.v3.Cluster.LbPolicy")
    assert policy.by_name["ROUND_ROBIN"] == 0
    assert policy.names[1] == "LEAST_REQUEST"


def test_rules_have_been_read():
    """Without validate.proto in the pool they would be empty."""
    cluster = "envoy.config.cluster.v3.Cluster"
    assert checks(cluster, "name", "") == ["must not be empty"]
    assert checks(cluster, "name", "c") == []
    assert checks(cluster, "connect_timeout", 0) == ["must be greater than 0s"]
    assert checks(cluster, "connect_timeout", 1) == []
    socket = "envoy.config.core.v3.SocketAddress"
    assert checks(socket, "port_value", 65536) == ["must be at most 65535"]
    assert list(schema().message(cluster).needed) == ["name"]


def test_ranges_in_lists_and_texts():
    codes = field("envoy.config.core.v3.HealthCheck", "unhealthy_threshold")
    assert codes.required
    assert codes.absent == "is required"
    flags = field("envoy.config.accesslog.v3.ResponseFlagFilter", "flags")
    assert flags.item_checks[0]("LH") is None
    assert flags.item_checks[0]("XX").startswith('must be one of "LH", "UH"')
    mmdb = field("envoy.extensions.geoip_providers.maxmind.v3.MaxMindConfig", "city_db_path")
    assert [check("x.mmdb\n") for check in mmdb.checks] == ["must match ^$|^.*\\.mmdb$"]
    assert [check("x.mmdb") for check in mmdb.checks] == [None]
    assert [check("") for check in mmdb.checks] == [None]


def test_the_loose_header_rule_takes_the_empty_name():
    value = field("envoy.config.core.v3.HeaderValue", "value")
    assert [check("") for check in value.checks] == [None] * len(value.checks)
    assert [wrong for check in value.checks if (wrong := check("a\rb"))] == [
        "must not hold NUL, CR or LF (an HTTP header value)"
    ]


def test_a_message_class_for_the_wire():
    cluster_class = schema().message_class("envoy.config.cluster.v3.Cluster")
    cluster = cluster_class(name="c")
    assert cluster_class.FromString(cluster.SerializeToString()).name == "c"


def test_a_checkout_that_is_not_built(tmp_path, monkeypatch):
    monkeypatch.setattr("forkproxy.config.schema.__file__", str(tmp_path / "schema.py"))
    with pytest.raises(FileNotFoundError, match=r"run `python scripts/build_schema.py`"):
        schema.__wrapped__()


def test_integral():
    assert is_integral(5.0)
    assert not is_integral(5.5)
    assert not is_integral(float("inf"))
    assert not is_integral(float("nan"))


def test_protobufs_own_pool_stays_clean():
    """The blob's files must not meet those of generated modules in the same process."""
    program = (
        "from forkproxy.config.schema import schema\n"
        "schema().message_class('envoy.config.bootstrap.v3.Bootstrap')\n"
        "from google.protobuf import descriptor_pool\n"
        "try:\n"
        "    descriptor_pool.Default().FindFileByName('validate/validate.proto')\n"
        "except KeyError:\n"
        "    print('clean')\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (run.stdout, run.stderr) == ("clean\n", "")


# --- scripts/build_schema.py -------------------------------------------------------------------------------------------


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("build_schema", ROOT / "scripts" / "build_schema.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_literal_is_read_without_importing(tool):
    source = "import grpc\nDESCRIPTOR = _descriptor_pool.Default().AddSerializedFile(b'\\n\\x01x')\n"
    assert tool.serialized_descriptor(source) == b"\n\x01x"
    assert tool.serialized_descriptor("DESCRIPTOR = other(b'x')\nx: int = 1\n") is None


def test_a_blob_with_few_files_is_refused(tool):
    with pytest.raises(ValueError, match="only 8 files found"):
        tool.blob(iter(()))


def test_a_blob_that_lacks_an_import_is_refused(tool):
    from google.protobuf import descriptor_pb2

    proto = descriptor_pb2.FileDescriptorProto(name="envoy/x.proto", dependency=["envoy/y.proto"])
    with pytest.raises(ValueError, match=r"envoy/y.proto is imported but not there"):
        tool.blob(iter([f"D = p.AddSerializedFile({proto.SerializeToString()!r})"]))


def test_the_blob_that_is_there_can_be_opened_twice(tool):
    first, second = Schema(tool.TARGET.read_bytes()), Schema(tool.TARGET.read_bytes())
    assert list(first.names()) == list(second.names())
