"""Filters as a third party would bring them, named "module:Class" in a configuration."""

from __future__ import annotations

from forkproxy.config.problems import ConfigError
from forkproxy.http.filter import HttpFilter
from forkproxy.net.filter import NetworkFilter


class AddsHeader(HttpFilter):
    def __init__(self, config, context):
        self.name, self.value = config["name"].encode(), config["value"].encode()
        self.context = context
        self.prefix, self.where = context.stat_prefix, context.where
        self.life = []

    @classmethod
    def from_config(cls, config, context):
        return cls(config, context)

    def start(self, worker):
        self.life.append(("start", worker.slot))

    def stop(self):
        self.life.append("stop")

    def decode_headers(self, stream, headers, end_stream):
        headers.append((self.name, self.value))


class LastHttp(HttpFilter):
    terminal = True


class Upper(NetworkFilter):
    direction = "READ_WRITE"

    def on_data(self, connection, data, end_stream):
        return data.upper()

    def on_write(self, connection, data, end_stream):
        return data.lower()


class Last(NetworkFilter):
    terminal = True


class Writes(NetworkFilter):
    """Says READ, but overrides on_write."""

    def on_write(self, connection, data, end_stream):
        return None


class Refuses(HttpFilter):
    @classmethod
    def from_config(cls, config, context):
        where = context.where
        raise ConfigError(where.path, where.line, where.column, "I will not", "")


NOT_A_CLASS = 3
