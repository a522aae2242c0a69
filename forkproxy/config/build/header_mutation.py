"""``extensions.filters.http.header_mutation.v3`` → HeaderMutationConfig."""

from __future__ import annotations

from dataclasses import dataclass

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import (
    HeaderMutations,
    HeaderValueOption,
    Where,
    build_header_value_option,
    build_where,
)
from forkproxy.config.view import View

type_url = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"


@dataclass(frozen=True, slots=True)
class HeaderMutationConfig:
    """``HeaderMutation`` and ``HeaderMutationPerRoute``: each mutation is a step of its own, in the order of the file."""

    steps: tuple[HeaderMutations, ...]
    most_specific_wins: bool = False
    where: Where = Where()  # noqa: RUF009 (an immutable value)


def build(view: View, context: BuildContext) -> HeaderMutationConfig:
    """``HeaderMutation``."""
    wins = view.bool("most_specific_header_mutations_wins")
    return HeaderMutationConfig(_steps(view, context), wins, build_where(view))


def build_per_route(view: View, context: BuildContext) -> HeaderMutationConfig:
    """``HeaderMutationPerRoute``."""
    return HeaderMutationConfig(_steps(view, context), where=build_where(view))


def _steps(view: View, context: BuildContext) -> tuple[HeaderMutations, ...]:
    # Mutations of query parameters and trailers stay unread.
    mutations = view.message("mutations")
    if mutations is None:
        return ()
    request = context.each(mutations.repeated("request_mutations"), _mutation)
    response = context.each(mutations.repeated("response_mutations"), _mutation)
    steps = [HeaderMutations(request_add=add, request_remove=remove) for add, remove in request]
    steps += [HeaderMutations(response_add=add, response_remove=remove) for add, remove in response]
    return tuple(steps)


def _mutation(view: View, context: BuildContext) -> tuple[tuple[HeaderValueOption, ...], tuple[str, ...]]:
    """``HeaderMutation`` of ``config.common.mutation_rules``; ``remove_on_match`` stays unread."""
    kind = view.which("action")
    if kind == "remove":
        name = view.str("remove").lower()
        if not _is_plain(name):
            view.unsupported(f'removing "{name}" is not implemented', field="remove")
            return (), ()
        return (), (name,)
    if kind == "append":
        inner = view.require("append")
        option = build_header_value_option(inner, context)
        if not _is_plain(option.key):
            inner.unsupported(f'changing "{option.key}" is not implemented', field="header")
            return (), ()
        return (option,), ()
    return (), ()


def _is_plain(name: str) -> bool:
    return not name.startswith(":") and name != "host"
