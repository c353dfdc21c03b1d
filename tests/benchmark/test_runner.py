import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from edge_tune.benchmark import runner
from edge_tune.benchmark.backend import RUNNER


def python36() -> str | None:
    """The oldest Python that the runner must run on, from the path or from pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(root.glob("versions/3.6.*/bin/python"))
    return str(found[-1]) if found else shutil.which("python3.6")


class ScriptedNetwork(runner.Network):
    """A network whose answer and whose counters are written down beforehand."""

    shape = (1, 3, 4, 4)

    def __init__(self, name: str, microseconds: int, answer: float, log: list[str]) -> None:
        self.name, self.microseconds, self.answer, self.log = name, microseconds, answer, log
        self.inferences = 0

    def infer(self, image: Any) -> Any:
        self.inferences += 1
        self.log.append(self.name)
        return np.full((1, 2), self.answer, dtype=np.float32)

    def layers(self) -> list[runner.Layer]:
        return [("conv", "Convolution", "jit", self.microseconds)]

    def stream(self, images: Iterable[Any], take: Callable[[int, Any], None] | None = None) -> None:
        for index, image in enumerate(images):
            output = self.infer(image)
            if take:
                take(index, output)

    def used(self) -> dict[str, Any]:
        return {"precision": "f32"}


class ScriptedRuntime(runner.Runtime):
    """Its CPU answers 1; its stick answers what it is told to."""

    def __init__(self, microseconds: int = 50, stick_answers: float = 1.0) -> None:
        self.microseconds, self.stick_answers = microseconds, stick_answers
        self.loaded: list[ScriptedNetwork] = []
        self.log: list[str] = []

    def load(self, onnx: str, device: str, precision: str, threads: int, full: bool) -> runner.Network:
        answer = 1.0 if device == "CPU" else self.stick_answers
        self.loaded.append(ScriptedNetwork(onnx, self.microseconds, answer, self.log))
        return self.loaded[-1]


def begin(runtime: runner.Runtime, *networks: str, **changes: Any) -> tuple[runner.Runner, dict[str, Any]]:
    commands = runner.Runner(runtime, lambda: None)
    arguments = {"device": "CPU", "precision": "f32", "threads": 1, "runs": 10, "seed": 0, "max_s": 60.0}
    return commands, commands.begin(list(networks), **{**arguments, **changes})


def test_runner_is_python_3_6() -> None:
    python = python36()
    if python is None:
        pytest.skip("no Python 3.6 here; pyenv install 3.6.15")
    check = "import sys; compile(open(sys.argv[1]).read(), 'runner.py', 'exec')"
    subprocess.run([python, "-c", check, str(RUNNER)], check=True)


def test_runner_leaves_when_stdin_ends() -> None:
    process = subprocess.Popen([sys.executable, str(RUNNER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.communicate(b"", timeout=30) == (b"", None)
    assert process.returncode == 0


def test_runner_keeps_what_a_plugin_prints_out_of_its_answers() -> None:
    noisy = f"""
import os, runpy, sys
sys.argv = ["runner.py"]
names = runpy.run_path({str(RUNNER)!r})
names["Runner"].hello = lambda self, device: os.write(1, b"MYRIAD: hello\\n") and {{"device": device}}
names["main"]()
"""
    done = subprocess.Popen([sys.executable, "-c", noisy], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=-1)
    assert done.stdin
    assert done.stdout
    assert done.stderr
    with done.stdin, done.stdout, done.stderr:
        done.stdin.write(b'{"id": 7, "command": "hello", "device": "CPU"}\n')
        done.stdin.flush()
        assert json.loads(done.stdout.readline()) == {"id": 7, "result": {"device": "CPU"}}
        done.stdin.close()
        assert b"MYRIAD: hello" in done.stderr.read()
    done.wait(timeout=30)


def test_rounds_give_each_network_its_turn_in_a_drawn_order(tmp_path: Path) -> None:
    runtime = ScriptedRuntime()
    commands, _ = begin(runtime, "candidate", "reference")
    runtime.log.clear()
    taken_ms = np.array(commands.rounds(count=20, runs=3, max_s=60.0)["taken_ms"])
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
        commands, _ = begin(runtime, "a", "b", seed=seed)
        runtime.log.clear()
        commands.rounds(count=20, runs=1, max_s=60.0)
        logs.append(runtime.log)
    assert logs[0] == logs[1] != logs[2]


def test_read_gives_the_counters_of_the_warm_up_and_of_each_turn(tmp_path: Path) -> None:
    runtime = ScriptedRuntime(microseconds=50)
    commands, _ = begin(runtime, "candidate", "reference")
    commands.rounds(count=2, runs=5, max_s=60.0)
    ended = commands.read(str(tmp_path))
    # Four images are compared first; then each of the warm-up is read, and after it the end of each turn.
    assert [network["counts"] for network in ended["networks"]] == [[*range(4, 21), 25, 30]] * 2
    assert [np.load(network["readings_us"]).tolist() for network in ended["networks"]] == [[[50]] * 19] * 2
    assert [network["warm_up_runs"] for network in ended["networks"]] == [20, 20]
    candidate, reference = runtime.loaded[:2]
    assert candidate.inferences == reference.inferences == 30


def test_pin_leaves_the_cores_alone_where_they_cannot_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor can they on macOS."""
    monkeypatch.delattr(os, "sched_setaffinity")
    monkeypatch.delattr(os, "sched_getaffinity")
    runner.pin("0,1")
    assert runner.usable_cpus() == list(range(os.cpu_count() or 1))


def test_begin_takes_the_throughput_of_the_candidate_after_a_warm_up() -> None:
    runtime = ScriptedRuntime()
    _, begun = begin(runtime, "candidate", "reference", runs=25)
    throughput = begun["throughput"]
    full = runtime.loaded[-1]
    assert full.name == "candidate"
    assert throughput["images"] >= 25
    assert throughput["warm_up_images"] >= runner.WARM_UP_RUNS
    assert full.inferences == throughput["images"] + throughput["warm_up_images"]


class SlowNetwork(ScriptedNetwork):
    """A run of it takes so many seconds of a clock that stands still otherwise."""

    seconds = 0.0
    now: ClassVar = [0.0]

    def infer(self, image: Any) -> Any:
        self.now[0] += self.seconds
        return super().infer(image)


class SlowRuntime(ScriptedRuntime):
    def load(self, onnx: str, device: str, precision: str, threads: int, full: bool) -> runner.Network:
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
    monkeypatch.setattr(runner.time, "perf_counter", lambda: SlowNetwork.now[0])
    monkeypatch.setattr(runner, "clock_for", lambda device, threads: runner.time.perf_counter)
    runtime = SlowRuntime()
    began = SlowNetwork.now[0]
    commands, begun = begin(runtime, "candidate", "reference", runs=200, max_s=max_s)
    spent = SlowNetwork.now[0] - began
    assert sum(begun["seconds"].values()) == pytest.approx(spent)
    assert begun["run_ms"] == pytest.approx([1e3 * run_s] * 2)
    commands.rounds(count=1000, runs=1, max_s=max(0.0, max_s - spent))
    assert len(runtime.log) <= at_most
    assert {"candidate", "reference"} == set(runtime.log[-2:])


@pytest.mark.parametrize(("device", "threads", "name"), [("CPU", 1, "process_time"), ("CPU", 2, "perf_counter")])
def test_clock_for_leaves_out_waiting_where_one_thread_of_the_process_computes(
    device: str, threads: int, name: str
) -> None:
    assert runner.clock_for(device, threads) is getattr(runner.time, name)
    assert runner.clock_for("MYRIAD", threads) is runner.time.perf_counter


@pytest.mark.parametrize("command", ["rounds", "read"])
def test_rounds_and_read_want_a_beginning(command: str) -> None:
    commands, _ = begin(ScriptedRuntime(), "candidate")
    commands.rounds(count=1, runs=1, max_s=60.0)
    commands.end()
    arguments = {"count": 1, "runs": 1, "max_s": 60.0} if command == "rounds" else {"folder": "."}
    with pytest.raises(runner.RefusalError, match=r"a measurement must begin before it goes on, but got none"):
        getattr(commands, command)(**arguments)


def test_begin_refuses_counters_that_are_all_zero() -> None:
    with pytest.raises(runner.RefusalError, match=r"counters must show some time in the layers, but their sum is 0"):
        begin(ScriptedRuntime(microseconds=0), "candidate")


@pytest.mark.parametrize("precision", ["f32", "f16", "bf16"])
def test_begin_refuses_wrong_answers_and_lets_rounding_pass(precision: str) -> None:
    tolerance = runner.TOLERANCES[precision]
    right = ScriptedRuntime(stick_answers=1 + 0.9 * tolerance)
    _, begun = begin(right, "candidate", device="MYRIAD", precision=precision)
    assert begun["agreement"][0]["off_by"] == pytest.approx(0.9 * tolerance, rel=1e-3)  # f32 rounds 1.0009
    wrong = ScriptedRuntime(stick_answers=1 + 1.1 * tolerance)
    with pytest.raises(
        runner.RefusalError, match=rf"within {tolerance:g} of the CPU's .* in {precision}\), but are off"
    ):
        begin(wrong, "candidate", device="MYRIAD", precision=precision)


@pytest.mark.parametrize(("answer", "off"), [(0.0, "1"), (2.0, "1"), (float("nan"), "inf")])
def test_begin_says_how_far_off_the_answers_are(answer: float, off: str) -> None:
    with pytest.raises(runner.RefusalError, match=rf"but are off by {off};"):
        begin(ScriptedRuntime(stick_answers=answer), "candidate", device="MYRIAD")


def test_distance_is_a_share_of_the_norm() -> None:
    truth = np.array([[3.0, 0.0], [0.0, 4.0]])  # norm 5
    assert runner.distance(truth + np.array([[0.0, 0.3], [0.4, 0.0]]), truth) == pytest.approx(0.1)  # norm 0.5
    assert runner.distance(np.zeros(2), np.zeros(2)) == 0


def test_predict_refuses_images_of_another_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((5, 3, 8, 8), dtype=np.float32))
    commands = runner.Runner(ScriptedRuntime(microseconds=1), lambda: None)
    with pytest.raises(runner.RefusalError, match=r"of shape \[N, 3, 4, 4\], but got \[5, 3, 8, 8\]"):
        commands.predict("model.onnx", str(tmp_path), "CPU", "f32", str(tmp_path / "images.npy"))


@pytest.mark.parametrize(
    ("asked", "used", "capable"),
    [("f32", "f32", ["f32"]), ("f16", None, ["f16"])],
)
def test_check_precision_accepts_what_is_used_or_listed(asked: str, used: str | None, capable: list[str]) -> None:
    runner.check_precision("MYRIAD", asked, used, capable)


def test_check_precision_refuses_what_was_read_back_differently() -> None:
    with pytest.raises(
        runner.RefusalError, match=r"CPU computes in \(\['bf16', 'f32'\]\), but got 'f16'; .*use 'bf16'"
    ):
        runner.check_precision("CPU", "f16", "bf16", ["f32", "bf16"])


def test_check_precision_refuses_what_a_silent_device_does_not_list() -> None:
    with pytest.raises(runner.RefusalError, match=r"MYRIAD computes in \(\['f16'\]\), but got 'f32'\."):
        runner.check_precision("MYRIAD", "f32", None, ["f16"])


def test_pin_refuses_cores_that_are_not_there() -> None:
    with pytest.raises(runner.RefusalError, match=r"among the cores of this process .* but got \[9999\]"):
        runner.pin("9999")


def test_open_runtime_names_an_interpreter_without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("openvino", "openvino.runtime", "openvino.inference_engine", "openvino_telemetry"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(runner.RefusalError, match=rf"must have OpenVINO, but {sys.executable} has none; pip install"):
        runner.open_runtime()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (runner.RefusalError("no such device."), "no such device."),
        (RuntimeError("Exception from a.cpp:1:\nException from b.cpp:2:\nNo kernel.\n\n"), "OpenVINO says: No kernel."),
        (RuntimeError("Exception from a.cpp:1: dead"), "OpenVINO says: Exception from a.cpp:1: dead"),
        (KeyError("onnx"), "the runner failed: KeyError('onnx')"),
    ],
)
def test_sentence_is_one_line_that_says_who_failed(error: Exception, text: str) -> None:
    assert runner.sentence(error) == text
