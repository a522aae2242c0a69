"""Time formats; the expected texts are Envoy 1.40's for the same instant."""

import time

import pytest

from forkproxy.access_log.time_format import DEFAULT, DEFAULT_LOCAL, compile_time
from tests.unit.access_log.fakes import WALL


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DEFAULT, "2026-11-22T15:33:09.597Z"),
        ("%s", "1795361589"),
        ("%Y-%m-%dT%H:%M:%S.%3fZ", "2026-11-22T15:33:09.597Z"),
        ("%6f|%1f|%9f", "597518|5|597518000"),
        ("%f", "597518000"),
        ("%E3S|%E*S|%e|%a %b|%j|%z|%Z|%p|%I|%T|%F|%D|%R|%t",
         "09.597|09.597518|22|Sun Nov|326|+0000|UTC|PM|03|15:33:09|2026-11-22|11/22/26|15:33|\t"),
        ("%s.%3f", "1795361589.597"),
        ("%3s", "1795361589"),
        ("%s%3f|%i", "1795361589597|%i"),
        ("plain", "plain"),
        ("%%", "%"),
        ("%", "%"),
        ("%Ez|%:z|%u|%w|%U|%V|%G|%y|%C|%k|%l|%h|%r|%c|%x|%X|%q",
         "+00:00|+00:00|7|0|47|47|2026|26|20|15| 3|Nov|03:33:09 PM|Sun Nov 22 15:33:09 2026|11/22/26|15:33:09|%q"),
        ("%E4Y-%3f", "2026-597"),
        ("%E0S", "09"),
    ],
)  # fmt: skip
def test_formats(text, expected):
    assert compile_time(text)(WALL).decode() == expected


def test_a_fraction_of_nothing():
    assert compile_time("%E*S")(1795361589.0) == b"09"
    assert compile_time("%E*S|%3f")(1795361589.0) == b"09|000"


def test_the_text_follows_the_second():
    render = compile_time("%S.%3f")
    assert [render(60.25), render(60.75), render(61.5), render(60.0)] == [b"00.250", b"00.750", b"01.500", b"00.000"]
    whole = compile_time("%S")
    assert [whole(1.9), whole(2.0), whole(1.0)] == [b"01", b"02", b"01"]


@pytest.fixture
def in_kathmandu(monkeypatch):
    monkeypatch.setenv("TZ", "NPT-5:45")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_kathmandu")
def test_local_time():
    assert compile_time(DEFAULT_LOCAL, local=True)(WALL) == b"2026-11-22T21:18:09.597+0545"
    assert compile_time("%Ez %Z", local=True)(WALL) == b"+05:45 NPT"
    assert compile_time(DEFAULT)(WALL) == b"2026-11-22T15:33:09.597Z"
