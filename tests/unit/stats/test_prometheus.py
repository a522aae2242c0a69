import pytest
from prometheus_client.parser import text_string_to_metric_families

from forkproxy.stats import prometheus
from forkproxy.stats.histogram import BinnedHistogram, HistogramPair
from forkproxy.stats.tags import Tag, TagExtractor
from forkproxy.stats.text import default_buckets

# Stat names and what real Envoy 1.40 made of them.
AS_ENVOY = [
    ("cluster.web.upstream_rq_total", "envoy_cluster_upstream_rq_total", 'envoy_cluster_name="web"'),
    (
        "cluster.web.external.upstream_rq_503",
        "envoy_cluster_external_upstream_rq",
        'envoy_response_code="503",envoy_cluster_name="web"',
    ),
    (
        "cluster.web.upstream_rq_5xx",
        "envoy_cluster_upstream_rq_xx",
        'envoy_response_code_class="5",envoy_cluster_name="web"',
    ),
    ("cluster.tcp_odd.name.upstream_cx_total", "envoy_cluster_name_upstream_cx_total", 'envoy_cluster_name="tcp_odd"'),
    (
        "cluster.t.ssl.ciphers.ECDHE-ECDSA-AES128-GCM-SHA256",
        "envoy_cluster_ssl_ciphers",
        'cipher_suite="ECDHE-ECDSA-AES128-GCM-SHA256",envoy_cluster_name="t"',
    ),
    (
        "listener.127.0.0.1_443.ssl.ciphers.TLS_AES_256_GCM_SHA384",
        "envoy_listener_ssl_ciphers",
        'envoy_ssl_cipher="TLS_AES_256_GCM_SHA384",envoy_listener_address="127.0.0.1_443"',
    ),
    (
        "listener.127.0.0.1_443.ssl.versions.TLSv1.3",
        "envoy_listener_ssl_versions",
        'envoy_ssl_version="TLSv1.3",envoy_listener_address="127.0.0.1_443"',
    ),
    (
        "listener.127.0.0.1_80.http.in.downstream_rq_2xx",
        "envoy_listener_http_downstream_rq_xx",
        'envoy_response_code_class="2",envoy_http_conn_manager_prefix="in",envoy_listener_address="127.0.0.1_80"',
    ),
    (
        "listener.[__1]_80.worker_0.downstream_cx_total",
        "envoy_listener_worker_downstream_cx_total",
        'envoy_worker_id="0",envoy_listener_address="[__1]_80"',
    ),
    ("listener.custom.downstream_cx_total", "envoy_listener_downstream_cx_total", 'envoy_listener_address="custom"'),
    (
        "listener.admin.http.admin.downstream_rq_2xx",
        "envoy_listener_admin_http_downstream_rq_xx",
        'envoy_response_code_class="2",envoy_http_conn_manager_prefix="admin"',
    ),
    ("listener.admin.downstream_cx_active", "envoy_listener_admin_downstream_cx_active", ""),
    ("http.a.b.downstream_cx_total", "envoy_http_b_downstream_cx_total", 'envoy_http_conn_manager_prefix="a"'),
    ("tcp.tp.downstream_cx_total", "envoy_tcp_downstream_cx_total", 'envoy_tcp_prefix="tp"'),
    ("server.worker_1.watchdog_miss", "envoy_server_worker_watchdog_miss", 'envoy_worker_id="1"'),
    ("http1.response_flood", "envoy_http1_response_flood", ""),
    ("server.live", "envoy_server_live", ""),
]


def render(counters, gauges, histograms, *, tags=(), buckets_of=default_buckets, summaries=False):
    return prometheus.render(
        counters, gauges, histograms, extractor=TagExtractor(tags), buckets_of=buckets_of, summaries=summaries
    )


@pytest.mark.parametrize(("name", "metric", "labels"), AS_ENVOY)
def test_names_and_labels(name, metric, labels):
    assert render({name: 1}, {}, {}) == f"# TYPE {metric} counter\n{metric}{{{labels}}} 1\n"


def test_tags_and_buckets_of_ones_own():
    text = render(
        {},
        {},
        {"cluster.a.upstream_cx_length_ms": pair(3)},
        tags=[Tag("some.where", fixed_value='a "b" \\'), Tag("1st-of", "^cluster(?=\\.).*?_(cx)_")],
        buckets_of=lambda name: (0.25, 1e7),
    )
    labels = 'some_where="a \\"b\\" \\\\",envoy_cluster_name="a",1st_of="cx"'
    assert text.splitlines() == [
        "# TYPE envoy_cluster_upstream__length_ms histogram",
        f'envoy_cluster_upstream__length_ms_bucket{{{labels},le="0.25"}} 0',
        f'envoy_cluster_upstream__length_ms_bucket{{{labels},le="10000000"}} 1',
        f'envoy_cluster_upstream__length_ms_bucket{{{labels},le="+Inf"}} 1',
        f"envoy_cluster_upstream__length_ms_sum{{{labels}}} 3.0491803278688527356621307262685",
        f"envoy_cluster_upstream__length_ms_count{{{labels}}} 1",
    ]


def test_lines():
    text = render(
        {"cluster.b.upstream_rq_total": 2, "cluster.a.upstream_rq_total": 1, "cluster_manager.cluster_added": 4},
        {"server.live": 1},
        {},
    )
    assert text == (
        "# TYPE envoy_cluster_upstream_rq_total counter\n"
        'envoy_cluster_upstream_rq_total{envoy_cluster_name="a"} 1\n'
        'envoy_cluster_upstream_rq_total{envoy_cluster_name="b"} 2\n'
        "# TYPE envoy_cluster_manager_cluster_added counter\n"
        "envoy_cluster_manager_cluster_added{} 4\n"
        "# TYPE envoy_server_live gauge\n"
        "envoy_server_live{} 1\n"
    )


def pair(*samples):
    return HistogramPair(BinnedHistogram.of(samples), BinnedHistogram())


def test_histogram_lines():
    lines = render({}, {}, {"http.in.downstream_rq_time": pair(0, 1, 14100)}).splitlines()
    prefix = 'envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="in",le='
    assert lines[0] == "# TYPE envoy_http_downstream_rq_time histogram"
    assert lines[1:3] == [prefix + '"0.5"} 1', prefix + '"1"} 2']
    assert lines[-5:] == [
        prefix + '"1800000"} 3',
        prefix + '"3600000"} 3',
        prefix + '"+Inf"} 3',
        'envoy_http_downstream_rq_time_sum{envoy_http_conn_manager_prefix="in"} 14483.806239737274154322221875191',
        'envoy_http_downstream_rq_time_count{envoy_http_conn_manager_prefix="in"} 3',
    ]


def test_summaries_show_quantiles():
    text = render(
        {}, {}, {"server.x_ms": HistogramPair(BinnedHistogram.of([22]), BinnedHistogram.of([22]))}, summaries=True
    )
    assert text.startswith('# TYPE envoy_server_x_ms summary\nenvoy_server_x_ms{quantile="0"} 22.5\n')
    assert 'envoy_server_x_ms{quantile="0.995"} 22.5\n' in text


def test_prometheus_own_parser_reads_it():
    counters = {name: 1 for name, _, labels in AS_ENVOY if not name.endswith(("live", "active"))}
    counters['cluster.we"ird\\.upstream_rq_total'] = 1
    text = render(counters, {"server.live": 1}, {"http.in.downstream_rq_time": pair(3), "overload.x": pair()})
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert len(samples) == len(counters) + 1 + 2 * (19 + 1 + 2)
    assert {"envoy_cluster_name": 'we"ird\\'} in [sample.labels for sample in samples]
