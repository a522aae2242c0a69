"""``Cluster.EdsClusterConfig``: where an EDS cluster's endpoints come from. A file; management servers are not implemented."""

from __future__ import annotations

import os

from forkproxy.config.build.context import BuildContext
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class EdsConfig:
    """``service_name`` "": the cluster's own name."""

    path: str
    service_name: str = ""


def build_eds(cluster: View, context: BuildContext) -> EdsConfig | None:
    """The cluster's ``eds_cluster_config``; None when it names no file. ADS and API sources stay unread."""
    view = cluster.message("eds_cluster_config")
    if view is None:
        return None
    service_name = view.str("service_name")
    source = view.message("eds_config")
    if source is None:
        raise view.error("an EDS cluster needs an eds_config")
    source.ignore("resource_api_version", why="the file says itself which version it is")
    source.ignore("initial_fetch_timeout", why="a file is there at once, or not at all")
    match source.which("config_source_specifier"):
        case "path":
            return EdsConfig(_existing(source, source.str("path")), service_name)
        case "path_config_source":
            named = source.require("path_config_source")
            named.ignore("watched_directory", why="the content of the file is watched, however it is replaced")
            return EdsConfig(_existing(named, named.str("path")), service_name)
    return None


def _existing(view: View, path: str) -> str:
    if not os.path.exists(path):
        view.report(f"paths must refer to an existing path in the system: '{path}' does not exist", field="path")
    return path
