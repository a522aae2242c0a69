"""Why a route table sends a request where it sends it. For ``forkproxy route``; nothing here is on the path of requests.

The rule: no verdict is made here. What a route asks for is taken apart into criteria (its path, each header, …), each
becomes a route of its own, and ``table.compile_routes`` says whether that one matches; domains go through
``table.compile_hosts`` one by one. So what is told cannot differ from what is served, and a matcher that this module
has no words for is judged all the same and told by its fields.

What is left to chance (``runtime_fraction``, weighted clusters) makes several outcomes, each with its share of the
requests; a table that was compiled with ``loaded`` dice chooses one of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from forkproxy.config.build.core import HeaderMatcher, QueryParameterMatcher, StringMatcher, Where
from forkproxy.config.build.route import ForwardAction, RouteMatch
from forkproxy.config.values import frozen
from forkproxy.router.match_tree import compile_match_tree
from forkproxy.router.matcher import Dice, compile_regex, query_of
from forkproxy.router.rewrite import query_start, request_header
from forkproxy.router.table import (
    Route,
    RouteTable,
    VirtualHost,
    compile_connects,
    compile_hosts,
    compile_routes,
    host_without_port,
)
from forkproxy.router.weighted import compile_pick

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

_CONNECT = b"CONNECT"
_CONNECT_MATCHER = "connect_matcher"
_PATH_FIELDS = frozenset(("kind", "value", "case_sensitive", "template"))
_CHANCE = "runtime_fraction"
_PSEUDO = frozenset((":method", ":path", ":authority", ":scheme", "host"))
_SHOWN_CHARACTERS = 120
_OF_FILTERS = frozenset(("dynamic_metadata", "filter_state"))


@frozen
class Criterion:
    """One thing that is asked of a request: what, whether it is so, what the request has instead, and what may be meant."""

    wants: str
    matches: bool
    got: str = ""
    hint: str = ""


@frozen
class Judgement:
    """One route of the virtual host. ``matches`` leaves chance aside; ``share`` is the part of requests that chance leaves it."""

    number: int
    route: Route
    criteria: tuple[Criterion, ...]
    matches: bool
    share: float

    @property
    def missed(self) -> tuple[Criterion, ...]:
        """What the request does not fulfil."""
        return tuple(criterion for criterion in self.criteria if not criterion.matches)


@frozen
class Outcome:
    """Where a share of such requests goes. ``route`` as the table lists it, ``choice`` as ``match`` returns it; None: 404.

    ``number`` is the route's in its virtual host; None also for the redirect of ``require_tls``.
    """

    route: Route | None
    choice: Route | None
    number: int | None
    share: float
    weight: tuple[int, int] | None = None
    """Of a weighted cluster: its weight, and the sum of all."""


@frozen
class OtherDomain:
    """A virtual host that was not taken: the domain that came nearest, and why it was not enough."""

    virtual_host: VirtualHost
    domain: str
    why: str


@frozen
class Explanation:
    """``chosen`` is what ``match`` says, where that is no matter of chance, or the table's dice are loaded."""

    host: str
    """What domains were compared with."""
    virtual_host: VirtualHost | None
    domain: str
    other_domains: tuple[OtherDomain, ...]
    judgements: tuple[Judgement, ...]
    outcomes: tuple[Outcome, ...]
    chosen: Outcome | None
    hints: tuple[str, ...] = field(default=())


def loaded(number: int) -> Dice:
    """Dice that always fall as ``number`` says: Envoy takes one random number, and of it the rest by what it needs."""

    def dice(sides: int) -> Callable[[], float]:
        fallen = (number % sides + 0.5) / sides
        return lambda: fallen

    return dice


def explain(table: RouteTable, stream: Stream, *, dice_are_loaded: bool = False) -> Explanation:
    """What ``table.match(stream)`` does, or for a CONNECT ``match_connect``, and why."""
    virtual_host, domain = _choose_virtual_host(table, stream)
    host = _host(table, stream).lower()
    compared = host_without_port(host) if table.config.ignore_port_in_host_matching else host
    others = tuple(_other_domains(table, stream, virtual_host))
    hints = tuple(_host_hints(table, stream, virtual_host, domain))
    asked = _asked(virtual_host, stream)
    judgements = tuple(_judge(number, route, stream, asked) for number, route in enumerate(_routes(virtual_host)))
    outcomes = tuple(_outcomes(judgements, stream))
    chosen: Outcome | None = None
    served = table.match_connect(stream) if stream.method == _CONNECT else table.match(stream)
    if served is not None and served.config is None:  # require_tls has the first word
        outcomes = (Outcome(served, served, None, 1.0),)
    if dice_are_loaded or len(outcomes) == 1:
        chosen = next((each for each in outcomes if each.choice is served), None) or _unforeseen(judgements, served)
    return Explanation(_text(compared), virtual_host, domain, others, judgements, outcomes, chosen, hints)


def _routes(virtual_host: VirtualHost | None) -> Sequence[Route]:
    return virtual_host.routes if virtual_host is not None else ()


def _unforeseen(judgements: Sequence[Judgement], served: Route | None) -> Outcome:
    # What is served is right whatever stands here.
    for judgement in judgements:
        if served in (judgement.route, *(judgement.route.weighted or ())):
            return Outcome(judgement.route, served, judgement.number, 1.0)
    return Outcome(served, served, None, 1.0)


# Virtual hosts


def _host(table: RouteTable, stream: Stream) -> bytes:
    """What names the virtual host."""
    name = table.config.vhost_header.lower().encode()
    return request_header(stream, name) if name else stream.authority


def _choose_virtual_host(table: RouteTable, stream: Stream) -> tuple[VirtualHost | None, str]:
    domains = {
        domain.lower(): (virtual_host, domain)
        for virtual_host in table.virtual_hosts
        for domain in virtual_host.config.domains
    }
    config = table.config
    found: Any = _ask_hosts(domains, stream, config.ignore_port_in_host_matching, config.vhost_header)
    return found or (None, "")


def _ask_hosts(domains: dict[str, Any], stream: Stream, ignore_port: bool, header: str = "") -> Any:
    def answer(what: Any) -> Callable[[Stream], Any]:
        return lambda _stream: what

    by_domain = {domain.encode(): answer(what) for domain, what in domains.items()}
    return compile_hosts(by_domain, ignore_port, header)(stream)


def _other_domains(table: RouteTable, stream: Stream, taken: VirtualHost | None) -> Iterator[OtherDomain]:
    ignore_port, header = table.config.ignore_port_in_host_matching, table.config.vhost_header
    for virtual_host in table.virtual_hosts:
        if virtual_host is taken:
            continue
        domains = virtual_host.config.domains
        matching = [domain for domain in domains if _ask_hosts({domain.lower(): True}, stream, ignore_port, header)]
        if matching:
            yield OtherDomain(virtual_host, matching[0], "matches too, but is less specific")
        else:
            yield OtherDomain(virtual_host, domains[0] if domains else "", "does not match")


def _with_host(stream: Stream, authority: bytes) -> Stream:
    other = copy.copy(stream)
    other.authority = authority
    return other


def _host_hints(table: RouteTable, stream: Stream, taken: VirtualHost | None, domain: str) -> Iterator[str]:
    """What the user may have meant, when the host found nothing better than "*"."""
    if taken is not None and domain != "*":
        return
    host = _host(table, stream).lower()
    bare = host_without_port(host)
    specific = {each.lower(): each for vhost in table.virtual_hosts for each in vhost.config.domains if each != "*"}
    if bare != host and not table.config.ignore_port_in_host_matching:
        found = _ask_hosts(dict(specific), _with_host(stream, bare), False)
        if found:
            yield (
                f'without its port the host would match the domain "{found}": see strip_any_host_port,'
                " strip_matching_host_port and ignore_port_in_host_matching"
            )
    if table.config.ignore_port_in_host_matching and host.decode("latin-1") in specific:
        yield "with ignore_port_in_host_matching a domain that has a port never matches"
    if bare.endswith(b".") and _ask_hosts(dict(specific), _with_host(stream, bare[:-1]), False):
        yield "without the dot at its end the host would match: see strip_trailing_host_dot"


# Routes


def _asked(virtual_host: VirtualHost | None, stream: Stream) -> Sequence[int]:
    """The numbers of the routes that are asked: all, unless the virtual host has a matcher, which leads to some of them."""
    tree = virtual_host.config.matcher if virtual_host is not None else None
    if tree is None:
        return range(len(_routes(virtual_host)))
    found: list[tuple[int, ...]] = []

    def leaf(numbers: tuple[int, ...]) -> Callable[[Stream], None]:
        return lambda _stream: found.append(numbers)

    compile_match_tree(tree, leaf)(stream)
    return found[0] if found else ()


def _judge(number: int, route: Route, stream: Stream, asked: Sequence[int]) -> Judgement:
    assert route.config is not None
    match = route.config.match
    criteria = [_path_criterion(route, match, stream)]
    if number not in asked:
        criteria.append(Criterion("the virtual host's matcher", False, "leads elsewhere"))
    for name, part, alone in _conditions(match):
        matches = _matches(route, alone, stream)
        criteria.append(_describe(name, part, matches, stream))
    matches = all(criterion.matches for criterion in criteria)
    if matches and not _matches(route, replace(match, runtime_fraction=None), stream):
        matches = False
        criteria.append(Criterion("all of this together", False))
    fraction = match.runtime_fraction
    share = min(fraction.numerator / fraction.denominator, 1.0) if fraction is not None else 1.0
    return Judgement(number, route, tuple(criteria), matches, share)


def _matches(route: Route, match: RouteMatch, stream: Stream) -> bool:
    """Whether a route of this match alone would take the request."""
    assert route.config is not None
    probe = Route(replace(route.config, match=match), route.kind, route.virtual_host)
    compile_it = compile_connects if match.kind == _CONNECT_MATCHER else compile_routes
    return compile_it((probe,))(stream) is probe


def _default(of: Field[Any]) -> Any:
    return of.default_factory() if of.default_factory is not MISSING else of.default


def _conditions(match: RouteMatch) -> Iterator[tuple[str, Any, RouteMatch]]:
    """What is asked besides the path: the field, one of its values, and a match that asks for nothing else."""
    for each in fields(match):
        value = getattr(match, each.name)
        if each.name in _PATH_FIELDS or each.name == _CHANCE or value == _default(each):
            continue
        for part in value if isinstance(value, tuple) else (value,):
            only: dict[str, Any] = {each.name: (part,) if isinstance(value, tuple) else part}
            kind = match.kind if match.kind == _CONNECT_MATCHER else "prefix"
            yield each.name, part, RouteMatch(kind, "", **only)


def _path_only(match: RouteMatch) -> RouteMatch:
    return RouteMatch(match.kind, match.value, match.case_sensitive, template=match.template)


def _outcomes(judgements: Sequence[Judgement], stream: Stream) -> Iterator[Outcome]:
    left = 1.0
    for judgement in judgements:
        if judgement.matches and judgement.share > 0:
            share = left * judgement.share
            yield from _choices(judgement, share, stream)
            left -= share
            if judgement.share >= 1.0:
                return
    if left > 0:
        yield Outcome(None, None, None, left)


def _choices(judgement: Judgement, share: float, stream: Stream) -> Iterator[Outcome]:
    route = judgement.route
    if route.weighted is None:
        yield Outcome(route, route, judgement.number, share)
        return
    assert route.config is not None
    action = route.config.action
    assert isinstance(action, ForwardAction)
    weights = [cluster.weight for cluster in action.weighted_clusters]
    total = sum(weights)
    # With every number that may fall: a header or a hash may leave nothing to chance.
    ends = accumulate(weight for weight in weights if weight)
    picks = [compile_pick(action, route.weighted, route.config.where, loaded(end - 1))(stream) for end in ends]
    is_certain = len({id(pick) for pick in picks}) == 1
    for choice, weight in zip(route.weighted, weights, strict=True):
        if weight and (choice is picks[0] or not is_certain):
            part = 1.0 if is_certain else weight / total
            yield Outcome(route, choice, judgement.number, share * part, (weight, total))


# Words


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def quoted(value: str) -> str:
    """``value`` in quotes, what cannot be printed escaped, and not endlessly long."""
    if len(value) > _SHOWN_CHARACTERS:
        value = value[:_SHOWN_CHARACTERS] + "…"
    return '"' + "".join(each if each.isprintable() else ascii(each)[1:-1] for each in value) + '"'


_PATH_WORDS = {"safe_regex": "regex"}
_ARE_REGEXES = frozenset(("safe_regex", "uri_template"))


def _path_criterion(route: Route, match: RouteMatch, stream: Stream) -> Criterion:
    is_connect = stream.method == _CONNECT
    if match.kind == _CONNECT_MATCHER:
        return Criterion("a CONNECT", is_connect, "" if is_connect else f"the method is {_text(stream.method)}")
    alone = _path_only(match)
    wants = path_words(match)
    if is_connect:
        return Criterion(wants, False, "a CONNECT has no path", "connect_matcher matches it")
    matches = _matches(route, alone, stream)
    if matches:
        return Criterion(wants, True)
    path = stream.path[: query_start(stream.path)]
    return Criterion(wants, False, f"the path is {quoted(_text(path))}", _path_hint(route, alone, path, stream))


def path_words(match: RouteMatch) -> str:
    """What the match says of the path, as in ``prefix "/api"``."""
    ignoring = "" if match.case_sensitive or match.kind in _ARE_REGEXES else ", in any case"
    return f"{_PATH_WORDS.get(match.kind, match.kind)} {quoted(match.template or match.value)}{ignoring}"


def _path_hint(route: Route, match: RouteMatch, path: bytes, stream: Stream) -> str:
    value = match.value.encode()
    if match.kind in _ARE_REGEXES:
        return _regex_hint(match.value, path)
    if match.case_sensitive and _matches(route, replace(match, case_sensitive=False), stream):
        return "it differs in upper and lower case"
    if b"?" in value:
        return "a query is never part of the path: query_parameters match it"
    if not value.startswith(b"/"):
        return "every path begins with a slash"
    if value.rstrip(b"/") == path.rstrip(b"/"):
        return "the request has no slash at its end" if value.endswith(b"/") else "the request has a slash at its end"
    if match.kind == "path" and path.startswith(value):
        return "path means the whole path: prefix would match"
    if match.kind == "path_separated_prefix" and path.startswith(value):
        return "after it the path must end, or go on with a slash"
    return ""


def _regex_hint(pattern: str, value: bytes) -> str:
    somewhere = compile_regex(f"(?s).*?(?:{pattern})(?s:.*)", Where())
    return "it matches a part, and must match the whole" if somewhere(value) else ""


_STRING_WORDS = {
    "exact": "is",
    "prefix": "begins with",
    "suffix": "ends with",
    "contains": "contains",
    "safe_regex": "matches regex",
}


def _string_words(matcher: StringMatcher) -> str:
    ignoring = ", in any case" if matcher.ignore_case else ""
    return f"{_STRING_WORDS.get(matcher.kind, matcher.kind)} {quoted(matcher.value)}{ignoring}"


def _string_hint(matcher: StringMatcher, value: bytes) -> str:
    if matcher.kind == "safe_regex":
        return _regex_hint(matcher.value, value)
    if matcher.kind == "exact" and value.lower() == matcher.value.lower().encode():
        return "it differs in upper and lower case"
    return ""


def _describe(name: str, part: Any, matches: bool, stream: Stream) -> Criterion:
    if isinstance(part, HeaderMatcher):
        return _describe_header(part, matches, stream)
    if isinstance(part, QueryParameterMatcher):
        return _describe_query(part, matches, stream)
    if name == "grpc":
        kind = request_header(stream, b"content-type")
        got = f"content-type is {quoted(_text(kind))}" if kind else "there is no content-type"
        return Criterion("gRPC, by content-type application/grpc", matches, "" if matches else got)
    if name in ("presented", "validated"):
        wants = f"{'a' if part else 'no'} client certificate that is {name}"
        return Criterion(wants, matches, "" if matches else "such a request is taken to come without one")
    got = "nothing is known of it before the filters run" if name in _OF_FILTERS else "the request has none such"
    return Criterion(f"{name} {_generic(part)}".rstrip(), matches, "" if matches else got)


def header_words(matcher: HeaderMatcher) -> str:
    """What a header matcher asks for, as in ``header x-env is "prod"``."""
    if matcher.kind == "present":
        what = "is there" if matcher.present != matcher.invert else "is absent"
        return f"header {matcher.name} {what}"
    if matcher.kind == "range":
        words = f"is a number from {matcher.range_start} to less than {matcher.range_end}"
    elif matcher.string is not None:
        words = _string_words(matcher.string)
    else:
        words = matcher.kind
    return f"header {matcher.name} {'not: ' if matcher.invert else ''}{words}"


def _describe_header(matcher: HeaderMatcher, matches: bool, stream: Stream) -> Criterion:
    wants = header_words(matcher)
    if matches:
        return Criterion(wants, True)
    name = matcher.name.encode()
    if matcher.name in _PSEUDO:
        values = [value for value in (request_header(stream, name),) if value]
    else:
        values = [value for key, value in stream.request_headers if key == name]
    if not values:
        hint = "a header that is missing matches nothing, not even inverted" if matcher.invert else ""
        return Criterion(wants, False, f"there is no {matcher.name}", "" if matcher.kind == "present" else hint)
    got = f"{matcher.name} is " + ", ".join(quoted(_text(value)) for value in values)
    hint = _string_hint(matcher.string, values[0]) if matcher.string is not None and not matcher.invert else ""
    return Criterion(wants, False, got, hint)


def _describe_query(matcher: QueryParameterMatcher, matches: bool, stream: Stream) -> Criterion:
    if matcher.string is not None:
        wants = f"query parameter {matcher.name} {_string_words(matcher.string)}"
    else:
        wants = f"query parameter {matcher.name} is {'there' if matcher.present else 'absent'}"
    if matches:
        return Criterion(wants, True)
    pairs = [pair.partition(b"=") for pair in query_of(stream.path).split(b"&")]
    values = [value for key, _, value in pairs if key == matcher.name.encode()]
    if not values:
        return Criterion(wants, False, f"there is no {matcher.name}")
    hint = _string_hint(matcher.string, values[0]) if matcher.string is not None else ""
    return Criterion(wants, False, f"{matcher.name} is {quoted(_text(values[0]))}", hint)


def _generic(value: Any) -> str:
    """A configuration value by its fields, for what there are no words for."""
    if is_dataclass(value) and not isinstance(value, type):
        said = [
            f"{each.name} {_generic(getattr(value, each.name))}"
            for each in fields(value)
            if not isinstance(getattr(value, each.name), Where) and getattr(value, each.name) != _default(each)
        ]
        return f"({', '.join(said)})"
    if isinstance(value, tuple):
        return f"[{', '.join(_generic(each) for each in value)}]"
    return quoted(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
