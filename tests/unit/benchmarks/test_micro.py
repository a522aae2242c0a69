"""Every micro benchmark does what it is named for, once."""

import pytest

from tests.benchmarks import micro


@pytest.mark.parametrize("name", micro.CASES)
def test_a_step_works_again_and_again(name):
    step = micro.CASES[name]()
    results = [step() for _ in range(3)]
    if name.startswith(("routes", "pick")):
        assert None not in results
    if name.startswith("log"):
        assert results[0].endswith(b"\n")


def test_the_filters_are_in_the_path(monkeypatch):
    asked = []
    monkeypatch.setattr(micro.Idle, "decode_headers", lambda self, *_: asked.append(self))
    micro.CASES["exchange: 3 idle filters"]()()
    assert len(asked) == 6  # for the connection's first request and for the measured one


def test_figures_and_what_they_were(monkeypatch, capsys):
    monkeypatch.setattr(micro, "CASES", {"nothing": lambda: lambda: None})
    monkeypatch.setattr(micro, "BATCH_S", 0.0001)
    found = micro.measure(2)
    assert 0 < found["nothing"]["us"] <= found["nothing"]["median_us"]
    micro.show(found, {"nothing": {"us": found["nothing"]["us"] * 2}})
    assert "-50.0%" in capsys.readouterr().out
