"""What the builders of one configuration share while they run: secrets, runtime values, the problems found so far."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from forkproxy.config.build.alike import Alike
from forkproxy.config.build.extensions import BUILDERS, PER_ROUTE
from forkproxy.config.problems import ConfigError, Problem
from forkproxy.config.schema import schema
from forkproxy.config.values import frozen
from forkproxy.config.view import AnyView, View

T = TypeVar("T")

_THIRD_PARTY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z")


class Built(NamedTuple):
    """What an extension's builder made. ``type_url``: the message's full name. The caller knows the value's type."""

    type_url: str
    value: Any


@frozen
class PerFilterConfig:
    """One entry of a ``typed_per_filter_config``.

    ``config``: what the message's builder made, a dict for a third party's filter; None when the entry only switches the
    filter on or off. An entry that is not ``disabled`` switches a filter on that is disabled in the chain, as in Envoy.
    """

    config: object = None
    disabled: bool = False


_FILTER_CONFIG = "envoy.config.route.v3.FilterConfig"


@dataclass(slots=True)
class BuildContext:
    """One per load.

    ``runtime``: the flattened static runtime layers. ``secrets``: the views of ``static_resources.secrets``, by kind and
    name. ``environment``: what ``environment_variable`` data sources read. ``dns_resolver`` and ``bind_options``: the
    bootstrap's defaults for clusters.
    ``files``: the digests of the files that were read because the configuration names them. ``alike``: what was made before.
    """

    problems: list[Problem] = field(default_factory=list)
    runtime: dict[str, object] = field(default_factory=dict)
    runtime_used: set[str] = field(default_factory=set)
    secrets: dict[tuple[str, str], View] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    dns_resolver: Any = None
    bind_options: Any = None
    files: dict[str, bytes] = field(default_factory=dict)
    alike: Alike = field(default_factory=Alike)

    def each(self, views: list[View], build: Callable[[View, BuildContext], T]) -> tuple[T, ...]:
        """Build every view; one that fails is reported and left out, so that its siblings' problems are found too."""
        built = []
        for view in views:
            try:
                built.append(build(view, self))
            except ConfigError as error:
                self.problems.extend(error.problems)
                view.ignore_all(why="what is wrong with it has been said")
        return tuple(built)

    def runtime_value(self, key: str) -> object:
        """The static layers' value of ``key``; None when there is none."""
        self.runtime_used.add(key)
        return self.runtime.get(key)

    def extension(self, view: View, category: str) -> Built | None:
        """Build the extension in ``view``'s ``typed_config``; None when forkproxy does not have it, which is then reported.

        ``category`` is for the message, as in "HTTP filter".
        """
        name = view.str("name")
        typed = view.any("typed_config")
        return None if typed is None else self.typed(typed, f'the {category} "{name}"')

    def typed(self, typed: AnyView, label: str) -> Built | None:
        """Build what an Any holds, as :meth:`extension` does. ``label`` begins the sentence "… is not implemented"."""
        target = BUILDERS.get(typed.type_name)
        if typed.type_name and not schema().is_message(typed.type_name):
            return None  # validate has reported a type that nobody here knows
        if target is None or typed.view is None:
            typed.unsupported(f"{label} ({typed.type_name or 'without @type'}) is not implemented")
            return None
        module, _, function = target.partition(":")
        build: Callable[[View, BuildContext], Any] = getattr(importlib.import_module(module), function)
        return Built(typed.type_name, build(typed.view, self))

    def per_filter_config(self, view: View) -> dict[str, PerFilterConfig]:
        """``typed_per_filter_config``: the name of a filter in the chain → what stands here for it."""
        configs: dict[str, PerFilterConfig] = {}
        for name, typed in view.map_("typed_per_filter_config").items():
            try:
                made = self._filter_config(name, typed)
            except ConfigError as error:
                self.problems.extend(error.problems)
                typed.ignore_all(why="what is wrong with it has been said")
                continue
            if made is not None:
                configs[name] = made
        return configs

    def _filter_config(self, name: str, typed: AnyView) -> PerFilterConfig | None:
        if typed.type_name != _FILTER_CONFIG:
            return self._route_config(name, typed)
        typed.ignore("is_optional", why="an extension that is not implemented is refused all the same")
        inner = typed.any("config")
        if typed.bool("disabled"):
            if inner is not None:
                inner.ignore_all(why="the filter is disabled here")
            return PerFilterConfig(disabled=True)
        if inner is None:
            raise typed.error(f'the per-route configuration of "{name}" is empty', "set disabled or config")
        return self._route_config(name, inner) if inner.type_name else PerFilterConfig()

    def _route_config(self, name: str, typed: AnyView) -> PerFilterConfig | None:
        if is_third_party(name) and typed.view is None:
            return PerFilterConfig(typed.value)
        target = PER_ROUTE.get(typed.type_name)
        if target is None or typed.view is None:
            typed.unsupported(f'the per-route configuration of "{name}" is not implemented')
            return None
        module, _, function = target.partition(":")
        build: Callable[[View, BuildContext], object] = getattr(importlib.import_module(module), function)
        return PerFilterConfig(build(typed.view, self))


def is_third_party(name: str) -> bool:
    """Whether a filter's name is a Python class, "package.module:Class"."""
    return _THIRD_PARTY.match(name) is not None


def third_party_config(view: View) -> dict[str, object]:
    """A third party's filter configuration: a Struct or TypedStruct, or nothing. Another message is not implemented."""
    typed = view.any("typed_config")
    if typed is None or not typed.type_name:
        return {}
    if typed.view is not None:
        typed.unsupported(f"a Python filter takes a google.protobuf.Struct, not {typed.type_name}")
        return {}
    return dict(typed.value)
