"""A graph without a GPU: what it captures it does again when it is replayed, in the same places."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from unittest import mock

import torch


class Rehearsal:
    """Stands where a CudaGraph stands. What it did is in `captures` and `replays`."""

    def __init__(self) -> None:
        self.captures = self.replays = 0
        self.work: Callable[[], None] | None = None

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def unwaiting(self) -> Iterator[None]:
        item = torch.Tensor.item

        def refused(value: torch.Tensor) -> object:
            if torch.is_grad_enabled():  # else it is AdamW, which is another one on a GPU
                raise RuntimeError("called a synchronizing CUDA operation\nand more")
            return item(value)

        with mock.patch.object(torch.Tensor, "item", refused):
            yield

    def drawn(self) -> object:
        return random.getstate()

    def drawing_again(self) -> AbstractContextManager[None]:
        return torch.random.fork_rng([])

    def capture(self, work: Callable[[], None]) -> None:
        self.captures += 1
        self.work = work

    def replay(self) -> None:
        assert self.work is not None
        self.replays += 1
        self.work()


class InItsPlaces(Rehearsal):
    """Changes the places where the weights of a network lay when it captured, as a GPU does, wherever they are now."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.places: list[torch.Tensor] = []

    def capture(self, work: Callable[[], None]) -> None:
        super().capture(work)
        self.places = [weight.data for weight in self.network.parameters()]

    def replay(self) -> None:
        weights = list(self.network.parameters())
        now = [weight.data for weight in weights]
        for weight, place in zip(weights, self.places, strict=True):
            weight.data = place
        super().replay()
        for weight, place in zip(weights, now, strict=True):
            weight.data = place


class Stale(Rehearsal):
    """Does nothing when it is replayed."""

    def replay(self) -> None:
        self.replays += 1


class Refusing(Rehearsal):
    """Cannot capture."""

    def capture(self, work: Callable[[], None]) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be ...")
