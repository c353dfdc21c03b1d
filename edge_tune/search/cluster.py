"""Ray, started quietly on this machine or joined where RAY_ADDRESS says, and what its nodes must agree on."""

import hashlib
import logging
import math
import os
import platform
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar, cast

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from edge_tune.benchmark.cores import training_cpus, usable_cpus
from edge_tune.command import ASKED_TO_END
from edge_tune.errors import ExperimentError, StudyError
from edge_tune.experiment import Benchmark
from edge_tune.networks.compute import Gpus, gpus_here
from edge_tune.records.entries import ClusterEntry, NodeEntry
from edge_tune.waiting import told
from edge_tune.wording import counted, listed

NAMESPACE = "edge_tune"
PACKAGES = ("ray", "torch", "torchvision", "torch-pruning", "openvino", "onnx", "hyperopt", "numpy")
SETTINGS = {
    "RAY_worker_niceness": "0",  # else anything else on the host comes before a measurement
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output prints tables even when told to be silent
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of the experiment keep their meaning in a trial
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our records and TensorBoard files take their place
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # its snapshots grow with each trial, and our records are the state
    "TUNE_FORCE_TRIAL_CLEANUP_S": "10",  # a trial that was told to stop may be in the middle of a long epoch
}
DEVICE_WAIT_S = 120.0
"""A host that was just started needs about as long to install its environment and join."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Attributes:
        id: Ray's.
        host: Its name.
        cpus: How many trials' CPUs it offers.
        devices: Units of the device's resource that it offers.
        gpus: GPUs that it offers to trials.
        resources: Everything that it offers by name.
    """

    id: str
    host: str
    cpus: int
    devices: int
    gpus: int
    resources: Sequence[str]


@dataclass(frozen=True)
class Cluster:
    """Where a study runs.

    Attributes:
        where: "on this machine", or the address that was joined.
        resource: What the nodes with a device offer.
    """

    where: str
    resource: str

    @property
    def nodes(self) -> list[Node]:
        """The machines that are there now."""
        alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        return [
            Node(
                id=node["NodeID"],
                host=node["NodeManagerHostname"],
                cpus=int(node["Resources"].get("CPU", 0)),
                devices=int(node["Resources"].get(self.resource, 0)),
                gpus=int(node["Resources"].get("GPU", 0)),
                resources=sorted(name for name in node["Resources"] if not name.startswith("node:")),
            )
            for node in alive
        ]

    def says(self, device: str, boards: Sequence[str] = ()) -> str:
        """Return what there is, in one line.

        Args:
            device: What the devices are, and by which runtime they measure.
            boards: Which have the devices, if the nodes do not.
        """
        nodes = self.nodes
        devices = len(boards) or sum(node.devices for node in nodes)
        hosts = ", ".join(boards or (node.host for node in nodes if node.devices))
        return (
            f"Ray {ray.__version__} {self.where}: {counted(len(nodes), 'node')}, "
            f"{counted(sum(node.cpus for node in nodes), 'core')} for trials, "
            f"{counted(devices, 'device')} ({device}, on {hosts or 'none of them yet'})"
        )

    def entry(self) -> ClusterEntry:
        """Return what run.json keeps of it."""
        nodes = [NodeEntry(host=node.host, cpus=node.cpus, devices=node.devices, gpus=node.gpus) for node in self.nodes]
        return ClusterEntry(where=self.where, nodes=nodes)

    def gpus_per_trial(self, asked: float | None, say: Callable[[str], None]) -> float:
        """Return the GPUs of each trial: what is asked; if nothing is, 1 where a node has any that PyTorch can use.

        Args:
            say: Receives a line on what trials get on each node, where any node has GPUs.

        Raises:
            ExperimentError: GPUs are asked for where there are none, or where PyTorch cannot use them.
        """
        if not any(node.gpus for node in self.nodes):
            if asked:
                raise ExperimentError(
                    f"search: gpus_per_trial must be 0 where no node offers a GPU to Ray, but got {asked:g}; give 0, "
                    f"or join a node that has one."
                )
            return 0
        if asked == 0:
            say("No GPUs for trials: gpus_per_trial is 0.")
            return 0
        found = [(node, gpus) for node, gpus in self.on_each_node(gpus_here, ends=True) if node.gpus]
        problems = [
            f"node {node.host}: offers {counted(node.gpus, 'GPU')}, but {problem}"
            for node, gpus in found
            if (problem := gpus.problem_of(node.gpus))
        ]
        if problems and asked:
            raise ExperimentError(
                *(
                    f"{problem}; mend that, take it out of the cluster, or give gpus_per_trial=0."
                    for problem in problems
                )
            )
        if problems:
            say(f"{'; '.join(problems)}. So trials compute on CPUs.")
            return 0
        trials = round(1 / (asked or 1))
        say(_gpu_line(found, trials, [node.host for node in self.nodes if not node.gpus]))
        return math.floor(10_000 / trials) / 10_000  # Ray counts in units of 0.0001

    def trials_at_once(self, cpus_per_trial: int, gpus_per_trial: float = 0) -> int:
        """Return how many trials of so many CPUs and GPUs the nodes have room for.

        Raises:
            ExperimentError: No node has room for one.
        """
        nodes = self.nodes
        by_cpus = [node.cpus // cpus_per_trial for node in nodes]
        by_gpus = [node.gpus * round(1 / gpus_per_trial) for node in nodes] if gpus_per_trial else by_cpus
        room = sum(map(min, by_cpus, by_gpus))
        if not room and any(by_cpus):
            raise ExperimentError(
                f"search: a node that offers a GPU must offer {counted(cpus_per_trial, 'CPU')} to trials too, but none "
                f"does; lower cpus_per_trial, or give gpus_per_trial=0."
            )
        if not room:
            offers = ", ".join(f"{node.cpus} on {node.host}" for node in nodes)
            raise ExperimentError(
                f"search: cpus_per_trial must be at most what a node offers to trials, {offers}, but got "
                f"{cpus_per_trial}; lower it, or give a node more (the cores that measure are not offered)."
            )
        return room

    def wait_for_devices(self, say: Callable[[str], None]) -> int:
        """Return how many devices there are; wait for the first.

        Raises:
            ExperimentError: No node offers one in time.
        """
        end = time.monotonic() + DEVICE_WAIT_S
        said = False
        while not (devices := sum(node.devices for node in self.nodes)):
            if time.monotonic() > end:
                offers = "; ".join(f"{node.host}: {', '.join(node.resources)}" for node in self.nodes)
                raise ExperimentError(
                    f"benchmark: a node of the cluster must offer the resource {self.resource!r}, which marks the host "
                    f"with the device, but after {DEVICE_WAIT_S:g} s there is none. The nodes offer: {offers}. Start "
                    f"Ray on that host with: ray start --address=HEAD:6379 --resources='{{\"{self.resource}\": 1}}'"
                )
            if not said:
                say(f"Waiting up to {DEVICE_WAIT_S:g} s for a node that offers the resource {self.resource!r}.")
                said = True
            time.sleep(1)
        return devices

    def on_device_node(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return what a function returns on a node with a device, which is its own meanwhile; raise what it raises.

        Raises:
            ExperimentError: No device became free in time.
        """
        options = {"num_cpus": 0, "resources": {self.resource: 1}, "num_returns": "streaming"}
        call = _remote(_announced).options(**options).remote(function, *arguments)
        started, _ = ray.wait([call], timeout=DEVICE_WAIT_S)
        if not started:
            ray.cancel(call, force=True)
            raise ExperimentError(
                f"benchmark: a device must be free, but each node that offers {self.resource!r} has been busy for "
                f"{DEVICE_WAIT_S:g} s; wait for the other study on this cluster."
            )
        _result(next(call))
        return cast(Result, _result(next(call)))

    def as_a_trial(
        self, cpus: int, gpus: float, function: Callable[..., Result], *arguments: Any, say: Callable[[str], None]
    ) -> Result:
        """Return what `function(*arguments, say)` returns in a process that has as much of a node as a trial, and ends.

        Args:
            say: Receives here what the function says there.

        Raises:
            StudyError: The process was lost.
        """
        options = {"num_cpus": cpus, "num_gpus": gpus, "num_returns": "streaming", "max_retries": 0}
        calls = iter(_remote(_speaking, ends=True).options(**options).remote(function, *arguments))
        try:
            with told(say, "a node with room for it"):
                _result(next(calls))
            while isinstance(said := _result(next(calls)), str):
                say(said)
        except RayError as error:
            raise StudyError(
                f"a process on another node was lost: {_last_line(error)}; run the study again."
            ) from error
        (result,) = said
        return cast(Result, result)

    def on_each_node(
        self,
        function: Callable[..., Result],
        *arguments: Any,
        nodes: Sequence[Node] | None = None,
        ends: bool = False,
    ) -> list[tuple[Node, Result]]:
        """Return each node and what a function returns there; a node that is lost meanwhile is left out.

        Args:
            nodes: None: all.
            ends: The process ends with the function, and gives back what it has of a GPU's memory.

        Raises:
            ExperimentError: It cannot run on a node; the sentence names it.
        """
        calls = [
            (
                node,
                _remote(function, ends=ends)
                .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False))
                .remote(*arguments),
            )
            for node in (self.nodes if nodes is None else nodes)
        ]
        answers = []
        for node, call in calls:
            try:
                answers.append((node, _result(call)))
            except (RayError, ImportError, RuntimeError) as error:  # Ray raises the last for what it cannot import
                if node.id not in {still.id for still in self.nodes}:
                    continue
                raise ExperimentError(
                    f"node {node.host}: EdgeTune must run on each node of the cluster, from the same path and "
                    f"requirements.txt, but got {type(error).__name__}: {_last_line(error)}"
                ) from error
        return answers

    def check_agreement(self) -> None:
        """Check that all nodes run the same versions of everything that a result depends on.

        Raises:
            ExperimentError: They do not; the sentences say which node has what.
        """
        if len(self.nodes) == 1:
            return
        found = self.on_each_node(versions)
        differing = [package for package in versions() if len({of[package] for _, of in found}) > 1]
        ExperimentError.raise_if(
            f"cluster: every node must have the same {package}, but got "
            f"{', '.join(f'{of[package]} on {node.host}' for node, of in found)}; run `ray up` again."
            for package in differing
        )


def _gpu_line(found: Sequence[tuple[Node, Gpus]], trials: int, others: Sequence[str]) -> str:
    """Return what trials get, such as "2 trials on each of 2 GPUs of trainer (NVIDIA H200), none on head"."""
    each = ", ".join(
        f"{counted(trials, 'trial')} on each of {counted(node.gpus, 'GPU')} of {node.host} ({gpus.names[0]}"
        f"{'' if trials == 1 else ', with MPS' if gpus.shared else ', without MPS: they take turns (docs/cluster.md)'})"
        for node, gpus in found
    )
    return f"{each}{f'; none on {listed(others)}, without GPUs' if others else ''}."


@contextmanager
def joined(settings: Benchmark) -> Iterator[Cluster]:
    """Join the cluster of RAY_ADDRESS, or start Ray on this machine, with the device's resource.

    The cores that measure are not offered to trials.

    Raises:
        ExperimentError: No cluster can be joined at RAY_ADDRESS.
    """
    os.environ.update(SETTINGS)
    address = os.environ.get("RAY_ADDRESS", "local")
    options: dict[str, Any] = {}
    if address == "local":
        cores = training_cpus(settings.threads) if settings.takes_cores else usable_cpus()
        options = {"num_cpus": len(cores), "resources": {settings.resource: 1}, "include_dashboard": False}
        # Of this Ray alone; else it would be kept in the home folder, which may not be writable.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        _start(address, options)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails is in the records
        yield Cluster("on this machine" if address == "local" else f"at {address}", settings.resource)
    finally:
        with _signals_ignored():
            ray.shutdown()


def _start(address: str, options: Mapping[str, Any]) -> None:
    """Start Ray on this machine, or join it at `address`.

    Raises:
        ExperimentError: It does not start, or none can be joined.
    """
    try:
        if address not in ("local", "auto"):
            _check_answers(address)  # Ray itself would try for minutes
        with _sigterm_kept(), _sessions_of_their_own():
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises this and that, where a host is too busy a bare Exception
        if address == "local":
            raise ExperimentError(
                f"Ray must start on this machine, but got: {_last_line(error).rstrip('.')}. If that is about temporary "
                f"files, name a short path for them by the variable RAY_TMPDIR; if about time, try again."
            ) from error
        raise ExperimentError(
            f"RAY_ADDRESS: a Ray cluster of this Python ({platform.python_version()}) and Ray ({ray.__version__}) must "
            f"answer at {address!r}, but got: {_last_line(error)} Start it (ray up cluster.yaml), or unset RAY_ADDRESS "
            f"to run on this machine alone."
        ) from error


def _check_answers(address: str) -> None:
    """Raise OSError or ValueError unless something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if "/" in host:
        raise ValueError("it must be the address of the head, HOST:6379, not that of a Ray Client.")
    socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Give SIGTERM back to whoever had it: Ray takes it for itself when it starts, and leaves the process at once."""
    mine = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as left:
        signal.signal(signal.SIGTERM, mine)
        if left.code == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, mine)


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Let who presses Ctrl-C again wait for the seconds that this takes: Ray, stopped half-way, ends in a traceback.

    So do the signals that are taken as Ctrl-C.
    """
    mine = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *ASKED_TO_END)}
    try:
        yield
    finally:
        for number, handler in mine.items():
            signal.signal(number, handler)


@contextmanager
def _sessions_of_their_own() -> Iterator[None]:
    """Start the processes that are started meanwhile in sessions of their own, and so out of this process's group.

    A signal to the group, as a terminal, `timeout` and systemd send it, is then this process's alone, which ends them
    in order. Should it be killed, they are too: Ray asks the kernel for that.
    """
    token = _starts_sessions.set(True)
    try:
        yield
    finally:
        _starts_sessions.reset(token)


def _begin_session() -> None:
    if _starts_sessions.get():
        os.setsid()


_starts_sessions = ContextVar("_starts_sessions", default=False)
os.register_at_fork(after_in_child=_begin_session)


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on, this package's source included."""
    source = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        source.update(file.read_bytes())
    return {
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in PACKAGES},
        "edge_tune (source digest)": source.hexdigest()[:12],
    }


def _announced(function: Callable[..., Result], *arguments: Any) -> Iterator[Result | None]:
    """Yield once when this begins, so that waiting for a device is told from using it; then what a function returns."""
    yield None
    yield function(*arguments)


def _speaking(function: Callable[..., Result], *arguments: Any) -> Iterator[str | tuple[Result]]:
    """Yield once when this begins, then what a function says, as it comes, and in the end what it returns, alone."""
    said: SimpleQueue[str | None] = SimpleQueue()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(function, *arguments, said.put)
        work.add_done_callback(lambda _: said.put(None))
        yield ""
        while (line := said.get()) is not None:
            yield line
        yield (work.result(),)


def _remote(function: Callable[..., Result], *, ends: bool = False) -> Any:
    """Return a task; Ray keeps its process for others, unless it `ends`."""
    return cast(Any, ray.remote(max_calls=1)(function) if ends else ray.remote(function))


def _result(call: Any) -> Any:
    try:
        return ray.get(call)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
