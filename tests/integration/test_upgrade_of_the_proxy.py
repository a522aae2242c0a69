"""The real program is upgraded under HTTP load: no request fails, figures go on, ``start`` and its successors alike."""

import pytest

from tests.integration.test_cli import forkproxy
from tests.support import bootstrap as b
from tests.support.load import HttpLoad
from tests.support.proxy import free_ports
from tests.support.supervised import is_alive, until

ANSWER = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "answer"}}}
FIGURES = ("http.ingress.downstream_rq_total", "http.ingress.downstream_rq_2xx")


@pytest.fixture
def started(tmp_path):
    """``forkproxy start`` with two workers; asks and tells."""
    running = Started(tmp_path)
    yield running
    running.stop()


class Started:
    def __init__(self, directory):
        self.ports = dict(zip(("main", "admin", "answers"), free_ports(3), strict=True))
        self.config = directory / "c.yaml"
        self.log = directory / "log"
        self.pid_file = str(directory / "f.pid")
        self.write({"virtual_hosts": [b.vhost(ANSWER)]})
        done = forkproxy(
            "start", "-c", str(self.config), "--concurrency", "2", "--drain-time-s", "5", "--log-path", str(self.log),
            "--pid-file", self.pid_file,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.pid = int(done.stdout)

    def write(self, routes):
        data = b.bootstrap([b.hcm(routes, access_log=[])], [b.cluster("up", "answers")])
        self.config.write_text(b.render(data, self.ports))

    def do(self, *arguments):
        return forkproxy(*arguments, "--pid-file", self.pid_file)

    def figures(self):
        """The figures that must never go back."""
        text = self.do("stats").stdout
        return [int(line.split(": ")[1]) for line in text.splitlines() if line.startswith(FIGURES)]

    def stop(self):
        self.do("stop", "--now")


def test_upgrades_under_load(started):
    with HttpLoad(started.ports["main"], count=8) as load:
        pid, last = started.pid, [0, 0]
        for _ in range(2):
            done = load.done
            until(lambda done=done: load.done > done + 50)
            before = started.figures()
            result = started.do("upgrade")
            assert result.returncode == 0, result.stderr
            after = started.figures()
            assert len(after) == 2
            assert all(new >= old for old, new in zip([*last, *before], [*before, *after], strict=True)), (
                before,
                after,
            )
            last = after
            until(lambda pid=pid: not is_alive(pid))
            pid = int(result.stdout)
    assert load.failures == []
    assert started.do("stop").returncode == 0
    assert not is_alive(pid)


def test_a_refused_configuration_is_78_and_told(started):
    started.write({"virtual_hosts": [b.vhost({"match": {"prefix": "/"}, "nonsense": 1})]})
    result = started.do("upgrade")
    assert result.returncode == 78
    assert 'has no field "nonsense"' in result.stderr
    assert is_alive(started.pid)
