"""Path normalisation: RFC 3986 dot segments and unreserved escapes, slash merging, escaped slashes; as Envoy does them."""

from __future__ import annotations

import re

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPED_SLASH = re.compile(rb"%(?:2[fF]|5[cC])")
_SLASHES = re.compile(rb"/{2,}")


def _unescape_unreserved(path: bytes) -> bytes:
    def replace(match: re.Match[bytes]) -> bytes:
        code = int(match[1], 16)
        return bytes((code,)) if code in _UNRESERVED else match[0]

    return _ESCAPE.sub(replace, path)


def _remove_dot_segments(path: bytes) -> bytes:
    out: list[bytes] = []
    segments = path.split(b"/")[1:]
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == b"..":
            if out:
                out.pop()
            if last:
                out.append(b"")
        elif segment == b".":
            if last:
                out.append(b"")
        else:
            out.append(segment)
    return b"/" + b"/".join(out)


def normalise_path(path: bytes, normalize: bool, merge: bool, escaped_slashes: str) -> tuple[str, bytes]:
    """(outcome, path with its query): outcome is "ok", "redirect" (to the path returned) or "reject".

    ``escaped_slashes``: Envoy's PathWithEscapedSlashesAction.
    """
    raw, mark, query = path.partition(b"?")
    redirect = False
    if escaped_slashes not in ("KEEP_UNCHANGED", "IMPLEMENTATION_SPECIFIC_DEFAULT"):
        unescaped = _ESCAPED_SLASH.sub(lambda match: b"/" if match[0][1:2] == b"2" else b"\\", raw)
        if unescaped != raw:
            if escaped_slashes == "REJECT_REQUEST":
                return "reject", unescaped + mark + query
            redirect = escaped_slashes == "UNESCAPE_AND_REDIRECT"
            raw = unescaped
    if normalize and b"%00" in raw:
        return "reject", path
    if normalize:
        raw = _remove_dot_segments(_unescape_unreserved(raw.replace(b"\\", b"/")))
    if merge:
        raw = _SLASHES.sub(b"/", raw) if raw.strip(b"/") or len(raw) < 2 else b"//"  # Envoy keeps an empty segment
    return ("redirect" if redirect else "ok"), raw + mark + query
