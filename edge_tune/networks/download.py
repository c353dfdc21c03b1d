"""A file from the web, once: with limits of time and size, and a line now and then."""

import hashlib
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from edge_tune.errors import ExperimentError
from edge_tune.loading import without_secrets

SILENCE_S = 30.0
"""A server that sends nothing for so long is given up."""

LEAST_BYTES_S = 1000
"""A server that sends less in a second, on the average since it was asked, is given up after SILENCE_S too."""

MOST_BYTES = 2**32
"""The largest weights that torchvision offers have 2.6 GB."""

NEWS_S = 10.0
"""Seconds after which a line says how far it is."""

CHUNK = 2**16


def download(url: str, file: Path, checksum: str, say: Callable[[str], None]) -> None:
    """Write what a URL gives to a file, whole or not at all.

    Args:
        checksum: How its sha256 must begin; "" if that is not known.
        say: Receives a line now and then.

    Raises:
        ExperimentError: The server does not give it.
    """
    part = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as opened:
            digest = hashlib.sha256()
            for chunk in _chunks(url, say):
                opened.write(chunk)
                digest.update(chunk)
        if not digest.hexdigest().startswith(checksum):
            raise ValueError(f"its sha256 must begin with {checksum}, as its name says, but is {digest.hexdigest()}")
        part.replace(file)
    except (OSError, HTTPException, ValueError, OverflowError) as error:
        part.unlink(missing_ok=True)
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise ExperimentError(
            f"{without_secrets(url)}: weights must be downloaded once, but the download failed ({error}); "
            f"check the URL and the network, or give a file."
        ) from error


def _chunks(url: str, say: Callable[[str], None]) -> Iterator[bytes]:
    """Yield the content, piece by piece. A redirection may lead to http and https only, as urllib has it."""
    began = spoke = time.monotonic()
    received = 0
    with urlopen(Request(url, headers={"User-Agent": "EdgeTune"}), timeout=SILENCE_S) as response:
        expected = _length(response)
        while chunk := response.read1(CHUNK):
            received += len(chunk)
            _check_size(max(received, expected or 0))
            now = time.monotonic()
            if now - began > SILENCE_S and received / (now - began) < LEAST_BYTES_S:
                raise TimeoutError(f"the server must send {LEAST_BYTES_S} bytes a second, but sends less")
            if now - spoke > NEWS_S:
                spoke = now
                say(f"Downloading {without_secrets(url)}: {received / 1e6:.0f} MB{_of(expected)}.")
            yield chunk
    if expected is not None and received < expected:
        raise ValueError(f"the server must send {expected} bytes, but sent {received}")


def _length(response: Any) -> int | None:
    """Return how many bytes the server promises, if it does."""
    text = response.headers.get("Content-Length")
    return int(text) if text else None


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise ValueError(f"weights must have at most {MOST_BYTES / 1e9:.1f} GB, but these have {size / 1e9:.1f} GB")


def _of(expected: int | None) -> str:
    return f" of {expected / 1e6:.0f} MB" if expected else ""
