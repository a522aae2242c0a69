"""What a trial finds, all of it, and that it leaves nothing behind."""

import os
from pathlib import Path

import pytest
import yaml

from forkproxy.config.load import load
from forkproxy.supervisor.trial import problems_of
from tests.support import bootstrap as b

SEED = Path(__file__).parents[2] / "data" / "seed"


def bootstrap_of(data):
    result = load(yaml.safe_dump(data), "f")
    assert result.bootstrap is not None, result.problems
    return result.bootstrap


def listener(name, port, *filters):
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [{"filters": list(filters)}]}


def static(*listeners, **more):
    return {"static_resources": {"listeners": list(listeners)}, **more}


ECHO = {
    "name": "envoy.filters.network.echo",
    "typed_config": {"@type": b.TYPE + "envoy.extensions.filters.network.echo.v3.Echo"},
}


@pytest.mark.parametrize("path", sorted(SEED.glob("webshell*.yaml")), ids=lambda path: path.name)
def test_the_seed_runs(path):
    text = path.read_text().replace("/tmp/admin_access.log", "/dev/null")
    result = load(text, path.name)
    assert problems_of(result.bootstrap) == []


def test_every_chain_with_a_problem_is_named():
    wrong = [listener(str(number), number, {"name": f"no.such:Filter{number}"}, ECHO) for number in (1, 2)]
    problems = problems_of(bootstrap_of(static(*wrong, listener("good", 3, ECHO))))
    assert [problem.path for problem in problems] == [
        f"static_resources.listeners[{index}].filter_chains[0].filters[0]" for index in (0, 1)
    ]
    assert {problem.kind for problem in problems} == {"error"}
    assert all(problem.line for problem in problems)


def test_nothing_is_bound():
    before = os.listdir("/proc/self/fd")
    assert problems_of(bootstrap_of(static(listener("a", 1, ECHO)))) == []
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("uid", [0, 1000])
def test_a_user_is_looked_up_when_we_could_become_him(monkeypatch, uid):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    problems = problems_of(bootstrap_of(static(forkproxy={"user": "no-such-user-anywhere"})))
    assert [problem.path for problem in problems] == (["forkproxy.user"] if uid == 0 else [])
