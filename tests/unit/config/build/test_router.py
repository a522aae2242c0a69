"""The router's own configuration: its upstream filters, which end as Envoy says they must."""

import pytest

from forkproxy.config.build.router import build
from forkproxy.config.load import load
from tests.unit.config.build.building import built

MESSAGE = "envoy.extensions.filters.http.router.v3.Router"
TYPE = "type.googleapis.com/envoy.extensions.filters.http."
CODEC = f'{{name: codec, typed_config: {{"@type": {TYPE}upstream_codec.v3.UpstreamCodec}}}}'
MUTATION = (
    f'{{name: mutation, typed_config: {{"@type": {TYPE}header_mutation.v3.HeaderMutation, '
    "mutations: {request_mutations: [{remove: a}]}}}"
)
CORS = f'{{name: cors, typed_config: {{"@type": {TYPE}cors.v3.Cors}}}}'
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
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              upstream_http_filters: [FILTERS]
"""


def said(*filters):
    result = load(FILE.replace("FILTERS", ", ".join(filters)), "f")
    return result.verdict, "\n".join(problem.text("f") for problem in result.problems)


def test_upstream_filters_without_their_codec():
    outcome = built(build, MESSAGE, f"upstream_http_filters: [{MUTATION}, {CODEC}]")
    assert [entry.name for entry in outcome.value.upstream_filters] == ["mutation"]
    assert (outcome.errors, outcome.unsupported, outcome.unread) == ([], [], [])
    assert built(build, MESSAGE, f"upstream_http_filters: [{CODEC}]").value.upstream_filters == ()


@pytest.mark.parametrize(
    ("filters", "verdict", "text"),
    [
        ((MUTATION, CODEC), "runs", ""),
        ((MUTATION,), "invalid", '"mutation" is the last of the upstream filters and not terminal'),
        ((CODEC, MUTATION), "invalid", 'terminal filter "codec" must be the last of the upstream filters'),
        ((MUTATION, CODEC[:-1] + ", disabled: true}"), "invalid", '(terminal) filter "codec"'),
        ((CORS, CODEC), "unsupported", '"cors" is not implemented as an upstream filter'),
        ((MUTATION[:-1] + ", disabled: true}", CODEC), "unsupported", "upstream_http_filters[0].disabled"),
    ],
)
def test_verdicts(filters, verdict, text):
    found, problems = said(*filters)
    assert (found, text in problems) == (verdict, True), problems
