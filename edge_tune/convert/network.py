"""Which network a Distiller schedule prunes, and on which images.

Source: models/__init__.py and apputils/data_loaders.py of IntelLabs/distiller.
"""

from collections.abc import Mapping
from typing import Any

from edge_tune.convert.command import Setting
from edge_tune.convert.distiller import thinners
from edge_tune.convert.reading import Entry
from edge_tune.errors import ExperimentError
from edge_tune.experiment import NAME, Data

AT_HAND = ("cifar10", "cifar100", "digits")
"""The data sets that need no folder."""

IMAGE_SIZES = {"imagenet": 224, "mnist": 28}
"""Pixels to which Distiller cuts the images of its data sets; all others are taken to have `Data`'s usual size."""


def read_network(schedule: Entry, notes: list[str]) -> dict[str, Setting]:
    """Return the network's ("arch") and the data set's name, which the extension that thins the network holds."""
    found: dict[str, Setting] = {}
    thinning = thinners(schedule)
    for name, entry in schedule.named("extensions"):
        if name not in thinning:
            notes.append(
                f"{entry.place}: extension {name!r} of class {entry.plain('class')!r} is not carried over, nor are its "
                f"policies; EdgeTune has none."
            )
            continue
        found |= {key: Setting(str(entry.plain(key)), entry.place) for key in ("arch", "dataset") if entry.get(key)}
    return found


def usual_dataset(arch: str) -> str:
    """Return the data set that Distiller takes for a network, by its name."""
    return next((dataset for word, dataset in (("cifar", "cifar10"), ("mnist", "mnist")) if word in arch), "imagenet")


def check_arch(arch: str, place: str, notes: list[str]) -> None:
    """Note a network that EdgeTune does not have.

    Raises:
        ExperimentError: It is no name; "module:function" would run what a schedule names.
    """
    if not NAME.fullmatch(arch):
        raise ExperimentError(
            f"{place}: arch must be a network's name, of letters, digits, '_', '.' and '-', but got {arch!r}; name one."
        )
    from edge_tune.networks import models  # torch takes seconds, which bad input need not wait for

    if arch not in models.names():
        notes.append(
            f"{place}: network {arch!r} is none that EdgeTune has by name; write model='package.module:function' in "
            f"the file, for a function that returns it."
        )


def read_images(values: Mapping[str, Any], place: str, notes: list[str]) -> str | Data:
    """Return the data settings; note what is not known of the images.

    Args:
        values: "dataset", and "validation_fraction" where something says it.
        place: Where the data set is named, or else the file.
    """
    name = values["dataset"]
    size = IMAGE_SIZES.get(name, Data(name).image_size)
    if name not in AT_HAND:
        known = "as Distiller cuts them to" if name in IMAGE_SIZES else "the usual, since their size is not known here"
        notes.append(
            f"{place}: {name!r} is not at hand: give a folder of its images, train/CLASS/* and test/CLASS/*, with "
            f"--data; they are resized to {size} x {size} pixels, {known}."
        )
    held_out = {"validation_fraction": values["validation_fraction"]} if "validation_fraction" in values else {}
    data = Data(name, image_size=size, **held_out)
    return name if data == Data(name) else data
