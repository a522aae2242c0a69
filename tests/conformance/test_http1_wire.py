"""The HTTP/1 codecs on a corpus of messages, each fed whole, byte by byte, and cut at random."""

from __future__ import annotations

import pathlib
import random

import pytest

from tests.support import wirefile

http1 = pytest.importorskip("forkproxy.http.http1")
codec = pytest.importorskip("forkproxy.http.codec")

CORPUS = pathlib.Path(__file__).parent / "http1"
FILES = sorted(CORPUS.glob("*/*.wire"))


def transcript(file, pieces):
    """Feed `pieces`; returns what the codec said and how it refused."""
    settings = {name: value for name, value in file.settings.items() if name not in ("side", "head", "close")}
    if file.side == "request":
        sink = wirefile.RequestTranscript()
        typed = {
            name: value == "true" if value in ("true", "false") else value.encode() for name, value in settings.items()
        }
        subject = http1.ServerCodec(sink, http1.ServerSettings(**typed))
    else:
        sink = wirefile.ResponseTranscript()
        subject = http1.ClientCodec(sink)
        subject.enable_trailers = settings.get("enable_trailers") == "true"
        subject.expect(file.settings.get("head") == "true")
    sink.codec = subject
    refusal = ""
    try:
        for piece in pieces:
            subject.feed(piece)
        if file.settings.get("close") == "true" and not subject.finish():
            sink.flush()
            sink.lines.append("cut off")
    except codec.CodecError as error:
        # Whatever an upstream does wrong is a 502 to the downstream: the pool sees to the status.
        refusal = f"{502 if file.side == 'response' else error.status} {error.details}"
    sink.flush()
    if file.side == "response" and subject.unsolicited:
        sink.lines.append("unsolicited")
        refusal = ""
    subject.close()
    return sink.lines, refusal


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_wire(path):
    file = wirefile.read(path)
    ways = wirefile.cuts(file.data, random.randrange(10**9))
    results = {way: transcript(file, pieces) for way, pieces in ways.items()}
    for way, (lines, refusal) in results.items():
        assert bool(refusal) == bool(file.refusal), way
        if way == "whole":
            # In pieces the parser may refuse before the codec can tell why: then only that it refuses counts.
            assert refusal.startswith(file.refusal)
        if not refusal or file.expected:
            assert lines == file.expected, way


def test_corpus_is_there():
    assert len(FILES) > 100
