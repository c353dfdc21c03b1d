"""The queue with real Ray actors: OpenVINO behind it, or the formula where speed and faults are the subject."""

import asyncio
import os
import pickle
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, ObjectLostError
from ray.util import list_named_actors

from edge_tune.benchmark.actor import Answer
from edge_tune.benchmark.devices import BenchmarkClient, answer_of, check_alike, measuring, sign_of
from edge_tune.errors import BenchmarkError
from edge_tune.experiment import Benchmark
from edge_tune.records.entries import DeviceEntry
from tests.benchmark.conftest import IMAGE

FAKE = Benchmark(device="fake", resource="fakes")
QUICK = Benchmark(runs=10)
UNAVAILABLE = ActorUnavailableError("the connection was refused", None)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=2,
        resources={"ncs": 1, "fakes": 4},
        include_dashboard=False,
        namespace="edge_tune",
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def client(cluster: None) -> Iterator[BenchmarkClient]:
    with measuring(QUICK) as client:
        yield client


@pytest.fixture
def fake(cluster: None) -> Iterator[BenchmarkClient]:
    with measuring(FAKE, reference=bytes(300_000)) as client:
        yield client


@ray.remote(num_cpus=0)
def ask(client: BenchmarkClient, onnx: bytes, remember: str | None) -> Answer:
    return client.measure(onnx, remember)


def owner(client: BenchmarkClient, number: int = 0) -> Any:
    return ray.get_actor(f"device-{client.run_id}-{number}", namespace="edge_tune")


def test_requests_are_served_one_at_a_time(client: BenchmarkClient, onnx: bytes) -> None:
    with ThreadPoolExecutor(3) as callers:
        answers = list(callers.map(client.measure, [onnx] * 3))
    times = sorted((answer.started, answer.ended) for answer in answers)
    assert all(ended <= started for (_, ended), (started, _) in pairwise(times))
    # All come at the same moment, so that the last one waits for the two others; one is enough here.
    assert max(answer.queue_s for answer in answers) > min(answer.measure_s for answer in answers)


def test_equal_plans_are_measured_once_for_callers_in_other_processes(client: BenchmarkClient, onnx: bytes) -> None:
    answers = ray.get([ask.remote(client, onnx, "plan of all") for _ in range(2)])
    assert sorted(answer.remembered for answer in answers) == [False, True]
    assert len({answer.measurement.latency_ms for answer in answers}) == 1
    assert not client.measure(onnx).remembered


def test_a_failure_is_not_remembered(client: BenchmarkClient, onnx: bytes) -> None:
    for _ in range(2):
        with pytest.raises(BenchmarkError, match=r"^OpenVINO says: [^\n]*$"):
            client.measure(b"no network", remember="plan")
    assert not client.measure(onnx, remember="plan").remembered


def test_client_computes_and_describes_through_the_queue(client: BenchmarkClient, onnx: bytes) -> None:
    assert client.describe().device == "CPU"
    assert client.predict(onnx, np.zeros((3, *IMAGE), dtype=np.float32)).shape == (3, 10)
    assert b"<net" in client.convert(onnx)[0]


def test_client_is_its_names_when_pickled(fake: BenchmarkClient) -> None:
    copy = pickle.loads(pickle.dumps(fake))
    assert copy == fake
    assert copy.measure(b"onnx").measurement == fake.measure(b"onnx").measurement


def test_several_devices_serve_requests_at_the_same_time_and_each_answer_names_its_own(cluster: None) -> None:
    """Two devices that are held up: each takes one of two requests, and neither waits for the other."""
    with measuring(FAKE, devices=2) as client:
        pids = [ray.get(owner(client, number).ping.remote())["pid"] for number in (0, 1)]
        assert len(set(pids)) == 2
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        with ThreadPoolExecutor(2) as callers:
            answers = [callers.submit(client.measure, b"onnx") for _ in range(2)]
            time.sleep(1)
            os.kill(pids[1], signal.SIGCONT)
            while not any(answer.done() for answer in answers):
                time.sleep(0.1)
            assert sum(answer.done() for answer in answers) == 1
            assert client.measure(b"onnx").measurement.latency_ms > 0  # the free device serves on
            os.kill(pids[0], signal.SIGCONT)
            assert all(answer.result().measurement.evidence.host for answer in answers)


@ray.remote(num_cpus=0)
class Trial:
    def measure(self, client: BenchmarkClient, onnx: bytes) -> Answer:
        return client.measure(onnx)


def test_a_request_whose_trial_has_gone_is_dropped_when_its_turn_comes(fake: BenchmarkClient) -> None:
    """The device is held up while the trial that waits for it is killed; then nothing is measured for it."""
    pid = ray.get(owner(fake).ping.remote())["pid"]
    os.kill(pid, signal.SIGSTOP)
    trial: Any = Trial.remote()
    with ThreadPoolExecutor(1) as callers:
        first = callers.submit(fake.measure, b"first")
        time.sleep(0.5)
        trial.measure.remote(fake, b"of the trial")
        time.sleep(2)
        ray.kill(trial)
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(trial.__ray_ready__.remote(), timeout=60)
        time.sleep(1)
        os.kill(pid, signal.SIGCONT)
        assert first.result().measurement.latency_ms > 0
    fake.measure(b"last")
    assert ray.get(owner(fake).ping.remote())["measured"] == 2


class Asked:
    """A trial's actor as Ray answers for it: each answer once, then that it is idle."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.__ray_ready__ = self

    async def remote(self) -> bool:
        if self.answers:
            raise self.answers.pop(0)
        return True


@pytest.mark.parametrize(
    ("answers", "is_there"),
    [([UNAVAILABLE, UNAVAILABLE], True), ([UNAVAILABLE, ActorDiedError()], False), ([ActorDiedError()], False)],
)
def test_a_trial_that_cannot_be_reached_for_a_moment_has_not_gone(answers: list[Exception], is_there: bool) -> None:
    caller: Any = Asked(*answers)
    assert asyncio.run(sign_of(caller)) == is_there


@ray.remote(num_cpus=0)
class Forgetful:
    """A queue whose first answer Ray loses."""

    def __init__(self) -> None:
        self.asked = 0

    def do(self, method: str, within_s: float) -> dict[str, str]:
        self.asked += 1
        if self.asked == 1:
            raise ObjectLostError("ab", None, "")
        return {"device": method}


def test_client_asks_again_when_ray_has_lost_the_answer(cluster: None) -> None:
    queue: Any = Forgetful.options(name="benchmark-forgetful", namespace="edge_tune").remote()  # type: ignore[attr-defined]
    assert BenchmarkClient("forgetful", wait_s=30.0).describe() == {"device": "describe"}
    ray.kill(queue)


def test_client_waits_while_a_killed_device_restarts_with_its_reference(fake: BenchmarkClient) -> None:
    os.kill(ray.get(owner(fake).ping.remote())["pid"], signal.SIGKILL)
    measured = fake.measure(bytes(100_000)).measurement  # the formula: 0.2 ms, and 0.4 ms for the reference
    assert (measured.latency_ratio, measured.total_latency_ratio) == pytest.approx((0.5, 0.5))


def test_a_device_that_is_lost_while_it_starts_is_asked_again(fake: BenchmarkClient) -> None:
    device = owner(fake)
    pid = ray.get(device.ping.remote())["pid"]
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as callers:
        answer = callers.submit(answer_of, device.describe, 60.0, "")
        time.sleep(1)
        os.kill(pid, signal.SIGKILL)
        assert answer.result().device == "fake"


def test_client_waits_while_a_killed_queue_restarts(fake: BenchmarkClient) -> None:
    queue: Any = ray.get_actor(f"benchmark-{fake.run_id}", namespace="edge_tune")
    os.kill(ray.get(queue.pid.remote()), signal.SIGKILL)
    assert fake.measure(b"onnx").measurement.latency_ms > 0


def test_client_gives_up_on_a_queue_that_is_not_there(cluster: None) -> None:
    with pytest.raises(BenchmarkError, match=r"queue of run 'nobody' must be reachable, but got: Failed to look up"):
        BenchmarkClient("nobody", wait_s=1.0).measure(b"onnx")


def test_client_gives_up_when_no_device_becomes_free(fake: BenchmarkClient) -> None:
    pid = ray.get(owner(fake).ping.remote())["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(BenchmarkError, match=r"must answer within 1 s, queue included, but did not"):
            BenchmarkClient(fake.run_id, wait_s=1.0).measure(b"onnx")
    finally:
        os.kill(pid, signal.SIGCONT)


def test_measuring_refuses_an_unknown_device(cluster: None) -> None:
    with (
        pytest.raises(BenchmarkError, match=r"^device must be one OpenVINO finds on this host .* but got 'GPUX'"),
        measuring(Benchmark(device="GPUX", resource="fakes")),
    ):
        pass


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (
            {"device_name": "A53"},
            r"one has CPU \(A76\) and OpenVINO 2025, two has CPU \(A53\) and OpenVINO 2025; run ",
        ),
        ({"runtime_version": "2026"}, r"OpenVINO 2025, two has CPU \(A76\) and OpenVINO 2026"),
    ],
)
def test_boards_must_be_alike(other: dict[str, str], says: str) -> None:
    one = DeviceEntry(device="CPU", device_name="A76", runtime="OpenVINO", runtime_version="2025", host="one")
    check_alike([one, replace(one, host="two")], are_boards=True)
    with pytest.raises(BenchmarkError, match=says):
        check_alike([one, replace(one, host="two", **other)], are_boards=True)


def test_a_device_that_was_counted_and_is_no_more_is_left_out(cluster: None) -> None:
    with measuring(FAKE, devices=5) as client:  # the node has four
        there = {actor["name"] for actor in list_named_actors(all_namespaces=True)}
        assert sum(f"device-{client.run_id}-{number}" in there for number in range(5)) == 4
        with ThreadPoolExecutor(5) as callers:
            answers = list(callers.map(client.measure, [b"onnx"] * 5))
        assert all(answer.measurement.latency_ms > 0 for answer in answers)


def test_measuring_gives_up_when_no_node_has_a_device_left(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_tune.benchmark.devices.START_S", 2.0)
    with (
        pytest.raises(BenchmarkError, match=r"must start within 2 s, but did not; .* a free unit of 'sticks'"),
        measuring(Benchmark(device="fake", resource="sticks")),
    ):
        pass
