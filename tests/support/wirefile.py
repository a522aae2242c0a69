"""Wire files: one conversation with a codec each, as data.

    # What it shows, and where that is written.
    @ side response            the codec that reads it: request (default) or response
    @ accept_http_10 true      a setting of ServerSettings; for responses `head true`: it answers a HEAD
    > GET / HTTP/1.1\\r\\n      bytes, with Python's escapes; lines are joined without anything between
    = head GET / h end         what the codec says, in order; body pieces are joined
    ! 400 http1.codec_error    or how it refuses; `! 400` alone: with whatever details

Header lines of the connection itself (host, connection, transfer-encoding, …) are not compared: a codec may consume them.
"""

from __future__ import annotations

import ast
import dataclasses
import itertools
import pathlib
import random

CONSUMED = frozenset(
    (b"host", b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"expect", b"te")
)


@dataclasses.dataclass
class WireFile:
    """One file of the corpus."""

    name: str
    settings: dict[str, str]
    data: bytes
    expected: list[str]
    refusal: str = ""

    @property
    def side(self) -> str:
        return self.settings.get("side", "request")


def read(path: pathlib.Path) -> WireFile:
    """Parse a wire file."""
    found = WireFile(path.stem, {}, b"", [])
    for line in path.read_text().splitlines():
        mark, _, rest = line.partition(" ")
        if mark == ">":
            found.data += ast.literal_eval("b'" + rest.replace("'", "\\'") + "'")
        elif mark == "@":
            name, _, value = rest.partition(" ")
            found.settings[name] = value
        elif mark == "=":
            found.expected.append(rest)
        elif mark == "!":
            found.refusal = rest
        elif mark not in ("#", ""):
            raise ValueError(f"{path}: what is {line!r}?")
    return found


def escape(data: bytes) -> str:
    """Bytes as a wire file writes them."""
    return repr(data)[2:-1].replace("\\'", "'") if b'"' in data or b"'" not in data else repr(data)[2:-1]


class Transcript:
    """Both codec sinks: writes down what it is told, one line each, body pieces joined."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.codec = None
        self._body = b""

    def flush(self) -> None:
        """Write the body so far."""
        if self._body:
            self.lines.append("body " + escape(self._body))
            self._body = b""

    def head(self, line: str, headers: list[tuple[bytes, bytes]], end_stream: bool) -> None:
        self.lines.append(line + (" end" if end_stream else ""))
        self.lines += [f"header {escape(n)}: {escape(v)}" for n, v in headers if n not in CONSUMED]

    def decode_data(self, data: bytes) -> None:
        self._body += data

    def decode_complete(self, trailers: list[tuple[bytes, bytes]] | None) -> None:
        self.flush()
        self.lines += [f"trailer {escape(n)}: {escape(v)}" for n, v in trailers or []]
        self.lines.append("end")


class RequestTranscript(Transcript):
    """What a server codec says."""

    def decode_headers(self, end_stream: bool) -> None:
        codec = self.codec
        line = f"head {escape(codec.method)} {escape(codec.path)} {escape(codec.authority) if codec.has_host else '-'}"
        self.head(line, codec.headers, end_stream)


class ResponseTranscript(Transcript):
    """What a client codec says."""

    def decode_interim(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.head(f"interim {status}", headers, False)

    def decode_headers(self, status: int, headers: list[tuple[bytes, bytes]], end_stream: bool) -> None:
        self.head(f"head {status}", headers, end_stream)


def cuts(data: bytes, seed: int) -> dict[str, list[bytes]]:
    """The ways to feed `data`: whole, byte by byte, cut at random places."""
    chance = random.Random(seed)
    places = (
        sorted(chance.sample(range(1, len(data)), min(len(data) - 1, chance.randint(1, 9)))) if len(data) > 1 else []
    )
    bounds = [0, *places, len(data)]
    return {
        "whole": [data],
        "bytes": [data[i : i + 1] for i in range(len(data))],
        f"random, seed {seed}": [data[a:b] for a, b in itertools.pairwise(bounds)],
    }
