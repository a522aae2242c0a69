"""Files of EDS clusters, watched on a live loop."""

import json

import pytest

from forkproxy.supervisor import watcher
from forkproxy.supervisor.endpoint_files import EndpointFile, EndpointFiles
from tests.support.live_loop import LiveLoop

ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


def response(*ports, version="1"):
    address = [{"socket_address": {"address": "127.0.0.1", "port_value": port}} for port in ports]
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": each}} for each in address]}]
    resource = {"@type": ASSIGNMENT, "cluster_name": "svc", "endpoints": endpoints}
    return json.dumps({"version_info": version, "resources": [resource]})


class World:
    def __init__(self, path):
        self.path = path
        self.loop = LiveLoop()
        self.said = []

    def watch(self):
        EndpointFiles(self.loop, [EndpointFile("c", "svc", str(self.path))], self.said.append).start()
        return self

    def until(self, condition):
        self.loop.run_until(condition)
        return self

    def ports(self):
        return [[each["address"][1] for each in said["endpoints"]] for said in self.said if said["op"] == "endpoints"]

    def results(self):
        return [said["results"] for said in self.said if said["op"] == "update"]

    def replace(self, text):
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.path)


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(watcher, "INTERVAL_S", 0.01)
    world = World(tmp_path / "eds.json")
    yield world
    world.loop.close()


def test_the_first_look_tells_at_once(world):
    world.path.write_text(response(80, 81, version="7"))
    world.watch()
    assert world.ports() == [[80, 81]]
    assert world.results() == [["attempt", "success"]]
    assert world.said[0]["version"] == "7"
    assert world.said[-1]["complete"]
    json.dumps(world.said)  # what travels to the supervisor


def test_a_file_moved_over_it_and_one_written_in_place_count(world):
    world.path.write_text(response(80))
    world.watch()
    world.replace(response(81))
    world.until(lambda: world.ports()[1:] == [[81]])
    world.path.write_text(response(82))
    world.until(lambda: world.ports()[2:] == [[82]])


def test_a_bad_file_changes_nothing_and_a_good_one_after_it_does(world):
    world.path.write_text(response(80))
    world.watch()
    world.replace("resources: [")
    world.until(lambda: len(world.results()) == 2)
    world.replace(response(99999))
    world.until(lambda: len(world.results()) == 3)
    assert world.results()[1:] == [["attempt", "failure"], ["attempt", "rejected"]]
    assert world.ports() == [[80]]
    reasons = [said["reason"] for said in world.said if said["op"] == "eds_failure"]
    assert "could not parse" in reasons[0]
    assert "at most 65535" in reasons[1]
    world.replace(response(81))
    world.until(lambda: world.ports()[1:] == [[81]])


def test_no_resource_keeps_the_endpoints(world):
    world.path.write_text(response(80))
    world.watch()
    world.replace('{"version_info": "12", "resources": []}')
    world.until(lambda: len(world.results()) == 2)
    assert world.results()[1] == ["attempt", "success", "empty"]
    assert world.ports() == [[80]]


def test_a_first_file_that_cannot_be_used_leaves_the_cluster_empty_but_complete(world):
    world.watch()  # there is none
    assert world.ports() == [[]]
    assert world.results() == [["attempt", "failure"]]
    world.path.write_text(response(80))
    world.until(lambda: world.ports()[1:] == [[80]])
