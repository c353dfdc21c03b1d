"""Where a process computes with networks: on cores of a CPU or on a GPU. Whatever trains or classifies is given this.

The measuring process has one of its own kind, the device, and nothing of this.
"""

import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edge_tune.errors import ComputeError, first_line
from edge_tune.networks.images import Split

RESIDENT_SHARE = 0.5
"""Images lie on a GPU if they take no more than this share of its memory that is free; else batches are sent to it."""

LARGER_SHARE = "give each trial a larger share of a GPU (gpus_per_trial), or a GPU with more memory"
SMALLER_BATCH = f"lower retraining.batch_size, or {LARGER_SHARE}"
"""What mends too little memory: of whatever computes, and of what takes steps."""


@dataclass(frozen=True)
class Compute:
    """Where and how a process computes.

    Attributes:
        device: As PyTorch names it.
    """

    device: Literal["cpu", "cuda"] = "cpu"

    @property
    def name(self) -> str:
        """What the processor calls itself."""
        return torch.cuda.get_device_name() if self.device == "cuda" else platform.processor() or platform.machine()

    @property
    def varies(self) -> str | None:
        """Why the same retraining may end a little differently when it runs again, or None."""
        return "cuDNN adds in an order that differs from run to run" if self.device == "cuda" else None

    def network(self, model: nn.Module) -> nn.Module:
        """Return `model`, moved here in place, with its images' channels last; if it is so already, nothing moves.

        `Module.to` would give weights of one number per filter another place each time, and a captured step goes on
        with the one that it knows.

        Raises:
            ComputeError: A GPU has too little memory.
        """
        if all(map(self._holds, (*model.parameters(), *model.buffers()))):
            return model
        with enough_memory("the network", LARGER_SHARE):
            return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _holds(self, tensor: Tensor) -> bool:
        is_images = tensor.dim() == 4  # or the weights that images are convolved with
        return tensor.device.type == self.device and (
            not is_images or tensor.is_contiguous(memory_format=torch.channels_last)
        )

    def images(self, split: Split) -> Split:
        """Return a split whose batches come here; the images themselves lie here if they fit.

        Raises:
            ComputeError: A GPU has too little memory.
        """
        if self.device == "cpu":
            return split
        free, total = torch.cuda.mem_get_info()
        allowed = torch.cuda.get_per_process_memory_fraction() * total - torch.cuda.memory_reserved()
        with enough_memory("the images", LARGER_SHARE):
            return split.on(self.device, resident=split.bytes <= RESIDENT_SHARE * min(free, allowed))

    def computes_in_bf16(self, precision: Literal["auto", "f32", "bf16"]) -> bool:
        """Tell whether the forward pass runs in bfloat16; "auto" asks the processor."""
        if precision != "auto":
            return precision == "bf16"
        if self.device == "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))

    def autocast(self, enabled: bool) -> torch.autocast:
        """Return the context in which a forward pass computes in bfloat16, if that is asked."""
        # A cache of weights in bfloat16 would outlive a captured pass.
        return torch.autocast(self.device, torch.bfloat16, enabled=enabled, cache_enabled=False)

    def wait(self) -> None:
        """Wait until all that was asked of a GPU is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    @contextmanager
    def exactly(self, enabled: bool = True) -> Iterator[None]:
        """Compute what is in f32 in full f32: a GPU would round factors to TF32, and accuracies depend on the place."""
        if self.device == "cpu" or not enabled:
            yield
            return
        backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
        before = [backend.allow_tf32 for backend in backends]
        try:
            for backend in backends:
                backend.allow_tf32 = False
            yield
        finally:
            for backend, allowed in zip(backends, before, strict=True):
                backend.allow_tf32 = allowed

    def tidy(self) -> None:
        """Give back what the last trial of this process held of a GPU's memory."""
        if self.device == "cuda":
            torch.cuda.empty_cache()


CPU = Compute()


def take(threads: int, gpus: float) -> Compute:
    """Return what a process computes with from now on: so many threads, or the GPU that Ray gave it a share of.

    Args:
        gpus: 0 hides all GPUs: Ray does not (ray#54868), and PyTorch would take memory of the first.

    Raises:
        ComputeError: PyTorch cannot use the GPU.
    """
    torch.set_num_threads(threads)
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return CPU
    if problem := why_no_gpu():
        raise ComputeError(f"gpus_per_trial is {gpus:g}, but {problem}; mend that, or give gpus_per_trial=0.")
    if gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus)
    return Compute("cuda")


@dataclass(frozen=True)
class Gpus:
    """The GPUs of a host.

    Attributes:
        names: Of those that the driver counts.
        problem: Why PyTorch cannot compute on the first, or None.
        shared: Whether CUDA's Multi-Process Service lets processes compute on one at the same time.
        further: The problem of each further one.
    """

    names: tuple[str, ...]
    problem: str | None
    shared: bool
    further: tuple[str | None, ...] = ()

    def problem_of(self, count: int) -> str | None:
        """Return why PyTorch cannot compute on one of the first `count`, or None."""
        return next((problem for problem in (self.problem, *self.further)[:count] if problem), None)


def gpus_here() -> Gpus:
    """Return what this host has."""
    first, numbers = why_no_gpu(), range(torch.cuda.device_count())
    if not torch.cuda.is_available():  # as where the driver that counted is too old for this PyTorch
        return Gpus(tuple(f"GPU {number}" for number in numbers), first, mps_is_on())
    further = tuple(map(why_no_gpu, numbers[1:]))
    return Gpus(tuple(map(torch.cuda.get_device_name, numbers)), first, mps_is_on(), further)


def why_no_gpu(number: int = 0) -> str | None:
    """Return why PyTorch cannot compute on a GPU of this host, or None."""
    with warnings.catch_warnings(record=True) as told:  # which say, once in a process, what is wrong with the driver
        warnings.simplefilter("always")
        is_available = torch.cuda.is_available()
    if not is_available:
        why = str(told[0].message).splitlines()[0] if told else "is there a driver for it?"
        build = "is built without CUDA" if torch.version.cuda is None else f"sees none ({why})"
        return f"PyTorch {torch.__version__} {build}"
    try:
        torch.zeros(1, device=f"cuda:{number}").add_(1).item()
    except (RuntimeError, AssertionError) as error:  # such as a GPU that this build has no kernels for
        return f"PyTorch {torch.__version__} cannot use {torch.cuda.get_device_name(number)}: {first_line(error)}"
    return None


def mps_is_on() -> bool:
    """Tell whether CUDA's Multi-Process Service runs on this host: without it, processes on one GPU take turns."""
    return (Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")) / "control").exists()


@contextmanager
def enough_memory(what: str, mend: str) -> Iterator[None]:
    """Say in a sentence that a GPU has too little memory for `what`, and how to `mend` that.

    Raises:
        ComputeError: It has.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ComputeError(f"{what}: must fit in the GPU's memory, but got: {first_line(error)}; {mend}.") from error
