"""One image file -> its pixels as a person sees them. What cannot be shown for certain is refused, never guessed."""

import struct
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "AVIF")
"""What a file may contain, whatever its name says. Pillow knows more, some of which start other programs."""

Size = tuple[int, int]
"""Height and width in pixels."""

PHOTOMETRIC, BITS_PER_SAMPLE = 262, 258
"""Tags of TIFF: whether 0 is white (0) or black (1), and how many bits a value has."""

HAS_EXIF = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> what makes the image upright."""

# What is shown is decided here, so that Pillow's remarks on odd metadata concern nobody. Where it only warns of an
# image that may be made to fill the memory, more than 89 million pixels, the image is refused.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode(path: str, size: Size | None) -> NDArray[np.uint8]:
    """Return the image in `path` as RGB, uint8 [H, W, 3], resized to `size`, in which its proportions are not kept.

    It is turned as its EXIF says, and lies on white where it is transparent. Of several frames or pages the first
    counts. Colour profiles are not applied. In grey of 16 bits 65535 is white, in grey of 12 bits 4095. Numbers of
    other kinds do not say which is white: floating point is read if all values lie within 0..1, and refused
    otherwise; integers of 32 bits, or with a sign, are refused.

    Args:
        size: Height and width; None: as the image has them.

    Raises:
        Exception: It cannot be read; `reason` says why. Pillow raises whatever a damaged file leads it to.
    """
    with Image.open(path, formats=FORMATS) as image:
        if size:
            # A JPEG much larger than needed, however it is turned, is decoded at 1/2, 1/4 or 1/8 of its size: up to 8x
            # faster.
            image.draft(None, (2 * max(size), 2 * max(size)))
        rgb = _upright(as_rgb(image), _orientation(image))
    if size and rgb.size != size[::-1]:
        rgb = rgb.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def reason(error: Exception) -> str:
    """Return what was got instead of an image, for "must be a readable image, but got ..."."""
    match error:
        case UnidentifiedImageError():
            return f"a content that cannot be recognised as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"more than {Image.MAX_IMAGE_PIXELS} pixels"
        case OSError(strerror=str(what)):
            return what
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def shown(path: str | Path) -> str:
    """Return a path as one line that any terminal can print."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def _orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1, as it lies, where there is none or none that can be read."""
    image.load()  # a PNG may tell it after its pixels
    if image.format == "TIFF" or image.info.keys().isdisjoint(HAS_EXIF):
        return 1  # Pillow turns a TIFF itself
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, struct.error):  # viewers too show such an image as it lies
        return 1
    return found if found in TURNS else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else image.transpose(TURNS[orientation])


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB, on white where it is transparent.

    Raises:
        ValueError: Its numbers do not say which of them is white.
    """
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_as_grey(image)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _as_grey(image: Image.Image) -> NDArray[np.uint8]:
    """Return grey of more than 8 bits as 8 bits; Pillow would clip it at 255 instead of scaling it."""
    values = np.asarray(image)
    if image.mode == "F":
        grey = _from_floats(values)
    elif image.mode.startswith("I;16") or image.format == "PPM":  # which Pillow scales to 65535 itself
        grey = (values >> (_bits(image) - 8)).astype(np.uint8)
    else:
        raise ValueError(
            f"mode {image.mode}, integers of {_bits(image)} bits that do not say which of them is white (save it as "
            f"grey of 8 or 16 bits without a sign)"
        )
    if _tag(image, PHOTOMETRIC) == 0:
        grey = 255 - grey
    return np.where(values == image.info.get("transparency"), np.uint8(255), grey)


def _from_floats(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"mode F, floating point, with values from {low:g} to {high:g} that do not say which of them is white "
            f"(save it with values from 0 to 1, or as grey of 8 bits)"
        )
    return np.rint(values * 255).astype(np.uint8)


def _bits(image: Image.Image) -> int:
    bits = _tag(image, BITS_PER_SAMPLE)
    return int(bits[0]) if isinstance(bits, tuple) else 16


def _tag(image: Image.Image, number: int) -> object:
    return getattr(image, "tag_v2", {}).get(number)
