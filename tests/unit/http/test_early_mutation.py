"""Early mutations cannot touch what frames a message, and what they add is seen as if the client had sent it."""

from types import SimpleNamespace

from forkproxy.http.early_mutation import mutate_early
from forkproxy.http.http1 import HAS_ENVOY, HAS_FORWARDED_FOR, HAS_FORWARDED_PROTO, HAS_REQUEST_ID


def mutated(*lines):
    stream = SimpleNamespace(request_headers=[(b"x-first", b"1")], scheme=b"?")
    seen = []

    def mutate(stream, headers):
        seen.append(stream.scheme)
        headers += lines

    flags = mutate_early(stream, mutate)
    assert seen == [b""]  # nobody has come to the scheme
    return flags, stream.request_headers[1:]


def test_what_belongs_to_the_connection_is_dropped():
    names = (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
    assert mutated(*((name, b"x") for name in names)) == (0, [])
    assert mutated((b"te", b"gzip, Trailers"), (b"te", b"gzip")) == (0, [(b"te", b"trailers")])


def test_flags():
    assert mutated((b"x-request-id", b""), (b"x-forwarded-for", b""))[0] == HAS_REQUEST_ID | HAS_FORWARDED_FOR
    assert mutated((b"x-forwarded-proto", b""), (b"x-envoy-internal", b""))[0] == HAS_FORWARDED_PROTO | HAS_ENVOY
