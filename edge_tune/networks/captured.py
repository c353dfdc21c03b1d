"""Work that is done again and again: captured as a CUDA graph and replayed where that computes the same, else run.

A graph does anew what one run of the work did, in the same places of memory, and nothing of what Python decided. So
everything that goes in is copied to places that stay, and before a graph is used, its first replay is compared with the
work itself, from one and the same state.
"""

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from edge_tune.errors import RetrainingError, first_line

FARTHEST = 0.5
"""Of how far the work moves what it changes: as far a replay may end from it. Rounding stays far below that, and
whatever is computed at all wrongly, such as nothing, does not."""


class Work(Protocol):
    """What is done again and again."""

    def __call__(self, *inputs: Tensor) -> None:
        """Do it once, with tensors; what comes of it is in `changes`."""

    def changes(self) -> dict[str, list[Tensor]]:
        """Return kind -> the tensors that a run changes; one that it makes when there is none yet begins at zero."""


class Graph(Protocol):
    """What captures and replays."""

    def aside(self) -> AbstractContextManager[None]:
        """Run the block as a capture would be."""

    def unwaiting(self) -> AbstractContextManager[None]:
        """Run the block, in which a RuntimeError is raised where it waits for a value."""

    def drawn(self) -> object:
        """Return what differs after something was drawn that a replay would not draw again."""

    def drawing_again(self) -> AbstractContextManager[None]:
        """Run the block with random numbers that are drawn again after it."""

    def capture(self, work: Callable[[], None]) -> None:
        """Capture what `work` does, without doing it, or raise a RuntimeError."""

    def replay(self) -> None:
        """Do again what was captured."""


class CudaGraph:
    """A graph of the current GPU."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._stream = _stream_of(torch.cuda.current_device())

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Run the block on the stream that captures; that and the current one wait for each other."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)

    @contextmanager
    def unwaiting(self) -> Iterator[None]:
        """Run the block, in which a RuntimeError is raised where it waits for a value."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Synchronization debug mode")  # that it may overlook some
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)

    def drawn(self) -> object:
        """Return the states of the generators on the CPU: PyTorch's own on the GPU goes on from replay to replay."""
        return _drawn_by_python(), torch.get_rng_state().numpy().tobytes()

    def drawing_again(self) -> AbstractContextManager[None]:
        """Run the block with random numbers that are drawn again after it."""
        return torch.random.fork_rng([torch.cuda.current_device()])

    def capture(self, work: Callable[[], None]) -> None:
        """Capture what `work` does; other threads may use the GPU meanwhile."""
        with (
            torch.cuda.stream(torch.cuda.current_stream()),  # to come back to it: a capture that fails stays on its own
            torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"),
        ):
            work()

    def replay(self) -> None:
        """Do again what was captured, on the current stream."""
        self._graph.replay()


@cache
def _stream_of(device: int) -> torch.cuda.Stream:
    """Return the stream of a GPU on which everything is captured.

    For each stream that a matrix is multiplied on, cuBLAS keeps a workspace as long as the process lives: 66 MiB on an
    H200, where a stream for each graph took 2.2 GB until PyTorch's 32 streams were through.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class Repeated:
    """Work that is done once with each of many inputs; all that it changes must keep its place in memory, or it is run.

    Args:
        work: Does not keep this, so that a graph's memory is given back as soon as this is left.
        graph: Captures the work with its first inputs, and replays it with all that have their shapes. None: it is run.

    Attributes:
        ran: "captured", or "eager: " and why; None where that was not tried.
    """

    def __init__(self, work: Work, graph: Graph | None) -> None:
        self.work, self.graph = work, graph
        self.ran: str | None = None
        self._places: list[Tensor] = []
        self._changed: list[tuple[Tensor, int]] = []

    def begin(self) -> None:
        """Look whether what was captured still changes what it must; call this after anything else was done with it."""
        there = {id(tensor): tensor.data_ptr() for tensor in self._tensors()}
        if any(there.get(id(tensor)) != place for tensor, place in self._changed):
            self.graph, self._places, self._changed = None, [], []
            self.ran = "eager: what a step changes was moved in memory"

    def __call__(self, *inputs: Tensor) -> None:
        """Do the work once."""
        if self.graph and self.ran is None:
            self._places = [given.clone() for given in inputs]
            if problem := self._capture(self.graph):
                self.graph, self._places = None, []
            self.ran = f"eager: {problem}" if problem else "captured"
            self._changed = [(tensor, tensor.data_ptr()) for tensor in self._tensors()] if self.graph else []
        if self.graph and [place.shape for place in self._places] == [given.shape for given in inputs]:
            for place, given in zip(self._places, inputs, strict=True):
                place.copy_(given)
            self.graph.replay()
        else:
            self.work(*inputs)

    def _capture(self, graph: Graph) -> str | None:
        """Capture the work with the inputs that are in their places, or return why that cannot be.

        What it changes is afterwards as it was.
        """
        before = _Kept(self.work)
        python, numpy = random.getstate(), np.random.get_state()
        try:
            with graph.aside():
                with graph.drawing_again():
                    self._run()  # makes what there is once, such as what the optimiser keeps
                if before.lost():
                    return "the network replaces tensors that it keeps"
                before.restore()
                with graph.drawing_again():
                    drawn = graph.drawn()
                    with graph.unwaiting():
                        self._run()
                    if graph.drawn() != drawn:
                        return "the network draws random numbers on the CPU"
                right = _Kept(self.work)
                before.restore()
        except (RuntimeError, RetrainingError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "synchroniz" not in str(error):
                raise
            looks = "the loss" if isinstance(error, RetrainingError) else "the network"
            return f"{looks} looks at values as it computes ({_why(error)})"
        finally:
            before.restore()
            random.setstate(python)
            np.random.set_state(numpy)
        try:
            graph.capture(self._run)
            with graph.drawing_again():
                graph.replay()
            if not right.is_near(before):
                return "replayed, a step computes something else"
        except (RuntimeError, RetrainingError) as error:
            return f"it cannot be captured ({_why(error)})"
        finally:
            before.restore()
        return None

    def _run(self) -> None:
        self.work(*self._places)

    def _tensors(self) -> list[Tensor]:
        return [tensor for tensors in self.work.changes().values() for tensor in tensors]


class _Kept:
    """What the tensors that some work changes hold at one time."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._values = {
            kind: [(tensor, tensor.detach().clone()) for tensor in tensors] for kind, tensors in work.changes().items()
        }

    def lost(self) -> bool:
        """Tell whether the work has put another tensor in the place of one that there was."""
        there = {id(tensor) for tensors in self._work.changes().values() for tensor in tensors}
        return any(id(tensor) not in there for values in self._values.values() for tensor, _ in values)

    @torch.no_grad()
    def restore(self) -> None:
        """Give the tensors what they held, or what those held whose place they took; zero to those that are new."""
        for kind, tensors in self._work.changes().items():
            held, there = self.held(kind), {id(tensor) for tensor in tensors}
            replaced = [value for was, value in held.items() if was not in there]
            new = [tensor for tensor in tensors if id(tensor) not in held]
            for tensor in tensors:
                if id(tensor) in held:
                    tensor.copy_(held[id(tensor)])
            for nth, tensor in enumerate(new):
                if nth < len(replaced):  # by their order, which the work keeps
                    tensor.data = replaced[nth].clone()
                else:
                    tensor.zero_()

    def is_near(self, begun: "_Kept") -> bool:
        """Tell whether the tensors are now near what they held then, as seen from where all had begun."""
        return all(_are_near(values, begun.held(kind)) for kind, values in self._values.items())

    def held(self, kind: str) -> dict[int, Tensor]:
        """Return what the tensors of a kind held, by their ids."""
        return {id(tensor): value for tensor, value in self._values[kind]}


def _why(error: Exception) -> str:
    """Return what PyTorch says, within the sentence on a loss too."""
    return first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)


def _are_near(values: Sequence[tuple[Tensor, Tensor]], begun: dict[int, Tensor]) -> bool:
    moved = off = 0.0
    for tensor, right in values:
        there = begun.get(id(tensor), torch.zeros_like(right))
        moved += (right.double() - there.double()).square().sum().item()
        off += (tensor.detach().double() - right.double()).square().sum().item()
    return off <= FARTHEST**2 * moved


def _drawn_by_python() -> object:
    _, keys, place, *_ = np.random.get_state()
    return random.getstate(), np.asarray(keys).tobytes(), place
