"""The route table: from a stream to the one Route that it takes.

The rules are Envoy's. The host, lower-cased, chooses the virtual host: an exact domain, else the longest
``*.suffix``, else the longest ``prefix.*``, else ``*``. Within the virtual host the first route that matches wins.

"First wins" is found without a walk. Every route has its number in the file. Prefixes stand in one dictionary, and a
path is looked up once per *length* that occurs among the prefixes, so that 20,000 prefixes of 20 lengths cost 20
look-ups; the lowest number found wins. Lengths are tried in the order of the lowest number they hold, so that the
search ends as soon as nothing better can come. Regular expressions are RE2 sets of 64, found by how they begin.
Conditions (headers, query, fraction, gRPC) are tested in the order of the numbers, on the routes whose path already
matched.

Everything is compiled to closures when the table is built; ``RouteTable.match`` *is* the cheapest closure that does
the job: with one virtual host ``*`` and one route ``/`` it compares one byte.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from forkproxy.config.build.context import PerFilterConfig
from forkproxy.config.build.core import HeaderMutations, Where
from forkproxy.config.build.load_balancing import criteria
from forkproxy.config.build.route import (
    DirectResponseAction,
    ForwardAction,
    RedirectAction,
    RouteEntry,
    RouteMatch,
    RouteTableConfig,
    WeightedCluster,
)
from forkproxy.config.build.route import VirtualHost as VirtualHostConfig
from forkproxy.config.build.upgrades import ConnectConfig
from forkproxy.router.conditions import compile_condition
from forkproxy.router.direct_response import CompileBody, Compose, compile_direct
from forkproxy.router.hash_policy import HashMethod, compile_hash_policies, makes_cookies
from forkproxy.router.header_mutation import (
    CompileFormat,
    Headers,
    compile_request,
    compile_response,
)
from forkproxy.router.match_tree import compile_match_tree
from forkproxy.router.matcher import Dice, StreamTest, compile_regex_set, fair
from forkproxy.router.policies import MirrorCompiler, Policies, compile_policies
from forkproxy.router.retry import Retries, compile_retries, milliseconds
from forkproxy.router.rewrite import (
    Rewrite,
    compile_redirect,
    compile_rewrite,
    forwarded_proto,
    https_location,
    request_header,
)
from forkproxy.router.weighted import Pick, compile_pick

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream
    from forkproxy.http.tally import Tally

FORWARD = 0
REDIRECT = 1
DIRECT = 2

FilterLevel = dict[str, PerFilterConfig]
_NOTHING: Mapping[Any, Any] = {}

T = TypeVar("T")
Ask = Callable[["Stream"], T]
Select = Callable[["Stream"], "Route | None"]
# upstream.cluster.Cluster: a package of the same floor, so it is injected, not imported.
Cluster = Any
ClusterLookup = Callable[[str], Cluster]
# filters.http.tunnel.begin: from a higher floor.
Tunnel = Any


class VirtualHost:
    """A virtual host of the running configuration."""

    __slots__ = (
        "config",
        "ignores_path_parameters",
        "include_attempt_count_in_response",
        "include_request_attempt_count",
        "name",
        "routes",
    )

    def __init__(self, config: VirtualHostConfig, ignores_path_parameters: bool = False) -> None:
        self.config = config
        self.ignores_path_parameters = ignores_path_parameters
        self.name = config.name
        self.routes: tuple[Route, ...] = ()
        self.include_request_attempt_count = config.include_request_attempt_count
        self.include_attempt_count_in_response = config.include_attempt_count_in_response

    def __repr__(self) -> str:
        return f"<VirtualHost {self.name} {len(self.routes)} routes>"


class Route:
    """What to do with a request. A callable that is None has nothing to do and costs nothing.

    For a forwarded request the router calls ``finalize_request`` and then ``rewrite``; ``auto_host_rewrite`` is done
    with ``rewrite.rewrite_host`` once the endpoint is known. ``finalize_response`` belongs to every answer that the
    route had a part in, redirects and direct responses included.

    ``cluster`` is the live cluster after ``RouteTable.bind``; None for an unknown one, and for ``cluster_header``,
    where ``find_cluster(stream)`` asks per request. Either way None means ``cluster_not_found_status``.
    ``weighted`` is only seen on the routes of a table's listing: ``match`` returns the chosen cluster's own Route.
    ``idle_timeout_s`` counts only if ``idle_timeout_set``.

    ``filter_levels``: what ``typed_per_filter_config`` says, the most specific first (weighted cluster, route, virtual host,
    route configuration). ``filters.per_route`` makes of it, at load, ``per_filter_config`` (filter name → what that filter
    needs here) and ``filters_disabled`` (filter name → whether it is off here, for the names that this route knows).

    ``upgrades``: lower-case type → whether it is allowed here. ``tunnel``: what the router begins instead of an ordinary
    exchange, unless that declines. ``connect``: CONNECT ends here, and its bytes go to the endpoint as they are.
    """

    __slots__ = (
        "append_x_forwarded_host",
        "auto_host_rewrite",
        "body_buffer_limit",
        "cluster",
        "cluster_header",
        "cluster_name",
        "cluster_not_found_status",
        "compose",
        "config",
        "connect",
        "count",
        "criteria",
        "direct",
        "filter_levels",
        "filters_disabled",
        "finalize_request",
        "finalize_response",
        "hash_policy",
        "idle_timeout_s",
        "idle_timeout_set",
        "is_high",
        "is_plain",
        "kind",
        "lookup",
        "name",
        "passes_response",
        "per_filter_config",
        "policies",
        "redirect",
        "retries",
        "rewrite",
        "tells_grpc_timeout",
        "timeout_header",
        "timeout_s",
        "timeout_status",
        "tunnel",
        "upgrades",
        "upstream_duration_s",
        "virtual_host",
        "weighted",
    )

    def __init__(self, config: RouteEntry | None, kind: int, virtual_host: VirtualHost) -> None:
        self.config = config
        self.kind = kind
        self.virtual_host = virtual_host
        self.name = config.name if config is not None else ""
        self.filter_levels: tuple[FilterLevel, ...] = ()
        self.per_filter_config: Mapping[str, Any] = _NOTHING
        self.filters_disabled: Mapping[str, bool] = _NOTHING
        self.timeout_s: float | None = None
        self.timeout_header: tuple[bytes, bytes] | None = None
        """x-envoy-expected-rq-timeout-ms, ready to be added."""
        self.is_high = False
        """Of the routing priority HIGH."""
        self.is_plain = True
        """Nothing of the route touches the head of a forwarded request beyond ``timeout_header``, and ``cluster.pick()`` does."""
        self.passes_response = True
        """Nothing of the route touches the head of an endpoint's response."""
        self.hash_policy: HashMethod | None = None
        """Asked only for a cluster that ``needs_hash``."""
        self.criteria: tuple[tuple[str, object], ...] = ()
        """The metadata that the endpoint must have, for a cluster with subsets."""
        self.body_buffer_limit: int | None = None
        """How much of a request's body is kept for another attempt; None for the connection's limit."""
        self.idle_timeout_s: float | None = None
        self.idle_timeout_set = False
        self.cluster_name = ""
        self.cluster: Cluster = None
        self.cluster_header = b""
        self.cluster_not_found_status = 503
        self.lookup: ClusterLookup | None = None
        self.weighted: tuple[Route, ...] | None = None
        self.finalize_request: Callable[[Stream], None] | None = None
        self.finalize_response: Callable[[Stream, Headers], None] | None = None
        self.rewrite: Rewrite | None = None
        self.retries: Retries | None = None
        self.count: Callable[[Stream, Tally], None] | None = None
        """Tells a tally where a request of this route counts besides (virtual_clusters.py)."""
        self.policies: Policies | None = None
        self.tells_grpc_timeout = False
        """The upstream is told in grpc-timeout, too, what ``timeout_header`` says."""
        self.timeout_status = 504
        """What the client is told when time is up; 204 where a request's header asks for it."""
        self.upstream_duration_s: float | None = None
        """How long one exchange with an endpoint may last, where a request's header says so."""
        self.auto_host_rewrite = False
        self.append_x_forwarded_host = False
        self.redirect: Callable[[Stream], tuple[int, bytes]] | None = None
        self.direct: tuple[int, bytes] | None = None
        self.compose: Compose | None = None
        """What makes the body of a direct response, and headers that come before the route's own, anew for each request."""
        self.upgrades: Mapping[bytes, bool] = _NOTHING
        self.connect: ConnectConfig | None = None
        self.tunnel: Tunnel = None

    def as_tunnel(self, tunnel: Tunnel) -> Route:
        """The same route for a request that may become a tunnel."""
        made = copy.copy(self)
        made.is_plain = False
        made.tunnel = tunnel
        return made

    def find_cluster(self, stream: Stream) -> Cluster | None:
        """The cluster of this request: the bound one, or the one that ``cluster_header`` names."""
        if self.cluster is not None or not self.cluster_header or self.lookup is None:
            return self.cluster
        name = request_header(stream, self.cluster_header)
        return self.lookup(name.decode("latin-1")) if name else None

    @property
    def takes_connect(self) -> bool:
        """Whether it matches CONNECT, and nothing else."""
        return self.config is not None and self.config.match.kind == "connect_matcher"

    def __repr__(self) -> str:
        target = self.cluster_name or self.cluster_header.decode() or ("", "redirect", "direct response")[self.kind]
        return f"<Route {self.name or '-'} in {self.virtual_host.name} to {target}>"


class RouteTable:
    """A compiled ``RouteConfiguration``.

    ``compile_format(text, where)`` compiles a header value with command operators, ``compile_host_format`` one in which what
    is missing is "-" (by default the same), ``compile_body`` the format of a direct response's body. ``cluster_lookup(name)``
    is asked by ``bind``, once the clusters exist, and per request for ``cluster_header``. Raises ConfigError for what only
    shows when a route is built: a bad regular expression, a header that may not be changed.

    ``match(stream)`` returns the Route, or None when there is none; it reads method, path, authority and the request
    headers, and sets nothing. ``dice`` decides what is left to chance. ``match_connect(stream)`` is the same for a CONNECT, which
    has no path.
    """

    __slots__ = ("_mirrors", "cluster_lookup", "config", "match", "match_connect", "virtual_hosts")

    def __init__(
        self,
        config: RouteTableConfig,
        *,
        compile_format: CompileFormat,
        compile_host_format: CompileFormat | None = None,
        compile_body: CompileBody | None = None,
        cluster_lookup: ClusterLookup,
        dice: Dice = fair,
    ) -> None:
        self.config = config
        self.cluster_lookup = cluster_lookup
        self.virtual_hosts: list[VirtualHost] = []
        builder = _RouteBuilder(
            config, compile_format, compile_host_format or compile_format, compile_body, cluster_lookup
        )
        self._mirrors = builder.mirrors
        by_domain: dict[bytes, Select] = {}
        connects: dict[bytes, Select] = {}
        for virtual_host_config in config.virtual_hosts:
            virtual_host = VirtualHost(virtual_host_config, config.ignore_path_parameters_in_path_matching)
            virtual_host.routes = tuple(builder.build(entry, virtual_host) for entry in virtual_host_config.routes)
            self.virtual_hosts.append(virtual_host)
            select = _compile_virtual_host(virtual_host, dice, compile_routes)
            select_connect = _compile_virtual_host(virtual_host, dice, compile_connects)
            for domain in virtual_host_config.domains:
                by_domain[domain.lower().encode()] = select
                connects[domain.lower().encode()] = select_connect
        self.match: Select = compile_hosts(by_domain, config.ignore_port_in_host_matching, config.vhost_header)
        self.match_connect: Select = _no_route
        if any(route.takes_connect for virtual_host in self.virtual_hosts for route in virtual_host.routes):
            self.match_connect = compile_hosts(connects, config.ignore_port_in_host_matching, config.vhost_header)

    def bind(self) -> None:
        """Look up the cluster of every route that names one. Called once all clusters exist."""
        for route in self.all_routes():
            if route.cluster_name:
                route.cluster = self.cluster_lookup(route.cluster_name)
                if route.cluster is not None and route.cluster.needs_context:
                    route.is_plain = False

        self._mirrors.bind()

    def policies(self) -> list[Policies]:
        """Of the routes that ask for more than one exchange with one endpoint."""
        return [route.policies for route in self.all_routes() if route.policies is not None]

    def all_routes(self) -> Iterable[Route]:
        """Every Route that ``match`` may return, except the redirects of ``require_tls``."""
        for virtual_host in self.virtual_hosts:
            for route in virtual_host.routes:
                yield from route.weighted or (route,)


# Building routes


class _RouteBuilder:
    """Makes Routes of the entries of one route configuration."""

    def __init__(
        self,
        config: RouteTableConfig,
        compile_format: CompileFormat,
        compile_host_format: CompileFormat,
        compile_body: CompileBody | None,
        cluster_lookup: ClusterLookup,
    ) -> None:
        self.config = config
        self.compile_format = compile_format
        self.compile_host_format = compile_host_format
        self.compile_body = compile_body
        self.cluster_lookup = cluster_lookup
        self.mirrors = MirrorCompiler(config, compile_format, cluster_lookup)

    def build(self, entry: RouteEntry, virtual_host: VirtualHost) -> Route:
        action = entry.action
        if isinstance(action, ForwardAction):
            if not action.weighted_clusters:
                return self._forward(entry, action, virtual_host, None)
            route = Route(entry, FORWARD, virtual_host)
            route.weighted = tuple(
                self._forward(entry, action, virtual_host, cluster) for cluster in action.weighted_clusters
            )
            return route
        if isinstance(action, RedirectAction):
            route = Route(entry, REDIRECT, virtual_host)
            route.redirect = compile_redirect(action, entry.match, entry.where)
        else:
            assert isinstance(action, DirectResponseAction)
            route = Route(entry, DIRECT, virtual_host)
            route.direct = (action.status, action.body)
        route.filter_levels = self._filter_levels(entry, virtual_host, None)
        levels = self._levels(entry, virtual_host, None)
        compile_request(levels, self.compile_format)  # never applied here, but a bad format must not go unnoticed
        route.finalize_response = compile_response(levels, self.compile_format)
        if isinstance(action, DirectResponseAction):
            route.compose, route.finalize_response = compile_direct(
                action, entry.match, entry.where, route.finalize_response, self.compile_body
            )
        return route

    def _forward(
        self, entry: RouteEntry, action: ForwardAction, virtual_host: VirtualHost, weighted: WeightedCluster | None
    ) -> Route:
        route = Route(entry, FORWARD, virtual_host)
        levels = self._levels(entry, virtual_host, weighted)
        self._compile_exchange(route, action, virtual_host.config, levels)
        route.idle_timeout_s = action.idle_timeout_s
        route.idle_timeout_set = action.idle_timeout_set
        limits = entry.buffer_limits, virtual_host.config.buffer_limits
        # A body's limit, wherever it is, goes before the older request's limit.
        ordered = (*(limit.body for limit in limits), *(limit.request for limit in limits))
        route.body_buffer_limit = next((limit for limit in ordered if limit is not None), None)
        route.cluster_name = weighted.name if weighted is not None else action.cluster
        header = weighted.cluster_header if weighted is not None else action.cluster_header
        route.cluster_header = header.lower().encode()
        route.cluster_not_found_status = action.cluster_not_found_response_code
        route.lookup = self.cluster_lookup
        route.is_high = action.is_high
        route.hash_policy = compile_hash_policies(action.hash_policies)
        weighted_match = weighted.metadata_match if weighted is not None else {}
        route.criteria = criteria(action.metadata_match | weighted_match)
        route.auto_host_rewrite = action.auto_host_rewrite
        route.append_x_forwarded_host = action.append_x_forwarded_host
        weighted_host = weighted.host_rewrite_literal if weighted is not None else ""
        route.rewrite = compile_rewrite(
            action, entry.match, weighted_host, entry.where, self.compile_format, self.compile_host_format
        )
        route.filter_levels = self._filter_levels(entry, virtual_host, weighted)
        route.finalize_request = compile_request(levels, self.compile_format)
        route.finalize_response = compile_response(levels, self.compile_format)
        route.connect = action.connect
        route.upgrades = {name.lower().encode(): enabled for name, enabled in action.upgrades}
        if route.finalize_response is None and makes_cookies(action.hash_policies):
            route.finalize_response = _leave
        route.passes_response = route.finalize_response is None and not virtual_host.include_attempt_count_in_response
        route.is_plain = (
            route.finalize_request is None
            and route.rewrite is None
            and not route.auto_host_rewrite
            and not route.idle_timeout_set
            and not virtual_host.include_request_attempt_count
            and route.retries is None
            and route.policies is None
            and not action.is_high
            and not route.cluster_header
            and (action.connect is None or not action.connect.allow_post)
        )
        return route

    def _compile_exchange(
        self,
        route: Route,
        action: ForwardAction,
        virtual_host: VirtualHostConfig,
        levels: list[tuple[HeaderMutations, Where]],
    ) -> None:
        """How long it may last, and what follows it."""
        route.policies = policies = compile_policies(action, virtual_host, self.mirrors, levels)
        # A max_stream_duration puts an end to the route's timeout, whatever that is.
        timeout_s = action.timeout_s if action.policies.max_stream_duration is None else None
        route.timeout_s = expected_s = timeout_s
        retry_policy = action.retry_policy or virtual_host.retry_policy
        always = policies is not None and policies.shape_exchange
        route.retries = compile_retries(retry_policy, timeout_s, always=always)
        has_own_time = route.retries is not None and route.retries.per_try_timeout_s is not None
        if route.retries is not None and has_own_time and not (policies is not None and policies.hedges):
            expected_s = route.retries.per_try_timeout_s
        if expected_s is not None:
            route.timeout_header = (b"x-envoy-expected-rq-timeout-ms", b"%d" % milliseconds(expected_s))

    def _filter_levels(
        self, entry: RouteEntry, virtual_host: VirtualHost, weighted: WeightedCluster | None
    ) -> tuple[FilterLevel, ...]:
        levels = [entry.per_filter_config, virtual_host.config.per_filter_config, self.config.per_filter_config]
        if weighted is not None:
            levels.insert(0, weighted.per_filter_config)
        return tuple(level for level in levels if level)

    def _levels(
        self, entry: RouteEntry, virtual_host: VirtualHost, weighted: WeightedCluster | None
    ) -> list[tuple[HeaderMutations, Where]]:
        """The levels in the order they are applied: the last one wins. A weighted cluster's come first either way."""
        levels = [
            (entry.headers, entry.where),
            (virtual_host.config.headers, virtual_host.config.where),
            (self.config.headers, virtual_host.config.where),
        ]
        if self.config.most_specific_header_mutations_wins:
            levels.reverse()
        return [(weighted.headers, entry.where), *levels] if weighted is not None else levels


def _leave(_stream: Stream, _headers: Headers) -> None:
    """For a response that gets nothing but cookies, which the router adds."""


# Choosing the virtual host


def host_without_port(host: bytes) -> bytes:
    """``host`` up to its port; the colons of an IPv6 address in brackets are not a port's."""
    colon = host.rfind(b":")
    return host if colon < 0 or colon < host.rfind(b"]") else host[:colon]


def _no_route(_stream: Stream) -> None:
    return None


def compile_hosts(by_domain: dict[bytes, Ask[T]], ignore_port: bool, header: str = "") -> Ask[T | None]:
    """Ask the one that the request's host chooses among ``by_domain``, which loses its ``*``; the first line of ``header``
    instead of the host, where one is given. Without that line there is none, unless ``*`` is all there is.
    """
    default = by_domain.pop(b"*", None)
    if not by_domain:
        return default or _no_route
    suffixes = {domain[1:]: select for domain, select in by_domain.items() if domain.startswith(b"*")}
    prefixes = {
        domain[:-1]: select
        for domain, select in by_domain.items()
        if domain.endswith(b"*") and not domain.startswith(b"*")
    }
    exact = {
        domain: select
        for domain, select in by_domain.items()
        if not domain.startswith(b"*") and not domain.endswith(b"*")
    }
    suffix_lengths = sorted({len(suffix) for suffix in suffixes}, reverse=True)
    prefix_lengths = sorted({len(prefix) for prefix in prefixes}, reverse=True)
    exact_get = exact.get

    def find(host: bytes) -> Ask[T] | None:
        host = host.lower()
        if ignore_port:
            host = host_without_port(host)
        select = exact_get(host)
        if select is not None:
            return select
        # A wildcard stands for at least one character.
        size = len(host)
        for length in suffix_lengths:
            if length < size:
                select = suffixes.get(host[size - length :])
                if select is not None:
                    return select
        for length in prefix_lengths:
            if length < size:
                select = prefixes.get(host[:length])
                if select is not None:
                    return select
        return default

    if header:
        return _by_header(header.lower().encode(), find)

    def match(stream: Stream) -> T | None:
        host = stream.authority
        # A domain with a port never matches when ports are ignored, so it must not be found here.
        select = exact_get(host) if not ignore_port else None
        if select is None:
            select = find(host)
            if select is None:
                return None
        return select(stream)

    return match


def _by_header(name: bytes, find: Callable[[bytes], Ask[T] | None]) -> Ask[T | None]:
    def match(stream: Stream) -> T | None:
        for key, value in stream.request_headers:
            if key == name:
                select = find(value)
                return select(stream) if select is not None else None
        return None

    return match


# Choosing the route


def _compile_virtual_host(
    virtual_host: VirtualHost, dice: Dice, compile_them: Callable[[Sequence[Route], Dice], Select]
) -> Select:
    tree, routes = virtual_host.config.matcher, virtual_host.routes
    if tree is not None:
        select = compile_match_tree(tree, lambda numbers: compile_them([routes[number] for number in numbers], dice))
    else:
        select = compile_them(routes, dice)
    if any(route.weighted is not None for route in virtual_host.routes):
        select = _with_weights(select, virtual_host.routes, dice)
    if virtual_host.config.require_tls != "NONE":
        select = _with_tls(select, virtual_host)
    return select


def _with_weights(select: Select, routes: Sequence[Route], dice: Dice) -> Select:
    picks = {id(route): _pick(route, dice) for route in routes if route.weighted is not None}

    def select_weighted(stream: Stream) -> Route | None:
        route = select(stream)
        if route is None or route.weighted is None:
            return route
        return picks[id(route)](stream)

    return select_weighted


def _pick(route: Route, dice: Dice) -> Pick:
    config = route.config
    assert route.weighted is not None
    assert config is not None
    assert isinstance(config.action, ForwardAction)
    return compile_pick(config.action, route.weighted, config.where, dice)


def _with_tls(select: Select, virtual_host: VirtualHost) -> Select:
    redirect = Route(None, REDIRECT, virtual_host)
    redirect.redirect = lambda stream: (301, https_location(stream))
    external_only = virtual_host.config.require_tls == "EXTERNAL_ONLY"

    def select_secure(stream: Stream) -> Route | None:
        if forwarded_proto(stream) != b"https" and not (
            external_only and request_header(stream, b"x-envoy-internal") == b"true"
        ):
            return redirect
        return select(stream)

    return select_secure


class _PathIndex:
    """The numbers of the routes that a path, a prefix of it, or both lower-cased, may choose.

    Per key the numbers ascend and end with the first route that has no condition: nothing after it can be reached.
    """

    def __init__(self) -> None:
        self.exact: dict[bytes, list[int]] = {}
        self.prefix: dict[bytes, list[int]] = {}

    def add(self, match: RouteMatch, number: int, closed: Callable[[int], bool]) -> None:
        value = match.value.encode() if match.case_sensitive else match.value.lower().encode()
        if match.kind == "path" or match.kind == "path_separated_prefix":
            self._append(self.exact, value, number, closed)
        if match.kind == "prefix":
            self._append(self.prefix, value, number, closed)
        elif match.kind == "path_separated_prefix":
            # "/a" matches "/a" itself and what begins with "/a/".
            self._append(self.prefix, value + b"/", number, closed)

    @staticmethod
    def _append(table: dict[bytes, list[int]], key: bytes, number: int, closed: Callable[[int], bool]) -> None:
        numbers = table.setdefault(key, [])
        if not numbers or not closed(numbers[-1]):
            numbers.append(number)

    def lengths(self) -> list[tuple[int, int]]:
        """(prefix length, lowest number of a prefix of that length), by lowest number."""
        lowest: dict[int, int] = {}
        for prefix, numbers in self.prefix.items():
            length = len(prefix)
            lowest[length] = min(numbers[0], lowest.get(length, numbers[0]))
        return sorted(lowest.items(), key=lambda item: item[1])


def compile_routes(routes: Sequence[Route], dice: Dice = fair) -> Select:
    """Find the first of ``routes`` that matches; of one with weighted clusters no cluster is chosen yet.

    ``ignores_path_parameters``: of every segment of a path only counts what is before its first ";", but not for URI templates.
    """
    routes = [route for route in routes if not route.takes_connect]
    matches: list[RouteMatch] = []
    conditions: list[StreamTest | None] = []
    for route in routes:
        assert route.config is not None
        matches.append(route.config.match)
        conditions.append(compile_condition(route.config.match, route.config.where, dice))
    if not routes:
        return _no_route
    if matches[0].kind == "prefix" and matches[0].value in ("", "/") and conditions[0] is None:
        return _compile_catch_all(routes[0], matches[0].value)

    ignore_parameters = routes[0].virtual_host.ignores_path_parameters

    def closed(number: int) -> bool:
        return conditions[number] is None

    sensitive, folded = _PathIndex(), _PathIndex()
    patterns: list[tuple[int, str, Where]] = []
    templates: list[tuple[int, str, Where]] = []
    for number, (match, route) in enumerate(zip(matches, routes, strict=True)):
        if match.kind in ("safe_regex", "uri_template"):
            assert route.config is not None
            kind = templates if ignore_parameters and match.kind == "uri_template" else patterns
            kind.append((number, match.value, route.config.where))
        else:
            (sensitive if match.case_sensitive else folded).add(match, number, closed)
    if not (patterns or templates or folded.exact or folded.prefix or ignore_parameters or any(conditions)):
        return _compile_plain(routes, sensitive)
    finders: list[Finder] = []
    if sensitive.exact or sensitive.prefix:
        finders.append(_candidates(sensitive))
    if folded.exact or folded.prefix:
        finders.append(_folding(_candidates(folded)))
    if patterns:
        finders.append(compile_regex_set(patterns))
    if ignore_parameters:
        finders = [_without_parameters(find) for find in finders]
        if templates:
            finders.append(compile_regex_set(templates))
    return _compile_conditional(routes, conditions, finders)


def compile_connects(routes: Sequence[Route], dice: Dice = fair) -> Select:
    """The same for a CONNECT: only a route that says so takes it."""
    conditional: list[tuple[StreamTest | None, Route]] = []
    for route in routes:
        if route.takes_connect:
            assert route.config is not None
            conditional.append((compile_condition(route.config.match, route.config.where, dice), route))
    if not conditional:
        return _no_route

    def select(stream: Stream) -> Route | None:
        for condition, route in conditional:
            if condition is None or condition(stream):
                return route
        return None

    return select


def _compile_catch_all(route: Route, prefix: str) -> Select:
    if not prefix:
        return lambda _stream: route

    def select(stream: Stream) -> Route | None:
        return route if stream.path[:1] == b"/" else None

    return select


def _compile_plain(routes: Sequence[Route], index: _PathIndex) -> Select:
    """Paths and prefixes without any condition: the lowest number found, or none."""
    nothing = len(routes)
    table: tuple[Route | None, ...] = (*routes, None)
    exact = {path: numbers[0] for path, numbers in index.exact.items()}
    exact_get = exact.get
    prefix_get = {prefix: numbers[0] for prefix, numbers in index.prefix.items()}.get
    lengths = tuple(index.lengths())

    def select(stream: Stream) -> Route | None:
        path = stream.path
        if b"?" in path:
            path = path[: path.index(b"?")]
        if b"#" in path:
            path = path[: path.index(b"#")]
        best = exact_get(path, nothing)
        for length, lowest in lengths:
            if lowest > best:
                break
            number = prefix_get(path[:length], nothing)
            if number < best:
                best = number
        return table[best]

    return select


Finder = Callable[[bytes], list[int]]
"""From a path without its query to a new list of the numbers of the routes that it may choose."""


def _candidates(index: _PathIndex) -> Finder:
    exact_get = index.exact.get
    prefix_get = index.prefix.get
    lengths = tuple(length for length, _ in index.lengths())
    none: list[int] = []

    def candidates(path: bytes) -> list[int]:
        found = list(exact_get(path, none))
        for length in lengths:
            numbers = prefix_get(path[:length])
            if numbers is not None:
                found += numbers
        return found

    return candidates


def _folding(find: Finder) -> Finder:
    return lambda path: find(path.lower())


_PARAMETERS: Final = re.compile(rb";[^/]*")


def _without_parameters(find: Finder) -> Finder:
    remove = _PARAMETERS.sub
    return lambda path: find(remove(b"", path))


def _compile_conditional(
    routes: Sequence[Route], conditions: Sequence[StreamTest | None], finders: Sequence[Finder]
) -> Select:
    """The general case: every route whose path matches, tried in the order of the file."""
    find, *others = finders
    more = tuple(others)

    def select(stream: Stream) -> Route | None:
        path = stream.path
        if b"?" in path:
            path = path[: path.index(b"?")]
        if b"#" in path:
            path = path[: path.index(b"#")]
        numbers = find(path)
        for find_more in more:
            numbers += find_more(path)
        numbers.sort()
        for number in numbers:
            condition = conditions[number]
            if condition is None or condition(stream):
                return routes[number]
        return None

    return select
