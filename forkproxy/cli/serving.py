"""Serving: ``run`` in the foreground, ``start`` in the background."""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from forkproxy import log
from forkproxy.cli.configuration import Configuration, check_and_exit, find_config
from forkproxy.cli.options import HARMLESS_FLAGS, serving_options
from forkproxy.cli.terminal import EXIT_FAILURE, EXIT_NO_PERMISSION, end

if TYPE_CHECKING:
    from forkproxy.supervisor.options import Options


@click.command()
@serving_options
def run(**given: Any) -> None:
    """Serve in the foreground."""
    if given["test"] or given["mode"] == "validate":
        check_and_exit(given)
    config_path = find_config(given["config_path"], given["config_yaml"])
    code, reason = _set_up_log(given, given["log_path"], takes_streams=False)
    if not reason:
        code, reason = _serve(given, config_path, on_ready=None)
    if reason:
        click.echo(reason, err=True)
    sys.exit(code)


@click.command(short_help="Serve in the background; prints the pid once traffic is served.")
@serving_options
def start(**given: Any) -> None:
    """Serve in the background: returns when traffic is served, and prints the pid."""
    if given["test"] or given["mode"] == "validate":
        check_and_exit(given)
    from forkproxy.supervisor.inheritance import is_successor

    config_path = find_config(given["config_path"], given["config_yaml"])
    log_path = given["log_path"] or str(_default_log())
    if is_successor():
        # An upgrade: whoever started this process waits for it elsewhere.
        _serve_detached(given, config_path, log_path, os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child:
        os.close(write_fd)
        os.waitpid(child, 0)
        _await_start(read_fd, log_path)
    os.close(read_fd)
    os.setsid()
    if os.fork():
        os._exit(0)
    _serve_detached(given, config_path, log_path, write_fd)


def _set_up_log(given: dict[str, Any], path: str, *, takes_streams: bool) -> tuple[int, str]:
    """(exit code, why there is no log); (0, "") when there is."""
    try:
        if takes_streams:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        log.configure(
            level=given["log_level"],
            component_levels=given["component_log_level"],
            path=path,
            format=given["log_format"],
            takes_streams=takes_streams,
        )
    except OSError as error:
        code = EXIT_NO_PERMISSION if isinstance(error, PermissionError) else EXIT_FAILURE
        return code, f"cannot open the log {path}: {error.strerror}"
    sys.excepthook = log.report_stray_exception
    sys.unraisablehook = log.report_unraisable
    return 0, ""


def _serve(given: dict[str, Any], config_path: str, on_ready: Callable[[], None] | None) -> tuple[int, str]:
    """Run the supervisor; (exit code, why it did not start or "")."""
    import faulthandler

    # Modules are no garbage: to look for some among them takes a tenth of the time that it takes to import them.
    gc.disable()
    from forkproxy.net import descriptors

    limit = descriptors.raise_limit()
    if limit < descriptors.FEWEST:
        least = descriptors.FEWEST
        return EXIT_FAILURE, f"{limit} descriptors are not enough, {least} are the least: {descriptors.HINT}"
    faulthandler.enable()
    configuration = Configuration(given, config_path)
    # What both processes take, nearly always, is imported once, and what only serving takes when the other one is at work.
    importlib.import_module("forkproxy.config.build.http_connection_manager")
    configuration.begin(gently=False)
    from forkproxy.supervisor.exits import StartFailed
    from forkproxy.supervisor.supervisor import Supervisor
    from forkproxy.worker.generation import build_generation

    gc.freeze()
    gc.enable()
    for flag, _kind in HARMLESS_FLAGS:
        if given[flag[2:].replace("-", "_")] is not None:
            log.get_logger("cli").warning("this flag of Envoy has no meaning here", flag=flag)
    supervisor = Supervisor(
        _options(given, config_path),
        load=configuration.load,
        begin_to_load=lambda: configuration.begin(gently=True),
        build_generation=lambda bootstrap, registry, number: build_generation(
            bootstrap,
            registry,
            number=number,
            options={"file_flush_interval_s": given["file_flush_interval_msec"] / 1000.0},
        ),
        explain=configuration.explain,
        on_ready=on_ready,
    )
    try:
        return supervisor.run(), ""
    except StartFailed as failed:
        log.get_logger("supervisor").debug("start failed", reason=str(failed))
        return failed.exit_code, str(failed)


def _serve_detached(given: dict[str, Any], config_path: str, log_path: str, write_fd: int) -> NoReturn:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)

    def tell(**verdict: object) -> None:
        os.write(write_fd, json.dumps(verdict).encode())
        os.close(write_fd)

    code, reason = _set_up_log(given, log_path, takes_streams=True)
    if reason:
        tell(exit=code, reason=reason)
        os._exit(code)
    code, reason = _serve({**given, "needs_pid_file": True}, config_path, on_ready=lambda: tell(pid=os.getpid()))
    if reason:
        log.get_logger("supervisor").critical("not started", reason=reason)
        tell(exit=code, reason=reason)
    os._exit(code)


def _await_start(read_fd: int, log_path: str) -> NoReturn:
    with open(read_fd, "rb") as pipe:
        verdict = json.loads(pipe.read() or b"{}")
    if "pid" in verdict:
        click.echo(verdict["pid"])
        sys.exit(0)
    end(verdict.get("exit", EXIT_FAILURE), verdict.get("reason", f"it ended before it was ready; see {log_path}"))


def _options(given: dict[str, Any], config_path: str) -> Options:
    from forkproxy.supervisor.options import Options
    from forkproxy.supervisor.pid_file import default_pid_file, make_runtime_directory

    default: Path | None = default_pid_file()
    try:
        make_runtime_directory(default_pid_file().parent)
    except OSError as error:
        if given["pid_file"] is None:
            log.get_logger("cli").warning("no default pid file", reason=str(error))
        default = None
    return Options(
        config_path=config_path,
        concurrency=given["concurrency"],
        cpuset=given["cpuset"],
        drain_time_s=given["drain_time_s"],
        drain_strategy=given["drain_strategy"],
        max_old_generations=given["max_old_generations"],
        user=given["user"],
        drops_root=True,
        pid_file=given["pid_file"],
        default_pid_file=default,
        needs_pid_file=given.get("needs_pid_file", False),
        watch=given["watch"],
        admin_address_path=given["admin_address_path"] or "",
        command_line={
            "mode": "Serve",
            "config_path": config_path,
            **{name: given[name] for name in _SHOWN_OPTIONS if given[name] not in (None, "")},
            **({} if given["drain_strategy"] == "gradual" else {"drain_strategy": "Immediate"}),
            **({} if given["drain_time_s"] is None else {"drain_time": f"{given['drain_time_s']:g}s"}),
            "file_flush_interval": f"{given['file_flush_interval_msec'] / 1000:g}s",
        },
    )


_SHOWN_OPTIONS = (
    *("concurrency", "cpuset", "config_yaml", "log_level", "component_log_level", "log_path", "log_format"),
    *("admin_address_path", "user", "service_node", "service_cluster", "service_zone", "allow_unsupported"),
)
"""What /server_info shows of the command line."""


def _default_log() -> Path:
    if os.geteuid() == 0:
        return Path("/var/log/forkproxy/forkproxy.log")
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state, "forkproxy", "forkproxy.log")
