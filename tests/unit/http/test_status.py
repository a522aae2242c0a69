"""Status lines."""

from forkproxy.http.status import HTTP_10, HTTP_11, reason


def test_lines_stand_ready():
    assert HTTP_11[200] is HTTP_11[200]
    assert (HTTP_11[404], HTTP_10[404]) == (b"HTTP/1.1 404 Not Found\r\n", b"HTTP/1.0 404 Not Found\r\n")


def test_unknown_codes_are_made_and_not_kept():
    before = len(HTTP_11)
    assert HTTP_11[299] == b"HTTP/1.1 299 Unknown\r\n"
    assert len(HTTP_11) == before
    assert reason(799) == "Unknown"
