"""Processes that share what this machine computes with: jobs of a benchmark, several at once."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from edge_tune.benchmark.cores import usable_cpus
from edge_tune.networks.compute import CPU, Compute, gpus_here, take
from edge_tune.wording import counted

_compute, _shared = CPU, None


def computes_on() -> tuple[str, bool]:
    """Return what jobs compute on, in words, and whether that is a GPU."""
    found = gpus_here()
    cores = f"{CPU.name}, {counted(len(usable_cpus()), 'core')}"
    if found.problem:
        return cores, False
    return f"{found.names[0]} (MPS {'on' if found.shared else 'off'}), {cores}", True


def workers(at_once: int, shared: Any, *, gpu: bool) -> ProcessPoolExecutor:
    """Return processes, each with its share of the cores and, where asked, of the GPU.

    Args:
        shared: What all jobs need, sent to each process once.
    """
    threads = max(1, len(usable_cpus()) // at_once)
    context, given = multiprocessing.get_context("spawn"), (threads, 1 / at_once if gpu else 0, shared)
    return ProcessPoolExecutor(at_once, context, initializer=_begin, initargs=given)


def _begin(threads: int, gpus: float, shared: Any) -> None:
    global _compute, _shared
    _compute, _shared = take(threads, gpus), shared


def here() -> tuple[Compute, Any]:
    """Return what the job that asks computes with, and what all jobs share."""
    return _compute, _shared
