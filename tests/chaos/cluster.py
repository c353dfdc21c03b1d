"""A cluster of several Ray nodes on this machine, a study on it, and everything in it that can be killed."""

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

ROOT = Path(__file__).parents[2]
MARK = "EDGE_TUNE_CHAOS"
TRAINERS = 2


class Machines:
    """A head without CPUs, trainers with one each, and the host with the device."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        os.environ[MARK] = self.mark  # the nodes, their workers and what those start inherit it
        self.cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.trainers = [self._trainer() for _ in range(TRAINERS)]
        self.device_host = self._device_host()

    def _trainer(self) -> Any:
        return self.cluster.add_node(num_cpus=1)

    def _device_host(self) -> Any:
        return self.cluster.add_node(num_cpus=0, resources={"ncs": 1})

    def lose_a_trainer(self, chance: random.Random) -> bool:
        """Kill a trainer; another one joins."""
        lost = self.trainers.pop(chance.randrange(len(self.trainers)))
        self.cluster.remove_node(lost, allow_graceful=False)
        self.trainers.append(self._trainer())
        return True

    def lose_the_device_host(self, chance: random.Random) -> bool:
        """Kill the host of the device; it comes back."""
        self.cluster.remove_node(self.device_host, allow_graceful=False)
        self.device_host = self._device_host()
        return True

    def killer_of(self, name: str) -> Callable[[random.Random], bool]:
        """Return what kills one process whose command line holds `name`; False if there is none just now."""

        def kill(chance: random.Random) -> bool:
            pids = list(self.processes(name))
            if not pids:
                return False
            try:
                os.kill(chance.choice(pids), signal.SIGKILL)
            except ProcessLookupError:
                return False
            return True

        return kill

    def processes(self, name: str) -> Iterator[int]:
        """Yield the processes of these machines whose command line holds `name`."""
        mine = f"{MARK}={self.mark}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if name.encode() in (folder / "cmdline").read_bytes() and mine in (folder / "environ").read_bytes():
                    yield int(folder.name)
            except OSError:
                continue

    def close(self) -> None:
        """End the nodes."""
        self.cluster.shutdown()
        del os.environ[MARK]


@contextmanager
def machines() -> Iterator[Machines]:
    """Yield a cluster of one's own."""
    there = Machines()
    try:
        yield there
    finally:
        there.close()


class Driver:
    """The command that runs the study, started again whenever it was killed."""

    def __init__(self, there: Machines, study: Path, results: Path) -> None:
        self.there, self.study, self.results = there, study, results
        self.output = results.with_suffix(".log")
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "edge_tune.run", str(self.study), "--results", str(self.results)]
        resume = ["--resume"] if (self.results / "run.json").is_file() else []
        with self.output.open("ab") as output:
            return subprocess.Popen(
                [*command, *resume],
                env={**os.environ, "RAY_ADDRESS": self.there.cluster.address, "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def killer(self, kind: signal.Signals) -> Callable[[random.Random], bool]:
        """Return what ends the command with a signal and starts it again."""

        def kill(_: random.Random) -> bool:
            if self.process.poll() is not None or not (self.results / "run.json").is_file():
                return False
            self.process.send_signal(kind)
            self.process.wait(timeout=120)
            self.process = self._start()
            return True

        return kill

    def wait(self, seconds: float) -> int | None:
        """Return the exit code, or None if the command still runs after so long."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None

    def said(self) -> str:
        """Return what the command printed."""
        return self.output.read_text()


def run_undisturbed(study: Path, results: Path) -> tuple[float, str]:
    """Return the seconds that a study takes, and what it printed."""
    with machines() as there:
        began = time.monotonic()
        driver = Driver(there, study, results)
        code = driver.wait(3600)
        assert code == 0, driver.said()
        return time.monotonic() - began, driver.said()
