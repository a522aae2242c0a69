"""What several messages share: addresses, data sources, header options, string and header matchers, percentages.

Every class here is a frozen value: made once in the supervisor, inherited by every worker through fork.
"""

from __future__ import annotations

import ipaddress

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.where import Where as Where
from forkproxy.config.build.where import build_where as build_where
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class AddressConfig:
    """``config.core.v3.Address``: an IP socket address or a unix-domain socket path.

    ``host`` is an IP literal for listeners and STATIC endpoints, a name for DNS clusters; ``pipe_path`` is set for a Pipe
    (a leading ``@`` means the abstract namespace) and then ``host`` is empty and ``port`` 0.
    """

    host: str = ""
    port: int = 0
    pipe_path: str = ""
    pipe_mode: int = 0
    ipv4_compat: bool = False

    def __str__(self) -> str:
        if self.pipe_path:
            return self.pipe_path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class HeaderValueOption:
    """``config.core.v3.HeaderValueOption``. ``value`` is a substitution format string, not yet compiled.

    ``append_action``: "APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD" or "OVERWRITE_IF_EXISTS".
    """

    key: str
    value: str
    append_action: str
    keep_empty_value: bool
    where: Where


@frozen
class HeaderMutations:
    """The four header lists that virtual hosts, routes, weighted clusters and route configurations carry."""

    request_add: tuple[HeaderValueOption, ...] = ()
    request_remove: tuple[str, ...] = ()
    response_add: tuple[HeaderValueOption, ...] = ()
    response_remove: tuple[str, ...] = ()


NO_HEADER_MUTATIONS = HeaderMutations()


@frozen
class StringMatcher:
    """``type.matcher.v3.StringMatcher``.

    ``kind``: "exact", "prefix", "suffix", "contains" or "safe_regex" (RE2, the whole string).
    """

    kind: str
    value: str
    ignore_case: bool = False


@frozen
class HeaderMatcher:
    """``config.route.v3.HeaderMatcher``.

    ``kind``: "string" (``string`` set), "range" (``range_start`` <= value < ``range_end``) or "present" (``present`` says
    which way). ``name`` is lower-case, or one of ":method", ":path", ":authority", ":scheme".
    """

    name: str
    kind: str
    string: StringMatcher | None = None
    range_start: int = 0
    range_end: int = 0
    present: bool = True
    invert: bool = False
    treat_missing_as_empty: bool = False


@frozen
class QueryParameterMatcher:
    """``config.route.v3.QueryParameterMatcher``: ``string`` is None for a presence match (then ``present`` says which way)."""

    name: str
    string: StringMatcher | None = None
    present: bool = True


@frozen
class FractionalPercent:
    """``type.v3.FractionalPercent``; ``denominator`` is 100, 10_000 or 1_000_000."""

    numerator: int
    denominator: int = 100
    runtime_key: str = ""


_DENOMINATORS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}
_STRING_KINDS = ("exact", "prefix", "suffix", "contains", "safe_regex")
_APPEND_ACTIONS = (
    "APPEND_IF_EXISTS_OR_ADD",
    "ADD_IF_ABSENT",
    "OVERWRITE_IF_EXISTS_OR_ADD",
    "OVERWRITE_IF_EXISTS",
)
_OLD_HEADER_MATCHES = {
    "exact_match": "exact",
    "prefix_match": "prefix",
    "suffix_match": "suffix",
    "contains_match": "contains",
    "safe_regex_match": "safe_regex",
}


def build_address(view: View, context: BuildContext) -> AddressConfig:
    """``config.core.v3.Address``. A socket address without TCP, a named port and an internal address stay unread."""
    kind = view.which("address")
    if kind == "pipe":
        pipe = view.require("pipe")
        return AddressConfig(pipe_path=pipe.str("path"), pipe_mode=pipe.uint("mode"))
    if kind == "socket_address":
        return build_socket_address(view.require("socket_address"), context)
    return AddressConfig()


def build_socket_address(view: View, context: BuildContext) -> AddressConfig:
    """``config.core.v3.SocketAddress``, TCP only."""
    view.enum("protocol", supported=("TCP",))
    return AddressConfig(
        host=view.str("address"),
        port=view.uint("port_value"),
        ipv4_compat=view.bool("ipv4_compat"),
    )


def build_header_value_option(view: View, context: BuildContext) -> HeaderValueOption:
    """``HeaderValueOption``; the older ``append`` decides when it is set (true: append, false: overwrite)."""
    header = view.require("header")
    header.ignore("raw_value", why="Envoy looks at value alone here")
    append_action = view.enum("append_action", supported=_APPEND_ACTIONS)
    if view.has("append"):
        append_action = "APPEND_IF_EXISTS_OR_ADD" if view.bool("append") else "OVERWRITE_IF_EXISTS_OR_ADD"
    return HeaderValueOption(
        key=header.str("key").lower(),
        value=header.str("value"),
        append_action=append_action,
        keep_empty_value=view.bool("keep_empty_value"),
        where=build_where(view),
    )


def build_header_mutations(view: View, context: BuildContext) -> HeaderMutations:
    """The four lists of the message that ``view`` shows."""
    made = HeaderMutations(
        request_add=context.each(view.repeated("request_headers_to_add"), build_header_value_option),
        request_remove=tuple(name.lower() for name in view.strings("request_headers_to_remove")),
        response_add=context.each(view.repeated("response_headers_to_add"), build_header_value_option),
        response_remove=tuple(name.lower() for name in view.strings("response_headers_to_remove")),
    )
    return NO_HEADER_MUTATIONS if made == NO_HEADER_MUTATIONS else made  # as on most routes


def build_regex(view: View) -> str:
    """``type.matcher.v3.RegexMatcher`` → the pattern. The engine is RE2 whether named or not; its own limit is not read."""
    engine = view.message("google_re2")
    if engine is not None:
        engine.ignore("max_program_size", why="Envoy no longer enforces it")
    return view.str("regex")


def build_string_matcher(view: View, context: BuildContext) -> StringMatcher:
    """``type.matcher.v3.StringMatcher``; a custom matcher stays unread."""
    kind = view.which("match_pattern") or ""
    if kind not in _STRING_KINDS:
        return StringMatcher("exact", "")
    value = build_regex(view.require("safe_regex")) if kind == "safe_regex" else view.str(kind)
    return StringMatcher(kind, value, view.bool("ignore_case"))


def build_header_matcher(view: View, context: BuildContext) -> HeaderMatcher:
    """``config.route.v3.HeaderMatcher``; without any match it asks for presence, as in Envoy."""
    kind = view.which("header_match_specifier")
    string: StringMatcher | None = None
    range_start = range_end = 0
    present = True
    matcher_kind = "string"
    if kind is None:
        matcher_kind = "present"
    elif kind == "present_match":
        matcher_kind = "present"
        present = view.bool("present_match")
    elif kind == "range_match":
        matcher_kind = "range"
        bounds = view.require("range_match")
        range_start, range_end = bounds.int("start"), bounds.int("end")
    elif kind == "string_match":
        string = build_string_matcher(view.require("string_match"), context)
    elif kind == "safe_regex_match":
        string = StringMatcher("safe_regex", build_regex(view.require("safe_regex_match")))
    else:
        string = StringMatcher(_OLD_HEADER_MATCHES[kind], view.str(kind))
    return HeaderMatcher(
        name=view.str("name").lower(),
        kind=matcher_kind,
        string=string,
        range_start=range_start,
        range_end=range_end,
        present=present,
        invert=view.bool("invert_match"),
        treat_missing_as_empty=view.bool("treat_missing_header_as_empty"),
    )


def build_query_parameter_matcher(view: View, context: BuildContext) -> QueryParameterMatcher:
    """``config.route.v3.QueryParameterMatcher``; without any match it asks for presence."""
    kind = view.which("query_parameter_match_specifier")
    if kind == "string_match":
        return QueryParameterMatcher(view.str("name"), build_string_matcher(view.require("string_match"), context))
    present = view.bool("present_match") if kind == "present_match" else True
    return QueryParameterMatcher(view.str("name"), None, present)


def build_fractional_percent(view: View, context: BuildContext) -> FractionalPercent:
    """``type.v3.FractionalPercent``."""
    return FractionalPercent(view.uint("numerator"), _DENOMINATORS[view.enum("denominator")])


def build_runtime_fraction(view: View, context: BuildContext) -> FractionalPercent:
    """``RuntimeFractionalPercent``: an integer of a static runtime layer replaces the default and counts in percent."""
    default = build_fractional_percent(view.require("default_value"), context)
    key = view.str("runtime_key")
    return runtime_fraction(key, context) or FractionalPercent(default.numerator, default.denominator, key)


def runtime_fraction(key: str, context: BuildContext) -> FractionalPercent | None:
    """What the static runtime layers say under ``key``: a fraction, or a number in percent; None when nothing."""
    value = context.runtime_value(key)
    if isinstance(value, dict):
        denominator = _DENOMINATORS.get(str(value.get("denominator", "HUNDRED")), 100)
        return FractionalPercent(int(value.get("numerator", 0)), denominator, key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return FractionalPercent(min(int(value), 100), 100, key)
    return None


def build_runtime_uint(view: View, context: BuildContext) -> int:
    """``RuntimeUInt32``: the static runtime layer's value, or the default."""
    default = view.uint("default_value")
    value = context.runtime_value(view.str("runtime_key"))
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def build_cidr_range(view: View, context: BuildContext) -> str:
    """``CidrRange`` as "address/len"; an absent ``prefix_len`` is 0, as in protobuf."""
    prefix = view.str("address_prefix")
    length = view.uint("prefix_len")
    try:
        address = ipaddress.ip_address(prefix)
    except ValueError:
        view.report(f"malformed IP address: {prefix}", field="address_prefix")
        return "0.0.0.0/0"
    # Envoy, too, cuts a length that is too large for the address.
    return str(ipaddress.ip_network((address, min(length, address.max_prefixlen)), strict=False))


def build_header_key_format(view: View) -> str:
    """``Http1ProtocolOptions.header_key_format``: "" (lower-case) or "proper_case_words"."""
    key_format = view.message("header_key_format")
    is_proper_case = key_format is not None and key_format.message("proper_case_words") is not None
    return "proper_case_words" if is_proper_case else ""
