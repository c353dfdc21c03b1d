"""The owner of one device: a Ray actor that measures one network at a time.

Its requests come from the queue (`edge_tune.benchmark.devices`), which knows all devices of a run.
"""

import fcntl
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray import cloudpickle

from edge_tune.benchmark.backend import open_backend
from edge_tune.benchmark.cores import measuring_cpus
from edge_tune.benchmark.measurement import Measurement
from edge_tune.errors import BenchmarkError
from edge_tune.experiment import Benchmark
from edge_tune.records.entries import DeviceEntry


@dataclass(frozen=True)
class Answer:
    """A measurement and what it cost.

    Attributes:
        measurement: What the device said.
        started, ended: Wall clock of the device's host around the work on this request.
        remembered: Whether an equal network had been measured before.
        queue_s: Seconds from the request to the answer that were not spent on this request.
    """

    measurement: Measurement
    started: float
    ended: float
    remembered: bool = False
    queue_s: float = 0.0

    @property
    def measure_s(self) -> float:
        """Seconds the device was busy with this request."""
        return self.ended - self.started


class BenchmarkActor:
    """Owns a device. Ray runs its methods one after another, in the order they came."""

    def __init__(self, settings: Benchmark, run_id: str, reference: bytes | None = None) -> None:
        """Take a device of this host that no other actor of the run has.

        Args:
            settings: The kind of device and how it is measured.
            run_id: As given to `measuring`.
            reference: Ray's reference to the network that each measurement takes turns with, pickled;
                a restarted actor finds it there. None for none.
        """
        self._kind = settings
        place, self._lock = take_place(run_id)
        self._place = 0 if settings.boards else place  # each board has a device of its own
        self._reference = ray.get(cloudpickle.loads(reference)) if reference else None
        self._measured = 0
        self._backend = open_backend(settings, measuring_cpus(settings.threads, self._place))

    def ping(self) -> dict[str, Any]:
        """Return host, pid and how many networks were measured. Does not touch the device."""
        return {"host": platform.node(), "pid": os.getpid(), "measured": self._measured}

    def describe(self) -> DeviceEntry:
        """Return what the backend knows of its device, and the name of its host."""
        found = self._backend.describe()
        return replace(found, device=self._settings.device, host=found.host or platform.node())

    def measure(self, onnx: bytes) -> Answer:
        """Measure a network of static batch 1, in turns with the reference."""
        started = time.time()
        measurement = self._backend.measure(onnx, self._settings, self._reference)
        self._measured += 1
        host = measurement.evidence.host or platform.node()
        named = replace(measurement.evidence, device=self._settings.device, host=host)
        return Answer(replace(measurement, evidence=named), started, time.time())

    def predict(self, onnx: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the network's outputs, [N, classes], for images [N, C, H, W]."""
        return self._backend.predict(onnx, images, self._settings)

    def convert(self, onnx: bytes) -> tuple[bytes, bytes] | None:
        """Return the network as IR: xml, and weights that are not compressed; None if the runtime has no such thing."""
        return self._backend.convert(onnx)

    def close(self) -> None:
        """Give the device back."""
        self._backend.close()
        Path(self._lock.name).unlink(missing_ok=True)
        self._lock.close()

    @cached_property
    def _settings(self) -> Benchmark:
        """The settings, with the name of this actor's own device."""
        found = self._backend.describe()
        return replace(self._kind, device=device_at(self._place, found.device or self._kind.device, found.devices))


def take_place(run_id: str) -> tuple[int, IO[str]]:
    """Return which of the run's actors on this host this one is, counted from 0, and the locked file that says so.

    The number is free for another actor once the file is closed, at the latest when this process ends.
    """
    for place in itertools.count():
        file = Path(tempfile.gettempdir(), f"edge_tune-{run_id}-{place}.lock").open("w")  # noqa: SIM115 - it is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
        else:
            return place, file
    raise AssertionError("itertools.count ends")


def device_at(place: int, kind: str, devices: Collection[str]) -> str:
    """Return the device at `place` of its host: OpenVINO tells several of a kind apart, as in MYRIAD.1.2-ma2480.

    Raises:
        BenchmarkError: There are several, but not so many.
    """
    several = sorted(device for device in devices if device.startswith(f"{kind}."))
    if not several:
        return kind
    if place >= len(several):
        raise BenchmarkError(
            f"this host must have as many devices {kind} as it offers to Ray, at least {place + 1}, but has {several}; "
            f"plug it in or start the host's Ray with fewer."
        )
    return several[place]
