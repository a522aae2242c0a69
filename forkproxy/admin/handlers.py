"""The admin pages: a method, a path and a query in, an answer out. No sockets; what is shown comes from the AdminContext.

Paths, parameters, texts and JSON shapes are Envoy's (https://www.envoyproxy.io/docs/envoy/latest/operations/admin).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import re2

from forkproxy.admin import config_dump, page, views
from forkproxy.admin.context import LIVE, LOG_LEVELS, AdminContext
from forkproxy.admin.endpoints import BY_PATH, commands_text
from forkproxy.config.values import frozen
from forkproxy.stats import prometheus, text
from forkproxy.stats.counters import Snapshot

TEXT = "text/plain; charset=UTF-8"
JSON = "application/json"
HTML = "text/html; charset=UTF-8"

MAX_REGEX_LENGTH = 1024

V = TypeVar("V")


@frozen
class AdminResponse:
    """An answer; the server adds content-length, date and the like."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class _Refused(Exception):
    """A request that cannot be answered: its status and text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.response = _text(message, status)


def _text(body: str, status: int = 200) -> AdminResponse:
    return AdminResponse(status, TEXT, body.encode())


def _json(value: object) -> AdminResponse:
    return AdminResponse(200, JSON, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def _html(body: str) -> AdminResponse:
    return AdminResponse(200, HTML, body.encode(), (("content-security-policy", page.CONTENT_SECURITY_POLICY),))


_OK = _text("OK\n")


def parse_target(target: str) -> tuple[str, dict[str, str]]:
    """(path, query) of a request target in origin form; of a parameter that comes twice the first counts."""
    path, _, query = target.partition("#")[0].partition("?")
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, max_num_fields=100):
        found.setdefault(name, value)
    return unquote(path), found


class AdminHandlers:
    """Answers admin requests.

    ``handle`` never raises for what a request contains. Call ``wants_figures`` first: if it says so, ``context.refresh``
    lets the answer show the figures of this moment instead of those of the last flush.
    """

    def __init__(self, context: AdminContext) -> None:
        self._context = context
        self._pages: dict[str, Callable[[dict[str, str]], AdminResponse]] = {
            "/": self._home,
            "/certs": self._certs,
            "/clusters": self._clusters,
            "/config_dump": self._config_dump,
            "/drain_listeners": self._drain_listeners,
            "/healthcheck/fail": self._act(context.fail_health_check),
            "/healthcheck/ok": self._act(context.pass_health_check),
            "/help": lambda query: _text(commands_text()),
            "/listeners": self._listeners,
            "/logging": self._logging,
            "/memory": self._memory,
            "/quitquitquit": self._act(context.quit),
            "/ready": self._ready,
            "/reopen_logs": self._act(context.reopen_logs),
            "/reset_counters": self._act(context.reset_counters),
            "/runtime": self._runtime,
            "/server_info": self._server_info,
            "/stats": self._stats,
            "/stats/prometheus": self._prometheus,
            "/workers": lambda query: _json(views.workers_json(context.workers())),
        }

    @staticmethod
    def wants_figures(path: str) -> bool:
        """Whether the page at ``path`` shows statistics, so that the workers should flush theirs first."""
        endpoint = BY_PATH.get(path)
        return endpoint is not None and endpoint.wants_figures

    def handle(self, method: str, path: str, query: dict[str, str], body: bytes = b"") -> AdminResponse:
        """Answer one request. ``path`` and ``query`` are decoded (parse_target); a body is read as nothing: Envoy has no use
        for one either, except that a posted form's fields count as query parameters."""
        endpoint = BY_PATH.get(path)
        if endpoint is None:
            return _text("invalid path. " + commands_text(), 404)
        if endpoint.mutates and method != "POST":
            return _text(f"Method {method} not allowed, POST required.", 405)
        if body and endpoint.mutates:
            query = {**_form_fields(body), **query}
        try:
            return self._pages[path](query)
        except _Refused as refused:
            return refused.response

    # Small pages

    def _act(self, action: Callable[[], None]) -> Callable[[dict[str, str]], AdminResponse]:
        def run(query: dict[str, str]) -> AdminResponse:
            action()
            return _OK

        return run

    def _home(self, query: dict[str, str]) -> AdminResponse:
        return _html(page.home(self._context.version, self._context.state))

    def _ready(self, query: dict[str, str]) -> AdminResponse:
        state = self._context.state
        return _text(state + "\n", 200 if state == LIVE else 503)

    def _drain_listeners(self, query: dict[str, str]) -> AdminResponse:
        self._context.drain_listeners(
            graceful=_flag(query, "graceful"),
            skip_exit=_flag(query, "skip_exit"),
            inbound_only=_flag(query, "inboundonly"),
        )
        return _OK

    def _certs(self, query: dict[str, str]) -> AdminResponse:
        certificates = self._context.certificates()
        if certificates is None:
            return _text("this build of forkproxy cannot read certificates\n", 501)
        return _json(views.certificates_json(certificates))

    def _memory(self, query: dict[str, str]) -> AdminResponse:
        memory = self._context.memory()
        return _json(
            {
                "allocated": str(memory.allocated),
                "heap_size": str(memory.heap_size),
                "total_physical_bytes": str(memory.total_physical_bytes),
            }
        )

    def _listeners(self, query: dict[str, str]) -> AdminResponse:
        listeners = self._context.listeners()
        if query.get("format") == "json":
            return _json(views.listeners_json(listeners))
        return _text(views.listeners_text(listeners))

    def _clusters(self, query: dict[str, str]) -> AdminResponse:
        matches = _filter(query)
        clusters = [cluster for cluster in self._context.clusters() if matches is None or matches(cluster.name)]
        hidden = self._context.snapshot().hidden
        if query.get("format") == "json":
            return _json(views.clusters_json(clusters, hidden) if clusters else {})
        return _text(views.clusters_text(clusters, hidden))

    def _server_info(self, query: dict[str, str]) -> AdminResponse:
        context = self._context
        node = context.bootstrap.node
        locality = {"region": node.region, "zone": node.zone, "sub_zone": node.sub_zone}
        uptime = f"{int(context.uptime_s)}s"
        described: dict[str, object] = {"id": node.id, "cluster": node.cluster, "user_agent_name": "forkproxy"}
        if any(locality.values()):
            described["locality"] = {name: value for name, value in locality.items() if value}
        return _json(
            {
                "version": context.version,
                "state": context.state,
                "uptime_current_epoch": uptime,
                "uptime_all_epochs": uptime,
                "hot_restart_version": "disabled",
                "command_line_options": dict(context.command_line_options),
                "node": {name: value for name, value in described.items() if value},
            }
        )

    def _runtime(self, query: dict[str, str]) -> AdminResponse:
        configured = self._context.bootstrap.config_dump.get("layered_runtime")
        layers = configured.get("layers") if isinstance(configured, dict) else None
        flattened = [
            (str(layer.get("name", "")), dict(_flatten(layer.get("static_layer", {}))))
            for layer in (layers if isinstance(layers, list) else [])
        ]
        keys = sorted({key for _, values in flattened for key in values})
        entries = {}
        for key in keys:
            values = [values.get(key, "") for _, values in flattened]
            entries[key] = {"final_value": next(v for v in reversed(values) if v), "layer_values": values}
        return _json({"entries": entries, "layers": [name for name, _ in flattened]})

    # /config_dump

    def _config_dump(self, query: dict[str, str]) -> AdminResponse:
        context = self._context
        name_regex = query.get("name_regex")
        dumps = config_dump.full_dump(
            context.bootstrap.config_dump,
            config_dump.timestamp(context.config_loaded_at),
            context.clusters() if _flag(query, "include_eds") else None,
            context.last_refusal,
        )
        matches = None
        if name_regex:
            matches = _compile(
                name_regex, f"INVALID_ARGUMENT: Error while parsing name_regex from {name_regex}: ", True
            )
        try:
            selected = config_dump.select(dumps, query.get("resource"), query.get("mask"), matches)
        except config_dump.NotFoundInDump as missing:
            raise _Refused(404, str(missing)) from None
        except config_dump.BadSelection as bad:
            raise _Refused(400, str(bad)) from None
        return _json({"configs": selected} if selected else {})

    # /logging

    def _logging(self, query: dict[str, str]) -> AdminResponse:
        given = {name: value for name, value in query.items() if value}
        if len(given) > 1:
            raise _Refused(400, f"error: invalid number of parameters\n\n{self._logging_usage()}")
        for name, value in given.items():
            if name == "level":
                self._check_level(value)
                self._context.set_log_level(None, value)
            elif name == "paths":
                self._set_levels([entry.partition(":")[::2] for entry in value.split(",") if entry])
            else:
                self._set_levels([(name, value)])
        return _text(self._active_loggers())

    def _set_levels(self, wanted: list[tuple[str, str]]) -> None:
        known = self._context.log_levels()
        for logger, level in wanted:
            self._check_level(level)
            if logger not in known:
                raise _Refused(400, f"error: unknown logger name\n\n{self._logging_usage()}")
        for logger, level in wanted:
            self._context.set_log_level(logger, level)

    def _check_level(self, level: str) -> None:
        if level not in LOG_LEVELS:
            raise _Refused(400, f"error: unknown logger level\n\n{self._logging_usage()}")

    def _logging_usage(self) -> str:
        return (
            "usage: /logging?<name>=<level> (change single level)\n"
            "usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n"
            "usage: /logging?level=<level> (change all levels)\n"
            f"levels: {' '.join(LOG_LEVELS)}\n"
        ) + self._active_loggers()

    def _active_loggers(self) -> str:
        levels = self._context.log_levels()
        return "active loggers:\n" + "".join(f"  {name}: {level}\n" for name, level in sorted(levels.items())) + "\n"

    # /stats

    def _stats(self, query: dict[str, str]) -> AdminResponse:
        style = query.get("format") or "text"
        if style == "prometheus":
            return self._prometheus(query)
        if style not in ("text", "json", "html"):
            raise _Refused(400, "usage: /stats?format=(html|json|prometheus|text)\n\n")
        mode = _histogram_mode(query, text.SUMMARY)
        snapshot = self._selected(query)
        figures = {**snapshot.counters, **snapshot.gauges}
        buckets_of = self._context.histogram_buckets()
        if style == "json":
            return AdminResponse(200, JSON, text.render_json(figures, snapshot.histograms, mode, buckets_of).encode())
        rendered = text.render_text(figures, snapshot.histograms, mode, buckets_of)
        return _html(page.stats(rendered)) if style == "html" else _text(rendered)

    def _prometheus(self, query: dict[str, str]) -> AdminResponse:
        mode = _histogram_mode(query, text.CUMULATIVE)
        if mode not in (text.CUMULATIVE, text.SUMMARY):
            raise _Refused(400, "unsupported prometheus histogram bucket mode")
        found = self._selected(query)
        context = self._context
        rendered = prometheus.render(
            found.counters,
            found.gauges,
            found.histograms,
            extractor=context.tag_extractor(),
            buckets_of=context.histogram_buckets(),
            summaries=mode == text.SUMMARY,
        )
        return _text(rendered)

    def _selected(self, query: dict[str, str]) -> Snapshot:
        """The statistics that ``type``, ``filter``, ``invert_filter`` and ``usedonly`` leave."""
        kind = query.get("type") or "All"
        if kind not in ("All", "Counters", "Gauges", "Histograms", "TextReadouts"):
            raise _Refused(400, "invalid &type= param")
        matches = _filter(query)
        if matches is not None and _flag(query, "invert_filter"):
            wanted = matches
            matches = lambda name: not wanted(name)  # noqa: E731 (two names for one test would say less)
        hidden = query.get("hidden") or "exclude"
        if hidden not in ("include", "only", "exclude"):
            raise _Refused(400, "usage: /stats?hidden=(include|only|exclude)\n\n")
        self._context.before_statistics()
        if hidden == "only":
            return Snapshot()  # there are none
        used_only = _flag(query, "usedonly")
        everything = self._context.snapshot()
        selected = Snapshot()
        used = everything.used.__contains__ if used_only else None
        if kind in ("All", "Counters"):
            selected.counters = _kept(everything.counters, matches, used)
        if kind in ("All", "Gauges"):
            selected.gauges = _kept(everything.gauges, matches, used)
        if kind in ("All", "Histograms"):
            recorded = {name for name, pair in everything.histograms.items() if pair.used}
            selected.histograms = _kept(everything.histograms, matches, recorded.__contains__ if used_only else None)
        return selected


def _histogram_mode(query: Mapping[str, str], default: str) -> str:
    mode = query.get("histogram_buckets") or "none"
    if mode == "prometheusnative":
        raise _Refused(400, "unsupported prometheusnative histogram type when not using protobuf exposition format")
    if mode not in (text.SUMMARY, text.CUMULATIVE, text.DISJOINT, text.DETAILED, "none"):
        raise _Refused(400, "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n")
    return default if mode == "none" else mode


def _kept(
    values: Mapping[str, V], matches: Callable[[str], bool] | None, is_used: Callable[[str], bool] | None
) -> dict[str, V]:
    return {
        name: value
        for name, value in values.items()
        if (matches is None or matches(name)) and (is_used is None or is_used(name))
    }


def _flag(query: Mapping[str, str], name: str) -> bool:
    """A parameter that is there counts as set, whatever it says, as in Envoy."""
    return name in query


def _filter(query: Mapping[str, str]) -> Callable[[str], bool] | None:
    """The test for ``?filter=``, anywhere in the name."""
    pattern = query.get("filter")
    return _compile(pattern, "Invalid re2 regex: ", False) if pattern else None


def _compile(pattern: str, complaint: str, whole: bool) -> Callable[[str], bool]:
    options: Any = re2.Options()
    options.log_errors = False
    if len(pattern) > MAX_REGEX_LENGTH:
        raise _Refused(400, f"{complaint}longer than {MAX_REGEX_LENGTH} characters")
    try:
        compiled: Any = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        raise _Refused(
            400, complaint + (reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason))
        ) from None
    search = compiled.fullmatch if whole else compiled.search
    return lambda name: search(name) is not None


def _form_fields(body: bytes) -> dict[str, str]:
    try:
        return parse_target("?" + body.decode())[1]
    except ValueError:
        return {}


def _flatten(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """A runtime layer's nested keys, joined by dots, with values as Envoy prints them."""
    if not isinstance(value, dict):
        return [(prefix, str(value).lower() if isinstance(value, bool) else str(value))]
    found: list[tuple[str, str]] = []
    for key, inner in value.items():
        found += _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return found
