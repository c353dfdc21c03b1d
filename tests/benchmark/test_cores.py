import math
import os
from pathlib import Path

import pytest

from edge_tune.benchmark import cores as module
from edge_tune.benchmark.cores import measuring_cpus, share_of_time, training_cpus, usable_cpus


@pytest.fixture
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(request.param))
    monkeypatch.setattr(module, "share_of_time", lambda: math.inf)


@pytest.mark.parametrize(
    ("cores", "threads", "measuring", "training"),
    [
        ([0], 1, None, (0,)),
        ([0, 1], 1, (1,), (0,)),
        ([0, 1], 2, None, (0, 1)),
        ([2, 3, 8, 9], 1, (9,), (2, 3, 8)),
        ([2, 3, 8, 9], 3, (3, 8, 9), (2,)),
    ],
    indirect=["cores"],
)
@pytest.mark.usefixtures("cores")
def test_cores_are_shared_out_without_overlap(
    threads: int, measuring: tuple[int, ...] | None, training: tuple[int, ...]
) -> None:
    assert measuring_cpus(threads) == measuring
    assert training_cpus(threads) == training


@pytest.mark.parametrize(
    ("cores", "threads", "measuring", "training"),
    [
        ([2, 3, 8, 9], 1, [(9,), (8,)], (2, 3)),
        ([0, 1, 2, 3], 2, [(2, 3), None], (0, 1, 2, 3)),
        ([0, 1], 1, [(1,), None], (0, 1)),
    ],
    indirect=["cores"],
)
@pytest.mark.usefixtures("cores")
def test_two_devices_of_a_host_have_cores_of_their_own(
    threads: int, measuring: list[tuple[int, ...] | None], training: tuple[int, ...]
) -> None:
    assert [measuring_cpus(threads, place) for place in (0, 1)] == measuring
    assert training_cpus(threads, devices=2) == training


@pytest.mark.parametrize(
    ("share", "usable"),
    [(0.5, (9,)), (1, (9,)), (1.9, (9,)), (2, (8, 9)), (64, (2, 3, 8, 9)), (math.inf, (2, 3, 8, 9))],
)
def test_usable_cpus_are_no_more_than_the_share_of_time_is_worth(
    share: float, usable: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 8, 9})
    monkeypatch.setattr(module, "share_of_time", lambda: share)
    assert usable_cpus() == usable


@pytest.mark.parametrize(
    ("files", "share"),
    [
        ({}, math.inf),
        ({"proc/self/cgroup": "0::/\n"}, math.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                "proc/self/cgroup": "0::/user.slice/study.service\n",
                "sys/fs/cgroup/user.slice/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/user.slice/study.service/cpu.max": "max 100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/docker/c0ffee\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            math.inf,
        ),
    ],
    ids=["not Linux", "no file", "no limit", "a container", "a slice above", "version 1, a container", "version 1"],
)
def test_share_of_time_is_the_least_that_the_cgroups_allow(files: dict[str, str], share: float, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert share_of_time(tmp_path) == share
