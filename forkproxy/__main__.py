"""``python -m forkproxy``."""

from __future__ import annotations

from forkproxy.cli import main

if __name__ == "__main__":
    main()
