"""What a person sees while the benchmark runs."""

from __future__ import annotations

import sys


def progress(text: str) -> None:
    """One line that overwrites itself, only for a person who watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
