"""TCP: tcp_proxy, and the network filters that answer by themselves."""

from __future__ import annotations

from tests.support.exchange import Exchange, Gap, HalfClose, ReadToEnd, ReadUntil, Reset, UpstreamHas
from tests.support.upstream import Close, Hang, Until
from tests.support.upstream import Gap as UpstreamGap
from tests.support.upstream import HalfClose as UpstreamHalfClose
from tests.support.upstream import Reset as UpstreamReset


def tcp(
    name: str, *send: object, answers: tuple[object, ...] = (Hang(),), listener: str = "main", **more: object
) -> Exchange:
    """A conversation on a TCP listener."""
    options = {"responses": 0, "config": "tcp", "listener": listener, **more}
    return Exchange(name, send, (answers,), **options)  # type: ignore[arg-type]


EXCHANGES = [
    tcp("tcp both ways", b"hello", ReadUntil(b"bye"), answers=(Until(b"hello"), b"bye", Hang())),
    tcp(
        "tcp upstream speaks first", ReadUntil(b"banner"), b"hello", UpstreamHas(b"hello"), answers=(b"banner", Hang())
    ),
    tcp(
        "tcp downstream half-closes",
        b"hello",
        HalfClose(),
        ReadToEnd(),
        answers=(Until(b"hello"), UpstreamGap(0.1), b"late", Close()),
    ),
    tcp(
        "tcp upstream half-closes",
        ReadUntil(b"first"),
        Gap(0.1),
        b"late",
        UpstreamHas(b"late"),
        HalfClose(),
        ReadToEnd(),
        answers=(b"first", UpstreamHalfClose(), Hang()),
    ),
    tcp("tcp upstream closes", ReadUntil(b"bye"), ReadToEnd(), answers=(b"bye", Close())),
    tcp("tcp upstream resets", b"hello", ReadToEnd(), answers=(Until(b"hello"), UpstreamReset())),
    tcp("tcp downstream resets", b"hello", UpstreamHas(b"hello"), Reset()),
    tcp("tcp downstream sends nothing and leaves", HalfClose(), ReadToEnd()),
    tcp(
        "tcp large both ways",
        b"x" * 1_000_000,
        UpstreamHas(b"x" * 1_000_000),
        ReadToEnd(),
        answers=(Until(b"x" * 1_000_000), b"y" * 1_000_000, Close()),
    ),
    tcp("tcp connect refused", ReadToEnd(), listener="tcp_refused"),
    tcp("tcp no healthy upstream", ReadToEnd(), listener="tcp_empty"),
    tcp("tcp unknown cluster", ReadToEnd(), listener="tcp_unknown"),
    tcp("tcp idle", b"hello", UpstreamHas(b"hello"), ReadToEnd(), listener="tcp_idle"),
    tcp("echo", b"hello", ReadUntil(b"hello"), b"again", ReadUntil(b"again"), listener="echo", log_lines=0),
    tcp("echo half-close", b"hello", ReadUntil(b"hello"), HalfClose(), ReadToEnd(), listener="echo", log_lines=0),
    tcp("tcp direct response", ReadToEnd(), listener="direct", log_lines=0),
    tcp("direct response, sending", b"hello", ReadToEnd(), listener="direct", log_lines=0),
]
