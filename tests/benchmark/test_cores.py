import os

import pytest

from edge_tune.benchmark.cores import measuring_cpus, training_cpus


@pytest.fixture
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(request.param))


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
