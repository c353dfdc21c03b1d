"""The process that owns the device. Runs alone: numpy, some OpenVINO, Python 3.6 or newer, nothing of edge_tune.

    python runner.py [--cpus 1,2]

One JSON object a line on stdin and stdout; networks come as paths of ONNX files, arrays as paths of .npy files.
    {"id": 1, "command": "hello", "device": "CPU"}
 -> {"id": 1, "result": {"python": ..., "openvino": ..., "devices": {...}, "device": "CPU", "device_name": ...}}
 -> {"id": 1, "error": "one sentence"}
While a command is busy it says {"id": 1, "alive": true} about once a second, so that silence means that it hangs.
The process ends when stdin does, and gives a command that it is busy with 2 s: nobody is left to read the answer.
"""
# ruff: noqa: D102 - the interfaces say what their methods do, for every generation of the API

import argparse
import importlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

# This file's folder comes first on the path; its statistics.py must not hide the standard library's.
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

import numpy as np  # noqa: E402

WARM_UP_RUNS = 20  # at least, of each compiled network
WARM_UP_S = 0.3  # at least, of the device, before anything counts
STREAM_S = 0.2  # at least, of throughput
CHECKED_IMAGES = 4
# Of the seconds that a measurement may take, a stage before the turns has so much at most, and one inference at least.
SHARES = {"check": 0.1, "throughput_warm_up": 0.15, "throughput": 0.1, "warm_up": 0.15}
# How far outputs may be from the CPU's in f32, as a share of their norm. A network that answers zeros, or for another
# image, is off by about 1; rounding in bf16 (f16) grows to a few per cent (tenths of one) over a hundred layers.
TOLERANCES = {"f32": 1e-3, "f16": 2e-2, "bf16": 1e-1}
CAPABILITIES = {"FP32": "f32", "BF16": "bf16", "FP16": "f16"}

Layer = Tuple[str, str, str, int]  # name, type, kernel, microseconds
Take = Callable[[int, Any], None]
Alive = Callable[[], None]


class RefusalError(Exception):
    """What was asked cannot be done; the text is for the user."""


class Network:
    """A network compiled for a device: the one interface to every generation of the API."""

    shape = ()  # type: Tuple[int, ...]

    def infer(self, image: Any) -> Any:
        """Return a copy of the first output for one input, synchronously."""
        raise NotImplementedError

    def layers(self) -> List[Layer]:
        """Return each layer as the plugin's counters have it now; 0 microseconds when it was not executed."""
        raise NotImplementedError

    def stream(self, images: Iterable[Any], take: Optional[Take] = None) -> None:
        """Run all images with as many requests as the device wants; take(index, output) gets each output."""
        raise NotImplementedError

    def used(self) -> Dict[str, Any]:
        """Return precision, threads, streams and requests as read back; None where the device does not tell."""
        raise NotImplementedError


class Runtime:
    """An OpenVINO: the one interface to every generation of the API."""

    version = ""

    def devices(self) -> Dict[str, str]:
        """Return the full name of each device there is."""
        raise NotImplementedError

    def probe(self, device: str) -> str:
        """Return the full name of `device`, or raise whatever OpenVINO raises when it cannot be used."""
        raise NotImplementedError

    def check(self, device: str, precision: str, threads: int) -> None:
        """Raise RefusalError unless `device`, which can be used, computes in this precision."""
        raise NotImplementedError

    def load(self, onnx: str, device: str, precision: str, threads: int, full: bool) -> Network:
        """Compile for throughput if `full`, else for latency with the counters of the layers."""
        raise NotImplementedError

    def convert(self, onnx: str, xml: str, weights: str) -> None:
        """Write the network as IR with uncompressed weights."""
        raise NotImplementedError


class OpenVinoNetwork(Network):
    """API 2.0: OpenVINO 2022.1 and newer."""

    def __init__(self, ov: Any, compiled: Any) -> None:
        self._ov = ov
        self._compiled = compiled
        if len(compiled.inputs) != 1 or compiled.input(0).partial_shape.is_dynamic:
            raise RefusalError("the network must have one input of static shape, but got %s." % compiled.inputs)
        self.shape = tuple(compiled.input(0).shape)
        check_batch(self.shape)
        self._request = compiled.create_infer_request()
        self._input = self._request.get_input_tensor(0).data

    def infer(self, image: Any) -> Any:
        # infer({0: image}) does the same with 16 us more of Python.
        np.copyto(self._input, image)
        self._request.infer()
        return self._request.get_output_tensor(0).data.copy()

    def layers(self) -> List[Layer]:
        return [
            (
                info.node_name,
                info.node_type,
                info.exec_type,
                int(info.real_time.total_seconds() * 1e6 + 0.5) if str(info.status).endswith("EXECUTED") else 0,
            )
            for info in self._request.profiling_info
        ]

    def stream(self, images: Iterable[Any], take: Optional[Take] = None) -> None:
        jobs = self._ov.AsyncInferQueue(self._compiled)
        if take is not None:
            jobs.set_callback(lambda request, index: take(index, request.get_output_tensor(0).data))
        for index, image in enumerate(images):
            jobs.start_async({0: image}, index)
        jobs.wait_all()

    def used(self) -> Dict[str, Any]:
        precision = self._property("INFERENCE_PRECISION_HINT")
        return {
            "precision": getattr(precision, "get_type_name", lambda: precision)(),
            "threads": self._property("INFERENCE_NUM_THREADS"),
            "streams": _number(self._property("NUM_STREAMS")),
            "requests": self._property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"),
            "execution_devices": self._property("EXECUTION_DEVICES"),
        }

    def _property(self, name: str) -> Any:
        """Ask the compiled network; AUTO and HETERO keep such things one level deeper, by device."""
        try:
            return self._compiled.get_property(name)
        except RuntimeError:
            pass
        try:
            for properties in self._compiled.get_property("DEVICE_PROPERTIES").values():
                if name in properties:
                    return properties[name]
        except (RuntimeError, AttributeError):
            pass
        return None


class OpenVino(Runtime):
    """API 2.0: OpenVINO 2022.1 and newer."""

    def __init__(self, ov: Any) -> None:
        self._ov = ov
        self._core = ov.Core()
        self.version = ov.get_version()

    def devices(self) -> Dict[str, str]:
        return {name: self._core.get_property(name, "FULL_DEVICE_NAME") for name in self._core.available_devices}

    def probe(self, device: str) -> str:
        compiled = self._core.compile_model(self._smallest(), device)
        names = OpenVinoNetwork(self._ov, compiled).used()["execution_devices"] or [device]
        devices = self.devices()
        return ", ".join(devices.get(name.strip("()"), name) for name in names)

    def check(self, device: str, precision: str, threads: int) -> None:
        self._compiled(self._smallest(), device, precision, threads, False)

    def load(self, onnx: str, device: str, precision: str, threads: int, full: bool) -> Network:
        return self._compiled(self._core.read_model(onnx), device, precision, threads, full)

    def _smallest(self) -> Any:
        """Return a network of one layer."""
        opset = importlib.import_module(self._ov.__name__ + ".opset8")
        parameter = opset.parameter([1, 1], np.float32)
        return self._ov.Model([opset.relu(parameter)], [parameter], "probe")

    def _compiled(self, model: Any, device: str, precision: str, threads: int, full: bool) -> Network:
        # Each device gets its settings through the core, since AUTO, HETERO and MULTI refuse most of them.
        wanted = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "THROUGHPUT" if full else "LATENCY",
            "PERF_COUNT": not full,
        }
        for name in self._core.available_devices:
            supported = self._core.get_property(name, "SUPPORTED_PROPERTIES")
            self._core.set_property(name, {key: value for key, value in wanted.items() if key in supported})
        hints = {key: wanted[key] for key in ("PERFORMANCE_HINT", "PERF_COUNT") if not device.startswith("HETERO")}
        network = OpenVinoNetwork(self._ov, self._core.compile_model(model, device, hints))
        self._check_precision(device, precision, network.used()["precision"])
        return network

    def _check_precision(self, device: str, asked: str, used: Optional[str]) -> None:
        names = [name for name in self._core.available_devices if name in device] or self._core.available_devices
        capable = {
            CAPABILITIES[capability]
            for name in names
            for capability in self._core.get_property(name, "OPTIMIZATION_CAPABILITIES")
            if capability in CAPABILITIES
        }
        check_precision(device, asked, used, sorted(capable))

    def convert(self, onnx: str, xml: str, weights: str) -> None:
        model = self._core.read_model(onnx)
        if hasattr(self._ov, "save_model"):
            self._ov.save_model(model, xml, compress_to_fp16=False)
        else:
            self._ov.serialize(model, xml, weights)


class InferenceEngineNetwork(Network):
    """API 1.0: OpenVINO 2021.4, the last with the MYRIAD plugin on PyPI."""

    def __init__(self, network: Any, executable: Any, used: Dict[str, Any]) -> None:
        self._executable = executable
        self._input, info = next(iter(network.input_info.items()))
        self._output = next(iter(network.outputs))
        self._used = used
        self.shape = tuple(info.input_data.shape)
        check_batch(self.shape)

    def infer(self, image: Any) -> Any:
        request = self._executable.requests[0]
        request.infer({self._input: image})
        return request.output_blobs[self._output].buffer.copy()

    def layers(self) -> List[Layer]:
        counters = self._executable.requests[0].get_perf_counts()
        return [
            (
                name,
                counter["layer_type"],
                counter["exec_type"],
                counter["real_time"] if counter["status"] == "EXECUTED" else 0,
            )
            for name, counter in counters.items()
        ]

    def stream(self, images: Iterable[Any], take: Optional[Take] = None) -> None:
        running = {}  # type: Dict[int, int]

        def collect(slot: int) -> None:
            index = running.pop(slot, None)
            if index is not None and take is not None:
                take(index, self._executable.requests[slot].output_blobs[self._output].buffer)

        for index, image in enumerate(images):
            if self._executable.get_idle_request_id() < 0:
                self._executable.wait(num_requests=1)
            slot = self._executable.get_idle_request_id()
            collect(slot)
            running[slot] = index
            self._executable.requests[slot].async_infer({self._input: image})
        self._executable.wait()
        for slot in list(running):
            collect(slot)

    def used(self) -> Dict[str, Any]:
        return dict(self._used, requests=len(self._executable.requests))


class InferenceEngine(Runtime):
    """API 1.0: OpenVINO 2021.4, the last with the MYRIAD plugin on PyPI."""

    def __init__(self, module: Any) -> None:
        self._core = module.IECore()
        self.version = module.get_version()

    def devices(self) -> Dict[str, str]:
        return {name: self._core.get_metric(name, "FULL_DEVICE_NAME") for name in self._core.available_devices}

    def probe(self, device: str) -> str:
        # MYRIAD is never among available_devices before it is opened, and opening without a stick takes 5 s.
        if not self._core.get_metric(device, "AVAILABLE_DEVICES"):
            raise RefusalError("no such device is connected")
        return str(self._core.get_metric(device, "FULL_DEVICE_NAME"))

    def load(self, onnx: str, device: str, precision: str, threads: int, full: bool) -> Network:
        self.check(device, precision, threads)
        config = {"PERF_COUNT": "NO" if full else "YES"}
        if device == "CPU":
            config["CPU_THREADS_NUM"] = str(threads)
            config["CPU_THROUGHPUT_STREAMS"] = "CPU_THROUGHPUT_AUTO" if full else "1"
            config["ENFORCE_BF16"] = "YES" if precision == "bf16" else "NO"
        network = self._core.read_network(onnx)
        if len(network.input_info) != 1:
            raise RefusalError("the network must have one input, but got %s." % sorted(network.input_info))
        executable = self._core.load_network(network, device, config, num_requests=0 if full else 1)
        used = self._used(device, executable)
        check_precision(device, precision, used["precision"], self._capable(device))
        return InferenceEngineNetwork(network, executable, used)

    def check(self, device: str, precision: str, threads: int) -> None:
        check_precision(device, precision, None, self._capable(device))

    def _capable(self, device: str) -> List[str]:
        capabilities = self._core.get_metric(device, "OPTIMIZATION_CAPABILITIES")
        capable = [CAPABILITIES[capability] for capability in capabilities if capability in CAPABILITIES]
        # The CPU plugin reads weights in FP16, and lists it, but computes in f32 or bf16.
        return [precision for precision in capable if (device, precision) != ("CPU", "f16")]

    def _used(self, device: str, executable: Any) -> Dict[str, Any]:
        if device != "CPU":
            return {"precision": None, "threads": None, "streams": None, "execution_devices": [device]}
        return {
            "precision": "bf16" if executable.get_config("ENFORCE_BF16") == "YES" else "f32",
            "threads": _number(executable.get_config("CPU_THREADS_NUM")),
            "streams": _number(executable.get_config("CPU_THROUGHPUT_STREAMS")),
            "execution_devices": [device],
        }

    def convert(self, onnx: str, xml: str, weights: str) -> None:
        self._core.read_network(onnx).serialize(xml, weights)


def _number(value: Any) -> Any:
    return int(value) if str(value).lstrip("-").isdigit() else value


def check_batch(shape: Tuple[int, ...]) -> None:
    """Raise unless a network takes one image at a time, which latencies are of."""
    if not shape or shape[0] != 1:
        raise RefusalError("the network must take a batch of 1, but got one of input shape %s." % list(shape))


def check_precision(device: str, asked: str, used: Optional[str], capable: List[str]) -> None:
    """Raise unless the device computes in the precision asked for, as read back or, if it does not tell, as listed."""
    if used is None and asked in capable:
        return
    if used != asked:
        raise RefusalError(
            "precision must be one that %s computes in (%s), but got %r%s."
            % (device, sorted(capable), asked, "" if used is None else "; OpenVINO would use %r" % used)
        )


def open_runtime() -> Runtime:
    """Return the newest API that this interpreter's OpenVINO has."""
    # Where openvino_telemetry is installed, importing openvino forks a process that reports to the network: on the
    # very core that measures, and with this process's pipes. Without it OpenVINO uses its own stub.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    for module, generation, marker in (
        ("openvino", OpenVino, "Core"),
        ("openvino.runtime", OpenVino, "Core"),
        ("openvino.inference_engine", InferenceEngine, "IECore"),
    ):
        try:
            found = importlib.import_module(module)
        except ImportError:
            continue
        if hasattr(found, marker):
            return generation(found)
    raise RefusalError("the interpreter must have OpenVINO, but %s has none; pip install openvino." % sys.executable)


def pin(cpus: Optional[str]) -> None:
    """Keep this process, and every thread that OpenVINO will start, on these cores."""
    if not cpus or not hasattr(os, "sched_setaffinity"):  # macOS has no such thing
        return
    wanted = {int(cpu) for cpu in cpus.split(",")}
    if not wanted <= os.sched_getaffinity(0):
        there = sorted(os.sched_getaffinity(0))
        raise RefusalError("cpus must be among the cores of this process (%s), but got %s." % (there, sorted(wanted)))
    os.sched_setaffinity(0, wanted)


def usable_cpus() -> List[int]:
    """Return the cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def clock_for(device: str, threads: int) -> Callable[[], float]:
    """Return what runs are timed by.

    Where a single thread of this process computes, that is the processor time which it had: what it waited while others
    had its core is not the network's. On an idle host the two are the same.
    """
    is_fine = time.get_clock_info("process_time").resolution <= 1e-6
    return time.process_time if (device, threads) == ("CPU", 1) and is_fine else time.perf_counter


class Repetition:
    """A network that is given the same image again and again, and how often it was."""

    def __init__(self, network: Network, alive: Alive, clock: Callable[[], float] = time.perf_counter) -> None:
        self.network = network
        self.clock = clock
        self.count = 0
        self.fastest_ms = float("inf")
        self._image = np.random.RandomState(0).standard_normal(network.shape).astype(np.float32)
        self._alive = alive

    def answer(self, image: Any) -> Any:
        """Return the output for this image instead."""
        start = time.perf_counter()
        output = self.network.infer(image)
        self._count((time.perf_counter() - start) * 1e3)
        return output

    def run(self) -> Tuple[float, float]:
        """Infer once, synchronously, and return the milliseconds from end to end: by the clock, and on the wall."""
        began, start = self.clock(), time.perf_counter()
        self.network.infer(self._image)
        end, ended = time.perf_counter(), self.clock()
        wall_ms = (end - start) * 1e3
        self._count(wall_ms)
        return min((ended - began) * 1e3, wall_ms), wall_ms

    def _count(self, wall_ms: float) -> None:
        self.count += 1
        self.fastest_ms = min(self.fastest_ms, wall_ms)
        self._alive()

    def stream(self, runs: int, seconds: float, most_s: float) -> int:
        """Infer with the device kept full, `runs` times and on until `seconds` have passed; return how often.

        After `most_s` nothing more begins, but for the first.
        """
        first, start, allowed = self.count, time.perf_counter(), Allowance(most_s)

        def is_wanted() -> bool:
            done = self.count - first
            is_due = done < runs or time.perf_counter() < start + seconds
            return not done or (is_due and allowed.has_room_after(done))

        def images() -> Iterator[Any]:
            while is_wanted():
                self.count += 1
                yield self._image
                self._alive()

        self.network.stream(images())
        return self.count - first


class Readings:
    """What the counters of a network showed, and after how many runs."""

    def __init__(self, repetition: Repetition) -> None:
        self._repetition = repetition
        self.layers = [layer[:3] for layer in repetition.network.layers()]
        self.warm_up_runs = 0
        self.counts = []  # type: List[int]
        self.microseconds = []  # type: List[List[int]]

    def read(self) -> None:
        """Keep what the counters show now."""
        layers = self._repetition.network.layers()
        if len(layers) != len(self.layers):
            raise RefusalError(
                "the network must keep its %d layers, but got %d; name the device itself, not AUTO."
                % (len(self.layers), len(layers))
            )
        self.counts.append(self._repetition.count)
        self.microseconds.append([layer[3] for layer in layers])


class Turns:
    """A network, or several that take turns so that what disturbs the host disturbs each of them."""

    def __init__(self, repetitions: List[Repetition], seed: int, warm_up_s: float) -> None:
        """Warm the networks up, each of which has run before.

        Args:
            repetitions: The networks.
            seed: Of whose turn is first.
            warm_up_s: Seconds that the warm-up of all of them may take.
        """
        self._order = np.random.RandomState(seed)
        self._repetitions = repetitions
        self.readings = [self._warmed_up(one, warm_up_s / len(repetitions)) for one in repetitions]

    @staticmethod
    def _warmed_up(repetition: Repetition, seconds: float) -> "Readings":
        """Run the network until it is warm; the counters, read after each run, show of what kind they are."""
        readings = Readings(repetition)
        readings.read()
        allowed = Allowance(seconds)
        while repetition.count < WARM_UP_RUNS and allowed.has_room_for(repetition.fastest_ms / 1e3):
            repetition.run()
            readings.read()
        if not sum(readings.microseconds[-1]):
            raise RefusalError("the device's counters must show some time in the layers, but their sum is 0.")
        readings.warm_up_runs = repetition.count
        return readings

    def round(self, runs: int) -> List[List[Tuple[float, float]]]:
        """Return what `Repetition.run` does for `runs` runs of each network; whose turn is first, is drawn.

        The counters are read at the end of a turn only: it would cost each next run a few per cent.
        """
        taken_ms = [[] for _ in self._repetitions]  # type: List[List[Tuple[float, float]]]
        for index in self._order.permutation(len(self._repetitions)):
            taken_ms[index] = [self._repetitions[index].run() for _ in range(runs)]
            self.readings[index].read()
        return taken_ms


class Allowance:
    """Seconds that something may take; asked before each further part of it."""

    def __init__(self, seconds: float) -> None:
        self._start = time.perf_counter()
        self._seconds = seconds

    def has_room_for(self, seconds: float) -> bool:
        """Tell whether a part that takes so long can end in time."""
        return time.perf_counter() - self._start + seconds <= self._seconds

    def has_room_after(self, parts: int) -> bool:
        """Tell whether one more can end in time, if it takes as long as these parts did on average."""
        return self.has_room_for((time.perf_counter() - self._start) / parts)


class Clock:
    """Seconds by stage; a stage that comes twice is summed."""

    def __init__(self) -> None:
        self.seconds = {}  # type: Dict[str, float]
        self._last = time.perf_counter()

    def book(self, stage: str) -> float:
        """Book the time since the last call on `stage`, and return it."""
        elapsed = time.perf_counter() - self._last
        self.seconds[stage] = self.seconds.get(stage, 0.0) + elapsed
        self._last += elapsed
        return elapsed


class Runner:
    """Executes the commands. Between two of them it keeps only the runtime and the networks that are being measured."""

    def __init__(self, runtime: Runtime, alive: Alive) -> None:
        self._runtime = runtime
        self._alive = alive
        self._turns = None  # type: Optional[Turns]

    def hello(self, device: str, precision: str, threads: int) -> Dict[str, Any]:
        """Return what there is, after a look whether `device` can be used at all, and as it is to be."""
        devices = self._runtime.devices()
        try:
            device_name = self._runtime.probe(device)
        except Exception as error:
            raise RefusalError(
                "device must be one OpenVINO finds on this host (%s), but got %r; %spass --device %s. %s"
                % (sorted(devices), device, remedy(device, error), next(iter(devices), "fake"), sentence(error))
            ) from error
        cpus = usable_cpus()
        if threads > len(cpus):
            raise RefusalError(
                "threads must be at most the number of cores they run on, %d, but got %d." % (len(cpus), threads)
            )
        self._runtime.check(device, precision, threads)
        return {
            "device": device,
            "device_name": device_name,
            "devices": devices,
            "openvino": self._runtime.version,
            "python": sys.version.split()[0],
            "numpy": np.__version__,
            "cpus": cpus,
        }

    def begin(
        self, networks: List[str], device: str, precision: str, threads: int, runs: int, seed: int, max_s: float
    ) -> Dict[str, Any]:
        """Check that each network computes what it should, take the throughput of the first, and warm them up.

        Of `max_s`, the seconds that the networks may run in all, this leaves half or more to the turns, unless a single
        inference of each takes longer.
        """
        self._turns = None
        load_average = os.getloadavg()[0]
        most_s = {stage: share * max_s for stage, share in SHARES.items()}
        clock = Clock()
        loaded = [
            Repetition(
                self._runtime.load(onnx, device, precision, threads, False), self._alive, clock_for(device, threads)
            )
            for onnx in networks
        ]
        agreement = [
            self._agreement(onnx, repetition, precision, most_s["check"] / len(networks), clock)
            for onnx, repetition in zip(networks, loaded)
        ]
        full = self._runtime.load(networks[0], device, precision, threads, True)
        throughput = self._throughput(full, runs, most_s, clock)
        self._turns = Turns(loaded, seed, most_s["warm_up"])
        clock.book("warm_up")
        return {
            "used": loaded[0].network.used(),
            "agreement": agreement,
            "throughput": throughput,
            "clock": "wall" if loaded[0].clock is time.perf_counter else "processor",
            "run_ms": [repetition.fastest_ms for repetition in loaded],
            "load_average": load_average,
            "seconds": clock.seconds,
        }

    def rounds(self, count: int, runs: int, max_s: float) -> Dict[str, Any]:
        """Return the milliseconds of each run, [rounds, networks, runs, 2]; after `max_s` no further round begins."""
        allowed = Allowance(max_s)
        taken = [self._present().round(runs)]
        while len(taken) < count and allowed.has_room_after(len(taken)):
            taken.append(self._present().round(runs))
        return {"taken_ms": taken}

    def read(self, folder: str) -> Dict[str, Any]:
        """Return, for each network, its layers and what its counters showed since its first run."""
        answer = []
        for index, readings in enumerate(self._present().readings):
            path = str(Path(folder) / ("readings%d.npy" % index))
            np.save(path, np.array(readings.microseconds, dtype=np.int64))
            answer.append(
                {
                    "layers": readings.layers,
                    "warm_up_runs": readings.warm_up_runs,
                    "counts": readings.counts,
                    "readings_us": path,
                }
            )
        return {"networks": answer}

    def end(self) -> Dict[str, Any]:
        """Let the networks go."""
        self._turns = None
        return {}

    def _present(self) -> Turns:
        if self._turns is None:
            raise RefusalError("a measurement must begin before it goes on, but got none.")
        return self._turns

    def _agreement(
        self, onnx: str, repetition: Repetition, precision: str, most_s: float, clock: Clock
    ) -> Dict[str, Any]:
        """Compare the outputs for fixed images with those of the CPU in f32, and refuse a network that disagrees.

        There are CHECKED_IMAGES of them; after `most_s` seconds no further one.
        """
        images = np.random.RandomState(1).standard_normal((CHECKED_IMAGES, *repetition.network.shape))
        truth = Repetition(self._runtime.load(onnx, "CPU", "f32", 1, False), self._alive)
        clock.book("compile")
        pairs = []  # type: List[Tuple[Any, Any]]
        allowed = Allowance(most_s)
        for image in images.astype(np.float32):
            pairs.append((repetition.answer(image), truth.answer(image)))
            if not allowed.has_room_after(len(pairs)):
                break
        clock.book("check")
        off = distance(*(np.stack(outputs) for outputs in zip(*pairs)))
        if not off <= TOLERANCES[precision]:
            raise RefusalError(
                "the device's outputs must be within %g of the CPU's in f32 (a share of their norm, in %s), but are "
                "off by %.3g; a latency of wrong answers is worth nothing." % (TOLERANCES[precision], precision, off)
            )
        return {"images": len(pairs), "off_by": off, "tolerance": TOLERANCES[precision]}

    def _throughput(self, network: Network, runs: int, most_s: Dict[str, float], clock: Clock) -> Dict[str, Any]:
        clock.book("compile")
        repetition = Repetition(network, self._alive)
        warm_up_images = repetition.stream(WARM_UP_RUNS, WARM_UP_S, most_s["throughput_warm_up"])
        clock.book("warm_up")
        images = repetition.stream(runs, STREAM_S, most_s["throughput"])
        seconds = clock.book("throughput")
        return dict(network.used(), images=images, seconds=seconds, warm_up_images=warm_up_images)

    def predict(self, onnx: str, folder: str, device: str, precision: str, images: str) -> Dict[str, Any]:
        """Write the outputs for all images, [N, classes], on all cores of this process."""
        network = self._runtime.load(onnx, device, precision, len(usable_cpus()), True)
        batch = np.load(images, mmap_mode="r")
        if tuple(batch.shape[1:]) != network.shape[1:]:
            raise RefusalError(
                "images must be of shape [N, %s], but got %s."
                % (", ".join(map(str, network.shape[1:])), list(batch.shape))
            )
        outputs = [None] * len(batch)  # type: List[Any]

        def take(index: int, output: Any) -> None:
            outputs[index] = np.array(output[0])
            self._alive()

        network.stream((np.array(image[np.newaxis], dtype=np.float32) for image in batch), take)
        path = str(Path(folder) / "outputs.npy")
        np.save(path, np.stack(outputs))
        return {"outputs": path}

    def convert(self, onnx: str, folder: str) -> Dict[str, Any]:
        """Write the IR of the network."""
        xml, weights = str(Path(folder) / "model.xml"), str(Path(folder) / "model.bin")
        self._runtime.convert(onnx, xml, weights)
        return {"xml": xml, "bin": weights}


def remedy(device: str, error: Exception) -> str:
    """Return what may be done about a device that cannot be used, besides naming another."""
    if "libusb" in str(error):
        return "install libusb (Debian: apt-get install libusb-1.0-0) or "
    return "plug it in or " if "MYRIAD" in device else ""


def distance(outputs: Any, truth: Any) -> float:
    """Return |outputs - truth| / |truth| over all images; infinite when a number is not finite."""
    if not (np.isfinite(outputs).all() and np.isfinite(truth).all()):
        return float("inf")
    return float(np.linalg.norm(outputs - truth) / max(np.linalg.norm(truth), np.finfo(np.float32).tiny))


class Wire:
    """The protocol's two ends: requests from stdin, answers to what was stdout when the process started."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # a plugin that prints must not end up among the answers
        self._requests = queue.Queue()  # type: queue.Queue[Optional[Dict[str, Any]]]
        self._id = None  # type: Any
        self._said = 0.0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self._requests.put(json.loads(line))
        self._requests.put(None)  # an idle process leaves by itself and lets the plugin close its device
        time.sleep(2.0)
        os._exit(0)

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        for request in iter(self._requests.get, None):
            self._id, self._said = request.pop("id"), time.monotonic()
            yield request

    def say(self, **answer: Any) -> None:
        """Send one line that belongs to the current request."""
        self._said = time.monotonic()
        self._answers.write(json.dumps(dict(answer, id=self._id)) + "\n")
        self._answers.flush()

    def alive(self) -> None:
        """Tell, about once a second, that the current request is being worked on."""
        if time.monotonic() - self._said > 1.0:
            self.say(alive=True)


def sentence(error: Exception) -> str:
    """Return the error in one line: our own words, or what OpenVINO says below its list of source lines."""
    if isinstance(error, RefusalError):
        return str(error)
    if type(error) not in (RuntimeError, Exception):  # which are all that OpenVINO raises
        return "the runner failed: %r" % error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Exception from ")]
    return "OpenVINO says: %s" % " ".join(told or lines)[:1000]


def main() -> None:
    """Answer requests until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cpus", help="cores to stay on, like 1 or 2,3; all by default")
    arguments = parser.parse_args()
    wire = Wire()
    runner = None  # type: Optional[Runner]
    for request in wire:
        try:
            if runner is None:
                pin(arguments.cpus)
                runner = Runner(open_runtime(), wire.alive)
            wire.say(result=getattr(runner, request.pop("command"))(**request))
        except Exception as error:
            traceback.print_exc()
            wire.say(error=sentence(error))


if __name__ == "__main__":
    main()
