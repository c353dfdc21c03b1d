import platform

import pytest

from edge_tune.benchmark.actor import BenchmarkActor, device_at, take_place
from edge_tune.errors import BenchmarkError
from edge_tune.experiment import Benchmark

QUICK = Benchmark(runs=10)


def test_measure_serves_the_next_request_after_one_that_failed_and_names_device_and_host(onnx: bytes) -> None:
    actor = BenchmarkActor(QUICK, "after-failure")
    with pytest.raises(BenchmarkError, match=r"OpenVINO says: "):
        actor.measure(b"no network")
    measurement = actor.measure(onnx).measurement
    assert measurement.latency_ms > 0
    assert (measurement.evidence.device, measurement.evidence.host) == ("CPU", platform.node())
    actor.close()


def test_take_place_gives_each_actor_of_a_run_one_of_its_own() -> None:
    places = [take_place("run-a") for _ in range(3)]
    assert [place for place, _ in places] == [0, 1, 2]
    places.append(take_place("run-b"))
    places[1][1].close()  # as the end of its process would
    places.append(take_place("run-a"))
    assert [place for place, _ in places[3:]] == [0, 1]
    for _, lock in places:
        lock.close()


@pytest.mark.parametrize(
    ("place", "devices", "device"),
    [
        (0, ["CPU", "MYRIAD"], "MYRIAD"),
        (0, ["MYRIAD.1.4-ma2480", "CPU", "MYRIAD.1.2-ma2480"], "MYRIAD.1.2-ma2480"),
        (1, ["MYRIAD.1.4-ma2480", "CPU", "MYRIAD.1.2-ma2480"], "MYRIAD.1.4-ma2480"),
    ],
)
def test_device_at_tells_several_of_a_kind_apart(place: int, devices: list[str], device: str) -> None:
    assert device_at(place, "MYRIAD", devices) == device
    assert device_at(place, "CPU", devices) == "CPU"


def test_device_at_refuses_a_place_that_no_device_is_left_for() -> None:
    with pytest.raises(BenchmarkError, match=r"as many devices MYRIAD as it offers to Ray, at least 3, but has \['MYR"):
        device_at(2, "MYRIAD", ["MYRIAD.1.2", "MYRIAD.1.4"])
