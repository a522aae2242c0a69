"""The filter that measures the collector's pauses, and what the report makes of them."""

import gc
import json

import pytest

from tests.benchmarks.cases import Case
from tests.benchmarks.gc_filter import GcPauses
from tests.benchmarks.reports import pauses
from tests.benchmarks.targets import Site


def test_collections_between_start_and_stop_are_written(tmp_path):
    path = tmp_path / "pauses.json"
    observed = GcPauses.from_config({"path": str(path)}, None)
    before = list(gc.callbacks)
    gc.collect()
    observed.start(None)
    gc.collect()
    gc.collect(1)
    observed.stop()
    gc.collect()
    told = json.loads(path.read_text())
    assert gc.callbacks == before
    assert (len(told["pauses"][1]), len(told["pauses"][2])) == (1, 1)
    assert [len(each) for each in told["cpu"]] == [len(each) for each in told["pauses"]]
    assert told["seconds"] >= told["pauses"][2][0] > 0


def test_figures_of_a_row():
    told = {"seconds": 2, "pauses": [[0.001, 0.003], [], [0.002]], "cpu": [[0.001, 0.001], [], [0.0015]]}
    assert pauses.figures(json.dumps(told)) == pytest.approx(
        {"longest_ms": 3, "cpu_ms": 1.5, "full_ms": 2, "full": 1, "collections": 3, "total_ms": 6, "share": 0.3}
    )
    nothing = {"seconds": 2, "pauses": [[], [], []], "cpu": [[], [], []]}
    assert not any(pauses.figures(json.dumps(nothing)).values())


def test_the_filter_stands_before_the_router(tmp_path):
    watched = pauses.Watched(Site(tmp_path, 0, 0, tmp_path, tmp_path), Case("ping"))
    hcm = watched.data()["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    assert [each["name"] for each in hcm["http_filters"]] == [pauses.FILTER, "envoy.filters.http.router"]
    assert hcm["http_filters"][0]["typed_config"]["value"] == {"path": str(watched.pauses)}
