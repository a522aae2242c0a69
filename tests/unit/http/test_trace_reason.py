"""Why a request is traced, in its id. What comes of it is played beside Envoy."""

from types import SimpleNamespace

import pytest

from forkproxy.http.headers import get
from forkproxy.http.trace_reason import TraceSampling, pack

ID = b"00001388-1c4b-%ba1e-8c33-1b3a4f9a1b2c"


def decided(sampling, request_id=ID % b"4", *more):
    headers = [(b"x-request-id", request_id), *more] if request_id else list(more)
    stream = SimpleNamespace(request_id=request_id, request_headers=headers, is_forced_to_trace=None)
    sampling.decide(stream)
    assert stream.request_id == (get(headers, b"x-request-id") or b"")
    return stream.request_id[14:15], stream.is_forced_to_trace


@pytest.mark.parametrize("text", [b"", b"short", ID % b"4" + b"0"])
def test_what_is_no_uuid_stays(text):
    assert pack(text, b"9") == text


def test_the_id_decides():
    assert decided(TraceSampling(sampled=5000)) == (b"4", False)  # 0x1388 is 5000
    assert decided(TraceSampling(sampled=5001)) == (b"9", False)


def test_who_asks_for_it():
    never = TraceSampling(sampled=0)
    assert decided(never, ID % b"4", (b"x-envoy-force-trace", b"")) == (b"a", True)
    assert decided(never, ID % b"4", (b"x-client-trace-id", b"1")) == (b"b", False)
    assert decided(never._replace(client=0), ID % b"4", (b"x-client-trace-id", b"1")) == (b"4", False)


@pytest.mark.parametrize(("digit", "forced"), [(b"9", False), (b"a", True), (b"b", False)])
def test_a_reason_that_is_there_stays(digit, forced):
    assert decided(TraceSampling(sampled=0), ID % digit) == (digit, forced)
    assert decided(TraceSampling(overall=0), ID % digit) == (b"4", False)


@pytest.mark.parametrize("text", [b"", b"odd", b"not-hex-at-all-but-long-enough-for-an-id"])
def test_an_id_that_is_no_number_decides_nothing(text):
    assert decided(TraceSampling(), text)[1] is None


def test_without_packing_the_id_stays():
    assert decided(TraceSampling(packs=False), ID % b"4") == (b"4", False)
    assert decided(TraceSampling(packs=False), ID % b"4", (b"x-envoy-force-trace", b"")) == (b"4", True)


def test_by_chance():
    assert decided(TraceSampling(by_id=False), b"odd") == (b"", False)
    assert decided(TraceSampling(by_id=False, sampled=0)) == (b"4", False)
