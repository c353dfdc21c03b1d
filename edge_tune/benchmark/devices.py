"""The queue of a run's devices: requests are served first come, first served, each by the first device that is free.

The driver opens it with `measuring`; trials reach it by name through `BenchmarkClient`. The queue itself is a Ray
actor on the driver's node; each device has an actor of its own, on a node that offers its resource.
"""

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
import ray
from numpy.typing import NDArray
from ray import cloudpickle
from ray.actor import ActorHandle
from ray.exceptions import (
    ActorUnavailableError,
    GetTimeoutError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from edge_tune.benchmark.actor import Answer, BenchmarkActor
from edge_tune.benchmark.child import LIMIT_S
from edge_tune.benchmark.measurement import Measurement
from edge_tune.errors import BenchmarkError
from edge_tune.experiment import Benchmark
from edge_tune.records.entries import DeviceEntry

NAMESPACE = "edge_tune"
START_S = 120.0
CLOSE_S = 10.0
"""The process that owns a device is given 5 s to leave by itself, so that its plugin can close the device."""
RETRY_S = 0.5
GONE = "a request must come from a trial that is there, but it has gone; dropped."

Result = TypeVar("Result")


class BenchmarkQueue:
    """Hands requests to the devices, and remembers what was measured. Ray runs its methods concurrently."""

    def __init__(self, devices: Sequence[str]) -> None:
        """Take the devices over.

        Args:
            devices: Names of their actors.
        """
        self._devices: dict[str, Any] = {name: ray.get_actor(name, namespace=NAMESPACE) for name in devices}
        self._free: asyncio.Queue[str] = asyncio.Queue()
        for name in self._devices:
            self._free.put_nowait(name)
        self._remembered: dict[str, Measurement] = {}
        self._under_way: dict[str, asyncio.Event] = {}
        self._returning: set[asyncio.Task[None]] = set()

    async def pid(self) -> int:
        """Return the process that the queue is."""
        return os.getpid()

    async def measure(
        self, onnx: bytes, *, within_s: float, remember: str | None = None, caller: ActorHandle[Any] | None = None
    ) -> Answer:
        """Measure a network, or answer from memory.

        Args:
            onnx: The network, static batch 1.
            within_s: Seconds after which nobody waits for the answer any more.
            remember: Key of all that the result depends on; equal keys are measured once.
            caller: The trial that waits for the answer, if it is an actor. Ray delivers what a trial asked
                before it ended; such a request is dropped when its turn comes.

        Raises:
            BenchmarkError: The device's own, or that the request was dropped.
        """
        if remember is None:
            return cast(Answer, await self._on_first_free("measure", onnx, within_s=within_s, caller=caller))
        while remember in self._under_way:
            await self._under_way[remember].wait()
        if remember in self._remembered:
            now = time.time()
            return Answer(self._remembered[remember], now, now, remembered=True)
        self._under_way[remember] = asyncio.Event()
        try:
            answer: Answer = await self._on_first_free("measure", onnx, within_s=within_s, caller=caller)
            self._remembered[remember] = answer.measurement
            return answer
        finally:
            self._under_way.pop(remember).set()

    async def do(self, method: str, *arguments: Any, within_s: float) -> Any:
        """Have the first free device do anything else that its actor can."""
        return await self._on_first_free(method, *arguments, within_s=within_s)

    async def _on_first_free(
        self, method: str, *arguments: Any, within_s: float, caller: ActorHandle[Any] | None = None
    ) -> Any:
        """Call a method of the first free device's actor; of the next one if that cannot be reached."""
        end = time.monotonic() + within_s
        sign = asyncio.ensure_future(sign_of(caller))
        try:
            while True:
                name = await self._first_free(end)
                if sign.done() and not sign.result():
                    self._free.put_nowait(name)
                    raise BenchmarkError(GONE)
                try:
                    answer = await getattr(self._devices[name], method).remote(*arguments)
                except RayActorError:
                    task = asyncio.create_task(self._wait_for_return(name))
                    self._returning.add(task)
                    task.add_done_callback(self._returning.discard)
                except BaseException:
                    self._free.put_nowait(name)
                    raise
                else:
                    self._free.put_nowait(name)
                    return answer
        finally:
            sign.cancel()

    async def _first_free(self, end: float) -> str:
        try:
            return await asyncio.wait_for(self._free.get(), max(0.0, end - time.monotonic()))
        except asyncio.TimeoutError:  # another class than TimeoutError before Python 3.11
            raise BenchmarkError(
                "a request must come to its turn before its deadline, but no device became free; dropped, since nobody "
                "waits for it."
            ) from None

    async def _wait_for_return(self, name: str) -> None:
        """Count a device as free again once its actor answers: Ray restarts it, when a node has the device."""
        while True:
            await asyncio.sleep(RETRY_S)
            with suppress(RayActorError):
                await self._devices[name].ping.remote()
                self._free.put_nowait(name)
                return


async def sign_of(caller: ActorHandle[Any] | None) -> bool:
    """Return False once the caller is known to have ended, True once it is idle and so waits for nothing."""
    if caller is None:
        return True
    while True:
        try:
            await cast(Awaitable[Any], cast(Any, caller).__ray_ready__.remote())
        except ActorUnavailableError:  # Ray does not know yet, and a busy network proves nothing
            await asyncio.sleep(RETRY_S)
        except RayActorError:
            return False
        else:
            return True


@dataclass(frozen=True)
class BenchmarkClient:
    """The way to a run's queue from any process of its Ray cluster.

    Attributes:
        run_id: As `measuring` made it.
        wait_s: Seconds after which a request is given up, queue included.
    """

    run_id: str
    wait_s: float = 1800.0

    def measure(self, onnx: bytes, remember: str | None = None) -> Answer:
        """Measure a network of static batch 1; equal `remember` keys are measured once."""
        begun = time.monotonic()
        answer: Answer = self._call(
            lambda queue, within_s: queue.measure.remote(
                onnx, within_s=within_s, remember=remember, caller=_present_actor()
            )
        )
        return replace(answer, queue_s=max(0.0, time.monotonic() - begun - answer.measure_s))

    def predict(self, onnx: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the network's outputs, [N, classes], for images [N, C, H, W]."""
        return cast(NDArray[np.float32], self._do("predict", onnx, images))

    def convert(self, onnx: bytes) -> tuple[bytes, bytes] | None:
        """Return the network as IR: xml, and weights that are not compressed; None if the runtime has no such thing."""
        return cast(tuple[bytes, bytes] | None, self._do("convert", onnx))

    def describe(self) -> DeviceEntry:
        """Return what a backend knows of its device."""
        return cast(DeviceEntry, self._do("describe"))

    def _do(self, method: str, *arguments: Any) -> Any:
        return self._call(lambda queue, within_s: queue.do.remote(method, *arguments, within_s=within_s))

    def _call(self, submit: Callable[[Any, float], Any]) -> Any:
        """Submit to the queue and wait, again while it restarts, until the deadline.

        Raises:
            BenchmarkError: The device's own, word for word, or that it could not be reached in time.
        """
        end = time.monotonic() + self.wait_s
        while True:
            try:
                queue = ray.get_actor(f"benchmark-{self.run_id}", namespace=NAMESPACE)
                left = max(0.0, end - time.monotonic())
                return ray.get(submit(queue, left), timeout=left)
            except RayTaskError as error:
                cause = _innermost(error)
                if isinstance(cause, BenchmarkError):
                    raise BenchmarkError(str(cause)) from None
                if not isinstance(cause, RayError):
                    raise BenchmarkError(f"the benchmark actor failed: {cause!r}.") from error
                self._wait_to_ask_again(cause, end)
            except GetTimeoutError:
                raise BenchmarkError(
                    f"the device must answer within {self.wait_s:g} s, queue included, but did not."
                ) from None
            except (RayError, ValueError) as error:  # ValueError: no actor of this name, perhaps not yet
                self._wait_to_ask_again(error, end)

    def _wait_to_ask_again(self, error: Exception, end: float) -> None:
        """Give Ray time to restart what it lost."""
        if time.monotonic() + RETRY_S > end:
            reason = str(error).splitlines()[0]
            raise BenchmarkError(
                f"the benchmark queue of run {self.run_id!r} must be reachable, but got: {reason}"
            ) from error
        time.sleep(RETRY_S)


def _innermost(error: BaseException) -> BaseException:
    """Return what a device's actor raised: Ray wraps it once for the actor and once for the queue."""
    while isinstance(error, RayTaskError) and error.cause is not None:
        error = error.cause
    return error


def _present_actor() -> ActorHandle[Any] | None:
    """Return the actor that this code runs in."""
    context = ray.get_runtime_context()
    handle: ActorHandle[Any] | None = context.current_actor if context.get_actor_id() else None
    return handle


@contextmanager
def measuring(settings: Benchmark, reference: bytes | None = None, devices: int = 1) -> Iterator[BenchmarkClient]:
    """Start a run's device actors and their queue; yield the client that trials take along; give them back at the end.

    Args:
        settings: The kind of device and how it is measured. Each actor takes one unit of `settings.resource`, and
            those of boards one together.
        reference: The network, as ONNX, that each measurement takes turns with; None for none.
        devices: How many the nodes have. Boards are as many as the settings name, however many nodes can drive them.

    Raises:
        BenchmarkError: An actor does not start, its device cannot be used, or they are not alike.
    """
    each = settings.each_board or (settings,) * devices
    run_id = uuid.uuid4().hex[:12]
    # Pickled by hand, Ray holds the network for as long as this driver lives, whatever becomes of the actors.
    pickled = cloudpickle.dumps(ray.put(reference)) if reference else None  # type: ignore[no-untyped-call]
    owners: dict[str, Any] = {}
    names: list[str] = []
    started: list[Any] = []
    try:
        for number, one in enumerate(each):
            name = f"device-{run_id}-{number}"
            owners[name] = start_owner(name, one, run_id, pickled, 1 / max(1, len(settings.boards)))
        started += owners.values()
        names = _those_that_start(owners, settings)
        queue = _start_queue(run_id, names)
        started.append(queue)
        answer_of(queue.pid, START_S, "the driver's node must have room for a process")
        found = [answer_of(owners[name].describe, LIMIT_S, "its device must be usable") for name in names]
        check_alike(found, are_boards=bool(settings.boards))
        yield BenchmarkClient(run_id)
    finally:
        if names:
            ray.wait([owners[name].close.remote() for name in names], num_returns=len(names), timeout=CLOSE_S)
        for actor in started:
            ray.kill(actor)


def check_alike(found: Sequence[DeviceEntry], *, are_boards: bool) -> None:
    """Check that devices are alike, since figures of one stand beside those of another.

    Args:
        are_boards: Whether the hardware must be the same, too. A cluster's devices, which Ray counts, may differ: each
            measures in turns with the unpruned network.

    Raises:
        BenchmarkError: They are not; the text tells two that differ.
    """
    for one in found[1:]:
        if one.measured_by != found[0].measured_by or (are_boards and one.text != found[0].text):
            have = (f"{device.host} has {device.text} and {device.runtime_text}" for device in (found[0], one))
            raise BenchmarkError(
                f"the devices of one study must be alike, but {', '.join(have)}; run a study for each, or have the "
                f"same {'hardware and ' * are_boards}runtime on all."
            )


def _those_that_start(owners: Mapping[str, Any], settings: Benchmark) -> list[str]:
    """Return the names of the actors that answer: of those for devices of nodes, once all do that there is one for.

    Ray notices only after a while that a node was lost, so that a device may have been counted which is no more.

    Raises:
        BenchmarkError: There is a unit of the resource for one that does not answer in time, or for none.
    """
    end = time.monotonic() + START_S
    answered: set[str] = set()
    asked: dict[Any, str] = {}
    while len(answered) < len(owners):
        if answered and not settings.boards and len(answered) >= _offered(settings.resource):
            break
        if time.monotonic() > end:
            raise _not_started(START_S, f"Ray must have a node with a free unit of {settings.resource!r}")
        for name in owners.keys() - answered - set(asked.values()):
            asked[owners[name].ping.remote()] = name
        for answer in ray.wait(list(asked), timeout=RETRY_S)[0]:
            name = asked.pop(answer)
            if _is_there(answer):
                answered.add(name)
    for name in owners.keys() - answered:
        ray.kill(owners[name])  # else it would take the device of one that is lost and comes back
    return [name for name in owners if name in answered]


def _offered(resource: str) -> int:
    """Return how many units of a resource the nodes have, free or not."""
    return int(ray.cluster_resources().get(resource, 0))  # type: ignore[no-untyped-call]


def start_owner(name: str, settings: Benchmark, run_id: str, reference: bytes | None, unit: float = 1) -> Any:
    """Create the actor of one device. Its resource alone says where, so that Ray may restart it on another node.

    Args:
        unit: Of the resource, what the actor takes: boards share what one device of a node would have.
    """
    remote = ray.remote(BenchmarkActor).options(
        name=name,
        namespace=NAMESPACE,
        num_cpus=0,
        resources={settings.resource: unit},
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=1,
    )
    return cast(Any, remote).remote(settings, run_id, reference)


def _start_queue(run_id: str, devices: Sequence[str]) -> Any:
    """Create the queue on the driver's node, which is lost only together with the driver."""
    remote = ray.remote(BenchmarkQueue).options(
        name=f"benchmark-{run_id}",
        namespace=NAMESPACE,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=1000,
        scheduling_strategy=NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False),
    )
    return cast(Any, remote).remote(devices)


def answer_of(method: Any, within_s: float, condition: str) -> Any:
    """Return what an actor answers, asked again whenever Ray has lost it and restarts it.

    Raises:
        BenchmarkError: The device's own, or that there is no answer in time; `condition` says what that needs.
    """
    end = time.monotonic() + within_s
    while True:
        try:
            return ray.get(method.remote(), timeout=max(0.0, end - time.monotonic()))
        except GetTimeoutError:
            raise _not_started(within_s, condition) from None
        except ActorUnavailableError:
            time.sleep(RETRY_S)
        except RayTaskError as error:
            raise _own(error) from None


def _is_there(ping: Any) -> bool:
    """Return whether an actor answered; False if Ray has lost it and restarts it."""
    try:
        ray.get(ping)
    except ActorUnavailableError:
        time.sleep(RETRY_S)
        return False
    return True


def _not_started(within_s: float, condition: str) -> BenchmarkError:
    return BenchmarkError(f"the benchmark actors must start within {within_s:g} s, but did not; {condition}.")


def _own(error: RayTaskError) -> Exception:
    """Return what an actor raised, if it is its own sentence."""
    cause = _innermost(error)
    return cause if isinstance(cause, BenchmarkError) else error
