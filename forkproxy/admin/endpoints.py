"""The table of admin paths: what each is for, its query parameters, and whether it changes anything."""

from __future__ import annotations

from forkproxy.config.values import frozen


@frozen
class Parameter:
    """One query parameter. ``choices``: the values it may have, the default first; empty means any text, None a mere flag."""

    name: str
    help: str
    choices: tuple[str, ...] | None = ()


@frozen
class AdminEndpoint:
    """One path. ``mutates``: only POST may call it. ``wants_figures``: workers flush their statistics before it is answered."""

    path: str
    help: str
    parameters: tuple[Parameter, ...] = ()
    mutates: bool = False
    wants_figures: bool = False


_FILTER = Parameter("filter", "regular expression (RE2) that a name must contain")
_USED_ONLY = Parameter("usedonly", "only statistics that were ever written", None)
_INVERT = Parameter("invert_filter", "names that do not match the filter", None)

ENDPOINTS: tuple[AdminEndpoint, ...] = (
    AdminEndpoint("/", "Admin home page"),
    AdminEndpoint("/certs", "certificates in use"),
    AdminEndpoint(
        "/clusters",
        "upstream clusters and their endpoints",
        (
            Parameter("filter", "regular expression (RE2) that a cluster's name must contain"),
            Parameter("format", "how to write it", ("text", "json")),
        ),
        wants_figures=True,
    ),
    AdminEndpoint(
        "/config_dump",
        "configuration in force, as version 3",
        (
            Parameter("resource", "only this list, such as static_clusters"),
            Parameter("mask", "only these fields: paths with dots, separated by commas"),
            Parameter("name_regex", "only what has a name that matches"),
            Parameter("include_eds", "the endpoints of clusters too", None),
        ),
    ),
    AdminEndpoint(
        "/drain_listeners",
        "stop listening",
        (
            Parameter("graceful", "go on accepting for the drain time", None),
            Parameter("skip_exit", "drain connections, but go on listening", None),
            Parameter("inboundonly", "only listeners whose traffic_direction is INBOUND", None),
        ),
        mutates=True,
    ),
    AdminEndpoint("/healthcheck/fail", "let health checks fail from now on", mutates=True),
    AdminEndpoint("/healthcheck/ok", "let health checks pass again", mutates=True),
    AdminEndpoint("/help", "this list"),
    AdminEndpoint(
        "/listeners", "listeners and their addresses", (Parameter("format", "how to write it", ("text", "json")),)
    ),
    AdminEndpoint(
        "/logging",
        "show or change log levels",
        (
            Parameter(
                "level", "for all loggers", ("", "trace", "debug", "info", "warning", "error", "critical", "off")
            ),
            Parameter("paths", "for some loggers: name1:level1,name2:level2"),
        ),
        mutates=True,
    ),
    AdminEndpoint("/memory", "memory in use"),
    AdminEndpoint("/quitquitquit", "drain and exit", mutates=True),
    AdminEndpoint("/ready", "the server's state; 200 if LIVE, otherwise 503"),
    AdminEndpoint("/reopen_logs", "reopen access logs", mutates=True),
    AdminEndpoint("/reset_counters", "set all counters to zero", mutates=True, wants_figures=True),
    AdminEndpoint("/runtime", "runtime values"),
    AdminEndpoint("/server_info", "version, state and options of the server"),
    AdminEndpoint(
        "/stats",
        "statistics",
        (
            _USED_ONLY,
            _FILTER,
            _INVERT,
            Parameter("format", "how to write them", ("text", "json", "html", "prometheus")),
            Parameter("type", "which kind", ("All", "Counters", "Histograms", "Gauges", "TextReadouts")),
            Parameter("histogram_buckets", "how to show histograms", ("summary", "cumulative", "disjoint", "detailed")),
        ),
        wants_figures=True,
    ),
    AdminEndpoint(
        "/stats/prometheus",
        "statistics for Prometheus",
        (
            _USED_ONLY,
            _FILTER,
            _INVERT,
            Parameter("histogram_buckets", "how to show histograms", ("cumulative", "summary")),
        ),
        wants_figures=True,
    ),
    AdminEndpoint("/workers", "worker processes (JSON)", wants_figures=True),
)

BY_PATH = {endpoint.path: endpoint for endpoint in ENDPOINTS}


def commands_text() -> str:
    """The list that /help shows and that an unknown path is answered with."""
    lines = ["admin commands are:"]
    for endpoint in ENDPOINTS:
        lines.append(f"  {endpoint.path}{' (POST)' if endpoint.mutates else ''}: {endpoint.help}")
        for parameter in endpoint.parameters:
            choices = f"; One of ({', '.join(parameter.choices)})" if parameter.choices else ""
            lines.append(f"      {parameter.name}: {parameter.help}{choices}")
    return "\n".join(lines) + "\n"
