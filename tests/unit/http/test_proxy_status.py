"""What the Proxy-Status header says; the header itself is played beside Envoy."""

from types import SimpleNamespace

import pytest

from forkproxy.http import response_flags as flags
from forkproxy.http.proxy_status import ERRORS, ProxyStatus


def stream(raised=0, details="why", termination=""):
    return SimpleNamespace(response_flags=raised, details=details, connection_termination_details=termination)


def test_nothing_went_wrong_here():
    assert ProxyStatus(b"me").value(stream()) is None
    assert ProxyStatus(b"me").value(stream(flags.DPE)) is None  # raised when the answer has left


@pytest.mark.parametrize(("flag", "error"), [(flag, error) for flag, error in ERRORS])
def test_each_flag_has_an_error(flag, error):
    value, status = ProxyStatus(b"me", details=False, recommended_code=True).value(stream(flag))
    assert value == b"me; error=" + error[0]
    assert status == error[1]


def test_the_first_of_several_flags_decides():
    value, _ = ProxyStatus(b"me", details=False).value(stream(flags.URX | flags.UT))
    assert value == b"me; error=http_response_timeout"


@pytest.mark.parametrize(
    ("fields", "details"),
    [
        ({}, b'; details="a\\"b; gone; UF"'),
        ({"connection_termination_details": False}, b'; details="a\\"b; UF"'),
        ({"response_flags": False}, b'; details="a\\"b; gone"'),
        ({"details": False}, b""),
    ],
)
def test_parts_of_the_details(fields, details):
    value, status = ProxyStatus(b"me", **fields).value(stream(flags.UF, 'a"b', "gone"))
    assert value == b"me; error=connection_refused" + details
    assert status == 0
