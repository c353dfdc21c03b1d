"""What Distiller takes from its command line and a schedule does not say: how long, at which rate, which network."""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_tune.convert.reading import number, whole


@dataclass(frozen=True)
class Setting:
    """A value and where it stands."""

    value: Any
    place: str


Settings = Mapping[str, Setting]

KINDS: dict[str, Callable[[object], Any]] = {
    "arch": str,
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
    "dataset": "cifar10",
    "epochs": 90,
    "lr": 0.1,
    "batch_size": 256,
    "momentum": 0.9,
    "weight_decay": 1e-4,
}
"""What is taken where nothing says otherwise: the numbers are those of Distiller's compress_classifier.py."""


def from_words(words: Sequence[str], place: str) -> dict[str, Setting]:
    """Return the settings among the words of a command line of Distiller's compress_classifier.py."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for options in (
        ("--arch", "-a"),
        ("--epochs",),
        ("--lr", "--learning-rate"),
        ("--batch-size", "-b"),
        ("--momentum",),
        ("--weight-decay", "--wd"),
        ("--seed",),
    ):
        parser.add_argument(*options, nargs="?")
    given, _ = parser.parse_known_args(list(words))
    read = {name: KINDS[name](value) for name, value in vars(given).items() if value is not None}
    return {name: Setting(value, place) for name, value in read.items() if value is not None}


def from_comments(path: Path) -> dict[str, Setting]:
    """Return the settings of the first command line in a schedule's comments; Distiller's examples have one."""
    for line, text in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1):
        if re.match(r"\s*#.*\.py\s.*--compress", text):
            return from_words(text.lstrip(" #").split(), f"{path.name}:{line}")
    return {}
