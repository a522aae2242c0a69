from forkproxy.admin.access_log import line
from forkproxy.admin.context import AdminAccess


def access(**changes):
    fields = {
        "start": 1795361087.770,
        "method": "POST",
        "path": "/reset_counters?x",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes_received": 5,
        "bytes_sent": 3,
        "duration_ms": 7,
        "peer": "192.0.2.2:4711",
        "host": "a",
    }
    return AdminAccess(**(fields | changes))


def test_a_line_is_envoys():
    assert line(access()) == (
        b'[2026-11-22T15:24:47.770Z] "POST /reset_counters?x HTTP/1.1" 200 - 5 3 7 - "192.0.2.2" "-" "-" "a" "-"\n'
    )


def test_headers_and_odd_peers():
    made = line(access(peer="", host="", user_agent="cürl", forwarded_for="10.0.0.1", request_id="r1"))
    assert made.endswith(' - "10.0.0.1" "cürl" "r1" "-" "-"\n'.encode("latin-1"))
    assert b' - "[::1]" ' in line(access(peer="[::1]:9"))
    assert b' - "-" ' in line(access(peer=""))
