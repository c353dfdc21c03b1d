"""An image folder, train/CLASS/* and test/CLASS/*: which file is of which class. No file is opened here."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edge_tune.errors import ExperimentError
from edge_tune.networks.decoding import shown
from edge_tune.wording import listed

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
NAMED = 10
"""Of many problems of one kind, so many are named."""

KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

Files = dict[str, list[str]]
"""Class -> its image files."""


def list_folder(root: Path) -> tuple[Files, Files]:
    """Return the images for training and those of the test, classes and files sorted by name.

    Hidden files, and those whose names do not end as images' do, do not count.

    Raises:
        ExperimentError: It is no such folder.
        OSError: It cannot be read.
    """
    if not root.is_dir():
        raise ExperimentError(
            f"{shown(root)}: data must be 'digits', 'cifar10', 'cifar100' or the path of an image folder, "
            f"but got no such folder; check the path."
        )
    train, test = (_list_part(root / part) for part in ("train", "test"))
    if len(train) < 2:
        raise ExperimentError(
            f"{shown(root / 'train')}: must hold at least two classes to tell apart, but got only "
            f"{next(iter(train))!r}; add a folder of images for each further class."
        )
    if train.keys() != test.keys():
        strays = [repr(name) for name in sorted(train.keys() ^ test.keys())]
        raise ExperimentError(
            f"{shown(root)}: train/ and test/ must hold the same classes, but got {listed(strays)} in one of them "
            f"only; add the missing folders or remove the others."
        )
    return train, test


def some(problems: Sequence[str]) -> Iterator[str]:
    """Yield the first of many problems, and how many more there are."""
    yield from problems[:NAMED]
    if len(problems) > NAMED:
        yield f"... and {len(problems) - NAMED} more of this kind, {len(problems)} in all."


def _list_part(folder: Path) -> Files:
    if not folder.is_dir():
        raise ExperimentError(
            f"{shown(folder.parent)}: an image folder must hold train/CLASS/* and test/CLASS/*, but got no "
            f"{folder.name}/; create it or check the path."
        )
    entries = _visible(folder)
    classes = [entry for entry in entries if _is(entry, os.DirEntry.is_dir)]
    if not classes:
        raise ExperimentError(
            f"{shown(folder)}: must hold one folder of images for each class, but got no folders; "
            f"sort the images into {folder.name}/CLASS/."
        )
    outside = [entry for entry in entries if not _is(entry, os.DirEntry.is_dir)]
    strays = [
        f"{shown(entry.path)}: images must lie in the folders of their classes, but got {_kind(entry)} beside the "
        f"folders; move or remove it."
        for entry in outside
        if _is_image(entry) or not _is(entry, os.DirEntry.is_file)
    ]
    files = {entry.name: _list_class(Path(entry.path), strays) for entry in classes}
    ExperimentError.raise_if(some(strays))
    if empty := [name for name in files if not files[name]]:
        raise ExperimentError(
            f"{shown(folder)}: every class folder must hold images ({', '.join(sorted(SUFFIXES))}), "
            f"but got none in {listed([repr(name) for name in empty])}; add some or remove the folder."
        )
    return files


def _list_class(folder: Path, strays: list[str]) -> list[str]:
    """Return the images of a class, and add to `strays` a sentence for each entry that would be lost among them."""
    images = []
    for entry in _visible(folder):
        if _is_image(entry) and _is(entry, os.DirEntry.is_file):
            images.append(entry.path)
        elif _is_image(entry) or _is(entry, os.DirEntry.is_dir):
            strays.append(
                f"{shown(entry.path)}: the folder of a class must hold image files, but got {_kind(entry)}; replace it "
                f"by the images meant, or remove it."
            )
    return images


def _visible(folder: Path) -> "list[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _is_image(entry: "os.DirEntry[str]") -> bool:
    return Path(entry.name).suffix.lower() in SUFFIXES


def _is(entry: "os.DirEntry[str]", kind: "Callable[[os.DirEntry[str]], bool]") -> bool:
    """Tell whether an entry, or what its link leads to, is of a kind; links in a circle lead to nothing."""
    try:
        return kind(entry)
    except OSError:
        return False


def _kind(entry: "os.DirEntry[str]") -> str:
    try:
        return KINDS[stat.S_IFMT(entry.stat().st_mode)]
    except OSError as error:
        return f"a link that leads nowhere ({error.strerror})"
