"""What becomes of a request under a configuration, as JSON-ready data; ``routing_text`` writes it for people.

The way is the real one: ``build_generation`` makes listeners, filter chains and route tables of the file, ``Listener.choose``
and the manager's ``match`` decide, ``rehearsal`` has the head seen by codec and manager. Nothing is bound or connected to.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote

from forkproxy.cli.rehearsal import Rehearsal
from forkproxy.config.build.bootstrap import BootstrapConfig
from forkproxy.config.build.core import AddressConfig, Where
from forkproxy.config.build.http_connection_manager import HttpConnectionManagerConfig
from forkproxy.config.build.listener import FilterChain, FilterChainMatch, FilterEntry
from forkproxy.config.build.retry import RetryPolicy
from forkproxy.config.build.route import DirectResponseAction, ForwardAction, RouteMatch
from forkproxy.config.build.route_policies import MirrorPolicy
from forkproxy.config.build.tcp_proxy import TcpProxyConfig
from forkproxy.config.values import frozen
from forkproxy.filters.http.router import Router
from forkproxy.filters.network.http_connection_manager import HttpConnectionManagerFilter, make_routes
from forkproxy.filters.network.tcp_proxy import TcpProxy
from forkproxy.http.headers import get as get_header
from forkproxy.http.http1 import CONNECT
from forkproxy.http.stream import Stream
from forkproxy.net import address as addresses
from forkproxy.net.address import SocketAddress, parse_port
from forkproxy.router import explain
from forkproxy.router.explain import Explanation, Judgement, Outcome, quoted
from forkproxy.router.policies import NO_POLICIES
from forkproxy.router.rewrite import query_start, request_header
from forkproxy.router.table import Route, RouteTable, VirtualHost
from forkproxy.stats.counters import Registry
from forkproxy.worker.generation import Generation, build_generation
from forkproxy.worker.listener import ChainMatch, Listener, LiveFilterChain

Json = dict[str, Any]

NEAR = 6
"""So many of the routes that nearly matched are told without being asked for all."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SOURCE_PORT = 50000
_WILDCARDS = frozenset(("0.0.0.0", "::"))
_BODY_CHARACTERS = 60
_NO_UPGRADE = "upgrade_failed"
_IN_A_TARGET = "".join(map(chr, range(33, 127)))


class NoSuchListener(Exception):
    """The text says which there are."""


@frozen
class Request:
    """What is asked about. ``port`` None: any; ``scheme`` "": any. ``authority`` b"": the listener's own address."""

    method: bytes
    target: bytes
    authority: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    scheme: str = ""
    port: int | None = None
    port_is_given: bool = False


@frozen
class Options:
    """``source`` and ``destination``: (address, port), "" and 0 where not given. ``number``: for what is left to chance."""

    listener: str = ""
    source: tuple[str, int] = ("", 0)
    destination: tuple[str, int] = ("", 0)
    number: int | None = None
    all_routes: bool = False


def request_of(method: str, url: str, headers: Iterable[str]) -> Request:
    """A request as the command line has it: an absolute URL, HOST/PATH, or a bare path. ValueError says what is wrong."""
    pairs = tuple(_header(text) for text in headers)
    verb = method.upper().encode()
    if not verb.isalpha():
        raise ValueError(f'"{method}" is no method')
    if url.startswith("/") or url == "*":
        return Request(verb, _target(url), b"", pairs)
    scheme, mark, rest = url.partition("://")
    scheme = scheme.lower()
    if not mark:
        scheme, rest = "", url
    elif scheme not in _DEFAULT_PORTS:
        raise ValueError(f'"{url}" is neither an http:// nor an https:// URL')
    end = min((place for place in map(rest.find, "/?#") if place >= 0), default=len(rest))
    authority, target = rest[:end].rpartition("@")[2], rest[end:].partition("#")[0]
    host, port = split_port(authority)
    if not host:
        raise ValueError(f'"{url}" has no host')
    if verb == CONNECT:
        return Request(verb, authority.encode(), authority.encode(), pairs)
    if not target.startswith("/"):
        target = "/" + target
    return Request(
        verb,
        _target(target),
        _without_default_port(authority, scheme, port).encode("idna" if not authority.isascii() else "ascii"),
        pairs,
        scheme,
        port or _DEFAULT_PORTS.get(scheme),
        port is not None,
    )


def _header(text: str) -> tuple[bytes, bytes]:
    name, colon, value = text.partition(":")
    name = name.strip()
    # ":path" and the like come from the URL.
    if not colon or not name or not name.isascii() or not name.isprintable() or " " in name:
        raise ValueError(f'"{text}" is no header: give NAME: VALUE')
    if not all(each.isprintable() or each == "\t" for each in value):
        raise ValueError(f"the value of {name} holds a control character")
    return name.encode(), value.strip().encode()


def _target(text: str) -> bytes:
    # What may not stand in a request target is sent as clients send it.
    return quote(text, safe=_IN_A_TARGET).encode()


def _without_default_port(authority: str, scheme: str, port: int | None) -> str:
    is_default = port is not None and port == _DEFAULT_PORTS.get(scheme)
    return authority.rpartition(":")[0] if is_default else authority


def split_port(text: str) -> tuple[str, int | None]:
    """``HOST``, ``HOST:PORT``, ``[IPv6]:PORT`` as host and port. ValueError for a port that is none."""
    bare = text[text.rfind("]") + 1 :]
    if ":" not in bare or (text.count(":") > 1 and not text.startswith("[")):
        return text.strip("[]"), None
    host, _, digits = text.rpartition(":")
    port = parse_port(digits)
    if port is None:
        raise ValueError(f'"{digits}" is no port')
    return host.strip("[]"), port


def look_up(bootstrap: BootstrapConfig, request: Request, options: Options) -> Json:
    """Who would take the request. ConfigError for what only shows when a generation is made; NoSuchListener."""
    registry = Registry()
    registry.begin_generation()
    generation = build_generation(bootstrap, registry, number=0)
    asked, not_asked, note = _candidates(generation.listeners, request, options)
    found = [_Look(generation, listener, address, request, options).listener() for listener, address in asked]
    return {
        "method": request.method.decode(),
        "target": request.target.decode(),
        "host": request.authority.decode(),
        "scheme": request.scheme,
        "headers": [f"{name.decode()}: {value.decode()}" for name, value in request.headers],
        "taken": any(each["taken"] for each in found),
        "note": note,
        "listeners": found,
        "listeners_not_asked": not_asked,
    }


# Listeners


def _candidates(
    listeners: Sequence[Listener], request: Request, options: Options
) -> tuple[list[tuple[Listener, AddressConfig]], list[Json], str]:
    places = [(listener, address) for listener in listeners for address in listener.config.addresses]
    if options.listener:
        wanted = options.listener
        found = [(each, at) for each, at in places if wanted in (each.config.name, str(at))]
        if not found:
            names = ", ".join(listener.config.name for listener in listeners) or "none at all"
            raise NoSuchListener(f'no listener is called "{wanted}"; there are: {names}')
        rest = [_not_asked(*place, "not the one asked for") for place in places if place not in found]
        return _one_address_each(found), rest, ""
    why = {id(at): _elsewhere(listener, at, request) for listener, at in places}
    found = [(each, at) for each, at in places if not why[id(at)]]
    if not found and not request.port_is_given and request.port is not None:
        note = f"no listener has port {request.port}, the one of {request.scheme}: all are asked" if places else ""
        return _one_address_each(places), [], note
    asked = {id(listener) for listener, _ in found}
    rest = [_not_asked(each, at, why[id(at)]) for each, at in places if why[id(at)] and id(each) not in asked]
    return _one_address_each(found), rest, ""


def _one_address_each(places: Sequence[tuple[Listener, AddressConfig]]) -> list[tuple[Listener, AddressConfig]]:
    return list({id(listener): (listener, address) for listener, address in reversed(places)}.values())[::-1]


def _not_asked(listener: Listener, address: AddressConfig, why: str) -> Json:
    config = listener.config
    return {"name": config.name, "address": str(address), "why": why, "place": place_of(config.where)}


def _elsewhere(listener: Listener, address: AddressConfig, request: Request) -> str:
    """Why a connection for this URL does not arrive at the address; "" when it may."""
    if request.port is None:
        return ""
    if address.pipe_path:
        return "listens on a unix-domain socket"
    config = listener.config
    if config.original_dst or config.transparent:
        return ""  # what is redirected here was meant for elsewhere
    if address.port != request.port:
        return f"listens on port {address.port}, not on {request.port}"
    host = split_port(request.authority.decode())[0]
    if _is_ip(host) and address.host not in _WILDCARDS and ip_address(host) != ip_address(address.host):
        return f"listens on {address.host} only"
    return ""


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def place_of(where: Where) -> Json:
    """Where in the file; line 0: not in the file (``--config-yaml``)."""
    return {"path": where.path, "line": where.line, "column": where.column}


class _Look:
    """One listener, asked about one request."""

    def __init__(
        self, generation: Generation, listener: Listener, address: AddressConfig, request: Request, options: Options
    ) -> None:
        self.generation = generation
        self.live = listener
        self.config = listener.config
        self.address = address
        self.request = request
        self.options = options
        self.local, self.peer = _ends(address, request, options)

    def listener(self) -> Json:
        chosen = self.live.choose(self.local, self.peer)
        found: Json = {
            "name": self.config.name,
            "address": str(self.address),
            "place": place_of(self.config.where),
            "source": self.peer[0] if isinstance(self.peer, tuple) else "",
            "taken": False,
            "filter_chain": None,
            "filter_chains_not_taken": list(self._other_chains(chosen)),
        }
        if chosen is None:
            found["outcome"] = "no filter chain matches: the connection is closed"
            return found
        config, number = self._config_of(chosen)
        found["filter_chain"] = self._chain(config, number)
        if self.request.scheme and (self.request.scheme == "https") != (config.tls is not None):
            spoken = "speaks TLS" if config.tls is not None else "takes plain text"
            found["outcome"] = f"this filter chain {spoken}, and the URL says {self.request.scheme}"
            return found
        self._filters(config, chosen, found)
        return found

    # Filter chains

    def _config_of(self, chosen: LiveFilterChain) -> tuple[FilterChain, int | None]:
        """And its number; None for the default filter chain."""
        for number, live in enumerate(self.live.chains):
            if live is chosen:
                return self.config.filter_chains[number], number
        assert self.config.default_filter_chain is not None
        return self.config.default_filter_chain, None

    def _chain(self, config: FilterChain, number: int | None) -> Json:
        wants = [words for words, _, _ in self._criteria(config.match)]
        return {
            "number": number,
            "of": len(self.config.filter_chains),
            "name": config.name,
            "tls": config.tls is not None,
            "place": place_of(config.where),
            "wants": wants if number is not None else [],
            "why": ", ".join(wants) or "takes every connection",
        }

    def _other_chains(self, chosen: LiveFilterChain | None) -> Iterator[Json]:
        for number, live in enumerate(self.live.chains):
            if live is chosen:
                continue
            config = self.config.filter_chains[number]
            missed = [f"{words}: {got}" for words, matches, got in self._criteria(config.match) if not matches]
            yield {
                "number": number,
                "name": config.name,
                "place": place_of(config.where),
                "why": missed or ["matches too, but is less specific"],
            }
        if self.live.default_chain is not None and chosen is not self.live.default_chain:
            default = self.config.default_filter_chain
            assert default is not None
            why = ["the default filter chain takes what no other takes"]
            yield {"number": None, "name": default.name, "place": place_of(default.where), "why": why}

    def _criteria(self, match: FilterChainMatch) -> Iterator[tuple[str, bool, str]]:
        """Each thing that a filter chain asks for: in words, whether it is so, and what the connection has instead."""
        nothing = FilterChainMatch()
        for each in fields(match):
            value = getattr(match, each.name)
            if value == getattr(nothing, each.name):
                continue
            alone = ChainMatch(FilterChainMatch(**{each.name: value}))
            shown = " or ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            yield f"{each.name} {shown}", alone.score(self.local, self.peer) is not None, self._got(each.name)

    def _got(self, criterion: str) -> str:
        end, which = (self.peer, "from") if "source" in criterion else (self.local, "to")
        if not isinstance(end, tuple):
            return "it comes over a unix-domain socket"
        return f"it goes {which} port {end[1]}" if "port" in criterion else f"it goes {which} {end[0]}"

    # What the filters of the chain do

    def _filters(self, config: FilterChain, chosen: LiveFilterChain, found: Json) -> None:
        last = chosen.chain.filters[-1] if chosen.chain.filters else None
        found["network_filters"] = [_short(entry) for entry in config.filters]
        if isinstance(last, HttpConnectionManagerFilter):
            settings = config.filters[-1].config
            assert isinstance(settings, HttpConnectionManagerConfig)
            _Http(self, last, settings, config.filters[-1]).tell(found)
        elif isinstance(last, TcpProxy):
            found["taken"] = True
            found["tcp_proxy"] = self._tcp(last.config, config.filters[-1])
        elif last is not None:
            found["taken"] = True
            found["outcome"] = f"the network filter {_short(config.filters[-1])} has the connection"
        else:
            found["outcome"] = "the filter chain has no filters: the connection is closed"

    def _tcp(self, config: TcpProxyConfig, entry: FilterEntry) -> Json:
        weighted = config.weighted_clusters or ((config.cluster, 1),)
        total = sum(weight for _, weight in weighted)
        number, at = self.options.number, 0
        clusters = []
        for name, weight in weighted:
            said = {"share": weight / total, "weight": [weight, total], "cluster": self.cluster(name)}
            if number is not None:
                said["chosen"] = at <= number % total < at + weight
            at += weight
            clusters.append(said)
        return {"stat_prefix": config.stat_prefix, "place": place_of(entry.where), "clusters": clusters}

    def cluster(self, name: str) -> Json:
        live = self.generation.clusters.get(name)
        if live is None:
            return {"name": name, "exists": False}
        config = live.config
        hosts = [str(endpoint.address) for locality in config.localities for endpoint in locality.endpoints]
        policy = config.load_balancing.policy
        return {
            "name": name,
            "exists": True,
            "type": config.type,
            "lb_policy": policy,
            "endpoints": hosts,
            "tls": config.tls is not None,
            "place": place_of(config.where),
        }


def _ends(address: AddressConfig, request: Request, options: Options) -> tuple[SocketAddress, SocketAddress]:
    """What the connection's own end and its peer are taken to be."""
    if address.pipe_path:
        return address.pipe_path, ""
    host = split_port(request.authority.decode())[0]
    to_ip = options.destination[0]
    if not to_ip:
        is_six = ":" in address.host
        loopback = "::1" if is_six else "127.0.0.1"
        named = host if _is_ip(host) and (":" in host) == is_six else loopback
        to_ip = address.host if address.host not in _WILDCARDS else named
    to_port = options.destination[1] or address.port or request.port or 0
    source = options.source[0] or ("::1" if ":" in to_ip else "127.0.0.1")
    return (to_ip, to_port), (source, options.source[1] or _SOURCE_PORT)


def _short(entry: FilterEntry) -> str:
    """A filter's name without what is the same in all."""
    for prefix in ("envoy.filters.network.", "envoy.filters.http."):
        if entry.name.startswith(prefix):
            return entry.name[len(prefix) :]
    return entry.name


# HTTP


class _Http:
    """One connection manager, asked about the request."""

    def __init__(
        self, look: _Look, found: HttpConnectionManagerFilter, config: HttpConnectionManagerConfig, entry: FilterEntry
    ) -> None:
        self.look = look
        self.request = look.request
        self.config = config
        self.entry = entry
        self.manager = found.manager
        self.routes = found.routes
        self.table = self._table(found.routes, look.options.number)
        self.manager.match = self.table.match
        last = found.manager.chain.filters[-1] if found.manager.chain.filters else None
        self.envoy_headers = not isinstance(last, Router) or last.envoy_headers
        local = look.local
        own_address = addresses.text(local).encode() if isinstance(local, tuple) else b"localhost"
        authority = self.request.authority or own_address
        own = [value for name, value in self.request.headers if name.lower() == b"host"]
        self.authority = own[0] if own else authority
        headers = self.request.headers if own else ((b"host", authority), *self.request.headers)
        lines = [b"%b %b HTTP/1.1" % (self.request.method, self.request.target), *map(b": ".join, headers)]
        self.head = b"\r\n".join(lines) + b"\r\n\r\n"

    def _table(self, live: RouteTable, number: int | None) -> RouteTable:
        if number is None:
            return live
        return make_routes(live.config, live.cluster_lookup, explain.loaded(number))

    def tell(self, found: Json) -> None:
        with Rehearsal(self.manager) as rehearsal:
            stream, reached = rehearsal.request(self.head, self.look.local, self.look.peer)
            found["manager"] = self._manager(stream)
            if not reached:
                found["outcome"] = _answer(stream)
                if stream.details != _NO_UPGRADE:
                    return
            if stream.method == CONNECT and (self.config.strip_any_host_port or self.config.strip_matching_host_port):
                stream.http.strip_port(
                    stream, self.config.strip_any_host_port
                )  # as it is for the look at the routes only
            told = explain.explain(self.table, stream, dice_are_loaded=self.look.options.number is not None)
            outcomes = []
            for outcome in told.outcomes:
                again, _ = rehearsal.request(self.head, self.look.local, self.look.peer)
                outcomes.append(self._outcome(outcome, again, told))
        some = [each for each in outcomes if told.chosen is None or each["chosen"]]
        found["taken"] = reached and any(each["route"] is not None for each in some)
        found["virtual_host"] = self._virtual_host(told)
        found["vhost_header"] = self.table.config.vhost_header
        others = list(self._other_hosts(told))
        found["virtual_hosts_not_taken"] = [
            {
                "name": other.virtual_host.name,
                "domain": other.domain,
                "why": other.why,
                "place": place_of(other.virtual_host.config.where),
            }
            for other in others
        ]
        found["virtual_hosts_left_out"] = len(told.other_domains) - len(others)
        found["hints"] = list(told.hints)
        found["outcomes"] = outcomes
        found["routes_not_taken"], found["routes_left_out"] = self._others(told, stream)

    def _manager(self, stream: Stream) -> Json:
        given = [name.lower() for name, _ in self.request.headers if name.lower() != b"host"]
        kept = [name for name, _ in stream.request_headers]
        changed = []
        for name, value in self.request.headers:
            now = get_header(stream.request_headers, name.lower())
            if now is not None and now != value and given.count(name.lower()) == 1:
                changed.append({"name": name.lower().decode(), "before": _shown(value), "after": _shown(now)})
        return {
            "stat_prefix": self.config.stat_prefix,
            "place": place_of(self.entry.where),
            "route_config": self.table.config.name,
            "path": _change(self.request.target, stream.path) if stream.path else None,
            "host": _change(self.authority, stream.authority),
            "settings": _settings(self.config),
            "headers_removed": [name.decode() for name in dict.fromkeys(given) if name not in kept],
            "headers_changed": changed,
        }

    def _virtual_host(self, told: Explanation) -> Json | None:
        virtual_host = told.virtual_host
        if virtual_host is None:
            return None
        return {
            "name": virtual_host.name,
            "domain": told.domain,
            "host": told.host,
            "routes": len(virtual_host.routes),
            "require_tls": virtual_host.config.require_tls,
            "place": place_of(virtual_host.config.where),
        }

    def _other_hosts(self, told: Explanation) -> Iterator[explain.OtherDomain]:
        """All, or those that match too or are spelled nearly alike."""
        for other in told.other_domains:
            domains = other.virtual_host.config.domains
            if self.look.options.all_routes or other.why != "does not match":
                yield other
            elif found := difflib.get_close_matches(told.host, domains, 1, 0.8):
                yield explain.OtherDomain(other.virtual_host, found[0], other.why)

    def _outcome(self, outcome: Outcome, stream: Stream, told: Explanation) -> Json:
        chosen = told.chosen
        said: Json = {
            "share": outcome.share,
            "chosen": chosen is not None and chosen.choice is outcome.choice,
            "route": None,
            "action": None,
        }
        if outcome.choice is None:
            return said
        route = outcome.choice
        if outcome.number is None:
            said["route"] = {"number": None, "name": "", "wants": ["require_tls"], "place": None, "share": 1.0}
        else:
            said["route"] = _route(told.judgements[outcome.number])
        if outcome.weight is not None:
            said["weight"] = list(outcome.weight)
            said["weight_by"] = _weight_by(route)
        stream.route = route
        said["action"] = self._action(route, stream)
        said["filters"] = self._filters(outcome, told, self._entries(stream))
        return said

    def _entries(self, stream: Stream) -> Sequence[FilterEntry]:
        """The HTTP filters that the request passes: an upgrade may have its own."""
        if stream.http.upgrading:
            asked = [value for name, value in self.request.headers if name.lower() == b"upgrade"]
            name = (CONNECT if stream.method == CONNECT else b"".join(asked[:1])).decode("latin-1").lower()
            own = [each.filters for each in self.config.upgrades if each.upgrade_type.lower() == name]
            if any(own):
                return own[0]
        return self.config.http_filters

    def _filters(self, outcome: Outcome, told: Explanation, entries: Sequence[FilterEntry]) -> list[Json]:
        """The HTTP filters on this route, as they stand in the chain."""
        route = self._live(outcome, told.virtual_host)
        disabled = route.filters_disabled if route is not None else {}
        levels = route.filter_levels if route is not None else ()
        return [
            {
                "name": _short(entry),
                "off": disabled.get(entry.name, entry.disabled),
                "configured_here": any(
                    entry.name in level and level[entry.name].config is not None for level in levels
                ),
            }
            for entry in entries
        ]

    def _live(self, outcome: Outcome, virtual_host: VirtualHost | None) -> Route | None:
        """The outcome's route in the table that serves (where ours is another one)."""
        if outcome.number is None or outcome.route is None or virtual_host is None:
            return None
        route = self.routes.virtual_hosts[self.table.virtual_hosts.index(virtual_host)].routes[outcome.number]
        if route.weighted is None or outcome.route.weighted is None or outcome.choice is None:
            return route
        return route.weighted[outcome.route.weighted.index(outcome.choice)]

    # What a route does

    def _action(self, route: Route, stream: Stream) -> Json:
        action = route.config.action if route.config is not None else None
        if route.redirect is not None:
            status, location = route.redirect(stream)
            return {"kind": "redirect", "status": status, "location": _shown(location)}
        if isinstance(action, DirectResponseAction):
            body = action.body.decode("utf-8", "replace")
            return {"kind": "direct_response", "status": action.status, "body": body[:_BODY_CHARACTERS]}
        if not isinstance(action, ForwardAction):
            return {"kind": type(action).__name__}
        path, host = stream.path, stream.authority
        cluster = self._cluster(route, stream)
        if route.finalize_request is not None:
            route.finalize_request(stream)
        if route.rewrite is not None:
            route.rewrite(stream, self.envoy_headers)
        return {
            "kind": "route",
            "cluster": cluster,
            "path": _change(path, stream.path),
            "host": _change(host, stream.authority),
            "auto_host_rewrite": route.auto_host_rewrite,
            "timeout_s": route.timeout_s,
            "idle_timeout_s": route.idle_timeout_s if route.idle_timeout_set else None,
            "retries": _retries(action.retry_policy or route.virtual_host.config.retry_policy),
            "priority": "HIGH" if route.is_high else "DEFAULT",
            **self._policies(route, action, stream),
        }

    def _policies(self, route: Route, action: ForwardAction, stream: Stream) -> Json:
        """What there is beyond one exchange with one endpoint."""
        policies = route.policies or NO_POLICIES
        longest = policies.max_stream_duration
        mirrors = action.policies.mirrors or route.virtual_host.config.policies.mirrors or self.table.config.mirrors
        return {
            "mirrors": [_mirror(each, stream) for each in mirrors],
            "max_stream_duration_s": longest.duration_s if longest is not None else None,
            "hedges": policies.hedges,
            "follows_redirects": policies.internal_redirect is not None,
        }

    def _cluster(self, route: Route, stream: Stream) -> Json:
        name = route.cluster_name
        if route.cluster_header:
            name = _shown(request_header(stream, route.cluster_header))
        cluster = self.look.cluster(name)
        if route.cluster_header:
            cluster["by_header"] = route.cluster_header.decode()
        if not cluster["exists"]:
            cluster["status"] = route.cluster_not_found_status
        return cluster

    # The others

    def _others(self, told: Explanation, stream: Stream) -> tuple[list[Json], int]:
        """The routes that were not taken, all or those that come near, and how many were left out."""
        if any(outcome.route is not None and outcome.number is None for outcome in told.outcomes):
            return [], 0  # no route was asked
        taken = {outcome.number for outcome in told.outcomes}
        last = max((number for number in taken if number is not None), default=len(told.judgements))
        rest = [judgement for judgement in told.judgements if judgement.number not in taken]
        if not self.look.options.all_routes:
            path = stream.path[: query_start(stream.path)].decode("latin-1")
            nearest = sorted(rest, key=lambda judgement: _distance(judgement, path))[:NEAR]
            # What is only spelled alike helps who has found no route.
            far = _FAR if None in taken else _ALIKE
            near = [judgement for judgement in nearest if _distance(judgement, path)[0] < far]
            left_out = len(rest) - len(near)
            rest = sorted(near, key=lambda judgement: judgement.number)
        else:
            left_out = 0
        return [
            {
                **_route(judgement),
                "matches": judgement.matches,
                "is_later": judgement.number > last,
                "why": [_missed(criterion) for criterion in judgement.missed],
            }
            for judgement in rest
        ], left_out


_ALIKE = 3
_FAR = 4


def _distance(judgement: Judgement, path: str) -> tuple[int, float]:
    """How far a route is from being taken: only a condition is missing, it matches but comes later, one hint away, alike."""
    assert judgement.route.config is not None
    match: RouteMatch = judgement.route.config.match
    likeness = difflib.SequenceMatcher(None, match.value, path).quick_ratio()
    if judgement.matches:
        return 1, judgement.number
    if judgement.criteria[0].matches:
        return 0, len(judgement.missed)
    if judgement.criteria[0].hint:
        return 2, -likeness
    return (_ALIKE if likeness > 0.7 else _FAR), -likeness


def _mirror(policy: MirrorPolicy, stream: Stream) -> Json:
    name = policy.cluster or _shown(request_header(stream, policy.cluster_header.lower().encode()))
    fraction = policy.fraction
    share = min(fraction.numerator / fraction.denominator, 1.0) if fraction is not None else 1.0
    return {"cluster": name, "by_header": policy.cluster_header, "share": share}


def _weight_by(route: Route) -> str:
    """What chooses among the weighted clusters, where it is not chance."""
    action = route.config.action if route.config is not None else None
    if not isinstance(action, ForwardAction):
        return ""
    return f"header {action.weighted_header}" if action.weighted_header else "hash" if action.weighted_by_hash else ""


def _missed(criterion: explain.Criterion) -> Json:
    return {"wants": criterion.wants, "got": criterion.got, "hint": criterion.hint}


def _route(judgement: Judgement) -> Json:
    config = judgement.route.config
    assert config is not None
    return {
        "number": judgement.number,
        "name": config.name,
        "wants": [criterion.wants for criterion in judgement.criteria],
        "share": judgement.share,
        "place": place_of(config.where),
    }


def _answer(stream: Stream) -> str:
    """What the manager says to a request that gets to no route."""
    location = get_header(stream.response_headers or [], b"location")
    to = f" to {quoted(_shown(location))}" if location is not None else ""
    hint = " (upgrade_configs of the connection manager and of the route allow upgrades)"
    why = f"{stream.details}{hint if stream.details == _NO_UPGRADE else ''}"
    return f"the connection manager answers {stream.status}{to} itself: {why}"


def _shown(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _change(before: bytes, after: bytes | None) -> Json | None:
    """None when nothing has changed; the authority of a request that is refused may be None."""
    if after is None or before == after:
        return None
    return {"before": _shown(before), "after": _shown(after)}


def _settings(config: HttpConnectionManagerConfig) -> list[str]:
    """What of the manager's settings touches a request before its route is looked for."""
    names = ["normalize_path", "merge_slashes", "strip_any_host_port", "strip_matching_host_port"]
    names.append("strip_trailing_host_dot")
    found = [name for name in names if getattr(config, name)]
    if config.path_with_escaped_slashes_action != "KEEP_UNCHANGED":
        found.append(f"path_with_escaped_slashes_action {config.path_with_escaped_slashes_action}")
    client = config.client_address
    if client.use_remote_address:
        found.append("use_remote_address")
    if client.xff_num_trusted_hops:
        found.append(f"xff_num_trusted_hops {client.xff_num_trusted_hops}")
    if client.detections:
        found.append("original_ip_detection_extensions")
    return found


def _retries(policy: RetryPolicy | None) -> Json | None:
    if policy is None:
        return None
    return {
        "retry_on": sorted(policy.retry_on),
        "num_retries": policy.num_retries,
        "per_try_timeout_s": policy.per_try_timeout_s,
    }
