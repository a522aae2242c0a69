"""Each page against what real Envoy 1.40 answers."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forkproxy.admin import config_dump, views
from forkproxy.admin.context import DRAINING, LOG_LEVELS, ClusterView, EndpointView, OutlierView
from forkproxy.admin.endpoints import ENDPOINTS
from forkproxy.admin.handlers import AdminHandlers, parse_target
from forkproxy.config.build.core import AddressConfig
from tests.unit.admin.fakes import FakeContext, with_some_stats


@pytest.fixture
def context():
    return with_some_stats(FakeContext())


@pytest.fixture
def ask(context):
    handlers = AdminHandlers(context)

    def ask(target, method="GET", body=b""):
        return handlers.handle(method, *parse_target(target), body)

    return ask


@pytest.fixture
def text(ask):
    def text(target, method="GET"):
        response = ask(target, method)
        assert response.content_type == "text/plain; charset=UTF-8"
        return response.status, response.body.decode()

    return text


@pytest.fixture
def read_json(ask):
    def read_json(target):
        response = ask(target)
        assert (response.status, response.content_type) == (200, "application/json")
        return json.loads(response.body)

    return read_json


# Paths and methods


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
def test_every_endpoint_of_the_table_answers(ask, endpoint):
    assert ask(endpoint.path, "POST" if endpoint.mutates else "GET").status == 200


def test_an_unknown_path_is_404_with_the_list(text):
    status, body = text("/ready/")
    assert status == 404
    assert body.startswith("invalid path. admin commands are:\n  /: Admin home page\n")


def test_help_names_methods_parameters_and_choices(text):
    body = text("/help")[1]
    assert "  /quitquitquit (POST): " in body
    assert "      format: how to write it; One of (text, json)\n" in body


@pytest.mark.parametrize("path", [endpoint.path for endpoint in ENDPOINTS if endpoint.mutates])
def test_changing_something_needs_post(text, context, path):
    assert text(path) == (405, "Method GET not allowed, POST required.")
    assert text(path, "PUT") == (405, "Method PUT not allowed, POST required.")
    assert context.done == []


def test_showing_something_may_be_asked_with_any_method(text):
    assert text("/ready", "PUT") == (200, "LIVE\n")


def test_percent_encoding_is_undone_and_the_first_of_two_values_counts():
    assert parse_target("/%72eady?a=%41&a=2&flag&b=x+y#z") == ("/ready", {"a": "A", "flag": "", "b": "x y"})


PARAMETERS = sorted({parameter.name for endpoint in ENDPOINTS for parameter in endpoint.parameters})


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([endpoint.path for endpoint in ENDPOINTS] + ["", "//", "/stats/"]),
    st.sampled_from(["GET", "POST", "HEAD", "BREW"]),
    st.dictionaries(st.sampled_from([*PARAMETERS, "http"]), st.text(max_size=12), max_size=4),
    st.binary(max_size=30),
)
def test_no_request_makes_a_page_fail(context, path, method, query, body):
    response = AdminHandlers(context).handle(method, path, query, body)
    assert response.status in (200, 400, 404, 405)
    assert set(context.levels.values()) <= set(LOG_LEVELS)


# Small pages


def test_ready_says_the_state(text, context):
    assert text("/ready") == (200, "LIVE\n")
    context.state = DRAINING
    assert text("/ready") == (503, "DRAINING\n")


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("/healthcheck/fail", "fail"),
        ("/healthcheck/ok", "pass"),
        ("/reset_counters", "reset_counters"),
        ("/reopen_logs", "reopen_logs"),
        ("/quitquitquit", "quit"),
        ("/drain_listeners", ("drain", False, False, False)),
        ("/drain_listeners?graceful&inboundonly", ("drain", True, False, True)),
        ("/drain_listeners?skip_exit", ("drain", False, True, False)),
    ],
)
def test_actions(text, context, path, action):
    assert text(path, "POST") == (200, "OK\n")
    assert context.done == [action]


def test_a_posted_form_gives_parameters(ask, context):
    ask("/drain_listeners", "POST", b"graceful=on")
    ask("/logging", "POST", b"level=&paths=http%3Atrace")
    ask("/logging", "POST", b"\xff\xfe")
    assert context.done == [("drain", True, False, False)]
    assert context.levels == {"http": "trace", "admin": "info"}


def test_memory(ask):
    assert ask("/memory").body.startswith(b'{\n "allocated": "1000",\n "heap_size": "2000",\n')


def test_listeners(text, read_json):
    assert text("/listeners") == (200, "main::127.0.0.1:10000\nmain::/run/x.sock\nsix::[::]:80\n")
    assert text("/listeners?format=x") == text("/listeners")
    assert read_json("/listeners?format=json") == {
        "listener_statuses": [
            {
                "name": "main",
                "local_address": {"socket_address": {"address": "127.0.0.1", "port_value": 10000}},
                "additional_local_addresses": [{"pipe": {"path": "/run/x.sock"}}],
            },
            {"name": "six", "local_address": {"socket_address": {"address": "::", "port_value": 80}}},
        ]
    }


def test_workers(read_json):
    assert read_json("/workers")["workers"] == [
        {
            "slot": 0,
            "pid": 77,
            "cpu": None,
            "generation": 3,
            "state": "ready",
            "connections": 5,
            "accepted": 9,
            "requests": 12,
            "requests_per_s": 2.5,
            "memory_bytes": 1 << 20,
            "uptime_s": 1.235,
            "heartbeat_age_s": 0.01,
        }
    ]


def test_certificates(read_json, text, context):
    certificates = read_json("/certs")["certificates"]
    assert certificates[0]["ca_cert"] == []
    entry = certificates[0]["cert_chain"][0]
    assert int(entry.pop("days_until_expiration")) > 30_000
    assert entry == {
        "path": "/c.pem",
        "serial_number": "07ab",
        "subject_alt_names": [{"dns": "localhost"}, {"ip_address": "127.0.0.1"}],
        "valid_from": "2026-01-01T00:00:00Z",
        "expiration_time": "2126-01-01T00:00:00Z",
    }
    context.no_certificates = True
    assert text("/certs")[0] == 501


def test_server_info(read_json):
    assert read_json("/server_info") == {
        "version": "forkproxy/1.2",
        "state": "LIVE",
        "uptime_current_epoch": "23s",
        "uptime_all_epochs": "23s",
        "hot_restart_version": "disabled",
        "command_line_options": {"concurrency": 2, "config_path": "f.yaml"},
        "node": {"id": "nid", "cluster": "nclu", "user_agent_name": "forkproxy", "locality": {"zone": "z1"}},
    }


def test_runtime(read_json):
    assert read_json("/runtime") == {
        "entries": {
            "a.b": {"final_value": "4", "layer_values": ["3", "4"]},
            "health_check.min_interval": {"final_value": "5", "layer_values": ["5", ""]},
            "on": {"final_value": "true", "layer_values": ["", "true"]},
        },
        "layers": ["low", "high"],
    }


# /clusters


def test_clusters_text(text):
    status, body = text("/clusters")
    assert status == 200
    lines = body.splitlines()
    assert lines[:2] == ["web:1::observability_name::web:1", "web:1::default_priority::max_connections::1024"]
    assert lines[8:10] == ["web:1::high_priority::max_retries::3", "web:1::added_via_api::false"]
    prefix = "web:1::127.0.0.1:8080::"
    assert [line.removeprefix(prefix) for line in lines[10:29]] == [
        *("cx_active::2", "cx_connect_fail::0", "cx_total::4", "rq_active::0", "rq_error::0", "rq_pending_active::0"),
        *("rq_success::0", "rq_timeout::0", "rq_total::0", "hostname::h", "health_flags::healthy", "weight::1"),
        *("region::", "zone::", "sub_zone::", "canary::false", "priority::0", "success_rate::-1"),
        "local_origin_success_rate::-1",
    ]
    assert "web:1::[::1]:81::health_flags::/failed_active_hc" in lines
    assert "db::observability_name::alt" in lines


def test_clusters_json(read_json):
    statuses = read_json("/clusters?format=json")["cluster_statuses"]
    assert [status["observability_name"] for status in statuses] == ["web:1", "alt"]
    first, second = statuses[0]["host_statuses"]
    assert first["address"] == {"socket_address": {"address": "127.0.0.1", "port_value": 8080}}
    assert first["stats"][:2] == [{"name": "cx_connect_fail"}, {"value": "4", "name": "cx_total"}]
    assert first["stats"][6] == {"type": "GAUGE", "value": "2", "name": "cx_active"}
    assert first["health_status"] == {"eds_health_status": "HEALTHY"}
    assert (first["weight"], first["hostname"], first["locality"]) == (1, "h", {})
    assert second["health_status"] == {"failed_active_health_check": True, "eds_health_status": "HEALTHY"}
    assert (second["locality"], second["priority"]) == ({"zone": "z"}, 1)
    assert statuses[1].get("host_statuses") is None
    assert statuses[0]["circuit_breakers"]["thresholds"][1]["priority"] == "HIGH"


def test_clusters_filter(text, read_json):
    assert {line.partition("::")[0] for line in text("/clusters?filter=^d")[1].splitlines()} == {"db"}
    assert text("/clusters?filter=nothing") == (200, "")
    assert read_json("/clusters?filter=nothing&format=json") == {}
    assert text("/clusters?filter=(") == (400, "Invalid re2 regex: missing ): (")


# /logging


def test_logging_shows_and_changes_levels(text, context):
    assert text("/logging", "POST") == (200, "active loggers:\n  admin: info\n  http: info\n\n")
    text("/logging?level=debug", "POST")
    assert set(context.levels.values()) == {"debug"}
    text("/logging?paths=http:trace,admin:off", "POST")
    assert context.levels == {"http": "trace", "admin": "off"}
    text("/logging?http=error", "POST")
    assert context.levels["http"] == "error"


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("level=loud", "error: unknown logger level\n\nusage: "),
        ("paths=nobody:info", "error: unknown logger name\n\nusage: "),
        ("paths=http:info,http", "error: unknown logger level\n\nusage: "),
        ("nobody=info", "error: unknown logger name\n\nusage: "),
        ("level=info&paths=http:info", "error: invalid number of parameters\n\nusage: "),
    ],
)
def test_logging_refuses(text, context, query, complaint):
    status, body = text(f"/logging?{query}", "POST")
    assert status == 400
    assert body.startswith(complaint)
    assert f"levels: {' '.join(LOG_LEVELS)}\n" in body
    assert context.levels == {"http": "info", "admin": "info"}


# /stats


def test_stats_text(text):
    assert text("/stats?filter=^server\\.live$") == (200, "server.live: 1\n")
    assert "cluster.web.upstream_rq_total: 7\n" in text("/stats")[1]
    assert text("/stats")[1].splitlines()[-1].startswith("server.initialization_time_ms: P0(nan,22.5) ")


def test_stats_never_shows_endpoints(text):
    assert "endpoint" not in text("/stats")[1]


def test_stats_usedonly(text):
    figures = text("/stats?usedonly")[1].splitlines()
    names = [line.partition(":")[0] for line in figures if not line.startswith("cluster.web.")]
    assert names == ["server.live", "server.initialization_time_ms"]
    assert "cluster.web.upstream_rq_total: 7" in figures
    assert "cluster.web.upstream_rq_active: 0" in figures  # a gauge does not vanish whenever it is zero
    assert not any("upstream_cx_total" in line for line in figures)


def test_stats_filters(text):
    assert text("/stats?filter=server.liv") == (200, "server.live: 1\n")
    assert "server.live" not in text("/stats?filter=server.liv&invert_filter")[1]
    assert text("/stats?filter=(") == (400, "Invalid re2 regex: missing ): (")
    assert text("/stats?filter=" + "a" * 2000)[0] == 400
    assert text("/stats?filter=nosuch") == (200, "")


def test_stats_types(text):
    assert text("/stats?type=Gauges&filter=server.live") == (200, "server.live: 1\n")
    assert text("/stats?type=Counters&filter=server.live") == (200, "")
    assert text("/stats?type=Histograms")[1].count("\n") == 4
    assert text("/stats?type=TextReadouts") == (200, "")
    assert text("/stats?type=Foo") == (400, "invalid &type= param")


def test_stats_formats(ask, text):
    assert ask("/stats?format=json&filter=server.live").body == b'{"stats":[{"name":"server.live","value":1}]}'
    assert text("/stats?format=prometheus&filter=server.live")[1] == text("/stats/prometheus?filter=server.live")[1]
    assert text("/stats?format=bad") == (400, "usage: /stats?format=(html|json|prometheus|text)\n\n")
    html = ask("/stats?format=html&filter=server.live")
    assert html.content_type.startswith("text/html")
    assert b"<pre>server.live: 1\n</pre>" in html.body


def test_stats_histogram_modes(text):
    assert text("/stats?filter=server.init&histogram_buckets=disjoint")[1].startswith(
        "server.initialization_time_ms: B0.5(0,0) B1(0,0) B5(0,0) B10(0,0) B25(0,1) B50(0,0) "
    )
    expected = "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n"
    assert text("/stats?histogram_buckets=x") == text("/stats/prometheus?histogram_buckets=x") == (400, expected)
    for path in ("/stats", "/stats/prometheus"):
        assert text(f"{path}?histogram_buckets=none&filter=init") == text(f"{path}?filter=init")
        assert text(f"{path}?histogram_buckets=prometheusnative") == (
            400,
            "unsupported prometheusnative histogram type when not using protobuf exposition format",
        )


def test_hidden_statistics(text):
    assert text("/stats?hidden=include&filter=server.live") == (200, "server.live: 1\n")
    assert text("/stats?hidden=only") == (200, "")
    assert text("/stats?hidden=x") == (400, "usage: /stats?hidden=(include|only|exclude)\n\n")


def test_a_page_of_statistics_is_announced(text, context):
    text("/clusters")
    assert context.done == []
    text("/stats")
    text("/stats/prometheus")
    assert context.done == ["before_statistics"] * 2


def test_prometheus(text):
    assert text("/stats/prometheus?filter=server.live") == (
        200,
        "# TYPE envoy_server_live gauge\nenvoy_server_live{} 1\n",
    )
    assert "\nenvoy_server_initialization_time_ms_count{} 1\n" in text("/stats/prometheus?usedonly")[1]
    assert text("/stats/prometheus?histogram_buckets=summary&filter=init")[1].startswith(
        '# TYPE envoy_server_initialization_time_ms summary\nenvoy_server_initialization_time_ms{quantile="0"} nan\n'
    )
    assert text("/stats/prometheus?histogram_buckets=disjoint") == (400, "unsupported prometheus histogram bucket mode")


def test_which_pages_want_fresh_figures():
    assert AdminHandlers.wants_figures("/stats")
    assert AdminHandlers.wants_figures("/clusters")
    assert not AdminHandlers.wants_figures("/ready")
    assert not AdminHandlers.wants_figures("/nosuch")


# /config_dump


def types(dump):
    return [config["@type"].removeprefix("type.googleapis.com/envoy.admin.v3.") for config in dump["configs"]]


def test_config_dump(read_json):
    dump = read_json("/config_dump")
    assert types(dump) == [
        *("BootstrapConfigDump", "ClustersConfigDump", "ListenersConfigDump", "ScopedRoutesConfigDump"),
        *("RoutesConfigDump", "SecretsConfigDump"),
    ]
    bootstrap, clusters, listeners, _, routes, _ = dump["configs"]
    assert bootstrap["last_updated"] == "2026-01-02T03:04:05.678Z"
    assert bootstrap["bootstrap"]["node"] == {"id": "nid"}
    assert clusters["static_clusters"][0] == {
        "cluster": {
            "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            "name": "web",
            "connect_timeout": "1s",
        },
        "last_updated": "2026-01-02T03:04:05.678Z",
    }
    assert [entry["listener"]["name"] for entry in listeners["static_listeners"]] == ["main", "tcp"]
    assert [entry["route_config"]["name"] for entry in routes["static_route_configs"]] == ["local"]


def test_config_dump_tells_why_the_last_reload_was_refused(read_json, context):
    assert "error_state" not in read_json("/config_dump")["configs"][0]
    context.last_refusal = ("e.yaml:1:1: no", datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC))
    assert read_json("/config_dump")["configs"][0]["error_state"] == {
        "last_update_attempt": "2026-01-02T03:04:06.000Z",
        "details": "e.yaml:1:1: no",
    }


def test_config_dump_with_endpoints(read_json):
    endpoints = read_json("/config_dump?include_eds")["configs"][2]
    assert endpoints["@type"].endswith("EndpointsConfigDump")
    load = endpoints["static_endpoint_configs"][0]["endpoint_config"]
    assert load["cluster_name"] == "web:1"
    assert load["endpoints"][0]["lb_endpoints"][0]["endpoint"]["hostname"] == "h"
    assert load["endpoints"][1]["locality"] == {"zone": "z"}
    assert load["endpoints"][1]["priority"] == 1
    assert load["endpoints"][1]["lb_endpoints"][0]["load_balancing_weight"] == 3


def test_config_dump_of_one_list(read_json, text):
    dump = read_json("/config_dump?resource=static_clusters")
    assert types(dump) == ["ClustersConfigDump.StaticCluster"] * 2
    assert dump["configs"][1]["cluster"]["name"] == "db"
    assert text("/config_dump?resource=foo") == (404, "foo not found in config dump")
    assert text("/config_dump?resource=bootstrap") == (
        400,
        "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field",
    )
    assert read_json("/config_dump?resource=dynamic_listeners") == {}


def test_config_dump_by_name(read_json, text):
    dump = read_json("/config_dump?resource=static_clusters&name_regex=w.b")
    assert [config["cluster"]["name"] for config in dump["configs"]] == ["web"]
    assert read_json("/config_dump?resource=static_clusters&name_regex=w") == {}
    assert "static_listeners" not in read_json("/config_dump?name_regex=web")["configs"][2]
    assert text("/config_dump?name_regex=(") == (
        400,
        "INVALID_ARGUMENT: Error while parsing name_regex from (: missing ): (",
    )


def test_config_dump_masked(read_json, text):
    dump = read_json("/config_dump?mask=bootstrap.node.id")
    assert dump["configs"] == [
        {
            "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
            "bootstrap": {"node": {"id": "nid"}},
        }
    ]
    clusters = read_json("/config_dump?resource=static_clusters&mask=cluster.name")["configs"]
    assert clusters[0]["cluster"] == {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "web"}
    assert "last_updated" not in clusters[0]
    both = read_json("/config_dump?mask=bootstrap.node.id,bootstrap.static_resources.clusters,last_updated")["configs"][
        0
    ]
    assert set(both["bootstrap"]) == {"node", "static_resources"}
    assert set(both["bootstrap"]["static_resources"]) == {"clusters"}
    assert text("/config_dump?mask=zzz.foo") == (
        400,
        "FieldMask zzz.foo could not be successfully applied to any configs.",
    )
    assert text("/config_dump?resource=static_listeners&mask=name")[0] == 400
    assert text("/config_dump?mask=static_clusters.cluster")[0] == 400  # no way into a list


@pytest.mark.parametrize(
    ("fields", "status", "check"),
    [
        ({}, "HEALTHY", {}),
        ({"health_flags": ("/active_hc_timeout", "/failed_active_hc")}, "UNHEALTHY", {}),
        ({"health_flags": ("/failed_outlier_check",)}, "UNHEALTHY", {}),
        ({"health_flags": ("/degraded_active_hc",)}, "DEGRADED", {}),
        ({"health_flags": ("/excluded_via_immediate_hc_fail",)}, "HEALTHY", {}),
        ({"check_port": 81, "check_hostname": "h"}, "HEALTHY", {"port_value": 81, "hostname": "h"}),
    ],
)
def test_the_dump_tells_how_endpoints_are_and_where_they_are_checked(fields, status, check):
    cluster = ClusterView("c", "c", (EndpointView(AddressConfig("127.0.0.1", 80), **fields),))
    (endpoint,) = config_dump._load_assignment(cluster)["endpoints"][0]["lb_endpoints"]
    assert endpoint["health_status"] == status
    assert endpoint["endpoint"]["health_check_config"] == check


def test_success_rates_of_outlier_detection():
    endpoints = (
        EndpointView(AddressConfig("127.0.0.1", 80), success_rate=0.0, local_success_rate=99.5),
        EndpointView(AddressConfig("127.0.0.1", 81)),
    )
    cluster = ClusterView("c", "c", endpoints, outliers=OutlierView(80.0, 40.0, 200 / 3, -1.0))
    lines = views.clusters_text([cluster], {}).splitlines()
    assert [line for line in lines if "::outlier::" in line] == [
        "c::outlier::success_rate_average::80",
        "c::outlier::success_rate_ejection_threshold::40",
        "c::outlier::local_origin_success_rate_average::66.66666666666667",
        "c::outlier::local_origin_success_rate_ejection_threshold::-1",
    ]
    assert [line.rpartition("::")[2] for line in lines if line.endswith(("success_rate::0", "success_rate::99.5"))] == [
        "0",
        "99.5",
    ]
    (status,) = views.clusters_json([cluster], {})["cluster_statuses"]
    assert status["success_rate_ejection_threshold"] == {"value": 40}
    assert "local_origin_success_rate_ejection_threshold" not in status
    first, second = status["host_statuses"]
    assert (first["success_rate"], first["local_origin_success_rate"]) == ({}, {"value": 99.5})
    assert "success_rate" not in second
