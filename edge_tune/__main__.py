"""All commands under one name, as `pip install` leaves it: edge-tune run experiments/resnet56_latency.py.

`python -m edge_tune` is the same, and each command stays one of its own too: python -m edge_tune.run ...
A command is imported only when it is called, so that help and a mistyped name are answered at once.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent

import edge_tune
from edge_tune import command
from edge_tune.errors import ExperimentError

PROGRAM = "edge-tune"
COMMANDS = {
    "run": ("edge_tune.run", "Search the pruning of a trained CNN, measuring each candidate on the device."),
    "inspect": (
        "edge_tune.inspect.__main__",
        "Show what can be removed, what it costs and saves, and propose a search.",
    ),
    "report": ("edge_tune.report.__main__", "Write what studies found as one HTML file, and their trials as tables."),
    "export": ("edge_tune.export", "Write the network of a stored trial, as best/ is written."),
    "benchmark": ("edge_tune.benchmark.__main__", "Measure any ONNX file by hand, with the protocol of a search."),
    "doctor": ("edge_tune.doctor.__main__", "Say whether this host can measure the device, and what to mend."),
    "convert": ("edge_tune.convert.__main__", "Turn a Distiller schedule and a W&B sweep into an experiment file."),
    "train": ("edge_tune.train", "Train the unpruned network of an experiment that brings no weights."),
}
"""Name of a command -> the module whose `main` it is, and what it does."""

IMPORT_FROM_HERE = ("run", "inspect", "train", "export")
"""Networks that are `package.module:function` may stand in the current folder; trials look there, too."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first word names, and return its exit code; 2 if there is no such command."""
    return command.run(_main, arguments)


def _main(words: Sequence[str]) -> int:
    name = words[0] if words else ""
    if name.startswith("-"):
        _parser().parse_args(words)
    if name not in COMMANDS:
        raise ExperimentError(
            f"{PROGRAM}: the first word must be one of {', '.join(COMMANDS)}, but got "
            f"{repr(name) if words else 'none'}; {PROGRAM} --help says what each does."
        )
    if name in IMPORT_FROM_HERE:
        _look_here_for_modules()
    module = importlib.import_module(COMMANDS[name][0])
    code: int = module.main(words[1:], f"{PROGRAM} {name}")
    return code


def _parser() -> argparse.ArgumentParser:
    """Return what answers --help and --version, and refuses other options in front of a command."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"{name:{width}}  {does}" for name, (_, does) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} COMMAND ... | {PROGRAM} COMMAND --help | {PROGRAM} --version",
        description=str(edge_tune.__doc__).partition("\n")[0],
        epilog=f"commands:\n{indent(lines, '  ')}\n\nEach is python -m {edge_tune.__name__}.COMMAND too.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {edge_tune.__version__}")
    return parser


def _look_here_for_modules() -> None:
    """Have modules found in the current folder, too, though nothing that is installed be replaced by one from there.

    Raises:
        ExperimentError: Trials would import another EdgeTune from there, since Ray looks there first.
    """
    here, mine = Path.cwd(), Path(__file__).parent
    if (here / mine.name / "__init__.py").is_file() and _source(here / mine.name) != _source(mine):
        raise ExperimentError(
            f"{here}: must not hold another EdgeTune than the one that is installed, {mine}, since trials would import "
            f"it; install this one, or type python -m edge_tune.COMMAND here."
        )
    if str(here) not in sys.path:
        sys.path.append(str(here))


def _source(package: Path) -> dict[Path, bytes]:
    return {file.relative_to(package): file.read_bytes() for file in package.rglob("*.py")}


if __name__ == "__main__":
    sys.exit(main())
