"""Files that are whole or not there."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_tune.errors import ExperimentError

FULL_OR_BROKEN = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What befalls a file while it is written; all else is seen before, and another name mends it."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees all of it or none. A link is replaced, never followed."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def writing(path: Path, must: str) -> Iterator[None]:
    """Have whatever cannot be written in this block told in a sentence that names what the user gave.

    Args:
        path: What the user named to be written.
        must: What must hold of it, as in "must be a file that can be written".

    Raises:
        ExperimentError: Nothing can be written there; another name would do.
        OSError: The disk is full or broken.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL_OR_BROKEN:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise ExperimentError(f"{path}: {must}, but got {error.strerror}; name another.") from error
