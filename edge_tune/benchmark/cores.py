"""Which cores measure and which train, so that neither disturbs the other."""

import os


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


def usable_cpus() -> tuple[int, ...]:
    """Return the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))
