"""Direct responses whose answer is not always the same."""

import pytest

from forkproxy.config.build.local_reply import BodyFormat
from forkproxy.config.build.route import DirectResponseAction, RouteMatch
from forkproxy.router.direct_response import compile_direct
from tests.unit.router.fakes import WHERE, FakeStream

FORMAT = BodyFormat("%LOCAL_REPLY_BODY%", None, False, "", WHERE)


def composed(status, body_format=None, content_type=b""):
    compiled, finalize = compile_direct(
        DirectResponseAction(status, b"body", body_format),
        RouteMatch("prefix", "/"),
        WHERE,
        lambda _stream, headers: headers.append((b"content-type", b"route")),
        lambda _format: (lambda stream: b"<" + stream.local_reply_body + b">", content_type),
    )
    if compiled is None:
        return None
    body, headers = compiled(FakeStream(b"/p?q"))
    finalize(FakeStream(), headers)
    return body, headers


@pytest.mark.parametrize("status", [200, 204, 299, 400, 404])
def test_mostly_the_same_for_everybody(status):
    assert composed(status) is None


@pytest.mark.parametrize("status", [201, 300, 302, 304, 399])
def test_some_tell_where_they_are(status):
    assert composed(status) == (b"body", [(b"location", b"http://h.example/p?q"), (b"content-type", b"route")])


def test_a_format_makes_the_body():
    assert composed(200, FORMAT) == (b"<body>", [(b"content-type", b"route")])
    location = (b"location", b"http://h.example/p?q")
    assert composed(201, FORMAT, b"text/x") == (b"<body>", [location, (b"content-type", b"text/x")])
