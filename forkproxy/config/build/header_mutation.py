"""``extensions.filters.http.header_mutation.v3`` → HeaderMutationConfig."""

from __future__ import annotations

from dataclasses import replace

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import (
    HeaderValueOption,
    StringMatcher,
    Where,
    build_header_value_option,
    build_string_matcher,
    build_where,
)
from forkproxy.config.values import frozen
from forkproxy.config.view import View

type_url = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"

_ACTIONS = ("APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS")


@frozen
class MutationStep:
    """``config.common.mutation_rules.v3.HeaderMutation``: one of the three is set."""

    add: HeaderValueOption | None = None
    remove: str = ""
    remove_matching: StringMatcher | None = None
    where: Where = Where()


@frozen
class QueryMutation:
    """``KeyValueMutation``: ``value`` is a format, None removes. ``action`` is one of HeaderValueOption's."""

    key: str
    value: str | None
    action: str
    where: Where


@frozen
class HeaderMutationConfig:
    """``HeaderMutation`` and ``HeaderMutationPerRoute``: each mutation is a step of its own, in the order of the file."""

    request: tuple[MutationStep, ...] = ()
    response: tuple[MutationStep, ...] = ()
    request_trailers: tuple[MutationStep, ...] = ()
    response_trailers: tuple[MutationStep, ...] = ()
    query: tuple[QueryMutation, ...] = ()
    most_specific_wins: bool = False


def build(view: View, context: BuildContext) -> HeaderMutationConfig:
    """``HeaderMutation``."""
    wins = view.bool("most_specific_header_mutations_wins")
    return replace(build_per_route(view, context), most_specific_wins=wins)


def build_per_route(view: View, context: BuildContext) -> HeaderMutationConfig:
    """``HeaderMutationPerRoute``."""
    mutations = view.message("mutations")
    if mutations is None:
        return HeaderMutationConfig()
    return HeaderMutationConfig(
        request=context.each(mutations.repeated("request_mutations"), build_step),
        response=context.each(mutations.repeated("response_mutations"), build_step),
        request_trailers=context.each(mutations.repeated("request_trailers_mutations"), build_step),
        response_trailers=context.each(mutations.repeated("response_trailers_mutations"), build_step),
        query=context.each(mutations.repeated("query_parameter_mutations"), build_query_mutation),
    )


def build_step(view: View, context: BuildContext) -> MutationStep:
    """``HeaderMutation`` of ``config.common.mutation_rules``."""
    where = build_where(view)
    match view.which("action"):
        case "append":
            return MutationStep(add=build_header_value_option(view.require("append"), context), where=where)
        case "remove_on_match":
            matcher = view.require("remove_on_match").require("key_matcher")
            return MutationStep(remove_matching=build_string_matcher(matcher, context), where=where)
    name = view.str("remove").lower()
    if name.startswith(":") or name == "host":
        view.unsupported(f'removing "{name}" is not implemented', field="remove")
    return MutationStep(remove=name, where=where)


def build_query_mutation(view: View, context: BuildContext) -> QueryMutation:
    """``KeyValueMutation``; the deprecated ``entry`` says nothing, as in Envoy."""
    append, key = view.message("append"), view.str("remove")
    if append is None:
        if not key:
            raise view.error("one of append and remove must be there")
        return QueryMutation(key, None, "", build_where(view))
    if key:
        raise view.error("only one of append and remove may be there", field="remove")
    append.ignore("entry", why="Envoy looks at record alone")
    record = append.message("record")
    if record is None:
        raise append.error("record is missing")
    value = record.json("value")
    if not isinstance(value, str):
        raise record.error("must be a string", field="value")
    return QueryMutation(record.str("key"), value, append.enum("action", supported=_ACTIONS), build_where(view))
