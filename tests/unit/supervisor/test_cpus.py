"""Counts and pins from masks, sets, quotas and topologies that are given."""

import os

import pytest

from forkproxy.supervisor.cpus import cgroup_quota, in_topology_order, parse_cpuset, place, place_here


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0", (0,)), ("0-3,8", (0, 1, 2, 3, 8)), ("8,0-1,1", (0, 1, 8)), (" 1 , 3 ", (1, 3)), ("5-5", (5,))],
)
def test_parse_cpuset(text, cpus):
    assert parse_cpuset(text) == cpus


@pytest.mark.parametrize(
    "text", ["", ",", "a", "1-", "-1", "3-1", "1--2", "0x1", "1,,2", "99999999999", "0-70000", "²"]
)
def test_parse_cpuset_refuses(text):
    with pytest.raises(ValueError, match="CPUs"):
        parse_cpuset(text)


def placed(concurrency=None, cpuset=None, mask=(0, 1, 2, 3), quota=None, order=None):
    return place(concurrency=concurrency, cpuset=cpuset, mask=mask, quota=quota, order=order or sorted(mask))


def test_one_worker_per_cpu_of_the_mask():
    assert placed(mask=(1, 3)).cpus == (1, 3)


def test_the_cgroup_limits_the_count_but_not_below_one():
    assert placed(quota=1.5).cpus == (0, 1)
    assert placed(quota=0.2).cpus == (0,)
    assert placed(quota=8.0).cpus == (0, 1, 2, 3)


def test_an_asked_count_is_kept_whatever_the_quota():
    assert placed(concurrency=3, quota=1.0).cpus == (0, 1, 2)


def test_more_workers_than_cpus_share_and_warn():
    placement = placed(concurrency=5, mask=(1, 3))
    assert placement.cpus == (1, 3, 1, 3, 1)
    assert placement.warnings == ("5 workers share 2 CPUs",)


def test_a_cpuset_narrows_the_mask_in_topology_order():
    assert placed(cpuset="0-2", order=(2, 0, 3, 1)).cpus == (2, 0, 1)


def test_a_cpuset_partly_outside_the_mask_warns():
    placement = placed(cpuset="3,7")
    assert placement.cpus == (3,)
    assert "CPU 7" in placement.warnings[0]


def test_a_cpuset_outside_the_mask_runs_unpinned():
    placement = placed(cpuset="6,7")
    assert placement.cpus == (None, None)
    assert "unpinned" in placement.warnings[-1]
    assert placed(cpuset="6,7", concurrency=3).cpus == (None, None, None)


@pytest.mark.parametrize(
    ("text", "quota"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("", None), ("rubbish", None)]
)
def test_cgroup_quota(tmp_path, text, quota):
    path = tmp_path / "cpu.max"
    path.write_text(text)
    assert cgroup_quota(str(path)) == quota


def test_no_cgroup_is_no_quota(tmp_path):
    assert cgroup_quota(str(tmp_path / "none")) is None


def test_physical_cores_come_before_their_siblings_and_packages_stay_together(tmp_path):
    # Two packages of one core with two threads each, numbered as Linux does: siblings are 0,2 and 1,3.
    for cpu, siblings, package in ((0, "0,2", 0), (1, "1,3", 1), (2, "0,2", 0), (3, "1,3", 1)):
        directory = tmp_path / f"cpu{cpu}"
        directory.mkdir()
        (directory / "thread_siblings_list").write_text(siblings + "\n")
        (directory / "physical_package_id").write_text(f"{package}\n")
    assert in_topology_order({0, 1, 2, 3}, str(tmp_path) + "/cpu{}/") == (0, 1, 2, 3)
    assert in_topology_order({0, 2, 3}, str(tmp_path) + "/cpu{}/") == (0, 2, 3)
    for cpu, siblings in ((0, "0-1"), (1, "0-1"), (2, "2-3"), (3, "2-3")):
        (tmp_path / f"cpu{cpu}" / "thread_siblings_list").write_text(siblings)
    assert in_topology_order({0, 1, 2, 3}, str(tmp_path) + "/cpu{}/") == (0, 2, 1, 3)


def test_a_machine_without_topology_keeps_the_numbers(tmp_path):
    assert in_topology_order({3, 1}, str(tmp_path) + "/cpu{}/") == (1, 3)


def test_place_here_stays_within_this_process_s_mask():
    placement = place_here(concurrency=None, cpuset=None)
    assert placement.cpus
    assert set(placement.cpus) <= os.sched_getaffinity(0)
