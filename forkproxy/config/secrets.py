"""What a configuration keeps secret, and how it stays out of messages, which logs and the admin port show.

The inline contents of the fields below, as Envoy redacts them in /config_dump; and anything in a source line that could be
part of a key.
"""

from __future__ import annotations

import re

SECRET_FIELDS = ("private_key", "password", "pkcs12", "session_ticket_keys", "generic_secret")

REDACTED = "[redacted]"

_FIELD = "(?:" + "|".join(SECRET_FIELDS) + ")"
_SECRET_PATH = re.compile(rf"(?:^|\.){_FIELD}(?:\[\d+\])?(?:\.|$)")
_FIELD_IN_LINE = re.compile(rf"\b{_FIELD}\b")
_INLINE = re.compile(r"""(\binline_(?:string|bytes)["']?\s*:\s*)\S.*""", re.S)
_OF_A_KEY = re.compile(r"(\s*)[A-Za-z0-9+/]{40,}={0,2}\s*")


def is_secret(path: str) -> bool:
    """Whether the field named ``path`` is a secret, or part of one."""
    return _SECRET_PATH.search(path) is not None


def without_value(path: str, message: str, hint: str) -> tuple[str, str]:
    """Message and hint about a field, less what they quote of it when it is a secret."""
    if not is_secret(path) or ", not " not in message:
        return message, hint
    return message.partition(", not ")[0], ""


def masked(path: str, line: str) -> str:
    """The source line of a problem with ``path``, as it may be shown."""
    if is_secret(path) or _FIELD_IN_LINE.search(line):
        line = _INLINE.sub(rf"\1{REDACTED}", line)
    of_a_key = _OF_A_KEY.fullmatch(line)
    return of_a_key[1] + REDACTED if of_a_key else line
