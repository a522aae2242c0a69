"""The command line: ``run``, ``start``, ``stop``, ``reload``, ``status``, ``check``, ``migrate``, ``systemd``, ``version``.

Exit codes: 0; 1 failure, and ``check`` found errors; 2 usage; 3 not running; 4 unknown; 69 cannot bind; 77 no permission;
78 configuration refused. Imports that take time stand in the command that needs them: ``version`` answers in 60 ms.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from forkproxy import __version__, log

if TYPE_CHECKING:
    from forkproxy.config.build.bootstrap import BootstrapConfig
    from forkproxy.config.load import LoadResult
    from forkproxy.config.problems import ConfigError
    from forkproxy.supervisor.options import Options
    from forkproxy.worker.control import Message

EXIT_FAILURE = 1
EXIT_NOT_RUNNING = 3
EXIT_UNKNOWN = 4
EXIT_NO_PERMISSION = 77
EXIT_CONFIGURATION = 78

F = TypeVar("F", bound=Callable[..., Any])

# Envoy's flags for its own hot restart and threads: what they ask for does not exist here, and nothing is lost without it.
HARMLESS_FLAGS = (
    ("--base-id", int),
    ("--restart-epoch", int),
    ("--parent-shutdown-time-s", int),
    ("--drain-strategy", str),
    ("--use-dynamic-base-id", bool),
    ("--disable-hot-restart", bool),
    ("--enable-fine-grain-logging", bool),
    ("--cpuset-threads", bool),
)


def _concurrency(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """A number of workers, 0 for ``auto``."""
    if value is None or value == "auto":
        return None if value is None else 0
    if not value.isdecimal() or not 1 <= int(value) <= 4096:
        raise click.BadParameter(f'"{value}" is neither a number from 1 to 4096 nor "auto"')
    return int(value)


def _checked(check: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """An option's callback: ``check`` raises ValueError for a wrong value."""

    def callback(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
        if value is not None:
            try:
                check(value)
            except ValueError as error:
                raise click.BadParameter(str(error)) from None
        return value

    return callback


def _check_cpuset(value: str) -> None:
    from forkproxy.supervisor.cpus import parse_cpuset

    parse_cpuset(value)


def option(*names: str, **attributes: Any) -> Callable[[F], F]:
    """A click option that ``FORKPROXY_NAME`` sets as well."""
    long = next(name for name in names if name.startswith("--")).partition("/")[0]
    attributes.setdefault("envvar", "FORKPROXY_" + long[2:].replace("-", "_").upper())
    return click.option(*names, **attributes)


def config_options(command: F) -> F:
    """How a configuration is found and read."""
    for add in (
        option(
            "--allow-unsupported",
            is_flag=True,
            help="Run a file that sets fields forkproxy does not honour, with a warning each.",
        ),
        option("--config-yaml", default="", metavar="YAML", help="YAML merged over the file."),
        option(
            "-c",
            "--config-path",
            envvar=["FORKPROXY_CONFIG", "FORKPROXY_CONFIG_PATH"],
            metavar="FILE",
            help="Envoy bootstrap, v3 or v2. Default: ./forkproxy.yaml, ./envoy.yaml, /etc/forkproxy/forkproxy.yaml.",
        ),
    ):
        command = add(command)
    return command


def pid_file_option(command: F) -> F:
    """Which instance is meant."""
    text = "Default: /run/forkproxy/forkproxy.pid, or in $XDG_RUNTIME_DIR. The control socket lies beside it."
    return option("--pid-file", metavar="PATH", type=click.Path(path_type=Path), help=text)(command)


def serving_options(command: F) -> F:
    """The options of run and start."""
    for flag, kind in reversed(HARMLESS_FLAGS):
        command = click.option(flag, type=kind, is_flag=kind is bool, default=None, hidden=True)(command)
    for add in (
        click.option("-t", "--test", is_flag=True, help="Check the configuration and exit, as the check command does."),
        option("--mode", type=click.Choice(["serve", "validate"]), default="serve", help="validate: same as -t."),
        pid_file_option,
        option("--watch", is_flag=True, help="Reload when the content of the configuration file changes."),
        option("--admin-address-path", metavar="FILE", help="Write the admin's address there once it is bound."),
        option("--service-zone", default="", metavar="ZONE", help="Overrides node.locality.zone."),
        option("--service-cluster", default="", metavar="NAME", help="Overrides node.cluster."),
        option("--service-node", default="", metavar="ID", help="Overrides node.id."),
        option(
            "--file-flush-interval-msec",
            type=click.IntRange(1),
            default=10000,
            help="How long access log lines may wait for the file.",
            show_default=True,
        ),
        option(
            "--drain-time-s",
            type=click.FloatRange(0),
            default=None,
            help="How long connections may take to finish on stop and reload. [default: 30]",
        ),
        option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True),
        option(
            "--log-path",
            metavar="FILE",
            default="",
            help="Default: standard error; for start, a file in the log directory.",
        ),
        option(
            "--component-log-level",
            callback=_checked(log.parse_component_levels),
            metavar="A:LEVEL,B:LEVEL",
            default="",
            help="Levels of single components.",
        ),
        option("-l", "--log-level", callback=_checked(log.rank), metavar="LEVEL", default="info", show_default=True),
        option(
            "--cpuset",
            callback=_checked(_check_cpuset),
            metavar="0-3,8",
            help="CPUs to run on. Default: this process's affinity mask.",
        ),
        option(
            "--concurrency", callback=_concurrency, metavar="N|auto", help="Number of workers. Default: one per CPU."
        ),
        config_options,
    ):
        command = add(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """An Envoy-compatible proxy in Python, one pinned process per CPU."""


@main.command()
@serving_options
def run(**given: Any) -> None:
    """Serve in the foreground."""
    if given["test"] or given["mode"] == "validate":
        _check_and_exit(given)
    config_path = _find_config(given["config_path"], given["config_yaml"])
    _set_up_log(given, path=given["log_path"])
    code, reason = _serve(given, config_path, on_ready=None)
    if reason:
        click.echo(reason, err=True)
    sys.exit(code)


@main.command()
@serving_options
def start(**given: Any) -> None:
    """Serve in the background: returns when traffic is served, and prints the pid."""
    if given["test"] or given["mode"] == "validate":
        _check_and_exit(given)
    config_path = _find_config(given["config_path"], given["config_yaml"])
    log_path = given["log_path"] or str(_default_log())
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


@main.command()
@pid_file_option
@click.option("--now", is_flag=True, help="Do not wait for connections to finish.")
@option(
    "--timeout",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="S",
    help="How long to wait for the end.",
)
def stop(pid_file: Path | None, now: bool, timeout: float) -> None:
    """Drain and stop; returns when the processes are gone."""
    from forkproxy.net.poller import READ, Poller

    path, pid = _running(pid_file)
    pidfd = os.pidfd_open(pid)
    _ask(path, {"op": "stop", "now": now}, timeout_s=10.0)
    poller = Poller()
    poller.register(pidfd, READ)
    if not poller.poll(timeout, 1):
        _end(EXIT_FAILURE, f"pid {pid} is still draining after {timeout:g} s (stop --now ends it)")


@main.command()
@pid_file_option
@option(
    "--timeout",
    type=click.FloatRange(0),
    default=120.0,
    show_default=True,
    metavar="S",
    help="How long to wait for the verdict.",
)
def reload(pid_file: Path | None, timeout: float) -> None:
    """Check the configuration and roll it out; on refusal the old one stays, and the exit code is not 0."""
    path, _pid = _running(pid_file)
    answer = _ask(path, {"op": "reload"}, timeout_s=timeout)
    if not answer["ok"]:
        _end(int(answer["exit"]), f"{answer['reason']}\nreload refused: the old configuration stays")
    click.echo(f"generation {answer['generation']}, {answer['workers']} workers")


@main.command()
@pid_file_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(pid_file: Path | None, as_json: bool) -> None:
    """Show the processes."""
    path, _pid = _running(pid_file)
    answer = _ask(path, {"op": "status"}, timeout_s=10.0)
    del answer["ok"]
    click.echo(json.dumps(answer, indent=2) if as_json else _status_text(answer))


@main.command()
@click.argument("file", required=False)
@config_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.option("-q", "--quiet", is_flag=True, help="No output but the exit code.")
def check(file: str | None, as_json: bool, strict: bool, quiet: bool, **given: Any) -> None:
    """Say whether forkproxy runs FILE; exit code 0 when it does, 1 when not.

    Every problem is one line FILE:LINE:COLUMN: PATH: MESSAGE (HINT), and the source line.
    """
    path = _find_config(file or given["config_path"], given["config_yaml"])
    _check(path, given, as_json=as_json, strict=strict, quiet=quiet)


main.add_command(check, "validate")


@main.command()
@click.argument("file")
def migrate(file: str) -> None:
    """Print the v3 equivalent of a v2 FILE."""
    from forkproxy.config import migrate as migration
    from forkproxy.config.problems import ConfigError, render_all

    try:
        data = Path(file).read_bytes()
    except OSError as error:
        _end(EXIT_FAILURE, f"{file}: {error.strerror}")
    try:
        result = migration.migrate(data, file)
    except ConfigError as error:
        _end(EXIT_FAILURE, render_all(error.problems, file))
    source = data.decode("utf-8", "replace").splitlines()
    if result.problems:
        click.echo(render_all(result.problems, file, source, colour=_is_coloured(sys.stderr)), err=True)
    if result.text is None:
        sys.exit(EXIT_FAILURE)
    click.echo(result.text, nl=False)


@main.group("systemd")
def systemd_group() -> None:
    """The systemd service."""


def root_option(command: F) -> F:
    """For images and packages: only files, no user, nothing started."""
    text = "Install into this tree: files only, no user made, nothing started."
    return click.option("--root", metavar="DIR", default="/", help=text)(command)


@systemd_group.command("unit")
def systemd_unit() -> None:
    """Print the unit file for this program."""
    from forkproxy.supervisor.service_files import unit_text

    click.echo(unit_text(_program()), nl=False)


@systemd_group.command("install")
@root_option
@click.option("--no-start", is_flag=True, help="Enable the service, and do not start it now.")
def systemd_install(root: str, no_start: bool) -> None:
    """Install, enable and start the service: unit, user, logrotate; a configuration when there is none."""
    from forkproxy.supervisor.service_files import install

    _change_service(root, lambda: install(_program(), root=root, start=not no_start))


@systemd_group.command("uninstall")
@root_option
def systemd_uninstall(root: str) -> None:
    """Stop and remove the service; configuration, logs and user stay."""
    from forkproxy.supervisor.service_files import uninstall

    _change_service(root, lambda: uninstall(root=root))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def version(as_json: bool) -> None:
    """Show the version."""
    python = ".".join(map(str, sys.version_info[:3]))
    if as_json:
        click.echo(json.dumps({"name": "forkproxy", "version": __version__, "python": python}))
    else:
        click.echo(f"forkproxy {__version__} (Python {python})")


# -- serving


def _set_up_log(given: dict[str, Any], *, path: str, takes_streams: bool = False) -> None:
    try:
        log.configure(
            level=given["log_level"],
            component_levels=given["component_log_level"],
            path=path,
            format=given["log_format"],
            takes_streams=takes_streams,
        )
    except OSError as error:
        code = EXIT_NO_PERMISSION if isinstance(error, PermissionError) else EXIT_FAILURE
        _end(code, f"cannot open the log {path}: {error.strerror}")
    sys.excepthook = log.report_stray_exception


def _serve(given: dict[str, Any], config_path: str, on_ready: Callable[[], None] | None) -> tuple[int, str]:
    """Run the supervisor; (exit code, why it did not start or "")."""
    import faulthandler

    from forkproxy.supervisor.supervisor import StartFailed, Supervisor
    from forkproxy.worker.generation import build_generation

    faulthandler.enable()
    for flag, _kind in HARMLESS_FLAGS:
        if given[flag[2:].replace("-", "_")] is not None:
            log.get_logger("cli").warning("this flag of Envoy has no meaning here", flag=flag)
    configuration = _Configuration(given, config_path)
    supervisor = Supervisor(
        _options(given, config_path),
        load=configuration.load,
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

    try:
        Path(log_path).parent.mkdir(parents=True, exist_ok=True)
        log.configure(
            level=given["log_level"],
            component_levels=given["component_log_level"],
            path=log_path,
            format=given["log_format"],
            takes_streams=True,
        )
    except OSError as error:
        code = EXIT_NO_PERMISSION if isinstance(error, PermissionError) else EXIT_FAILURE
        tell(exit=code, reason=f"cannot open the log {log_path}: {error.strerror}")
        os._exit(code)
    sys.excepthook = log.report_stray_exception
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
    _end(verdict.get("exit", EXIT_FAILURE), verdict.get("reason", f"it ended before it was ready; see {log_path}"))


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
        pid_file=given["pid_file"],
        default_pid_file=default,
        needs_pid_file=given.get("needs_pid_file", False),
        watch=given["watch"],
        admin_address_path=given["admin_address_path"] or "",
        command_line={
            "mode": "Serve",
            "config_path": config_path,
            **{name: given[name] for name in _SHOWN_OPTIONS if given[name] not in (None, "")},
            **({} if given["drain_time_s"] is None else {"drain_time": f"{given['drain_time_s']:g}s"}),
            "file_flush_interval": f"{given['file_flush_interval_msec'] / 1000:g}s",
        },
    )


_SHOWN_OPTIONS = (
    *("concurrency", "cpuset", "config_yaml", "log_level", "component_log_level", "log_path", "log_format"),
    *("admin_address_path", "service_node", "service_cluster", "service_zone", "allow_unsupported"),
)
"""What /server_info shows of the command line."""


class _Configuration:
    """What a supervisor loads, at start and on every reload."""

    def __init__(self, given: dict[str, Any], path: str) -> None:
        self._given = given
        self._path = path
        self._lines: tuple[str, ...] = ()

    def load(self) -> BootstrapConfig:
        """The file as it is now, with what the command line overrides. ConfigurationRefused when it cannot be used."""
        from dataclasses import replace

        from forkproxy.supervisor.reload import ConfigurationRefused

        given = self._given
        result = _read(self._path, given)
        self._lines = result.lines
        if result.bootstrap is None:
            raise ConfigurationRefused(_problems_text(result, self._path, colour=_is_coloured(sys.stderr)))
        for problem in result.warnings:
            log.get_logger("config").warning(problem.text(self._path))
        node = result.bootstrap.node
        node = replace(
            node,
            id=given["service_node"] or node.id,
            cluster=given["service_cluster"] or node.cluster,
            zone=given["service_zone"] or node.zone,
        )
        return replace(result.bootstrap, node=node)

    def explain(self, error: ConfigError) -> str:
        """What only showed when a generation was built of the file last loaded."""
        from forkproxy.config.problems import by_place, render_all

        return render_all(by_place(error.problems), self._path, self._lines, colour=_is_coloured(sys.stderr))


# -- checking


def _check_and_exit(given: dict[str, Any]) -> NoReturn:
    path = _find_config(given["config_path"], given["config_yaml"])
    _check(path, given, as_json=False, strict=False, quiet=False)


def _check(path: str, given: dict[str, Any], *, as_json: bool, strict: bool, quiet: bool) -> NoReturn:
    from forkproxy.supervisor.trial import problems_of

    result = _read(path, given)
    found = problems_of(result.bootstrap) if result.bootstrap is not None else []
    result = result.with_problems(found)
    if as_json:
        click.echo(json.dumps(result.as_json()))
    elif not quiet:
        if result.problems:
            click.echo(_problems_text(result, path, colour=_is_coloured(sys.stdout)))
        verdict = _VERDICTS[result.verdict]
        if result.verdict == "unsupported" and any(problem.opens_door for problem in result.problems):
            verdict = _CANNOT_BE_WAIVED
        elif result.verdict == "unsupported" and found:
            verdict = _CANNOT_BE_LEFT_OUT
        click.echo(f"{path}: {verdict}")
    is_good = result.bootstrap is not None and not (strict and result.warnings)
    sys.exit(0 if is_good else EXIT_FAILURE)


_CANNOT_BE_WAIVED = "valid, but forkproxy does not implement all of it, and leaving that out would open a door"
_CANNOT_BE_LEFT_OUT = "valid, but forkproxy does not implement all of it, and there is nothing to run in its place"
_VERDICTS = {
    "runs": "runs",
    "unsupported": "valid, but forkproxy does not implement all of it (--allow-unsupported runs it without)",
    "invalid": "invalid",
}


def _read(path: str, given: dict[str, Any]) -> LoadResult:
    from forkproxy.config.load import load_file

    # Where a configuration lies, its own filters may lie too (filters/factory.py): last, so that they hide no module of ours.
    directory = str(Path(path).resolve().parent)
    if directory not in sys.path:
        sys.path.append(directory)
    return load_file(path, overlay_yaml=given["config_yaml"], allow_unsupported=given["allow_unsupported"])


def _problems_text(result: LoadResult, path: str, *, colour: bool) -> str:
    from forkproxy.config.problems import render_all

    return render_all(result.problems, path, result.lines, colour=colour)


def _find_config(given: str | None, overlay: str) -> str:
    if given:
        return given
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    places = ["forkproxy.yaml", "envoy.yaml", f"{home}/forkproxy/forkproxy.yaml", "/etc/forkproxy/forkproxy.yaml"]
    for place in places:
        if os.path.exists(place):
            return place
    if overlay:
        return os.devnull
    _end(EXIT_CONFIGURATION, f"no configuration: give one with -c FILE (looked for {', '.join(places)})")


# -- the systemd service


def _program() -> str:
    """The forkproxy command of the Python that runs this."""
    return str(Path(sys.executable).with_name("forkproxy"))


def _change_service(root: str, change: Callable[[], list[str]]) -> None:
    from forkproxy.supervisor.service_files import ServiceError

    if root == "/" and os.geteuid() != 0:
        _end(EXIT_NO_PERMISSION, "only root can change the service: use sudo")
    try:
        for line in change():
            click.echo(line)
    except ServiceError as error:
        _end(EXIT_FAILURE, str(error))
    except OSError as error:
        code = EXIT_NO_PERMISSION if isinstance(error, PermissionError) else EXIT_FAILURE
        _end(code, f"{error.filename}: {error.strerror}")


# -- talking to a supervisor


def _running(pid_file: Path | None) -> tuple[Path, int]:
    """The pid file and the pid of the supervisor that holds it; ends the program when there is none."""
    from forkproxy.supervisor.pid_file import default_pid_file, holder_of

    path = pid_file if pid_file is not None else default_pid_file()
    pid = holder_of(path)
    if not pid:
        _end(EXIT_NOT_RUNNING, f"not running ({path})")
    return path, pid


def _ask(pid_file: Path, request: Message, timeout_s: float) -> Message:
    from forkproxy.supervisor.control_socket import ask
    from forkproxy.supervisor.pid_file import control_socket_of
    from forkproxy.worker.control import ProtocolError

    path = control_socket_of(pid_file)
    try:
        return ask(path, request, timeout_s)
    except PermissionError:
        _end(EXIT_NO_PERMISSION, f"{path}: no permission")
    except TimeoutError:
        _end(EXIT_UNKNOWN, f"{path}: no answer within {timeout_s:g} s")
    except (OSError, ProtocolError) as error:
        _end(EXIT_UNKNOWN, f"{path}: {error}")


def _status_text(answer: Message) -> str:
    lines = [
        f"forkproxy {answer['version']} {answer['state']}, pid {answer['pid']}, up {answer['uptime_s']:.0f} s, "
        f"generation {answer['generation']}, {answer['config_path']}"
    ]
    lines += [f"  {entry['name']:<20} {entry['address']}" for entry in answer["listeners"]]
    lines.append(f"{'slot':>4} {'pid':>8} {'cpu':>4} {'gen':>4}  {'state':<10} {'conns':>6} {'up':>8}")
    lines += [
        f"{worker['slot']:>4} {worker['pid']:>8} {'-' if worker['cpu'] is None else worker['cpu']:>4} "
        f"{worker['generation']:>4}  {worker['state']:<10} {worker['connections']:>6} {worker['uptime_s']:>6.0f} s"
        for worker in answer["workers"]
    ]
    if answer["last_refusal"]:
        lines.append(f"last reload refused: {answer['last_refusal']}")
    return "\n".join(lines)


def _default_log() -> Path:
    if os.geteuid() == 0:
        return Path("/var/log/forkproxy/forkproxy.log")
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state, "forkproxy", "forkproxy.log")


def _is_coloured(stream: Any) -> bool:
    return "NO_COLOR" not in os.environ and stream.isatty()


def _end(code: int, message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)
