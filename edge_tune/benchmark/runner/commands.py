"""The commands: what each of them does, and the fields of its request and of its answer."""

import os
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np

import files
from affinity import usable_cpus
from agreement import agreement, answers_of, images_to_check
from clocks import Allowance, StageClock, clock_for
from refusals import RefusalError, remedy, sentence
from repetition import Alive, Repetition
from runtime import Runtime
from throughput import take_throughput
from turns import Turns

# Of the seconds that a measurement may take, a stage before the turns has so much at most, and one inference at least.
SHARES = {"check": 0.1, "throughput_warm_up": 0.15, "throughput": 0.1, "warm_up": 0.15}


class Commands:
    """The commands, a method each. A measurement lasts from `begin` to `end`, and its networks stay loaded meanwhile.

    Nothing else stays from one command to the next, but for the runtime.
    """

    def __init__(self, runtime: Runtime, alive: Alive) -> None:
        self.runtime = runtime.name
        self._runtime = runtime
        self._alive = alive
        self._turns: Optional[Turns] = None

    def hello(self, device: str, precision: str, threads: int) -> Dict[str, Any]:
        """Return what there is, after a look whether `device` can be used at all, and as it is to be."""
        devices = self._runtime.devices()
        try:
            device_name = self._runtime.probe(device)
        except Exception as error:
            raise RefusalError(
                "device must be one %s finds on this host (%s), but got %r; %spass --device %s. %s"
                % (
                    self.runtime,
                    sorted(devices),
                    device,
                    remedy(device, error),
                    next(iter(devices), "fake"),
                    sentence(error, self.runtime),
                )
            ) from error
        cpus = usable_cpus()
        if threads > len(cpus):
            raise RefusalError(
                "threads must be at most the number of cores they run on, %d, but got %d." % (len(cpus), threads)
            )
        self._runtime.check(device, precision, threads)
        return {
            "device": self._runtime.named(device),
            "device_name": device_name,
            "devices": devices,
            "runtime": self.runtime,
            "runtime_version": self._runtime.version,
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
        clock = StageClock()
        timed_by = clock_for(self._runtime.named(device), threads)
        loaded = [
            Repetition(self._runtime.load(onnx, device, precision, threads, False), self._alive, timed_by)
            for onnx in networks
        ]
        agreements = [
            self._agreement(onnx, repetition, precision, most_s["check"] / len(networks), clock)
            for onnx, repetition in zip(networks, loaded)
        ]
        full = self._runtime.load(networks[0], device, precision, threads, True)
        clock.book("compile")
        throughput = take_throughput(full, self._alive, runs, most_s["throughput_warm_up"], most_s["throughput"], clock)
        self._turns = Turns(loaded, seed, most_s["warm_up"])
        clock.book("warm_up")
        return {
            "used": loaded[0].network.used(),
            "agreement": agreements,
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

    def predict(self, onnx: str, folder: str, device: str, precision: str, images: str) -> Dict[str, Any]:
        """Write the outputs for all images, [N, classes], on all cores of this process."""
        network = self._runtime.load(onnx, device, precision, len(usable_cpus()), True)
        batch = np.load(images, mmap_mode="r")
        if tuple(batch.shape[1:]) != network.shape[1:]:
            raise RefusalError(
                "images must be of shape [N, %s], but got %s."
                % (", ".join(map(str, network.shape[1:])), list(batch.shape))
            )
        outputs: List[Any] = [None] * len(batch)

        def take(index: int, output: Any) -> None:
            outputs[index] = np.array(output[0])
            self._alive()

        network.stream((np.array(image[np.newaxis], dtype=np.float32) for image in batch), take)
        path = str(Path(folder) / "outputs.npy")
        np.save(path, np.stack(outputs))
        return {"outputs": path}

    def convert(self, onnx: str, folder: str) -> Dict[str, Any]:
        """Write the IR of the network, or answer null if this runtime has no such thing."""
        xml, weights = str(Path(folder) / "model.xml"), str(Path(folder) / "model.bin")
        is_written = self._runtime.convert(onnx, xml, weights)
        return {"xml": xml if is_written else None, "bin": weights if is_written else None}

    def put(self, path: str, content: str, start: int) -> Dict[str, Any]:
        """Take a part of a file."""
        files.put(path, content, start)
        return {}

    def get(self, path: str, start: int, length: int) -> Dict[str, Any]:
        """Return a part of a file."""
        return {"content": files.get(path, start, length)}

    def _present(self) -> Turns:
        if self._turns is None:
            raise RefusalError("a measurement must begin before it goes on, but got none.")
        return self._turns

    def _agreement(
        self, onnx: str, repetition: Repetition, precision: str, most_s: float, clock: StageClock
    ) -> Dict[str, Any]:
        images = images_to_check(repetition.network.shape)
        cpu = Repetition(self._runtime.load(onnx, "CPU", "f32", 1, False), self._alive)
        clock.book("compile")
        pairs = answers_of(repetition, cpu, images, most_s)
        clock.book("check")
        return agreement(pairs, precision)
