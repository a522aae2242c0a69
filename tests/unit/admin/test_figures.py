"""What the admin port counts of itself."""

from __future__ import annotations

from types import SimpleNamespace

from forkproxy.admin.figures import AdminFigures
from forkproxy.net.connection import LOCAL_CLOSE, REMOTE_CLOSE
from forkproxy.stats.counters import Registry


def counted(registry):
    snapshot = registry.read([])
    figures = {**snapshot.counters, **snapshot.gauges}
    found = {name: value for name, value in figures.items() if value and "admin" in name}
    return found, {name: pair.cumulative.count for name, pair in snapshot.histograms.items() if pair.used}


def test_a_connection_with_two_requests():
    registry = Registry()
    figures = AdminFigures(registry)
    connection = SimpleNamespace(bytes_received=70, bytes_sent=900)
    figures.on_accepted(1)
    figures.on_open()
    figures.on_request()
    figures.on_response(200, 0.002)
    figures.on_request()
    now, _ = counted(registry)
    assert (now["http.admin.downstream_rq_active"], now["listener.admin.main_thread.downstream_cx_active"]) == (1, 1)
    figures.on_response(404, 0.003)
    figures.on_close(connection, REMOTE_CLOSE, 0.5)
    after, histograms = counted(registry)
    assert after == {
        "http.admin.downstream_cx_total": 1,
        "http.admin.downstream_cx_http1_total": 1,
        "http.admin.downstream_cx_destroy": 1,
        "http.admin.downstream_cx_destroy_remote": 1,
        "http.admin.downstream_cx_rx_bytes_total": 70,
        "http.admin.downstream_cx_tx_bytes_total": 900,
        "http.admin.downstream_rq_total": 2,
        "http.admin.downstream_rq_http1_total": 2,
        "http.admin.downstream_rq_2xx": 1,
        "http.admin.downstream_rq_4xx": 1,
        "http.admin.downstream_rq_completed": 2,
        "listener.admin.downstream_cx_total": 1,
        "listener.admin.downstream_cx_destroy": 1,
        "listener.admin.http.admin.downstream_rq_2xx": 1,
        "listener.admin.http.admin.downstream_rq_4xx": 1,
        "listener.admin.http.admin.downstream_rq_completed": 2,
        "listener.admin.main_thread.downstream_cx_total": 1,
    }
    assert histograms == {
        "http.admin.downstream_rq_time": 2,
        "http.admin.downstream_cx_length_ms": 1,
        "listener.admin.downstream_cx_length_ms": 1,
        "listener.admin.connections_accepted_per_socket_event": 1,
    }


def test_nonsense_and_a_request_that_is_given_up():
    registry = Registry()
    figures = AdminFigures(registry)
    figures.on_open()
    figures.on_request()
    figures.on_abandoned()
    figures.on_request()
    figures.on_nonsense()
    figures.on_response(400, 0.0)
    figures.on_close(SimpleNamespace(bytes_received=0, bytes_sent=0), LOCAL_CLOSE, 0.0)
    found, _ = counted(registry)
    assert found["http.admin.downstream_cx_protocol_error"] == found["http.admin.downstream_cx_destroy_local"] == 1
    assert "http.admin.downstream_rq_active" not in found


def test_names_are_there_from_the_start():
    registry = Registry()
    AdminFigures(registry)
    names = registry.read([]).counters
    assert {"http.admin.downstream_rq_5xx", "listener.admin.no_filter_chain_match"} <= names.keys()
    assert not {"http.admin.tracing.health_check", "listener.admin.extension_config_missing"} & names.keys()
