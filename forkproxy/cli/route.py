"""``forkproxy route``: who would take a request, and why not the others."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from forkproxy.cli.configuration import find_config, problems_text, read
from forkproxy.cli.options import config_options, json_option
from forkproxy.cli.terminal import EXIT_CONFIGURATION, EXIT_FAILURE, end, is_coloured, styled


@click.command(short_help="Say who would take a request, and why not the others.")
@click.argument("method")
@click.argument("url", required=False)
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="A request header. May come several times.",
)
@config_options
@click.option("--listener", default="", metavar="NAME", help="Ask this one only; its port need not be the URL's.")
@click.option("--source", default="", metavar="IP[:PORT]", help="Where the connection comes from. Default: loopback.")
@click.option(
    "--destination",
    default="",
    metavar="IP[:PORT]",
    help="Where the connection goes to, for filter chains that match it. Default: the listener's address.",
)
@click.option(
    "--random",
    "number",
    type=click.IntRange(0),
    metavar="N",
    help="The random number that runtime_fraction and weighted_clusters go by. Default: all that may come, with their shares.",
)
@click.option(
    "-v", "--all", "all_routes", is_flag=True, help="Every route that was not taken, not only those that come near."
)
@json_option
def route(
    method: str,
    url: str | None,
    headers: tuple[str, ...],
    listener: str,
    source: str,
    destination: str,
    number: int | None,
    all_routes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Say which listener, filter chain, virtual host, route and cluster would take the request, and why not the others.

    \b
      forkproxy route GET http://example.com:10000/api/users -H 'x-env: dev'
      forkproxy route -c envoy.yaml GET example.com/api        any port, any scheme
      forkproxy route -c envoy.yaml /api -H 'host: example.com'    METHOD left out: GET

    The file is read as check reads it, and asked by the code that serves; nothing is bound, and nothing is sent. HTTP filters are
    listed and not run. Exit code 0 when something takes the request, 1 when nothing does, 78 when the file is refused.
    """
    from forkproxy.cli import routing, routing_text
    from forkproxy.config.problems import ConfigError

    if url is None:  # one word: a URL alone is got
        if method.isalpha():
            raise click.UsageError("Missing argument 'URL'.")
        method, url = "GET", method
    try:
        request = routing.request_of(method, url, headers)
        options = routing.Options(listener, _end(source), _end(destination), number, all_routes)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    path = find_config(given["config_path"], given["config_yaml"])
    result = read(path, given)
    if result.bootstrap is None:
        end(EXIT_CONFIGURATION, problems_text(result, path, colour=is_coloured(sys.stderr)))
    try:
        found = routing.look_up(result.bootstrap, request, options)
    except ConfigError as error:
        refused = result.with_problems(error.problems)
        end(EXIT_CONFIGURATION, problems_text(refused, path, colour=is_coloured(sys.stderr)))
    except routing.NoSuchListener as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        click.echo(json.dumps({"file": path, **found}, indent=1))
    else:
        click.echo(routing_text.text(found, path, styled(sys.stdout)))
    sys.exit(0 if found["taken"] else EXIT_FAILURE)


def _end(text: str) -> tuple[str, int]:
    """``IP[:PORT]``; "" and 0 for what is not given."""
    from ipaddress import ip_address

    from forkproxy.cli.routing import split_port

    if not text:
        return "", 0
    host, port = split_port(text)
    return str(ip_address(host)), port or 0
