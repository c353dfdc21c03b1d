import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from onnx import load_from_string as onnx_of

from edge_tune.benchmark.backend import RUNNER, FakeBackend, RunnerBackend, check_device, open_backend
from edge_tune.errors import BenchmarkError
from edge_tune.experiment import Benchmark
from edge_tune.records.jsonfiles import plain
from tests.benchmark.conftest import IMAGE
from tests.doubles import double_of

QUICK = Benchmark(runs=20)

ANSWERS_HELLO = """
import json, os, sys, time
for line in sys.stdin:
    request = json.loads(line)
    if request["command"] != "hello":
        {then}
    hello = dict.fromkeys(["device", "device_name", "runtime", "runtime_version", "python", "numpy"], "a double")
    print(json.dumps({{"id": request["id"], "result": dict(hello, devices={{}}, cpus=[0])}}), flush=True)
"""

FIRST_TIME_ONLY = """
import json, os, pathlib, runpy, sys, time
marker, script = pathlib.Path(sys.argv[1]), sys.argv[2]
sys.argv = [script]
if marker.exists():
    runpy.run_path(script, run_name="__main__")
marker.touch()
for line in sys.stdin:
    {then}
"""

HANG = "time.sleep(600)"
EXIT = "os._exit(1)"
SEGFAULT = "os.kill(os.getpid(), 11)"
GARBAGE = "print('E: [ncAPI] NC_ERROR', flush=True); time.sleep(600)"

RUNNER_BUT = """
import os, runpy, signal, sys, time
from pathlib import Path
script, marker = sys.argv[1], Path(sys.argv[2])
sys.argv = [script, *sys.argv[3:]]
sys.path.insert(0, script)
import commands, openvino_api2, refusals
first_time = not marker.exists()
marker.touch()
{change}
runpy.run_path(script, run_name="__main__")
"""
"""The runner itself with one thing that is wrong, as its plugin would have it."""

LOAD_FAILS = """
load = openvino_api2.OpenVino.load
def fail(self, onnx, device, *others):
    {how}
openvino_api2.OpenVino.load = lambda self, *arguments: (fail if {when} else load)(self, *arguments)
"""
OPEN_FAILS = """
def fail(self, device):
    {how}
openvino_api2.OpenVino.probe = fail
"""
ANSWERS_WRONGLY = """
infer = openvino_api2.OpenVinoNetwork.infer
count = [0]
def wrong(self, image):
    count[0] += 1
    return infer(self, image) + count[0] % 2  # each of the device's images comes before the CPU's
openvino_api2.OpenVinoNetwork.infer = wrong
"""
NC_ERROR = 'raise RuntimeError("Can not init Myriad device: NC_ERROR")'
LIBUSB = 'raise RuntimeError("Cannot load library x.so: libusb-1.0.so.0: cannot open shared object file")'
MUTEX = 'os.write(2, b"E: [ncAPI] global mutex initialization failed"); os._exit(1)'  # as the plugin does: no exception


@pytest.fixture(scope="module")
def cpu() -> Iterator[RunnerBackend]:
    backend = RunnerBackend(QUICK)
    yield backend
    backend.close()


def double(then: str, silence_s: float = 30.0) -> RunnerBackend:
    """A real child that has the device, and then fails each time."""
    return RunnerBackend(QUICK, command=[sys.executable, "-c", ANSWERS_HELLO.format(then=then)], silence_s=silence_s)


def runner_but(change: str, marker: Path, silence_s: float = 30.0, **settings: Any) -> RunnerBackend:
    """The real runner with a fault injected."""
    command = [sys.executable, "-c", RUNNER_BUT.format(change=change), str(RUNNER), str(marker)]
    return RunnerBackend(Benchmark(runs=20, **settings), command=command, silence_s=silence_s)


def test_measure_tells_networks_apart(cpu: RunnerBackend, onnx: bytes, wide_onnx: bytes) -> None:
    small, wide = cpu.measure(onnx, QUICK), cpu.measure(wide_onnx, QUICK)
    # 4 times the channels are about 14 times the work here; 2 leaves room for overheads and a busy host.
    assert wide.latency_ms > 2 * small.latency_ms
    assert wide.total_latency_ms > 2 * small.total_latency_ms


def test_measure_keeps_its_evidence(cpu: RunnerBackend, onnx: bytes) -> None:
    measured = cpu.measure(onnx, QUICK)
    evidence = plain(measured.evidence)
    read_back = {"precision": "f32", "threads": 1, "streams": 1, "requests": 1, "execution_devices": ["CPU"]}
    assert evidence["device"] == "CPU"
    assert evidence["devices"]["CPU"] == evidence["device_name"]
    assert evidence["runtime_version"].startswith(ov.get_version())
    assert {key: evidence[key] for key in read_back} == read_back
    assert evidence["runs"] == evidence["total_latency"]["n"] == 20
    assert evidence["warm_up_runs"] >= 40
    assert evidence["stopped_by"] == "runs"
    assert evidence["total_latency"]["median"] == measured.total_latency_ms
    assert evidence["latency"]["median"] == pytest.approx(measured.latency_ms)
    assert evidence["clock"] == "processor"
    assert evidence["cpus"] == sorted(os.sched_getaffinity(0))
    assert evidence["throughput"]["images"] >= 20
    assert evidence["executed_layers"] > 0


def test_measure_stays_on_its_core(onnx: bytes) -> None:
    core = max(os.sched_getaffinity(0))
    backend = RunnerBackend(QUICK, [core])
    evidence = backend.measure(onnx, QUICK).evidence
    threads = [Path(task, "status").read_text() for task in Path(f"/proc/{backend.pid}/task").iterdir()]
    backend.close()
    assert evidence.cpus == (core,)
    wandering = [status for status in threads if f"Cpus_allowed_list:\t{core}\n" not in status]
    # numpy's idle threads were started before; those of OpenVINO come after the pinning.
    assert len(wandering) < len(threads)
    assert all("\nName:\tpython" in f"\n{status}" for status in wandering)


def test_measure_refuses_a_precision_that_the_device_has_not(cpu: RunnerBackend, onnx: bytes) -> None:
    precisions = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "FP16" in precisions:
        pytest.skip("this CPU computes in f16")
    with pytest.raises(BenchmarkError, match=r"must be one that CPU computes in \(.*'f32'.*\), but got 'f16'"):
        cpu.measure(onnx, Benchmark(precision="f16"))


def test_measure_refuses_a_file_that_is_no_network(cpu: RunnerBackend) -> None:
    pid = cpu.describe() and cpu.pid
    with pytest.raises(BenchmarkError, match=r"OpenVINO says: "):
        cpu.measure(b"no network", QUICK)
    assert cpu.pid == pid  # what the child itself refuses is neither retried nor its death


@pytest.mark.parametrize("device", ["GPUX", "HETERO:GPUX,CPU"])
def test_check_device_names_the_devices_there_are_when_it_is_unknown(device: str) -> None:
    with pytest.raises(
        BenchmarkError,
        match=rf"device must be one OpenVINO finds on this host \(.*'CPU'.*\), but got '{device}'; pass --device CPU",
    ):
        check_device(Benchmark(device=device))


def test_check_device_runs_a_network_and_says_what_the_device_refuses_about_it(onnx: bytes) -> None:
    image = np.zeros((1, *IMAGE), dtype=np.float32)
    assert check_device(QUICK, onnx, image).device == "CPU"
    model = onnx_of(onnx)
    model.graph.node[0].op_type = "Convolute"
    with pytest.raises(
        BenchmarkError,
        match=r"CPU must run the unpruned network, but got: OpenVINO says: .*Convolute.* Change the network",
    ):
        check_device(QUICK, model.SerializeToString(), image)
    assert check_device(Benchmark(device="fake"), model.SerializeToString(), image).device == "fake"


@pytest.mark.parametrize("device", ["AUTO", "HETERO:CPU"])
def test_measure_accepts_whatever_device_openvino_accepts(device: str, onnx: bytes) -> None:
    settings = Benchmark(device=device, runs=10)
    backend = open_backend(settings, None)
    evidence = backend.measure(onnx, settings).evidence
    backend.close()
    assert (evidence.device, evidence.precision, evidence.threads) == (device, "f32", 1)


def test_openvino_backend_refuses_more_threads_than_cores() -> None:
    with pytest.raises(BenchmarkError, match="threads must be at most the number of cores they run on, 1, but got 2"):
        RunnerBackend(Benchmark(threads=2), [0])


def test_openvino_backend_names_an_interpreter_that_does_not_start() -> None:
    with pytest.raises(BenchmarkError, match=r"no-such-python: the interpreter must start, but got: .*No such file"):
        RunnerBackend(QUICK, command=["no-such-python"]).describe()


def test_openvino_backend_starts_again_when_killed_between_requests(onnx: bytes) -> None:
    backend = RunnerBackend(QUICK)
    backend.describe()
    assert backend.pid
    os.kill(backend.pid, signal.SIGKILL)
    assert backend.measure(onnx, QUICK).evidence.restarts == 1
    backend.close()


def test_openvino_backend_starts_again_when_killed_during_a_request(onnx: bytes) -> None:
    backend = RunnerBackend(QUICK)
    backend.describe()
    assert backend.pid
    # A measurement cannot be over before its 0.3 s of warm-up and 0.2 s of throughput.
    killer = threading.Timer(0.2, os.kill, (backend.pid, signal.SIGKILL))
    killer.start()
    assert backend.measure(onnx, QUICK).evidence.restarts == 1
    killer.join()
    backend.close()


def test_openvino_backend_retries_once_when_the_child_answers_garbage(onnx: bytes, tmp_path: Path) -> None:
    script = FIRST_TIME_ONLY.format(then=GARBAGE)
    command = [sys.executable, "-c", script, str(tmp_path / "marker"), str(RUNNER)]
    backend = RunnerBackend(QUICK, command=command, silence_s=3.0)
    assert backend.measure(onnx, QUICK).evidence.restarts == 1
    backend.close()


def test_openvino_backend_gives_up_when_the_child_answers_garbage_again(onnx: bytes) -> None:
    backend = double(GARBAGE)
    garbage = r"begin: its answer must be JSON, of finite numbers, with id 2, but got b'E: \[ncAPI\] NC_ERROR'"
    with pytest.raises(BenchmarkError, match=rf"must answer, but failed 3 times: {garbage}\. It said nothing\.$"):
        backend.measure(onnx, QUICK)
    assert backend.pid is None


def test_openvino_backend_kills_a_child_that_hangs(onnx: bytes) -> None:
    backend = double(HANG, silence_s=1.0)
    backend.describe()
    hanging = backend.pid
    assert hanging
    with pytest.raises(BenchmarkError, match=r"failed 3 times: begin: it must answer or sign within 1 s"):
        backend.measure(onnx, QUICK)
    with pytest.raises(ProcessLookupError, match="No such process"):
        os.kill(hanging, 0)


@pytest.mark.parametrize(
    "how",
    [NC_ERROR, MUTEX, SEGFAULT, "os.kill(os.getpid(), 9)", EXIT, HANG],
    ids=["NC_ERROR", "mutex", "SIGSEGV", "SIGKILL", "exit", "hang"],
)
def test_measure_goes_on_with_another_process_when_loading_fails_once(how: str, onnx: bytes, tmp_path: Path) -> None:
    change = LOAD_FAILS.format(how=how, when="first_time")
    backend = runner_but(change, tmp_path / "marker", silence_s=3.0 if how == HANG else 30.0)
    evidence = backend.measure(onnx, QUICK, onnx).evidence
    backend.close()
    assert evidence.restarts == 1
    assert evidence.warm_up_runs >= 40  # the new process was warm before it measured
    assert evidence.runs == 5 * evidence.ratios.rounds >= 20  # none of the first one's


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (NC_ERROR, r"begin: OpenVINO says: Can not init Myriad device: NC_ERROR"),
        (MUTEX, r"begin: it ended with exit code 1\. It said: .*global mutex initialization failed"),
    ],
    ids=["NC_ERROR", "mutex"],
)
@pytest.mark.parametrize("retries", [0, 2])
def test_measure_gives_up_with_the_reason_after_its_retries(
    how: str, reason: str, retries: int, onnx: bytes, tmp_path: Path
) -> None:
    backend = runner_but(LOAD_FAILS.format(how=how, when="True"), tmp_path / "marker", retries=retries)
    with pytest.raises(
        BenchmarkError,
        match=rf"owns CPU must answer, but failed {f'{retries + 1} times' if retries else 'once'}: {reason}",
    ):
        backend.measure(onnx, QUICK)
    backend.close()


@pytest.mark.parametrize("command", ["rounds", "read", "end"])
def test_measure_begins_again_when_the_process_fails_on_the_way(command: str, onnx: bytes, tmp_path: Path) -> None:
    change = f"if first_time: commands.Commands.{command} = lambda *a, **b: os._exit(1)"
    backend = runner_but(change, tmp_path / "marker")
    assert backend.measure(onnx, QUICK).evidence.restarts == 1
    backend.close()


def test_measure_serves_the_next_request_after_one_that_failed(onnx: bytes, tmp_path: Path) -> None:
    backend = runner_but(LOAD_FAILS.format(how=NC_ERROR, when="first_time"), tmp_path / "marker", retries=0)
    with pytest.raises(BenchmarkError, match=r"failed once: .*NC_ERROR"):
        backend.measure(onnx, QUICK)
    assert backend.measure(onnx, QUICK).latency_ms > 0
    backend.close()


def test_measure_refuses_a_network_that_the_device_computes_wrongly(onnx: bytes, tmp_path: Path) -> None:
    backend = runner_but(ANSWERS_WRONGLY, tmp_path / "marker")
    backend.describe()
    pid = backend.pid
    with pytest.raises(
        BenchmarkError, match=r"outputs must be within 0\.001 of the CPU's .* in f32\), but are off by \d"
    ):
        backend.measure(onnx, QUICK)
    assert backend.pid == pid  # wrong answers are not the process's death, and come again
    backend.close()


@pytest.mark.parametrize(
    ("how", "advice"),
    [
        (
            LIBUSB,
            r"install libusb \(Debian: apt-get install libusb-1.0-0\) or pass --device CPU\. OpenVINO says: .*libusb",
        ),
        (
            'raise refusals.RefusalError("no such device is connected")',
            r"plug it in or pass .*no such device is connected",
        ),
    ],
    ids=["no libusb", "no stick"],
)
def test_describe_says_what_the_stick_needs(how: str, advice: str, tmp_path: Path) -> None:
    backend = runner_but(OPEN_FAILS.format(how=how), tmp_path / "marker", device="MYRIAD")
    with pytest.raises(BenchmarkError, match=rf"finds on this host \(\['CPU'.*\), but got 'MYRIAD'; {advice}"):
        backend.describe()
    assert backend.pid is None


def test_measure_ends_when_the_ratio_is_precise_or_time_is_over(cpu: RunnerBackend, onnx: bytes) -> None:
    by_time = cpu.measure(onnx, Benchmark(runs=200, max_s=1e-9), onnx).evidence
    assert (by_time.stopped_by, by_time.ratios.rounds, by_time.runs) == ("time", 1, 1)
    assert not by_time.is_precise
    steady = RunnerBackend(QUICK, command=double_of(""))
    at_length = steady.measure(onnx, Benchmark(runs=60, max_s=600), onnx).evidence
    steady.close()
    assert (at_length.stopped_by, at_length.ratios.rounds, at_length.runs) == ("interval", 12, 60)
    assert at_length.is_precise


def test_measure_without_a_reference_keeps_to_its_time_too(cpu: RunnerBackend, onnx: bytes) -> None:
    evidence = cpu.measure(onnx, Benchmark(runs=10**6, max_s=0.2)).evidence
    assert evidence.stopped_by == "time"
    assert 1 <= evidence.runs < 10**6


def test_openvino_backend_can_be_used_after_close() -> None:
    backend = RunnerBackend(QUICK)
    for _ in range(2):
        assert backend.describe().device == "CPU"
        assert backend.pid
        backend.close()
        assert backend.pid is None


def test_fake_backend_is_faster_for_smaller_files() -> None:
    backend = open_backend(Benchmark(device="fake"), None)
    assert isinstance(backend, FakeBackend)
    small, large = (backend.measure(bytes(size), QUICK) for size in (100_000, 900_000))
    assert (small.latency_ms, large.latency_ms) == (0.2, 1.0)
    assert small.total_latency_ms < large.total_latency_ms
    assert small.throughput_fps > large.throughput_fps
    assert small == backend.measure(bytes(100_000), QUICK)
    assert (small.latency_ratio, small.total_latency_ratio) == (None, None)


def test_fake_backend_gives_the_ratio_of_its_formula() -> None:
    half = FakeBackend().measure(bytes(100_000), QUICK, bytes(300_000))  # 0.2 ms and 0.4 ms
    assert (half.latency_ratio, half.total_latency_ratio) == pytest.approx((0.5, 0.5))
    itself = FakeBackend().measure(bytes(100_000), QUICK, bytes(100_000))
    assert (itself.latency_ratio, itself.total_latency_ratio) == (1, 1)


@pytest.mark.parametrize("command", ["predict", "convert"])
def test_fake_backend_computes_nothing(command: str) -> None:
    backend = FakeBackend()
    arguments = (b"", np.zeros((1, *IMAGE), dtype=np.float32), QUICK) if command == "predict" else (b"",)
    assert not backend.computes
    with pytest.raises(BenchmarkError, match=rf"{command} needs a device that computes, but got 'fake'"):
        getattr(backend, command)(*arguments)
