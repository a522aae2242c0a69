"""The parts of the reports that need no program."""

import subprocess
import sys

from tests.benchmarks import measure
from tests.benchmarks.reports import start, workers
from tests.benchmarks.table import Table
from tests.support import bootstrap

PARENT = (
    "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import sys; print(flush=True); sys.stdin.read()'])"
)


def test_workers_are_the_children_of_the_first_process():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()
        assert len(measure.worker_seconds(parent.pid)) == 1
        parent.stdin.close()


def test_two_workers_against_one():
    table = Table("workers", [])
    table.add("forkproxy, 1", {"by_cpu": 100, "rps": 50})
    table.add("forkproxy, 2", {"by_cpu": 190, "rps": 60})
    table.add("envoy, 1", {"by_cpu": 10, "rps": 5})
    table.add("envoy, 2", {"by_cpu": 15})
    assert workers._ratios(table).rows() == {"envoy": {"by_cpu": 1.5}, "forkproxy": {"by_cpu": 1.9, "rps": 1.2}}


def test_the_example_gets_ports_of_its_own():
    data = start.example()
    assert bootstrap.port_names(data) == {"main", "answers", "admin"}
    text = bootstrap.render(data, {"main": 1, "answers": 2, "admin": 3})
    assert "port_value: 1000" not in text


def test_the_big_file():
    data = start.big(7)["static_resources"]
    *hosts, told = data["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["route_config"][
        "virtual_hosts"
    ]
    routes = [route for host in hosts for route in host["routes"]]
    assert (len(data["clusters"]), len(hosts), len(routes)) == (1000, 100, 10_000)
    assert {route["route"]["cluster"] for route in routes} == {cluster["name"] for cluster in data["clusters"]}
    assert told["routes"][0]["direct_response"]["body"] == {"inline_string": "7"}
