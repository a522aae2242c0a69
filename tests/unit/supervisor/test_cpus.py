"""Counts and pins from masks, sets, quotas and topologies that are given."""

import os

import pytest

from forkproxy.supervisor.cpus import cgroup_quota, counted, in_topology_order, parse_cpuset, place, place_here, ranges


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
    assert placed(concurrency=2, mask=(3,)).warnings == ("2 workers share 1 CPU",)


def test_a_cpuset_narrows_the_mask_in_topology_order():
    assert placed(cpuset="0-2", order=(2, 0, 3, 1)).cpus == (2, 0, 1)


def test_a_cpuset_partly_outside_the_mask_warns():
    placement = placed(cpuset="3,7")
    assert placement.cpus == (3,)
    assert placement.warnings == ("CPU 7 of --cpuset is not in this process's affinity mask",)
    assert placed(cpuset="3,7-9").warnings == ("CPUs 7-9 of --cpuset are not in this process's affinity mask",)


def test_a_cpuset_is_called_what_the_operator_calls_it():
    placement = place(
        concurrency=None, cpuset="3,7", mask=(3,), quota=None, order=(3,), asked_by="forkproxy.cpuset of f.yaml"
    )
    assert placement.warnings == ("CPU 7 of forkproxy.cpuset of f.yaml is not in this process's affinity mask",)


def test_a_cpuset_outside_the_mask_runs_unpinned():
    placement = placed(cpuset="6,7")
    assert placement.cpus == (None, None)
    assert placement.warnings[-1] == "no CPU of --cpuset 6,7 may be used: 2 workers run unpinned"
    assert placed(cpuset="6,7", concurrency=3).cpus == (None, None, None)
    assert placed(cpuset="6").warnings[-1] == "no CPU of --cpuset 6 may be used: 1 worker runs unpinned"


def tree(root, files):
    """A machine: files below ``root`` by their absolute paths."""
    for path, text in files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return str(root)


V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"


@pytest.mark.parametrize(
    ("text", "quota"),
    [("max 100000", None), ("150000 100000", 1.5), ("", None), ("rubbish", None), ("1 0", None), ("1 2 3", 0.5)],
)
def test_the_quota_of_version_2(tmp_path, text, quota):
    root = tree(
        tmp_path,
        {"/proc/self/cgroup": "0::/", "/proc/self/mountinfo": V2_MOUNT, "/sys/fs/cgroup/cpu.max": text},
    )
    assert cgroup_quota(root) == quota


def test_the_smallest_quota_from_our_cgroup_to_the_top_wins(tmp_path):
    files = {
        "/proc/self/cgroup": "0::/system.slice/forkproxy.service",
        "/proc/self/mountinfo": V2_MOUNT,
        "/sys/fs/cgroup/system.slice/forkproxy.service/cpu.max": "400000 100000",
        "/sys/fs/cgroup/system.slice/other.service/cpu.max": "10000 100000",
        "/sys/fs/cgroup/system.slice/cpu.max": "max 100000",
    }
    root = tree(tmp_path, files)
    assert cgroup_quota(root) == 4.0
    tree(tmp_path, {"/sys/fs/cgroup/system.slice/cpu.max": "250000 100000"})
    assert cgroup_quota(root) == 2.5


def test_a_container_that_sees_a_part_of_the_hierarchy(tmp_path):
    # Docker without a cgroup namespace: the mount's root is the container's own group.
    files = {
        "/proc/self/cgroup": "0::/docker/abc/inner",
        "/proc/self/mountinfo": V2_MOUNT.replace(" / ", " /docker/abc ", 1),
        "/sys/fs/cgroup/cpu.max": "300000 100000",
        "/sys/fs/cgroup/inner/cpu.max": "max 100000",
    }
    assert cgroup_quota(tree(tmp_path, files)) == 3.0


def test_a_cgroup_outside_of_what_is_mounted_reads_the_top(tmp_path):
    files = {
        "/proc/self/cgroup": "0::/../other",
        "/proc/self/mountinfo": V2_MOUNT.replace(" / ", " /docker/abc ", 1),
        "/sys/fs/cgroup/cpu.max": "100000 100000",
    }
    assert cgroup_quota(tree(tmp_path, files)) == 1.0


@pytest.mark.parametrize(("quota_us", "quota"), [("-1", None), ("50000", 0.5), ("200000", 2.0), ("0", None)])
def test_the_quota_of_version_1(tmp_path, quota_us, quota):
    files = {
        "/proc/self/cgroup": "5:cpuset:/\n4:cpu,cpuacct:/docker/abc\n0::/",
        "/proc/self/mountinfo": (
            "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
            "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
            "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\nnonsense"
        ),
        "/sys/fs/cgroup/cpuset/cpu.cfs_quota_us": "1",
        "/sys/fs/cgroup/cpuset/cpu.cfs_period_us": "1",
        "/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": quota_us,
        "/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
        "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
    }
    assert cgroup_quota(tree(tmp_path, files)) == quota


def test_no_cgroup_is_no_quota(tmp_path):
    assert cgroup_quota(str(tmp_path)) is None


def topology(root, cores, nodes=(), packages=()):
    """``cores``: the threads of each core; ``nodes`` and ``packages``: the cores' threads as CPU lists."""
    files = {}
    for threads in cores:
        for cpu in parse_cpuset(threads):
            files[f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"] = threads
    for number, cpus in enumerate(packages):
        for cpu in parse_cpuset(cpus):
            files[f"/sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id"] = str(number)
    for number, cpus in enumerate(nodes):
        files[f"/sys/devices/system/node/node{number}/cpulist"] = cpus
    files["/sys/devices/system/node/possible"] = "0"
    return tree(root, files)


def test_physical_cores_come_before_their_siblings(tmp_path):
    root = topology(tmp_path, ["0-1", "2-3"], ["0-3"])
    assert in_topology_order({0, 1, 2, 3}, root) == (0, 2, 1, 3)


def test_one_numa_node_is_filled_before_the_next(tmp_path):
    # Two nodes of two cores with two threads, CPUs numbered across the nodes as many BIOSes do.
    root = topology(tmp_path, ["0,4", "1,5", "2,6", "3,7"], ["0,2,4,6", "1,3,5,7"])
    assert in_topology_order(range(8), root) == (0, 2, 1, 3, 4, 6, 5, 7)


def test_the_node_with_the_most_allowed_cores_comes_first(tmp_path):
    root = topology(tmp_path, ["0", "1", "2", "3"], ["0-1", "2-3"])
    assert in_topology_order({1, 2, 3}, root) == (2, 3, 1)


def test_the_only_allowed_thread_of_a_core_is_no_sibling(tmp_path):
    root = topology(tmp_path, ["0,2", "1,3"], ["0-3"])
    assert in_topology_order({0, 2, 3}, root) == (0, 3, 2)


def test_packages_stay_together_where_nodes_are_not_told(tmp_path):
    root = topology(tmp_path, ["0", "1", "2", "3"], packages=["0,2", "1,3"])
    assert in_topology_order({0, 1, 2, 3}, root) == (0, 2, 1, 3)


def test_a_node_without_cpus_is_no_obstacle(tmp_path):
    root = topology(tmp_path, ["0", "1"], ["1", "", "0"])
    assert in_topology_order({0, 1}, root) == (1, 0)


def test_a_machine_without_topology_keeps_the_numbers(tmp_path):
    assert in_topology_order({3, 1}, str(tmp_path)) == (1, 3)


def test_place_here_stays_within_this_process_s_mask():
    placement = place_here(concurrency=None, cpuset=None)
    assert placement.cpus
    assert set(placement.cpus) <= os.sched_getaffinity(0)


def test_words():
    assert counted(1) == "1 worker"
    assert counted(2) == "2 workers"
    assert ranges([5, 0, 1, 2]) == "0-2,5"
    assert ranges([]) == ""
