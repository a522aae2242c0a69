"""How reports are chosen, run, written and compared; they themselves run with scripts/bench."""

import json

import pytest

from tests.benchmarks import load, reporting
from tests.benchmarks.ground import Ground
from tests.benchmarks.measure import LoadFailed
from tests.benchmarks.table import Column, Table


def ground(rounds=2):
    return Ground(None, rounds, 1.0, 1, 1)


def test_reports_by_name():
    assert reporting.chosen("memory,seed") == ["memory", "seed"]
    assert reporting.chosen("all") == list(reporting.REPORTS)
    with pytest.raises(SystemExit):
        reporting.chosen("seeds")


def test_every_report_is_explained(capsys):
    with pytest.raises(SystemExit):
        load.parse(["--help"])
    said = capsys.readouterr().out
    assert all(report.__doc__ and report.__doc__ in said for report in reporting.REPORTS.values())


def test_rows_are_measured_in_turn_and_one_that_fails_is_out():
    asked = []

    def measurement(name):
        def measure():
            asked.append(name)
            if name == "b":
                raise LoadFailed("2 requests failed")
            return {"figure": len(asked)}

        return measure

    table = Table("title", [])
    ground(3).in_turn(table, {name: measurement(name) for name in "abc"})
    assert asked == list("abcacac")
    assert table.samples == {"a": {"figure": [1, 4, 6]}, "c": {"figure": [3, 5, 7]}}
    assert table.failures == {"b": "2 requests failed"}


def test_a_report_is_printed_written_and_compared(monkeypatch, tmp_path, capsys):
    def report(_ground):
        table = Table("sizes", [Column("kib", "KiB")])
        table.add("worker", {"kib": 4})
        return [table]

    monkeypatch.setattr(reporting, "REPORTS", {"one": report})
    path = tmp_path / "result.json"
    assert reporting.run(["one"], ground(), {"date": "then"}, path, None) == 0
    old = json.loads(path.read_text())
    old["reports"]["one"]["sizes"]["rows"]["worker"]["kib"] = 5
    assert reporting.run(["one"], ground(), {"date": "now"}, path, old) == 0
    assert "one since then:\nsizes\n  worker, kib: 5 → 4   -20.0%" in capsys.readouterr().out


def test_a_report_with_a_row_that_does_not_count_is_a_failure(monkeypatch):
    def report(_ground):
        table = Table("sizes", [])
        table.fail("worker", "ended")
        return [table]

    monkeypatch.setattr(reporting, "REPORTS", {"one": report})
    assert reporting.run(["one"], ground(), {}, None, None) == 1
