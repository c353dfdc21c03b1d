"""The command line of Distiller's compress_classifier.py: what a schedule does not say and its comments do.

Source: apputils/image_classifier.py of IntelLabs/distiller; the spellings of its older versions are known too.
"""

import argparse
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from edge_tune.convert.reading import number, whole


@dataclass(frozen=True)
class Setting:
    """A value and where it stands."""

    value: Any
    place: str


Settings = Mapping[str, Setting]

KINDS: dict[str, Callable[[object], Any]] = {
    "arch": lambda value: str(value).lower(),  # as Distiller does
    "dataset": str,
    "epochs": whole,
    "lr": number,
    "batch_size": whole,
    "momentum": number,
    "weight_decay": number,
    "seed": whole,
}
"""Setting -> what reads its value; None says that it is no such value."""

DEFAULTS: dict[str, Any] = {
    "arch": "resnet56_cifar",
    "epochs": 90,
    "lr": 0.1,
    "batch_size": 256,
    "momentum": 0.9,
    "weight_decay": 1e-4,
}
"""What is taken where nothing says otherwise: the numbers are those of compress_classifier.py."""

VALUES: dict[str, Sequence[str]] = {
    "arch": ("--arch", "-a"),
    "epochs": ("--epochs",),
    "lr": ("--lr", "--learning-rate"),
    "batch_size": ("--batch-size", "-b"),
    "momentum": ("--momentum",),
    "weight_decay": ("--weight-decay", "--wd"),
    "seed": ("--seed",),
    "weights": ("--resume-from", "--resume", "--exp-load-weights-from"),
    "validation_fraction": ("--validation-split", "--validation-size", "--valid-size", "--vs"),
    "train_size": ("--effective-train-size", "--etrs"),
    "valid_size": ("--effective-valid-size", "--evs"),
    "test_size": ("--effective-test-size", "--etes"),
    "workers": ("--workers", "-j"),
    "print_freq": ("--print-freq", "-p"),
    "histograms": ("--activation-histograms", "--act-hist"),
    "summary": ("--summary",),
    "onnx": ("--export-onnx",),
    "compress": ("--compress",),
    "sense": ("--sense",),
    "extras": ("--extras",),
    "gpus": ("--gpus",),
    "name": ("--name", "-n"),
    "out_dir": ("--out-dir", "-o"),
    "num_best_scores": ("--num-best-scores",),
}
"""What an option means here -> its spellings; each takes one value."""

SWITCHES: dict[str, Sequence[str]] = {
    "pretrained": ("--pretrained",),
    "reset_optimizer": ("--reset-optimizer",),
    "deterministic": ("--deterministic", "--det"),
    "evaluate": ("--evaluate", "-e"),
    "thinnify": ("--thinnify",),
    "verbose": ("--verbose", "-v"),
    "masks_sparsity": ("--masks-sparsity",),
    "param_hist": ("--param-hist",),
    "cpu": ("--cpu",),
    "confusion": ("--confusion",),
    "load_serialized": ("--load-serialized",),
}
"""The same of the options without a value."""

WITHOUT_EFFECT = (
    *("workers", "print_freq", "histograms", "compress", "gpus", "name", "out_dir", "num_best_scores"),
    *("verbose", "masks_sparsity", "param_hist", "cpu", "confusion", "load_serialized", "stats"),
)
"""What only says where Distiller runs and what it prints."""

INSTEAD = {
    "pretrained": "give the file or URL of the trained weights as weights=...; without them, EdgeTune trains the "
    "network first",
    "validation_fraction": "EdgeTune chooses by validation images, and takes a part of the training images for them; "
    "set validation_fraction in Data",
    "train_size": "set train_images in Data",
    "deterministic": "Search(seed=...) holds EdgeTune's seed",
    "reset_optimizer": "EdgeTune begins at epoch 0 with a new optimizer anyway, nothing to do",
}
"""What to do about an option that is not carried over."""


def from_comments(text: str, file: str, notes: list[str]) -> dict[str, Setting]:
    """Return the settings of the first command line in a schedule's comments; Distiller's examples have one."""
    for line, command in _commands(text):
        if re.search(r"\.py\s.*--compress", command):
            return from_words(_words(command), f"{file}:{line}", notes)
    return {}


def from_words(words: Sequence[str], place: str, notes: list[str]) -> dict[str, Setting]:
    """Return the settings among the words of a command line, and note each option that is not carried over."""
    begin = max((index for index, word in enumerate(words, start=1) if _is_program(word)), default=0)
    options = [word for word in words[begin:] if not re.fullmatch(r"\$\{args\w*\}", word)]  # W&B's parameters
    try:
        given, others = _parser().parse_known_args(options)
    except ValueError as error:
        notes.append(f"{place}: the command line is not carried over: {error}; write its settings in the file.")
        return {}
    said = vars(given)
    settings = {name: Setting(value, place) for name, text in said.items() if (value := _read(name, text)) is not None}
    notes.extend(f"{place}: {note}" for note in _differences(said, settings, others))
    return settings


def _commands(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line of comment and its number; one that ends in a backslash goes on in the next."""
    begin, parts = 1, list[str]()
    for line, whole_line in enumerate(text.splitlines(), start=1):
        comment = whole_line.strip().lstrip("#").strip() if whole_line.lstrip().startswith("#") else ""
        parts.append(comment.removesuffix("\\"))
        if not comment.endswith("\\"):
            yield begin, " ".join(parts)
            begin, parts = line + 1, []
    yield begin, " ".join(parts)


def _is_program(word: str) -> bool:
    return word.endswith(".py") or word in ("${program}", "${env}", "${interpreter}", "python", "python3")


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # a quotation mark that does not close is text
        return command.split()


class _Parser(argparse.ArgumentParser):
    """A parser that raises what it would print before it ends the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _parser() -> _Parser:
    parser = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    for name, spellings in VALUES.items():
        parser.add_argument(*spellings, dest=name, nargs="?")
    for name, spellings in SWITCHES.items():
        parser.add_argument(*spellings, dest=name, action="store_true")
    parser.add_argument("--sense-range", nargs="*")
    parser.add_argument("--activation-stats", "--act-stats", dest="stats", nargs="*")
    return parser


def _read(name: str, text: object) -> Any:
    """Return an option's value where it is carried over, else None."""
    if text is None:
        return None
    if name == "validation_fraction":
        fraction = number(text)
        return fraction if fraction is not None and 0 < fraction < 1 else None
    if name == "weights":
        return text
    return KINDS[name](text) if name in KINDS else None


def _differences(said: Mapping[str, object], settings: Settings, others: Sequence[str]) -> Iterator[str]:
    """Yield what of a command line is not carried over, or not as it was."""
    dropped = {name: _spelt(name, value) for name, value in said.items() if name not in settings}
    quiet = [spelt for name, spelt in dropped.items() if name in WITHOUT_EFFECT]
    for name, spelt in dropped.items():
        if name not in WITHOUT_EFFECT:
            yield f"{spelt} of the command line is not carried over: {INSTEAD.get(name, 'EdgeTune has none')}."
    if "weights" in settings:
        goes_on = "" if "reset_optimizer" in said else " (Distiller may go on with its epoch and optimizer too)"
        yield (
            f"{_spelt('weights', said['weights'])} becomes weights={said['weights']!r}{goes_on}: a file with a "
            f"state_dict must be there; remove weights to have the network trained first."
        )
    if others:
        yield (
            f"not carried over from the command line: {' '.join(others)}; images that EdgeTune does not download are "
            f"given by --data, a folder with train/CLASS/* and test/CLASS/*."
        )
    if quiet:
        yield f"not carried over from the command line, and without effect on the result: {' '.join(quiet)}."


def _spelt(name: str, value: object) -> str:
    """Return an option as one may write it."""
    spelling = {**VALUES, **SWITCHES, "stats": ("--activation-stats",)}.get(name, (f"--{name.replace('_', '-')}",))[0]
    if value is True or value is None:
        return spelling
    return f"{spelling}={' '.join(value) if isinstance(value, list) else value}"
