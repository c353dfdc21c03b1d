"""One interface to the device, two implementations: a runtime in a child process, here or on a board, and a formula."""

import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_tune.benchmark import answers
from edge_tune.benchmark.board import PYTHON, RUNNER, Board, LostError
from edge_tune.benchmark.child import Child, ChildError
from edge_tune.benchmark.measurement import Measurement, condense, take_samples, written
from edge_tune.errors import BenchmarkError, ExperimentError
from edge_tune.experiment import Benchmark
from edge_tune.records.entries import DeviceEntry, Evidence, Ratio, Ratios, Reference, TimeSummary

SILENCE_S = 90.0
"""The stick needs up to about a minute to boot and load; a load that hangs, hangs for ever."""

BACK_S = 20.0
"""What a board that was lost has, before each further attempt, to come back."""

Result = TypeVar("Result")


class Backend(Protocol):
    """A device that networks are measured on; used by one caller at a time."""

    computes: bool

    def describe(self) -> DeviceEntry:
        """Return the device and the process that owns it."""
        ...

    def measure(self, onnx: bytes, settings: Benchmark, reference: bytes | None = None) -> Measurement:
        """Measure one network of static batch 1, in turns with the reference if there is one."""
        ...

    def predict(self, onnx: bytes, images: NDArray[np.float32], settings: Benchmark) -> NDArray[np.float32]:
        """Return the network's outputs, [N, classes], for images [N, C, H, W]. Not a measurement."""
        ...

    def convert(self, onnx: bytes) -> tuple[bytes, bytes] | None:
        """Return the network as IR: xml, and weights that are not compressed; None if the runtime has no such thing."""
        ...

    def close(self) -> None:
        """Give the device back. A closed backend may be used again."""
        ...


class RunnerBackend:
    """Whatever a runtime finds on a host, owned by a child process that is replaced when it fails."""

    computes = True

    def __init__(
        self,
        settings: Benchmark,
        cpus: Sequence[int] | None = None,
        *,
        command: Sequence[str] | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        """Prepare; the process starts with the first request.

        Args:
            settings: The device that is asked for, and how it must be usable; each request brings its own settings.
            cpus: Cores of this host that the process stays on; None: all. On another host, where nothing trains, it
                stays on the last `settings.threads`.
            command: What to start here instead of the runner in the settings' interpreter.
            silence_s: Seconds without a sign from the process that mean that it hangs.
        """
        self._device = f"{settings.device} on {settings.board}" if settings.board else settings.device
        self._as_asked = {"device": settings.device, "precision": settings.precision, "threads": settings.threads}
        self._retries = settings.retries
        self._silence_s = silence_s
        self._start = _start_of(settings, cpus, command, silence_s)
        self._child: Child | None = None
        self._place = settings.board
        self._host = DeviceEntry()
        self._replaced = 0

    @property
    def pid(self) -> int | None:
        """The process that owns the device, if one is running."""
        return self._child.pid if self._child else None

    def describe(self) -> DeviceEntry:
        """Return the device and what there is besides; raises BenchmarkError if it cannot be used."""
        return self._with_child(self._hello, begin_again_s=self._silence_s)

    def measure(self, onnx: bytes, settings: Benchmark, reference: bytes | None = None) -> Measurement:
        """Measure one network of static batch 1, in turns with the reference if there is one."""
        with tempfile.TemporaryDirectory(prefix="edge_tune-") as folder:
            networks = written([onnx] if reference is None else [onnx, reference], folder)
            samples = self._with_child(lambda child: take_samples(child, networks, settings, Path(folder)))
        return condense(samples, self._host, restarts=self._replaced, is_reference=onnx == reference)

    def predict(self, onnx: bytes, images: NDArray[np.float32], settings: Benchmark) -> NDArray[np.float32]:
        """Return the network's outputs, [N, classes], for images [N, C, H, W]. Not a measurement."""
        with tempfile.TemporaryDirectory(prefix="edge_tune-") as folder:
            path = Path(folder, "images.npy")
            np.save(path, images)
            request = {
                "onnx": str(*written([onnx], folder)),
                "folder": folder,
                "device": settings.device,
                "precision": settings.precision,
                "images": str(path),
            }
            return self._with_child(
                lambda child: answers.outputs(child.ask("predict", **request), Path(folder), len(images))
            )

    def convert(self, onnx: bytes) -> tuple[bytes, bytes] | None:
        """Return the network as IR: xml, and weights that are not compressed; None if the runtime has no such thing."""
        with tempfile.TemporaryDirectory(prefix="edge_tune-") as folder:
            request = {"onnx": str(*written([onnx], folder)), "folder": folder}
            return self._with_child(lambda child: answers.written(child.ask("convert", **request), Path(folder)))

    def close(self) -> None:
        """End the process. The next request would start another."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _hello(self, child: Child) -> DeviceEntry:
        return replace(answers.hello(child.ask("hello", **self._as_asked)), host=self._place)

    def _with_child(self, job: Callable[[Child], Result], begin_again_s: float = math.inf) -> Result:
        """Do a job with the child; one that fails is replaced, and the job begun again, `retries` times.

        After `begin_again_s` it is not begun again: a device that hangs from the start, hangs again.
        """
        failures: list[str] = []
        end = time.monotonic() + begin_again_s
        while len(failures) <= self._retries and not (failures and time.monotonic() > end):
            try:
                return job(self._started())
            except LostError as error:
                self._bury()
                if self._host.device is None:  # it was never there
                    raise BenchmarkError(str(error)) from None
                failures.append(str(error))
                if len(failures) <= self._retries:
                    time.sleep(BACK_S)
            except ChildError as error:
                failures.append(f"{error} {self._bury()}")
        times = f"{len(failures)} times" if len(failures) > 1 else "once"
        raise BenchmarkError(
            f"the process that owns {self._device} must answer, but failed {times}: "
            f"{' Then: '.join(dict.fromkeys(failures))}"
        )

    def _bury(self) -> str:
        """Kill the child that failed; return what it said last."""
        assert self._child is not None
        said = self._child.stderr_tail()
        self._child.kill()
        self._child = None
        self._replaced += 1
        return f"It said: {said}" if said else "It said nothing."

    def _started(self) -> Child:
        """Return the running child, or start one and see that it has the device."""
        if self._child is None:
            self._child = self._start()
            try:
                self._host = self._hello(self._child)
            except ChildError:
                raise
            except BenchmarkError:
                self.close()
                raise
        return self._child


def _start_of(
    settings: Benchmark, cpus: Sequence[int] | None, command: Sequence[str] | None, silence_s: float
) -> Callable[[], Child]:
    """Return what starts the process; the arguments are those of RunnerBackend."""
    if settings.board is not None:
        last = ("--last-cpus", str(settings.threads))
        return partial(Board, settings.board, settings.python or PYTHON, silence_s, *last)
    if cpus is not None and len(cpus) < settings.threads:
        raise BenchmarkError(
            f"threads must be at most the number of cores they run on, {len(cpus)}, but got {settings.threads}."
        )
    stay = () if cpus is None else ("--cpus", ",".join(map(str, cpus)))
    return partial(Child, [*(command or (settings.python or sys.executable, str(RUNNER))), *stay], silence_s)


class FakeBackend:
    """A formula in place of a device: the smaller the file, the faster. For tests and dry runs."""

    computes = False

    def describe(self) -> DeviceEntry:
        """Return what there is: the formula."""
        what = "a formula, no device"
        return DeviceEntry(device="fake", device_name=what, devices={"fake": what})

    def measure(self, onnx: bytes, settings: Benchmark, reference: bytes | None = None) -> Measurement:
        """Return 0.1 ms and 1 ms for each million bytes of the ONNX file."""
        latency_ms = self._latency_ms(onnx)
        evidence = Evidence(
            **vars(self.describe()),
            precision=settings.precision,
            threads=settings.threads,
            runs=settings.runs,
            bytes=len(onnx),
        )
        ratio = None
        if reference is not None:
            reference_ms = self._latency_ms(reference)
            ratio = latency_ms / reference_ms
            exactly = Ratio(ratio, ratio, ratio)
            evidence = replace(
                evidence,
                ratios=Ratios(latency_ratio=exactly, total_latency_ratio=exactly),
                reference=Reference(
                    latency=TimeSummary(median=reference_ms), total_latency=TimeSummary(median=1.25 * reference_ms)
                ),
            )
        return Measurement(latency_ms, 1.25 * latency_ms, 1000 / latency_ms, ratio, ratio, evidence)

    @staticmethod
    def _latency_ms(onnx: bytes) -> float:
        return 0.1 + len(onnx) / 1e6

    def predict(self, onnx: bytes, images: NDArray[np.float32], settings: Benchmark) -> NDArray[np.float32]:
        """Refuse."""
        raise BenchmarkError("predict needs a device that computes, but got 'fake', a formula; pass --device CPU.")

    def convert(self, onnx: bytes) -> tuple[bytes, bytes] | None:
        """Refuse."""
        raise BenchmarkError("convert needs a device that computes, but got 'fake', a formula; pass --device CPU.")

    def close(self) -> None:
        """Do nothing."""


def open_backend(settings: Benchmark, cpus: Sequence[int] | None) -> Backend:
    """Return the backend for the settings' device; `cpus` are the cores that it may use, None for all."""
    return FakeBackend() if settings.device == "fake" else RunnerBackend(settings, cpus)


def check_device(
    settings: Benchmark, onnx: bytes | None = None, image: NDArray[np.float32] | None = None
) -> DeviceEntry:
    """Return the device's description, once it has run a network, if there is one, on one image [1, C, H, W].

    Raises:
        BenchmarkError: No runtime can use it, or not in this precision or with so many threads; the text names the
            devices, precisions or cores there are. Or it refuses the network.
    """
    backend = open_backend(settings, None)
    try:
        description = backend.describe()
        if onnx is not None and image is not None and backend.computes:
            _try(backend, onnx, image, settings)
        return description
    finally:
        backend.close()


def require_device(settings: Benchmark, *, computes: bool = False) -> DeviceEntry:
    """Return the device's description, before a command measures anything, if it can be used as the settings ask.

    Args:
        computes: Whether it must be one that computes, which the formula does not.

    Raises:
        ExperimentError: It is not, or cannot.
    """
    if computes and settings.device == "fake":
        raise ExperimentError("device must be one that computes, but got 'fake', a formula; pass --device CPU.")
    try:
        return check_device(settings)
    except BenchmarkError as error:
        raise ExperimentError(str(error)) from error


def _try(backend: Backend, onnx: bytes, image: NDArray[np.float32], settings: Benchmark) -> None:
    try:
        backend.predict(onnx, image, settings)
    except BenchmarkError as error:
        raise BenchmarkError(
            f"{settings.device} must run the unpruned network, but got: {error} Change the network, or choose another "
            f"device."
        ) from error
