"""``Http1ProtocolOptions.header_key_format.stateful_formatter``: header names as the peer has spelled them."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class PreserveCaseConfig:
    """``PreserveCaseFormatterConfig``. ``proper_case_others``: what the peer has not spelled is written ``X-Like-This``."""

    forward_reason_phrase: bool
    proper_case_others: bool


def build_stateful_formatter(view: View, context: BuildContext) -> PreserveCaseConfig | None:
    """The ``stateful_formatter`` of a ``Http1ProtocolOptions``; None when it has none."""
    key_format = view.message("header_key_format")
    formatter = key_format.message("stateful_formatter") if key_format is not None else None
    made = context.extension(formatter, "header formatter") if formatter is not None else None
    return made.value if made is not None else None


def build_preserve_case(view: View, context: BuildContext) -> PreserveCaseConfig:
    """``PreserveCaseFormatterConfig``."""
    return PreserveCaseConfig(
        view.bool("forward_reason_phrase"), view.enum("formatter_type_on_envoy_headers") == "PROPER_CASE"
    )
