"""Where in the user's file a value stands."""

from __future__ import annotations

from dataclasses import field

from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class Where:
    """Where in the user's file a value stands, for errors that are found after the tree is gone.

    Any two are equal: a message whose lines have moved is still the same message. The item of a list has its ``index`` apart from
    the path of the list, which is one text for 10,000 routes.
    """

    around: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)
    column: int = field(default=0, compare=False)
    index: int | None = field(default=None, compare=False)

    @property
    def path(self) -> str:
        """``static_resources.clusters[0]``."""
        return self.around if self.index is None else f"{self.around}[{self.index}]"

    def __repr__(self) -> str:
        return f"Where({self.path!r}, {self.line}, {self.column})"


def build_where(view: View) -> Where:
    """Where the message itself stands."""
    mark = view.node.mark
    around, index = view.place
    return Where(around, mark.line, mark.column, index)
