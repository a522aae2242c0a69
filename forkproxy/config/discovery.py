"""A file of an EDS cluster → its endpoints (``envoy.service.discovery.v3.DiscoveryResponse``; Envoy: "File system xDS").

The file takes the same way as the configuration itself: text → tree → (v2: upgrade) → validate → builders → what nobody read.
Envoy passes over unknown fields of such a file with a warning; here they refuse it, like everything that would be ignored.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from forkproxy.config import tree
from forkproxy.config.build.cluster import EndpointConfig, LocalityEndpoints, build_load_assignment
from forkproxy.config.build.context import BuildContext
from forkproxy.config.problems import ConfigError, Problem, by_place
from forkproxy.config.upgrade import detect_version, upgrade
from forkproxy.config.validate import validate
from forkproxy.config.values import frozen
from forkproxy.config.view import AnyView, View, unread

RESPONSE: Final = "envoy.service.discovery.v3.DiscoveryResponse"
RESPONSE_V2: Final = "envoy.api.v2.DiscoveryResponse"
ASSIGNMENT: Final = "envoy.config.endpoint.v3.ClusterLoadAssignment"


@frozen
class Assignment:
    """What the file says. ``localities`` None: it has no resource, which changes nothing (Envoy counts ``update_empty``)."""

    version: str
    localities: tuple[LocalityEndpoints, ...] | None


class Rejected(Exception):
    """The file is well formed, and Envoy would reject it all the same; ``problems`` say where and why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems[0].message)
        self.problems = problems


def read_assignment(text: bytes, filename: str, service_name: str) -> Assignment:
    """The endpoints of ``service_name``. ConfigError: not a DiscoveryResponse at all; Rejected: one that cannot be used."""
    document = tree.load(text, filename)
    problems = list(document.problems)
    if detect_version(document.root, RESPONSE_V2) == "v2":
        problems += upgrade(document, RESPONSE_V2)
    problems += validate(document.root, RESPONSE)
    refused = [problem for problem in problems if problem.kind == "error"]
    if refused:
        raise Rejected(by_place(refused))
    root = View.root(document.root, RESPONSE)
    root.ignore("canary", "nonce", "control_plane", "resource_errors", why="a file is not answered")
    root.ignore("type_url", why="each resource says its own type")
    version = root.str("version_info")
    resources = root.anys("resources")
    if not resources:
        return Assignment(version, None)
    if len(resources) > 1:
        raise _rejected(resources[1], f"Unexpected EDS resource length: {len(resources)}", "one file for each cluster")
    return Assignment(version, _localities(root, resources[0], service_name))


def _localities(root: View, resource: AnyView, service_name: str) -> tuple[LocalityEndpoints, ...]:
    view = resource.view
    if view is None or resource.type_name != ASSIGNMENT:
        raise _rejected(resource, f"Unable to unpack as {ASSIGNMENT}: {resource.type_name or 'no @type'}")
    name = view.str("cluster_name")
    if name != service_name:
        raise _rejected(resource, f"Unexpected EDS cluster (expecting {service_name}): {name}")
    context = BuildContext()
    try:
        localities = build_load_assignment(view, context)
    except ConfigError as error:
        raise Rejected(error.problems) from None
    problems = [*root.problems, *context.problems, *unread(root)]
    problems += [problem for each in localities for endpoint in each.endpoints for problem in _unusable(endpoint)]
    refused = [problem for problem in problems if problem.kind != "warning"]
    if refused:
        raise Rejected(by_place(refused))
    return localities


def _unusable(endpoint: EndpointConfig) -> list[Problem]:
    address, where = endpoint.address, endpoint.where
    if address.pipe_path:
        return []
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        hint = "Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'"
        message = f"malformed IP address: {address.host}"
        return [Problem("error", where.path, where.line, where.column, message, hint)]
    return []


def _rejected(view: AnyView, message: str, hint: str = "") -> Rejected:
    return Rejected([Problem("error", view.path, view.mark.line, view.mark.column, message, hint)])
