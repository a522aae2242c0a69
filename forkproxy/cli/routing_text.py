"""What ``forkproxy route`` prints: the way of the request in a column, then what came near and was not taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from forkproxy.cli.columns import Line, columns
from forkproxy.router.explain import quoted

Json = dict[str, Any]

_ENDPOINTS_SHOWN = 3
_TAKEN = " ← taken"


def text(found: Json, filename: str, style: Callable[[str, str], str]) -> str:
    """The whole answer. ``style(text, colour)`` colours where that is welcome."""
    head = f"{found['method']} {_url(found)}"
    lines: list[Line] = [Line(style(head, "bold"))]
    lines += [Line(f"  {header}") for header in found["headers"]]
    if found["note"]:
        lines.append(Line(found["note"]))
    for listener in found["listeners"]:
        lines += [Line(), *_Text(listener, style).lines()]
    if found["listeners_not_asked"]:
        lines += [Line(), Line("listeners that it does not arrive at")]
        lines += [Line(f"  {each['name']}", each["why"], each["place"]) for each in found["listeners_not_asked"]]
    if not found["listeners"]:
        lines += [Line(), Line(style("no listener takes it", "red"))]
    return columns(lines, filename, style)


def _url(found: Json) -> str:
    scheme = f"{found['scheme']}://" if found["scheme"] else ""
    target: str = found["target"]
    return target if found["host"] == target else f"{scheme}{found['host']}{target}"


def percent(share: float) -> str:
    """A share as in 12.5%."""
    return f"{share * 100:.4g}%"


class _Text:
    """One listener's part."""

    def __init__(self, found: Json, style: Callable[[str, str], str]) -> None:
        self.found = found
        self.style = style

    def lines(self) -> Iterator[Line]:
        found = self.found
        yield Line("listener", f"{found['name']}, {found['address']}", found["place"])
        chain = found["filter_chain"]
        if chain is not None:
            yield Line("filter chain", _chain(chain), chain["place"])
        yield from self._manager(found.get("manager"))
        if "outcome" in found:
            yield Line("", self.style(found["outcome"], "green" if found["taken"] else "red"))
        yield from self._tcp(found.get("tcp_proxy"))
        if "outcomes" in found:
            yield from self._routes(found)
        if found["filter_chains_not_taken"]:
            yield Line()
            yield Line("filter chains not taken")
            for other in found["filter_chains_not_taken"]:
                yield Line(f"  {_chain_name(other)}", "; ".join(other["why"]), other["place"])

    def _manager(self, manager: Json | None) -> Iterator[Line]:
        if manager is None:
            return
        changes = [manager["path"], manager["host"], manager["headers_changed"], manager["headers_removed"]]
        matters = any(changes) or "outcome" in self.found
        settings = f" ({', '.join(manager['settings'])})" if manager["settings"] and matters else ""
        yield Line("manager", f"{manager['stat_prefix']}{settings}", manager["place"])
        for what in ("path", "host"):
            if manager[what] is not None:
                yield Line(f"  {what}", _change(manager[what]))
        for change in manager["headers_changed"]:
            yield Line(f"  {change['name']}", _change(change))
        if manager["headers_removed"]:
            yield Line("  removed", ", ".join(manager["headers_removed"]))

    def _tcp(self, proxy: Json | None) -> Iterator[Line]:
        if proxy is None:
            return
        yield Line("tcp_proxy", proxy["stat_prefix"], proxy["place"])
        for each in proxy["clusters"]:
            share = f"{_weight(each)} " if len(proxy["clusters"]) > 1 else ""
            is_taken = each.get("chosen", True)
            yield Line(
                "cluster", self._taken(share + _cluster(each["cluster"]), is_taken), each["cluster"].get("place")
            )

    def _taken(self, text: str, is_taken: bool) -> str:
        return self.style(text, "green") if is_taken else text

    def _routes(self, found: Json) -> Iterator[Line]:
        host = found["virtual_host"]
        if host is None:
            what = f"the header {found['vhost_header']}" if found["vhost_header"] else "this host"
            yield Line("virtual host", self.style(f"none has a domain for {what}: 404", "red"))
        else:
            by = f", which is the header {found['vhost_header']}'s" if found["vhost_header"] else ""
            domain = f"by its domain {quoted(host['domain'])}{by}"
            yield Line("virtual host", f"{host['name']}, {domain}", host["place"])
            yield from self._outcomes(found["outcomes"], host["routes"])
        for hint in found["hints"]:
            yield Line("  hint", hint)
        yield from self._not_taken(found)
        if found["virtual_hosts_not_taken"]:
            yield Line()
            yield Line("virtual hosts not taken")
            for other in found["virtual_hosts_not_taken"]:
                yield Line(f"  {other['name']}", f"{quoted(other['domain'])} {other['why']}", other["place"])
        if host is None:
            near = bool(found["virtual_hosts_not_taken"])
            yield from self._left_out(found["virtual_hosts_left_out"], "virtual host", near)

    def _outcomes(self, outcomes: Sequence[Json], of: int) -> Iterator[Line]:
        some_chosen = any(outcome["chosen"] for outcome in outcomes)
        shown: Json | None = None
        for outcome in outcomes:
            route = outcome["route"]
            is_taken = outcome["chosen"] or not some_chosen
            if route is None:
                share = "" if len(outcomes) == 1 else f"{percent(outcome['share'])} of such requests: "
                mark = _TAKEN if outcome["chosen"] and share else ""
                said = f"{share}none of {of} matches: 404{mark}"
                yield Line("route", self.style(said, "red" if is_taken else "dim"))
                continue
            if shown is None or shown["number"] != route["number"]:
                shown = route
                yield Line("route", _route(route, of, outcomes), route["place"])
            yield from self._action(outcome, is_taken, some_chosen, _TAKEN if some_chosen and len(outcomes) > 1 else "")

    def _action(self, outcome: Json, is_taken: bool, some_chosen: bool, mark: str) -> Iterator[Line]:
        action = outcome["action"]
        mark = mark if is_taken else ""
        weight = f"{_weight(outcome)} " if "weight" in outcome else ""
        kind = action["kind"]
        if kind == "redirect":
            yield Line("redirect", self._taken(f"{action['status']} to {action['location']}{mark}", is_taken))
        elif kind == "direct_response":
            body = f", {quoted(action['body'])}" if action["body"] else ""
            yield Line("answer", self._taken(f"{action['status']}{body}{mark}", is_taken))
        elif kind == "route":
            cluster = action["cluster"]
            colour = "green" if cluster["exists"] else "red"
            said = f"{weight}{_cluster(cluster)}{mark}"
            yield Line("cluster", self.style(said, colour if is_taken else "dim"), cluster.get("place"))
            if is_taken:
                yield from self._forwarding(action)
        else:
            yield Line("action", self._taken(kind + mark, is_taken))
        if is_taken and (some_chosen or "weight" not in outcome):
            yield from self._filters(outcome.get("filters", ()))

    def _forwarding(self, action: Json) -> Iterator[Line]:
        for what in ("path", "host"):
            if action[what] is not None:
                yield Line(f"  {what}", _change(action[what]))
        if action["auto_host_rewrite"]:
            yield Line("  host", "the host name of the endpoint (auto_host_rewrite)")
        said = [seconds(action["timeout_s"]) if action["timeout_s"] is not None else "none"]
        if action["idle_timeout_s"] is not None:
            said.append(f"idle {seconds(action['idle_timeout_s'])}")
        retries = action["retries"]
        if retries is not None and retries["retry_on"]:
            times = "1 retry" if retries["num_retries"] == 1 else f"{retries['num_retries']} retries"
            said.append(f"{times} on {', '.join(retries['retry_on'])}")
        if retries is not None and retries["per_try_timeout_s"] is not None:
            said.append(f"{seconds(retries['per_try_timeout_s'])} per try")
        if action["priority"] != "DEFAULT":
            said.append(f"priority {action['priority']}")
        if action["max_stream_duration_s"] is not None:
            said.append(f"{seconds(action['max_stream_duration_s'])} at most for the stream")
        if action["hedges"]:
            said.append("hedged")
        yield Line("  timeout", ", ".join(said))
        if action["follows_redirects"]:
            yield Line("  redirects", "of the upstream may be followed here (internal_redirect_policy)")
        if action["mirrors"]:
            yield Line("  mirrored", f"to {', '.join(map(_mirror, action['mirrors']))}")

    def _filters(self, filters: Iterable[Json]) -> Iterator[Line]:
        names = []
        for each in filters:
            marks = ["off here"] if each["off"] else ["configured here"] if each["configured_here"] else []
            names.append(f"{each['name']} ({marks[0]})" if marks else each["name"])
        if len(names) > 1:
            yield Line("  filters", ", ".join(names))

    def _not_taken(self, found: Json) -> Iterator[Line]:
        rows, left_out = found["routes_not_taken"], found["routes_left_out"]
        if rows:
            yield Line()
            yield Line("routes not taken")
        for row in rows:
            yield Line(f"  {_number(row)}", "; ".join(_reasons(row)), row["place"])
        yield from self._left_out(left_out, "route", bool(rows))

    def _left_out(self, number: int, what: str, after_others: bool) -> Iterator[Line]:
        if number:
            more = "more " if after_others else ""
            do = f"{what} does" if number == 1 else f"{what}s do"
            yield Line("", self.style(f"{number} {more}{do} not match (--all lists them)", "dim"))


def _chain_name(chain: Json) -> str:
    number = "default" if chain["number"] is None else str(chain["number"] + 1)
    return f"{number} {chain['name']}".rstrip()


def _chain(chain: Json) -> str:
    name = f" {chain['name']}" if chain["name"] else ""
    tls = ", TLS" if chain["tls"] else ""
    if chain["number"] is None:
        return f"the default one{name}{tls}: no other matches"
    return f"{chain['number'] + 1} of {chain['of']}{name}{tls}: {chain['why']}"


def _change(change: Json) -> str:
    return f"{change['before'] or quoted('')} → {change['after'] or quoted('')}"


def _weight(each: Json) -> str:
    weight, total = each["weight"]
    by = f", by {each['weight_by']}" if each.get("weight_by") else ""
    return f"{percent(weight / total)} (weight {weight} of {total}{by})"


def _cluster(cluster: Json) -> str:
    by = f" (the header {cluster['by_header']})" if "by_header" in cluster else ""
    if not cluster["exists"]:
        status = f": {cluster['status']}" if "status" in cluster else ""
        name = quoted(cluster["name"]) if cluster["name"] else "none"
        return f"{name}{by}, which does not exist{status}" if cluster["name"] else f"none{by}{status}"
    endpoints = cluster["endpoints"]
    shown = ", ".join(endpoints[:_ENDPOINTS_SHOWN])
    if len(endpoints) > _ENDPOINTS_SHOWN:
        shown += f" and {len(endpoints) - _ENDPOINTS_SHOWN} more"
    tls = ", TLS" if cluster["tls"] else ""
    where = f" to {shown}" if shown else ""
    return f"{cluster['name']}{by}: {cluster['type']}, {cluster['lb_policy']}{tls}{where}"


def _mirror(mirror: Json) -> str:
    by = f" (the header {mirror['by_header']})" if mirror["by_header"] else ""
    share = f", {percent(mirror['share'])}" if mirror["share"] < 1 else ""
    return f"{mirror['cluster'] or 'none'}{by}{share}"


def _number(route: Json) -> str:
    number = f"{route['number'] + 1}" if route["number"] is not None else ""
    return f"{number} {route['name']}".strip()


def _route(route: Json, of: int, outcomes: Sequence[Json]) -> str:
    wants = ", ".join(route["wants"])
    if route["number"] is None:
        return f"{wants}: plain text is redirected"
    name = f" {route['name']}" if route["name"] else ""
    share = sum(outcome["share"] for outcome in outcomes if (outcome["route"] or {}).get("number") == route["number"])
    chance = f"; {percent(share)} of such requests" if share < 1 - 1e-9 else ""
    return f"{route['number'] + 1} of {of}{name}: {wants}{chance}"


def _reasons(row: Json) -> Iterator[str]:
    for why in row["why"]:
        got = f", but {why['got']}" if why["got"] else ""
        hint = f" ({why['hint']})" if why["hint"] else ""
        yield f"{why['wants']}{got}{hint}"
    if row["matches"]:
        wants = ", ".join(row["wants"])
        if not row["share"]:
            yield f"{wants} matches, but runtime_fraction gives it 0%"
        else:
            yield f"{wants} matches too, but comes later"


def seconds(value: float) -> str:
    """A time as in 0.25 s."""
    return f"{value:g} s"
