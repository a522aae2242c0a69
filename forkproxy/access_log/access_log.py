"""One configured access log: filter → format → sink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from forkproxy.access_log.filters import Compilers, compile_filter
from forkproxy.access_log.formatter import DEFAULT_FORMAT, Format, compile_json, compile_text
from forkproxy.config.build.access_log import AccessLogConfig

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream


class Sink(Protocol):
    """Takes finished lines."""

    def write(self, line: bytes) -> None:
        """One line, with its line end."""


class AccessLog:
    """Writes one line per stream that passes the filter. ``log(stream)`` is called when the stream is complete.

    ``compilers`` are the router's; ``static`` has the values of the operators that belong to the log's place:
    FILTER_CHAIN_NAME, LISTENER_NAME, ACCESS_LOG_TYPE ("DownstreamEnd" when not given). Raises ConfigError.
    """

    __slots__ = ("config", "format", "log", "sink")

    def __init__(
        self,
        config: AccessLogConfig,
        sink: Sink,
        *,
        compilers: Compilers,
        static: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.sink = sink
        place = {"ACCESS_LOG_TYPE": "DownstreamEnd", **(static or {}), "formatters": config.formatters}
        self.format = compile_format(config, place)
        write, render = sink.write, self.format
        self.log: Callable[[Stream], None]
        if config.filter is None:
            self.log = lambda stream: write(render(stream))
            return
        passes = compile_filter(config.filter, config.where, compilers, place["ACCESS_LOG_TYPE"])

        def log(stream: Stream) -> None:
            if passes(stream):
                write(render(stream))

        self.log = log

    def __repr__(self) -> str:
        return f"<AccessLog to {self.sink!r}>"


def compile_format(config: AccessLogConfig, static: Mapping[str, Any]) -> Format:
    """The line of an access log."""
    if config.json_format is not None:
        return compile_json(
            config.json_format, config.where, omit_empty_values=config.omit_empty_values,
            sort_properties=config.sort_properties, static=static,
        )  # fmt: skip
    text = config.text_format if config.text_format is not None else DEFAULT_FORMAT
    return compile_text(text, config.where, omit_empty_values=config.omit_empty_values, static=static)
