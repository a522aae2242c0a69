"""What the builders of one configuration share while they run: static secrets, runtime values, problems found so far."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from forkproxy.config.problems import ConfigError, Problem
from forkproxy.config.view import View

T = TypeVar("T")


@dataclass(slots=True)
class BuildContext:
    """One per load.

    ``secrets``: the views of ``static_resources.secrets`` by name. ``runtime``: the flattened static runtime layers.
    ``environment``: what ``environment_variable`` data sources read.
    """

    problems: list[Problem] = field(default_factory=list)
    runtime: dict[str, object] = field(default_factory=dict)
    secrets: dict[str, View] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def each(self, views: list[View], build: Callable[[View, BuildContext], T]) -> tuple[T, ...]:
        """Build every view; one that fails is reported and left out, so that the problems of its siblings are found too."""
        built = []
        for view in views:
            try:
                built.append(build(view, self))
            except ConfigError as error:
                self.problems.extend(error.problems)
        return tuple(built)
