"""What logs of attempts are told; their lines are compared with Envoy's."""

import pytest

from forkproxy.filters.http import upstream_log
from forkproxy.filters.http.upstream_log import UpstreamLogs
from tests.support.playbook import play

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nanswer"


@pytest.mark.parametrize("pieces", [[OK], [OK[:-6], b"answer"], [OK[:-3], b"wer"]])
def test_an_attempts_bytes_are_counted_in_whatever_pieces(pieces):
    told = []
    talk = play()
    upstream_log.observe(talk.router)
    talk.router.upstream_logs = UpstreamLogs(
        at_end=[lambda attempt: told.append((attempt.status, attempt.bytes_received))]
    )
    talk.downstream(GET)
    for piece in pieces:
        talk.upstream(piece)
    talk.expect_downstream(OK).expect_quiet()
    assert told == [(200, 6)]
