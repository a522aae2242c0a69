"""%START_TIME% and its kin: an instant as text, by Envoy's time formats.

Specifiers: those of strftime; ``%s`` seconds since the epoch; ``%1f`` to ``%9f`` and ``%f`` (nine) digits of the
second's fraction; ``%E3S`` and ``%E*S`` seconds with a fraction; ``%Ez`` and ``%:z`` the offset with a colon;
``%E4Y``. What is none of these is copied as it stands.

All but the fraction changes once a second, so it is kept until the second changes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

TimeFormat = Callable[[float], bytes]

DEFAULT = "%Y-%m-%dT%H:%M:%S.%3fZ"
DEFAULT_LOCAL = "%Y-%m-%dT%H:%M:%S.%3f%z"

_SPECIFIER = re.compile(r"%(E(?:\d|\*)S|\d?[fs]|E4Y|Ez|:z|.)", re.DOTALL)
_STRFTIME = frozenset("aAbBcdDeFgGhHIjklmMnprRStTuUVwWxXyYzZC%")


def _pieces(text: str) -> list[str | int]:
    """Strings to format once a second, and between them the numbers of digits of a fraction (0: as many as it
    needs).
    """
    pieces: list[str | int] = [""]

    def add(second: str) -> None:
        pieces[-1] = str(pieces[-1]) + second

    end = 0
    for found in _SPECIFIER.finditer(text):
        add(text[end : found.start()].replace("%", "%%"))
        end = found.end()
        specifier = found[1]
        if specifier.endswith("f"):
            pieces += [int(specifier[:-1] or 9) or 9, ""]
        elif specifier == "E4Y":
            add("%Y")
        elif specifier.startswith("E") and specifier.endswith("S"):
            digits = specifier[1:-1]
            if digits == "0":
                add("%S")
            else:
                add("%S.")
                pieces += [0 if digits == "*" else int(digits), ""]
        elif specifier in ("Ez", ":z"):
            add("\0")
        elif specifier.endswith("s"):
            add("%s")  # Envoy takes a number of digits here too, and ignores it
        elif specifier in _STRFTIME:
            add("%" + specifier)
        else:
            add("%%" + specifier)
    add(text[end:].replace("%", "%%"))
    return pieces


def _second_text(piece: str, second: int, local: bool) -> bytes:
    moment = time.localtime(second) if local else time.gmtime(second)
    offset = f"{moment.tm_gmtoff // 3600:+03d}{moment.tm_gmtoff // 60 % 60:02d}" if local else "+0000"
    # What the C library would take from the process's time zone is put in by hand.
    replaced = re.sub(
        r"%[%szZ]|\0",
        lambda found: {
            "%%": "%%",
            "%s": str(second),
            "%z": offset,
            "%Z": moment.tm_zone if local else "UTC",
            "\0": f"{offset[:3]}:{offset[3:]}",
        }[found[0]],
        piece,
    )
    return time.strftime(replaced, moment).encode()


def compile_time(text: str, *, local: bool = False) -> TimeFormat:
    """From seconds since the epoch to the text that the format ``text`` asks for."""
    pieces = _pieces(text)
    seconds = [piece for piece in pieces if isinstance(piece, str)]
    digits = [piece for piece in pieces if isinstance(piece, int)]
    cached_second = -1
    cached: list[bytes] = []

    def render(second: int) -> list[bytes]:
        nonlocal cached_second, cached
        cached = [_second_text(piece, second, local) for piece in seconds]
        cached_second = second
        return cached

    if not digits:

        def whole_seconds(moment: float) -> bytes:
            second = int(moment)
            return (cached if second == cached_second else render(second))[0]

        return whole_seconds
    if digits == [3]:

        def milliseconds(moment: float) -> bytes:
            second = int(moment)
            before, after = cached if second == cached_second else render(second)
            return b"%b%03d%b" % (before, (moment - second) * 1000, after)

        return milliseconds

    def any_fraction(moment: float) -> bytes:
        second = int(moment)
        texts = cached if second == cached_second else render(second)
        # A float of today's seconds is good to a quarter of a microsecond: rounded, not cut.
        fraction = b"%06d000" % min((moment - second) * 1_000_000 + 0.5, 999_999)
        parts = [texts[0]]
        for count, following in zip(digits, texts[1:], strict=True):
            part = fraction[:count] if count else fraction[:6].rstrip(b"0")
            if not part:
                parts[-1] = parts[-1].removesuffix(b".")
            parts += [part, following]
        return b"".join(parts)

    return any_fraction
