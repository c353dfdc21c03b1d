"""The command line: turn a Distiller schedule, and a W&B sweep over it, into an experiment file.

python -m edge_tune.convert schedule.yaml --sweep sweep.yaml --output experiments/mine.py
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_tune import command
from edge_tune.arguments import given_path
from edge_tune.command import say
from edge_tune.convert.conversion import convert
from edge_tune.convert.source import experiment_source
from edge_tune.errors import ExperimentError
from edge_tune.experiment import NAME
from edge_tune.files import writing


def main(arguments: Sequence[str] | None = None, program: str = "python -m edge_tune.convert") -> int:
    """Write the file, print what it does not hold, and return the exit code: 0 written, 2 bad input."""
    return command.run(lambda words: _main(words, program), arguments)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Turn a Distiller compression schedule, and a W&B sweep over it, into an experiment file. "
        "What cannot be carried over is printed with its line, and stands at the top of the file.",
    )
    parser.add_argument("schedule", type=given_path, help="Distiller's compression schedule (YAML)")
    parser.add_argument("--sweep", type=given_path, metavar="FILE", help="W&B's sweep configuration (YAML)")
    parser.add_argument(
        "--output",
        type=given_path,
        metavar="FILE",
        help="experiment file to write (default: beside the schedule, as .py)",
    )
    return parser


def _main(words: Sequence[str], program: str) -> int:
    given = _parser(program).parse_args(words)
    output = given.output or _beside(given.schedule)
    notes = _convert(given.schedule, given.sweep, output)
    for note in notes:
        say(note)
    say(f"Written: {output} (notes: {len(notes)}). To run it: {_command(output)}")
    return 0


def _beside(schedule: Path) -> Path:
    if not schedule.name:
        raise ExperimentError(f"{schedule}: the schedule must be a file; name one.")
    return schedule.with_suffix(".py")


def _convert(schedule: Path, sweep: Path | None, output: Path) -> Sequence[str]:
    if output.suffix != ".py" or not NAME.fullmatch(output.stem):
        raise ExperimentError(
            f"{output}: the experiment file must end in .py and its name consist of letters, digits, '_', '.' and '-', "
            f"but got {output.name!r}; name it by --output."
        )
    conversion = convert(schedule, sweep)
    origin = " and ".join(file.name for file in (schedule, sweep) if file)
    source = experiment_source(
        conversion.experiment,
        command=_command(output),
        origin=f"Made from {origin} by edge_tune.convert.",
        notes=conversion.notes,
    )
    with writing(output, "the experiment file must be one that can be written"):
        try:
            with output.open("x", encoding="utf-8") as file:
                file.write(source)
        except FileExistsError as error:
            raise ExperimentError(
                f"{output}: the experiment file must be new, but there is one; remove it, or name another by --output."
            ) from error
    return conversion.notes


def _command(output: Path) -> str:
    return shlex.join(["python", "-m", "edge_tune.run", str(output)])


if __name__ == "__main__":
    sys.exit(main())
