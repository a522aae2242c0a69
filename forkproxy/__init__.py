"""forkproxy: an Envoy-compatible proxy in Python, one pinned process per CPU."""

__version__ = "0.1.0"
