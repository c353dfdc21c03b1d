"""Which cores this process runs on."""

import os
from typing import List, Optional

from refusals import RefusalError


def pin(cpus: Optional[str]) -> None:
    """Keep this process, and every thread that the runtime will start, on these cores."""
    if not cpus or not hasattr(os, "sched_setaffinity"):  # macOS has no such thing
        return
    wanted = {int(cpu) for cpu in cpus.split(",")}
    if not wanted <= os.sched_getaffinity(0):
        there = sorted(os.sched_getaffinity(0))
        raise RefusalError("cpus must be among the cores of this process (%s), but got %s." % (there, sorted(wanted)))
    os.sched_setaffinity(0, wanted)


def pin_to_last(count: int) -> None:
    """Keep this process, and every thread that the runtime will start, on the last `count` of its cores."""
    pin(",".join(map(str, usable_cpus()[-count:])))


def usable_cpus() -> List[int]:
    """Return the cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
