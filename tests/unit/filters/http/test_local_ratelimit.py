"""The local_ratelimit filter: whose bucket a request takes from, and what it is told when that is empty."""

from forkproxy.config.build.context import PerFilterConfig
from forkproxy.config.build.core import FractionalPercent, Where
from forkproxy.config.build.listener import FilterEntry
from forkproxy.config.build.local_ratelimit import DescriptorConfig, LocalRateLimitConfig, TokenBucketConfig
from forkproxy.config.build.rate_limit import RateLimit, RateLimitAction
from forkproxy.filters.http.local_ratelimit import Limiter
from tests.support.playbook import WHERE, play, route

ALWAYS = FractionalPercent(100)
ASKED = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LIMITED = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 18\r\ncontent-type: text/plain\r\n\r\nlocal_rate_limited"


def config(tokens=1, interval_ms=1000, **fields):
    fields = {"enabled": ALWAYS, "enforced": ALWAYS, "where": Where("here"), **fields}
    return LocalRateLimitConfig("limit", bucket=TokenBucketConfig(tokens, 1, interval_ms), **fields)


def entry(made):
    return FilterEntry("limit", "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", made, WHERE)


def talk(made, **fields):
    return play(filters=[entry(made)], **fields)


def passes(p, request=ASKED):
    """Whether the request is let through; it is answered then."""
    p.downstream(request)
    if not any(peer.sock.outbox for peer in p.upstreams):
        p.expect_downstream(LIMITED)
        return False
    for peer in p.upstreams:
        peer.read()
    p.upstream(OK)
    p.expect_downstream(OK)
    return True


def counted(p):
    stats = p.manager.chain.filters[0].limiter.stats
    return stats.enabled, stats.ok, stats.rate_limited, stats.enforced


def test_tokens_come_back():
    p = talk(config())
    assert [passes(p), passes(p)] == [True, False]
    p.advance(1.0)
    assert [passes(p), passes(p)] == [True, False]
    assert counted(p) == (4, 2, 2, 2)


def test_routes_have_buckets_of_their_own_that_levels_share():
    own = PerFilterConfig(config(2, where=Where("route")))
    routes = [route("/a", per_filter_config={"limit": own}), route("/b", per_filter_config={"limit": own}), route()]
    p = talk(config(), routes=routes)
    assert [passes(p, ASKED.replace(b"/ ", path + b" ")) for path in (b"/a", b"/b", b"/a", b"/c", b"/c")] == [
        *(True, True, False),
        *(True, False),
    ]


def test_connections_have_their_own():
    p = talk(config(per_connection=True))
    assert [passes(p), passes(p)] == [True, False]
    p.connect()
    assert [passes(p), passes(p)] == [True, False]


def test_descriptors_that_fill_slowest_decide_first():
    slow = DescriptorConfig((("k", "slow"),), TokenBucketConfig(1, 1, 60_000))
    fast = DescriptorConfig((("k", "fast"),), TokenBucketConfig(2, 1, 1000))
    limits = tuple(RateLimit((RateLimitAction("generic_key", "k", value=value),)) for value in ("fast", "slow"))
    p = talk(config(10, descriptors=(fast, slow), rate_limits=limits))
    assert [passes(p), passes(p)] == [True, False]
    buckets = p.manager.chain.filters[0].limiter.buckets
    left = [bucket.remaining(p.loop.now) for bucket in (*buckets.described.values(), buckets.default)]
    assert left == [1, 0, 9]


def test_never_enabled_or_enforced_when_not_said():
    assert passes(talk(config(0, enabled=None)))
    p = talk(config(0, enforced=None))
    assert passes(p)
    assert counted(p) == (1, 0, 1, 0)


def test_the_answer_may_tell_the_limit():
    p = talk(config(2, 2500, shows_limit=True))
    p.downstream(ASKED)
    p.upstreams[0].read()
    p.upstream(OK)
    told = b"x-ratelimit-limit: 2\r\nx-ratelimit-remaining: %d\r\nx-ratelimit-reset: %d\r\n\r\n"
    p.expect_downstream(OK.replace(b"\r\nok", told % (1, 0) + b"ok"))
    assert p.manager.chain.filters[0].limiter.buckets.default.take(p.loop.now)
    p.downstream(ASKED)
    p.expect_downstream(LIMITED.replace(b"\r\nlocal", told % (0, 3) + b"local"))


def test_the_same_place_has_the_same_bucket_after_a_reload():
    p = talk(config(where=Where("place")))
    assert passes(p)
    context = p.manager.chain.filters[0]._context
    left = [
        Limiter(config(tokens, where=Where(place)), context).buckets.default.remaining(p.loop.now)
        for tokens, place in ((1, "place"), (2, "place"), (1, "elsewhere"))
    ]
    assert left == [0, 2, 1]
