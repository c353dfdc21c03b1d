import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import commands
from agreement import TOLERANCES
from commands import Commands
from refusals import RefusalError
from repetition import WARM_UP_RUNS
from runtime import Network, Runtime
from tests.benchmark.runner.scripted import ScriptedNetwork, ScriptedRuntime


def begin(runtime: Runtime, *networks: str, **changes: Any) -> tuple[Commands, dict[str, Any]]:
    runner = Commands(runtime, lambda: None)
    arguments = {"device": "CPU", "precision": "f32", "threads": 1, "runs": 10, "seed": 0, "max_s": 60.0}
    return runner, runner.begin(list(networks), **{**arguments, **changes})


def test_rounds_give_each_network_its_turn_in_a_drawn_order(tmp_path: Path) -> None:
    runtime = ScriptedRuntime()
    runner, _ = begin(runtime, "candidate", "reference")
    runtime.log.clear()
    taken_ms = np.array(runner.rounds(count=20, runs=3, max_s=60.0)["taken_ms"])
    assert taken_ms.shape == (20, 2, 3, 2)
    assert (taken_ms > 0).all()
    assert (taken_ms[..., 0] <= taken_ms[..., 1]).all()
    rounds = [runtime.log[start : start + 6] for start in range(0, 120, 6)]
    orders = [(["candidate"] * 3 + ["reference"] * 3), (["reference"] * 3 + ["candidate"] * 3)]
    assert all(one in orders for one in rounds)
    # Of 20 fair draws, fewer than 3 or more than 17 of one kind come once in 2,500; the seed is fixed anyway.
    assert 3 <= sum(one == orders[0] for one in rounds) <= 17


def test_rounds_are_in_the_same_order_for_the_same_seed() -> None:
    logs = []
    for seed in (1, 1, 2):
        runtime = ScriptedRuntime()
        runner, _ = begin(runtime, "a", "b", seed=seed)
        runtime.log.clear()
        runner.rounds(count=20, runs=1, max_s=60.0)
        logs.append(runtime.log)
    assert logs[0] == logs[1] != logs[2]


def test_read_gives_the_counters_of_the_warm_up_and_of_each_turn(tmp_path: Path) -> None:
    runtime = ScriptedRuntime(microseconds=50)
    runner, _ = begin(runtime, "candidate", "reference")
    runner.rounds(count=2, runs=5, max_s=60.0)
    ended = runner.read(str(tmp_path))
    # Four images are compared first; then each of the warm-up is read, and after it the end of each turn.
    assert [network["counts"] for network in ended["networks"]] == [[*range(4, 21), 25, 30]] * 2
    assert [np.load(network["readings_us"]).tolist() for network in ended["networks"]] == [[[50]] * 19] * 2
    assert [network["warm_up_runs"] for network in ended["networks"]] == [20, 20]
    candidate, reference = runtime.loaded[:2]
    assert candidate.inferences == reference.inferences == 30


def test_begin_takes_the_throughput_of_the_candidate_after_a_warm_up() -> None:
    runtime = ScriptedRuntime()
    _, begun = begin(runtime, "candidate", "reference", runs=25)
    throughput = begun["throughput"]
    full = runtime.loaded[-1]
    assert full.name == "candidate"
    assert throughput["images"] >= 25
    assert throughput["warm_up_images"] >= WARM_UP_RUNS
    assert full.inferences == throughput["images"] + throughput["warm_up_images"]


class SlowNetwork(ScriptedNetwork):
    """A run of it takes so many seconds of a clock that stands still otherwise."""

    seconds = 0.0
    now: ClassVar = [0.0]

    def infer(self, image: Any) -> Any:
        self.now[0] += self.seconds
        return super().infer(image)


class SlowRuntime(ScriptedRuntime):
    def load(self, onnx: str, device: str, precision: str, threads: int, full: bool) -> Network:
        self.loaded.append(SlowNetwork(onnx, self.microseconds, 1.0, self.log))
        return self.loaded[-1]


@pytest.mark.parametrize(
    ("run_s", "max_s", "at_most"),
    [
        # Checked on the device and on the CPU; the throughput of one, and its warm-up; the turns: once each.
        (10.0, 3.0, 8),
        (0.3, 3.0, 10),
        (0.01, 3.0, 300),
    ],
)
def test_a_measurement_keeps_to_its_time(
    run_s: float, max_s: float, at_most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlowNetwork, "seconds", run_s)
    monkeypatch.setattr(time, "perf_counter", lambda: SlowNetwork.now[0])
    monkeypatch.setattr(commands, "clock_for", lambda device, threads: time.perf_counter)
    runtime = SlowRuntime()
    began = SlowNetwork.now[0]
    runner, begun = begin(runtime, "candidate", "reference", runs=200, max_s=max_s)
    spent = SlowNetwork.now[0] - began
    assert sum(begun["seconds"].values()) == pytest.approx(spent)
    assert begun["run_ms"] == pytest.approx([1e3 * run_s] * 2)
    runner.rounds(count=1000, runs=1, max_s=max(0.0, max_s - spent))
    assert len(runtime.log) <= at_most
    assert {"candidate", "reference"} == set(runtime.log[-2:])


@pytest.mark.parametrize("command", ["rounds", "read"])
def test_rounds_and_read_want_a_beginning(command: str) -> None:
    runner, _ = begin(ScriptedRuntime(), "candidate")
    runner.rounds(count=1, runs=1, max_s=60.0)
    runner.end()
    arguments = {"count": 1, "runs": 1, "max_s": 60.0} if command == "rounds" else {"folder": "."}
    with pytest.raises(RefusalError, match=r"a measurement must begin before it goes on, but got none"):
        getattr(runner, command)(**arguments)


def test_begin_refuses_counters_that_are_all_zero() -> None:
    with pytest.raises(RefusalError, match=r"counters must show some time in the layers, but their sum is 0"):
        begin(ScriptedRuntime(microseconds=0), "candidate")


@pytest.mark.parametrize("precision", ["f32", "f16", "bf16"])
def test_begin_refuses_wrong_answers_and_lets_rounding_pass(precision: str) -> None:
    tolerance = TOLERANCES[precision]
    right = ScriptedRuntime(stick_answers=1 + 0.9 * tolerance)
    _, begun = begin(right, "candidate", device="MYRIAD", precision=precision)
    assert begun["agreement"][0]["off_by"] == pytest.approx(0.9 * tolerance, rel=1e-3)  # f32 rounds 1.0009
    wrong = ScriptedRuntime(stick_answers=1 + 1.1 * tolerance)
    with pytest.raises(RefusalError, match=rf"within {tolerance:g} of the CPU's .* in {precision}\), but are off"):
        begin(wrong, "candidate", device="MYRIAD", precision=precision)


@pytest.mark.parametrize(("answer", "off"), [(0.0, "1"), (2.0, "1"), (float("nan"), "inf")])
def test_begin_says_how_far_off_the_answers_are(answer: float, off: str) -> None:
    with pytest.raises(RefusalError, match=rf"but are off by {off};"):
        begin(ScriptedRuntime(stick_answers=answer), "candidate", device="MYRIAD")


def test_predict_refuses_images_of_another_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((5, 3, 8, 8), dtype=np.float32))
    runner = Commands(ScriptedRuntime(microseconds=1), lambda: None)
    with pytest.raises(RefusalError, match=r"of shape \[N, 3, 4, 4\], but got \[5, 3, 8, 8\]"):
        runner.predict("model.onnx", str(tmp_path), "CPU", "f32", str(tmp_path / "images.npy"))
