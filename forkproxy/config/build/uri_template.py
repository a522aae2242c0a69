"""The path matcher and the path rewriter of URI templates. What their language is, ``config.uri_template`` tells."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.semantics import regex_error
from forkproxy.config.uri_template import NEVER, parse_rewrite, parse_template
from forkproxy.config.view import View


def build_matcher(view: View, context: BuildContext) -> tuple[str, str]:
    """``UriTemplateMatchConfig``: the template, and the regular expression that it means."""
    template = view.str("path_template")
    try:
        regex, _ = parse_template(template)
    except ValueError as error:
        view.report(f"path_match_policy.path_template {template} is invalid: {error}", field="path_template")
        return template, NEVER
    return template, NEVER if regex_error(regex) is not None else regex


def build_rewriter(view: View, context: BuildContext) -> tuple[tuple[str, bool], ...]:
    """``UriTemplateRewriteConfig``: its literals and, with True, its variables."""
    rewrite = view.str("path_template_rewrite")
    try:
        return parse_rewrite(rewrite)
    except ValueError as error:
        text = f"path_rewrite_policy.path_template_rewrite {rewrite} is invalid: {error}"
        view.report(text, field="path_template_rewrite")
    return ()
