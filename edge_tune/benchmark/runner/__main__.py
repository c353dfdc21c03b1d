"""The process that owns the device. Runs alone: numpy, a runtime, Python 3.6 or newer, nothing of edge_tune.

    python edge_tune/benchmark/runner [--cpus 1,2 | --last-cpus 2]

Python is given the folder, and finds the modules that lie in it by their plain names. protocol.py says how it is asked.
On another host, arrival.py starts it.
"""

import argparse
import importlib
import sys
import traceback
from typing import TYPE_CHECKING, Callable, Optional

from affinity import pin, pin_to_last
from protocol import Wire
from refusals import RefusalError, sentence

if TYPE_CHECKING:
    from commands import Commands


def open_commands(device: str, alive: Callable[[], None]) -> "Commands":
    """Return the commands with this interpreter's runtime for `device`; RefusalError if it lacks that or numpy."""
    try:
        importlib.import_module("numpy")
    except ImportError as error:
        raise RefusalError(
            "the interpreter must have numpy, but %s has none; pip install numpy." % sys.executable
        ) from error
    from commands import Commands  # only now: they need numpy
    from installed import open_runtime

    return Commands(open_runtime(device), alive)


def main() -> None:
    """Answer requests until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cpus", help="cores to stay on, like 1 or 2,3; all by default")
    parser.add_argument("--last-cpus", type=int, metavar="N", help="stay on the last N cores of this host")
    arguments = parser.parse_args()
    wire = Wire()
    commands: Optional["Commands"] = None
    for command, fields in wire:
        try:
            if commands is None:
                pin(arguments.cpus)
                if arguments.last_cpus:
                    pin_to_last(arguments.last_cpus)
                commands = open_commands(fields.get("device", "CPU"), wire.alive)
            wire.result(getattr(commands, command)(**fields))
        except Exception as error:
            traceback.print_exc()
            wire.error(sentence(error, commands.runtime if commands else "the runtime"))


if __name__ == "__main__":
    main()
