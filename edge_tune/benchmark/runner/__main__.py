"""The process that owns the device. Runs alone: numpy, some OpenVINO, Python 3.6 or newer, nothing of edge_tune.

    python edge_tune/benchmark/runner [--cpus 1,2]

Python is given the folder, and finds the modules that lie in it by their plain names. protocol.py says how it is asked.
"""

import argparse
import traceback
from typing import Optional

from affinity import pin
from commands import Commands
from installed import open_runtime
from protocol import Wire
from refusals import sentence


def main() -> None:
    """Answer requests until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cpus", help="cores to stay on, like 1 or 2,3; all by default")
    arguments = parser.parse_args()
    wire = Wire()
    commands: Optional[Commands] = None
    for command, fields in wire:
        try:
            if commands is None:
                pin(arguments.cpus)
                commands = Commands(open_runtime(), wire.alive)
            wire.result(getattr(commands, command)(**fields))
        except Exception as error:
            traceback.print_exc()
            wire.error(sentence(error))


if __name__ == "__main__":
    main()
