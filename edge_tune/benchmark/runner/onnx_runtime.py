"""ONNX Runtime, whose one device is the CPU, by its own kernels (CPUExecutionProvider).

It tells the time of layers only while it writes a profile, and that makes a run longer by a fifth to a third. So the
network that is timed has none: the time of a run inside the runtime, the little between the layers included, is shared
out among the layers as it is in the undisturbed runs of a second session, which writes one.
"""
# ruff: noqa: D102 - runtime.py says what the methods do

import json
import platform
import re
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

import numpy as np

from refusals import RefusalError
from runtime import Layer, Network, Runtime, Take, check_batch, check_precision

DEVICE = "onnxruntime:CPU"
PROFILED_RUNS = 20  # at most, and one at least, besides the first, which is left out
PROFILED_S = 0.2
KERNEL = "_kernel_time"  # what ends the name of a layer in a profile; older versions write of fences too
BLOCKED = re.compile(r"_nchwc(_token_\d+)?$")  # layers that compute in blocks of channels are named so

Kind = Tuple[str, str, str]  # name, type, kernel


class OnnxRuntimeNetwork(Network):
    """A session, or with `full` as many requests at once as there are threads."""

    def __init__(self, runtime: "OnnxRuntime", onnx: str, threads: int, full: bool) -> None:
        self._runtime, self._onnx = runtime, onnx
        self._requests = threads if full else 1
        self._threads = 1 if full else threads
        self._session = runtime.session(onnx, self._threads)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or not all(isinstance(size, int) for size in inputs[0].shape):
            shapes = {one.name: one.shape for one in inputs}
            raise RefusalError("the network must have one input of static shape, but got %s." % shapes)
        self.shape = tuple(inputs[0].shape)
        check_batch(self.shape)
        self._input = np.zeros(self.shape, dtype=np.float32)
        self._feed = {inputs[0].name: self._input}
        self._outputs = [self._session.get_outputs()[0].name]
        self._taken_us: List[float] = []
        self._kinds: List[Kind] = []
        self._shares = np.zeros(0)
        self._sums_us = np.zeros(0, dtype=np.int64)
        self._count = 0

    def infer(self, image: Any) -> Any:
        np.copyto(self._input, image)
        start = time.perf_counter()
        (output,) = self._session.run(self._outputs, self._feed)
        self._taken_us.append((time.perf_counter() - start) * 1e6)
        return output

    def layers(self) -> List[Layer]:
        """Return the mean of all runs, in whole microseconds of whole microseconds, as OpenVINO's counters have it."""
        if not self._kinds:
            self._kinds, self._shares = self._runtime.profile(self._onnx, self._threads, self._feed)
            self._sums_us = np.zeros(len(self._kinds), dtype=np.int64)
        for taken_us in self._taken_us:
            self._sums_us += (taken_us * self._shares).astype(np.int64)
        self._count += len(self._taken_us)
        self._taken_us.clear()
        means_us = self._sums_us // max(1, self._count)
        return [(*kind, int(mean_us)) for kind, mean_us in zip(self._kinds, means_us)]

    def stream(self, images: Iterable[Any], take: Optional[Take] = None) -> None:
        if self._requests == 1:
            for index, image in enumerate(images):
                self._answer(index, image, take)
        else:
            _Workers(self._requests, lambda index, image: self._answer(index, image, take)).run(images)

    def _answer(self, index: int, image: Any, take: Optional[Take]) -> None:
        (output,) = self._session.run(self._outputs, dict.fromkeys(self._feed, image))
        if take is not None:
            take(index, output)

    def used(self) -> Dict[str, Any]:
        options = self._session.get_session_options()
        return {
            "precision": "f32",
            "threads": options.intra_op_num_threads * self._requests,
            "streams": self._requests,
            "requests": self._requests,
            "execution_devices": self._session.get_providers(),
        }


class _Workers:
    """Threads that each answer one image at a time: the runtime lets go of Python meanwhile."""

    def __init__(self, count: int, answer: Callable[[int, Any], None]) -> None:
        self._answer = answer
        self._count = count
        self._free = threading.Semaphore(count)
        self._errors: List[Exception] = []

    def run(self, images: Iterable[Any]) -> None:
        """Answer all images; raise the first error."""
        with ThreadPoolExecutor(self._count) as pool:
            for index, image in enumerate(images):
                self._free.acquire()
                if self._errors:
                    break
                pool.submit(self._one, index, image)
        if self._errors:
            raise self._errors[0]

    def _one(self, index: int, image: Any) -> None:
        try:
            self._answer(index, image)
        except Exception as error:
            self._errors.append(error)
        finally:
            self._free.release()


class OnnxRuntime(Runtime):
    """ONNX Runtime."""

    name = "ONNX Runtime"

    def __init__(self, module: Any) -> None:
        self._ort = module
        self.version = module.__version__

    def devices(self) -> Dict[str, str]:
        return {DEVICE: processor()}

    def named(self, device: str) -> str:
        return DEVICE if device == "CPU" else device

    def probe(self, device: str) -> str:
        if self.named(device) != DEVICE:
            raise RefusalError("EdgeTune has ONNX Runtime compute on the CPU only.")
        return processor()

    def check(self, device: str, precision: str, threads: int) -> None:
        check_precision(DEVICE, precision, None, ["f32"])

    def load(self, onnx: str, device: str, precision: str, threads: int, full: bool) -> Network:
        self.check(device, precision, threads)
        return OnnxRuntimeNetwork(self, onnx, threads, full)

    def convert(self, onnx: str, xml: str, weights: str) -> bool:
        return False

    def session(self, onnx: str, threads: int, profile: Optional[str] = None) -> Any:
        """Return a session of the CPU's kernels, which is timed by a profile if a prefix of its file is given."""
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = self._ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        # Threads that spin while they wait take the cores of others, and their own other threads' (docs/decisions.md).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        return self._ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    def profile(self, onnx: str, threads: int, feed: Dict[str, Any]) -> Tuple[List[Kind], Any]:
        """Return a network's layers, and the share of each in the time of a run."""
        with tempfile.TemporaryDirectory(prefix="edge_tune-") as folder:
            session = self.session(onnx, threads, str(Path(folder) / "profile"))
            start, runs = time.perf_counter(), 0
            while runs < 2 or (runs <= PROFILED_RUNS and time.perf_counter() < start + PROFILED_S):
                session.run(None, feed)
                runs += 1
            events = json.loads(Path(session.end_profiling()).read_text())
        return shares_of(events, runs)


def shares_of(events: List[Dict[str, Any]], runs: int) -> Tuple[List[Kind], Any]:
    """Return the layers that a profile of so many runs tells of, and the share of each, the first run left out.

    Of a layer's times the middle half counts: what is interrupted takes longer.
    """
    times_us: Dict[Kind, List[int]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            name, told = event["name"][: -len(KERNEL)], event["args"]
            kernel = told["provider"] + (" nchwc" if BLOCKED.search(name) else "")
            times_us.setdefault((name, told["op_name"], kernel), []).append(event["dur"])
    layers_us = [_typical(np.array(taken, dtype=np.float64), runs) for taken in times_us.values()]
    return list(times_us), np.array(layers_us) / max(sum(layers_us), 1e-9)


def _typical(taken_us: Any, runs: int) -> float:
    """Return the mean of the middle half of a layer's times; of all where a layer does not run once in each run."""
    if len(taken_us) != runs:
        return float(taken_us.sum() / runs)
    middle = np.sort(taken_us[1:])
    quarter = len(middle) // 4
    return float(middle[quarter : len(middle) - quarter].mean())


def processor() -> str:
    """Return what this host's processor, or the board itself, calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
        return Path("/proc/device-tree/model").read_text().strip("\0 \n")
    except OSError:
        return platform.processor() or platform.machine()
