"""Which cores measure and which train, so that neither disturbs the other."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

CGROUPS = "sys/fs/cgroup"


def measuring_cpus(threads: int = 1, place: int = 0) -> tuple[int, ...] | None:
    """Return the cores that a device is measured on: the last `threads`, or those before them for the next device.

    Trainers keep off them. None, for all cores, if that would leave trainers none.

    Args:
        threads: Of one device.
        place: Of the device among those of its host, from 0.
    """
    usable = usable_cpus()
    first = len(usable) - threads * (place + 1)
    return usable[first : first + threads] if first > 0 else None


def training_cpus(threads: int = 1, devices: int = 1) -> tuple[int, ...]:
    """Return the cores that measuring on `devices` devices leaves to trainers; all cores if it leaves none."""
    usable = usable_cpus()
    return usable[: max(0, len(usable) - threads * devices)] or usable


@contextmanager
def kept_to(cpus: Sequence[int]) -> Iterator[None]:
    """Keep this thread, and those that it starts, to these cores in the block, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def usable_cpus() -> tuple[int, ...]:
    """Return the cores that this process may run on: no more of them than its share of time is worth, at least one.

    A container that may use one core's worth of time on a host of 16 would otherwise start 16 threads, which the
    kernel halts together, all the while that they wait for each other.
    """
    allowed = tuple(range(os.cpu_count() or 1))
    if hasattr(os, "sched_getaffinity"):
        allowed = tuple(sorted(os.sched_getaffinity(0)))
    return allowed[-max(1, int(min(share_of_time(), len(allowed)))) :]


def share_of_time(root: Path = Path("/")) -> float:
    """Return how many cores' worth of time the cgroups of this process allow it; infinite where they set no limit.

    Args:
        root: Of the file system, for tests.

    Source: the kernel's documentation, admin-guide/cgroup-v2.rst, cpu.max, and scheduler/sched-bwc.rst for version 1.
    """
    return min(_limits(root), default=float("inf"))


def _limits(root: Path) -> Iterator[float]:
    """Yield the limit of each cgroup from this process's own up; in a container the topmost is the container's."""
    for folder in _cgroups(root):
        with suppress(OSError, ValueError, ZeroDivisionError):  # no such file, or "max": no limit here
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) / int(period)
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(quota) > 0:  # -1: no limit
                yield int(quota) / int(period)


def _cgroups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's cgroup and those above it, in either version's hierarchy."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / CGROUPS / controllers
        own = top / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))
