"""Does the device compute what the CPU does?"""

from typing import Any, Dict, List, Tuple

import numpy as np

from clocks import Allowance
from refusals import RefusalError
from repetition import Repetition

CHECKED_IMAGES = 4
# How far outputs may be from the CPU's in f32, as a share of their norm. A network that answers zeros, or for another
# image, is off by about 1; rounding in bf16 (f16) grows to a few per cent (tenths of one) over a hundred layers.
TOLERANCES = {"f32": 1e-3, "f16": 2e-2, "bf16": 1e-1}
# A number larger than this that is about the same for every image (-1e9 for a class that is left out, or added to what
# it has) would hide all others in the norm. Where functions saturate (at 0, 1, 6) the others may be all rounding, so
# these count as any number does.
LARGE_CONSTANT, ABOUT = 100, 1e-2


def images_to_check(shape: Tuple[int, ...]) -> Any:
    """Return CHECKED_IMAGES inputs of this shape, always the same."""
    return np.random.RandomState(1).standard_normal((CHECKED_IMAGES, *shape)).astype(np.float32)


def answers_of(device: Repetition, cpu: Repetition, images: Any, most_s: float) -> List[Tuple[Any, Any]]:
    """Return what both answer for each image; after `most_s` seconds no further image begins."""
    pairs: List[Tuple[Any, Any]] = []
    allowed = Allowance(most_s)
    for image in images:
        pairs.append((device.answer(image), cpu.answer(image)))
        if not allowed.has_room_after(len(pairs)):
            break
    return pairs


def agreement(pairs: List[Tuple[Any, Any]], precision: str) -> Dict[str, Any]:
    """Return how far the device's outputs are from those of the CPU in f32, or refuse a network that disagrees."""
    off = distance(*(np.stack(outputs) for outputs in zip(*pairs)))
    if not off <= TOLERANCES[precision]:
        raise RefusalError(
            "the device's outputs must be within %g of the CPU's in f32 (a share of their norm, in %s), but are "
            "off by %.3g; a latency of wrong answers is worth nothing." % (TOLERANCES[precision], precision, off)
        )
    return {"images": len(pairs), "off_by": off, "tolerance": TOLERANCES[precision]}


def distance(outputs: Any, truth: Any) -> float:
    """Return |outputs - truth| / |truth| over all images; infinite when a number is not finite.

    Where all images have about the same large number in the same place, it is compared by itself; the furthest counts.
    """
    if not (np.isfinite(outputs).all() and np.isfinite(truth).all()):
        return float("inf")
    least, largest = np.abs(truth).min(axis=0), np.abs(truth).max(axis=0)
    varies_by = truth.max(axis=0).astype(np.float64) - truth.min(axis=0)
    constant = (least > LARGE_CONSTANT) & (varies_by <= ABOUT * largest) & (len(truth) > 1)
    constants = truth[:, constant].astype(np.float64)
    of_constants = np.abs(outputs[:, constant] - constants) / np.abs(constants)
    outputs, truth = outputs[:, ~constant], truth[:, ~constant]
    share = np.linalg.norm(outputs - truth) / max(np.linalg.norm(truth), np.finfo(np.float32).tiny)
    return float(np.max(of_constants, initial=share))
