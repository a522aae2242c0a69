"""Tables of the benchmark's reports."""

from tests.benchmarks.table import Column, Table


def table():
    return Table("sizes", [Column("kib", "KiB", 1), Column("count", "count")], "a note")


def test_a_row_has_the_medians_of_its_rounds():
    found = table()
    for kib in (5, 1, 3):
        found.add("worker", {"kib": kib})
    found.add("worker", {"count": 7})
    assert found.rows() == {"worker": {"kib": 3, "count": 7}}
    assert found.data()["samples"]["worker"]["kib"] == [5, 1, 3]


def test_of_a_worst_figure_no_round_is_forgotten():
    found = Table("pauses", [Column("longest", "longest ms", 1, worst=True)])
    for longest in (1, 7, 2):
        found.add("ping", {"longest": longest})
    assert found.rows() == {"ping": {"longest": 7}}


def test_what_is_printed():
    found = table()
    found.add("worker", {"kib": 2.25})
    found.add("other", {"kib": 1, "count": 2})
    found.fail("other", "no\nreason")
    assert found.text().splitlines() == [
        "sizes",
        "                KiB    count",
        "  worker        2.2        –",
        "  other does not count: no",
        "      reason",
        "  a note",
    ]


def test_single_figures_that_do_not_count():
    found = table()
    found.add("worker", {"kib": 1, "count": 2})
    found.forget("worker", "count")
    found.forget("nobody", "count")
    assert found.rows() == {"worker": {"kib": 1}}


def test_comparison_is_of_what_is_in_both():
    old, new = table(), table()
    old.add("worker", {"kib": 2, "count": 0})
    old.add("gone", {"kib": 2})
    new.add("worker", {"kib": 3, "count": 4})
    new.add("new", {"kib": 3})
    assert new.comparison(old.data()).splitlines() == [
        "sizes",
        "  worker, kib: 2.0 → 3.0   +50.0%",
        "  worker, count: 0 → 4  ",
    ]
    assert table().comparison(old.data()) == ""
