"""Image folders and image files, some of them such as Pillow reads but does not write."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 8
SIDES = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "lt", 6: "rt", 7: "rb", 8: "lb"}
"""EXIF 2.3, tag 274: orientation -> the side of the upright image that the stored row 0, and column 0, is."""


def small_folder(root: Path, classes: tuple[str, ...] = ("a", "b")) -> Path:
    """Write four training images and one of the test for each class."""
    for name in classes:
        for file in [f"train/{name}/{number}.png" for number in range(4)] + [f"test/{name}/0.png"]:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (SIZE, SIZE), (10, 20, 30)).save(root / file)
    return root


def quarters(height: int, width: int) -> np.ndarray:
    """Return an image, uint8 [H, W, 3], whose four quarters differ."""
    upright = np.zeros((height, width, 3), dtype=np.uint8)
    upright[: height // 2, width // 2 :] = (250, 0, 0)
    upright[height // 2 :, : width // 2] = (0, 250, 0)
    upright[height // 2 :, width // 2 :] = (0, 0, 250)
    return upright


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Return the rows and columns that a camera stores for an upright image."""
    row, column = SIDES[orientation]
    pixels = upright if row in "tb" else upright.transpose(1, 0, 2)
    if row in "br":
        pixels = pixels[::-1]
    if column in "br":
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def tiff(values: bytes, width: int, height: int, *, bits: int, white: int = 1, kind: int = 1) -> bytes:
    """Return a little-endian grey TIFF.

    Args:
        white: Tag 262: 0 if zero is white, 1 if it is black.
        kind: Tag 339: 1 unsigned, 2 signed, 3 floating point.
    """
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: white, 273: 8, 277: 1, 278: height, 279: len(values)}
    entries = sorted((tags | {339: kind}).items())
    directory = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in entries)
    padded = values + b"\0" * (len(values) % 2)
    header = struct.pack("<2sHI", b"II", 42, 8 + len(padded))
    return header + padded + struct.pack("<H", len(entries)) + directory + b"\0" * 4


def png(values: bytes, width: int, height: int, *, bits: int, colour: int, transparent: bytes = b"") -> bytes:
    """Return a PNG.

    Args:
        values: The rows, without their filter bytes, big-endian.
        colour: 0 grey, 2 RGB, 4 grey with alpha, 6 RGBA.
        transparent: The content of tRNS.
    """
    length = len(values) // height if height else 0
    rows = b"".join(b"\0" + values[start : start + length] for start in range(0, len(values), length or 1))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
        if content or name == b"IEND"
    )
