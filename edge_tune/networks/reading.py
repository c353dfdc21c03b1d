"""All images of a data set at once: into memory, or, where that is too small, to see that each can be read."""

import hashlib
import inspect
import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from edge_tune.files import write_atomically
from edge_tune.networks import decoding
from edge_tune.networks.decoding import Size
from edge_tune.networks.images import decode_groups
from edge_tune.waiting import news

Say = Callable[[str], None]
Faults = dict[str, str]
"""File -> a sentence that says why it cannot be used, without its advice."""

NEWS_S = 10.0
"""Seconds after which it is said how far the reading is."""

GROUP, GROUP_BYTES = 1024, 2**26
"""Images that are decoded at a time, at most; three such groups are in memory."""

STAMP_BYTES = 16


def into_memory(files: Sequence[str], size: Size, say: Say, *, resize: bool = True) -> tuple[NDArray[np.uint8], Faults]:
    """Return the images of `files`, [N, 3, H, W]; without `resize`, those of another size are faults."""
    pixels = np.empty((len(files), 3, *size), dtype=np.uint8)
    faults: Faults = {}
    start = 0
    for decoded, found in _read(files, size, say, resize=resize):
        pixels[start : start + len(decoded)] = decoded
        start += len(decoded)
        faults |= found
    return pixels, faults


def check(files: Sequence[str], size: Size, say: Say, remembered: Path, *, resize: bool = True) -> Faults:
    """Read each file that was not read before, as it is now, and return those that cannot be.

    Args:
        remembered: File of those that could be read. What is damaged in it matches no image, which then is read anew.
        resize: Whether images of another size can be read.
    """
    known = _known(remembered)
    stamps = {file: _stamp(file) for file in files}
    unknown = [file for file in files if stamps[file] not in known]
    faults: Faults = {}
    if not unknown:
        return faults
    say(
        f"{len(files)} images do not fit in memory and are read as they are needed. Reading those that were not read "
        f"before, {len(unknown)}, to see that each can be."
    )
    start = 0
    try:
        for decoded, found in _read(unknown, size, say, resize=resize):
            group = unknown[start : start + len(decoded)]
            start += len(decoded)
            known |= {stamps[file] for file in group if file not in found}
            faults |= found
    finally:  # whoever interrupts it need not begin again
        _remember(known, remembered, say)
    return faults


def _read(files: Sequence[str], size: Size, say: Say, *, resize: bool) -> Iterator[tuple[NDArray[np.uint8], Faults]]:
    length = max(1, min(GROUP, GROUP_BYTES // (3 * math.prod(size))))
    groups = (files[start : start + length] for start in range(0, len(files), length))
    done = 0
    with news(say, lambda: f"Reading images: {done} of {len(files)}.", NEWS_S):
        for decoded, faults in decode_groups(groups, size, os.cpu_count() or 1, resize=resize):
            done += len(decoded)
            yield decoded, faults


def _stamp(file: str) -> bytes:
    """Return what tells a file from others and from itself after a change: by name, size and date, and who reads it."""
    try:
        about = Path(file).stat()
    except OSError:
        return b""  # reading it will say why
    return _hash(_reader(), os.fsencode(file), f"{about.st_size} {about.st_mtime_ns}".encode())


@cache
def _reader() -> bytes:
    """Return what tells this way of reading from another version's, which may refuse other files."""
    return _hash(PIL.__version__.encode(), inspect.getsource(decoding).encode())


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha256(b"\0".join(parts)).digest()[:STAMP_BYTES]


def _known(remembered: Path) -> set[bytes]:
    try:
        content = remembered.read_bytes()
    except OSError:  # there is none yet; if it cannot be had at all, that is said when it is written
        return set()
    return {content[start : start + STAMP_BYTES] for start in range(0, len(content), STAMP_BYTES)}


def _remember(known: set[bytes], remembered: Path, say: Say) -> None:
    try:
        remembered.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(remembered, b"".join(sorted(known)))
    except OSError as error:
        say(f"{remembered}: cannot be written ({error.strerror}), so that the next study reads all images again.")
