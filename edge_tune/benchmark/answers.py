"""What the device's process answers, checked: the one place where its figures come in.

The process may be another interpreter's with another runtime, or no runner at all. Each function takes the answer to
one command of runner/commands.py and returns what is asked for in it. An answer that cannot be true is the process's
fault: ChildError, one sentence that names the figure, what must hold and what came.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_tune.benchmark.child import ChildError
from edge_tune.records.entries import Agreement, DeviceEntry, ReadBack, Setting, Throughput
from edge_tune.records.jsonfiles import DamageError, converted

LEAST_MS = 1e-4
"""Calling the runtime alone takes longer."""

CLOCKS_AGREE = 1.01
"""The process's clock and ours may differ by so much in speed."""

MOST_TEXT = 1000

Kind = TypeVar("Kind", bound=ReadBack)


@dataclass(frozen=True)
class Field:
    """A part of an answer, and where it stands in it."""

    place: str
    value: Any

    def refuse(self, must: str) -> NoReturn:
        """Raise with what must hold and what came."""
        got = repr(self.value)
        raise ChildError(f"{self.place} must {must}, but got {got[:100]}{'...' if len(got) > 100 else ''}.")

    def __getitem__(self, key: str) -> "Field":
        """Return a part by its name."""
        if not isinstance(self.value, Mapping):
            self.refuse("be an object")
        if key not in self.value:
            raise ChildError(f"{self.place} must hold {key!r}, but got {sorted(map(str, self.value))[:20]}.")
        return Field(f"{self.place}.{key}", self.value[key])

    def parts(self, count: int | None = None) -> list["Field"]:
        """Return the items of a list, of `count` items if that is known."""
        if not isinstance(self.value, list):
            self.refuse("be a list")
        if count is not None and len(self.value) != count:
            raise ChildError(f"{self.place} must hold {count} items, but got {len(self.value)}.")
        return [Field(f"{self.place}[{index}]", item) for index, item in enumerate(self.value)]

    def entries(self) -> dict[str, "Field"]:
        """Return the parts of an object by their names."""
        if not isinstance(self.value, Mapping):
            self.refuse("be an object")
        return {Field(f"a name in {self.place}", key).text(): self[key] for key in self.value}

    def number(self, least: float, most: float = math.inf) -> float:
        """Return a number within bounds."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            self.refuse("be a number")
        if not least <= self.value <= most:
            self.refuse(f"be {least:g} to {most:.6g}" if most < math.inf else f"be at least {least:g}")
        return float(self.value)

    def whole(self, least: int, most: int = 2**53) -> int:
        """Return a whole number within bounds."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            self.refuse("be a whole number")
        return int(self.number(least, most))

    def text(self) -> str:
        """Return a text that can be shown in one line."""
        if not isinstance(self.value, str) or not (self.value.isprintable() and len(self.value) <= MOST_TEXT):
            self.refuse(f"be a text of at most {MOST_TEXT} printable characters")
        return self.value

    def setting(self) -> Setting:
        """Return a setting as it was read back: a text, a whole number, a list of texts, or None."""
        if isinstance(self.value, list):
            return [part.text() for part in self.parts()]
        if isinstance(self.value, str):
            return self.text()
        return self.value if self.value is None else self.whole(-1)


def hello(answer: Mapping[str, Any]) -> DeviceEntry:
    """Return what the process says of itself and its devices."""
    said = Field("hello", answer)
    return DeviceEntry(
        device=said["device"].text(),
        device_name=said["device_name"].text(),
        runtime=said["runtime"].text(),
        runtime_version=said["runtime_version"].text(),
        python=said["python"].text(),
        numpy=said["numpy"].text(),
        devices={name: full.text() for name, full in said["devices"].entries().items()},
        cpus=tuple(cpu.whole(0) for cpu in said["cpus"].parts()),
    )


@dataclass(frozen=True)
class Begun:
    """A measurement that has begun.

    Attributes:
        used: The settings of the device as read back.
        agreement: For each network, how far its outputs are from the CPU's.
        clock: What runs are timed by: "wall", or "processor" where the time that this process waited for its core is
            left out.
        throughput: How it was taken, and the settings as read back.
        run_ms: For each network, what a run of the warm-up took, at best.
        load_average: Of the host, when it began.
        seconds: Stage -> seconds.
    """

    used: ReadBack
    agreement: Sequence[Agreement]
    clock: str
    throughput: Throughput
    run_ms: Sequence[float]
    load_average: float
    seconds: Mapping[str, float]


def begun(answer: Mapping[str, Any], networks: int, within_s: float) -> Begun:
    """Return what was found before the turns.

    Args:
        networks: How many there are.
        within_s: Seconds in which the answer came; nothing in it can have taken longer.
    """
    said, most_s = Field("begin", answer), CLOCKS_AGREE * within_s
    streamed = said["throughput"]
    return Begun(
        used=_read_back(said["used"], ReadBack),
        agreement=[
            Agreement(
                images=part["images"].whole(1),
                off_by=part["off_by"].number(0),
                tolerance=part["tolerance"].number(0),
            )
            for part in said["agreement"].parts(networks)
        ],
        clock=said["clock"].text(),
        throughput=_read_back(
            streamed,
            Throughput,
            images=streamed["images"].whole(1),
            warm_up_images=streamed["warm_up_images"].whole(0),
            seconds=streamed["seconds"].number(LEAST_MS / 1e3, most_s),
        ),
        run_ms=[part.number(LEAST_MS, 1e3 * most_s) for part in said["run_ms"].parts(networks)],
        load_average=said["load_average"].number(0),
        seconds={name: part.number(0, most_s) for name, part in said["seconds"].entries().items()},
    )


def _read_back(said: Field, kind: type[Kind], **checked: float) -> Kind:
    """Return the settings among the parts of an answer, and what of it is `checked` already."""
    settings = {name: part.setting() for name, part in said.entries().items() if name not in checked}
    try:
        return converted({**settings, **checked}, kind)
    except DamageError as error:
        raise ChildError(f"{said.place} must hold settings, but got: {error}.") from error


def rounds(answer: Mapping[str, Any], count: int, networks: int, runs: int, within_s: float) -> NDArray[np.float64]:
    """Return the milliseconds of each run, [rounds, networks, runs, 2]: by the clock, and on the wall.

    There are fewer than `count` rounds if time was over.

    Args:
        within_s: Seconds in which the answer came; all runs together cannot have taken longer.
    """
    said = Field("rounds", answer)["taken_ms"]
    if not 1 <= len(said.parts()) <= count:
        raise ChildError(f"{said.place} must hold 1 to {count} rounds, but got {len(said.parts())}.")
    most_ms = CLOCKS_AGREE * 1e3 * within_s
    taken = [
        [
            [[ms.number(LEAST_MS, most_ms) for ms in run.parts(2)] for run in turn.parts(runs)]
            for turn in one.parts(networks)
        ]
        for one in said.parts()
    ]
    taken_ms = np.array(taken, dtype=np.float64)
    if (longest := taken_ms.sum(axis=(0, 1, 2)).max()) > most_ms:
        raise ChildError(
            f"the runs of {said.place} must fit in the {1e3 * within_s:.6g} ms in which they came, but add up to "
            f"{longest:.6g} ms."
        )
    return taken_ms


@dataclass(frozen=True)
class Counters:
    """What the counters of one network showed.

    Attributes:
        layers: name, type, kernel of each.
        counts: Runs of the network before each reading, rising, [readings].
        readings: Microseconds, [readings, layers].
        warm_up_runs: Which of `counts` is the last of the warm-up.
    """

    layers: Sequence[tuple[str, str, str]]
    counts: NDArray[np.int64]
    readings: NDArray[np.int64]
    warm_up_runs: int


def counters(
    answer: Mapping[str, Any], folder: Path, networks: int, turns: int, runs: int, within_s: float
) -> list[Counters]:
    """Return the counters of each network.

    Args:
        folder: Where the process was to write its readings.
        turns: How many turns each network had.
        runs: Of a turn.
        within_s: Seconds since the measurement began; no layer can have taken longer.
    """
    said = Field("read", answer)
    return [_counters(part, folder, turns, runs, within_s) for part in said["networks"].parts(networks)]


def _counters(said: Field, folder: Path, turns: int, runs: int, within_s: float) -> Counters:
    layers = [tuple(word.text() for word in layer.parts(3)) for layer in said["layers"].parts()]
    counts = np.array([count.whole(1) for count in said["counts"].parts()], dtype=np.int64)
    warm_up_runs = said["warm_up_runs"].whole(1)
    if not (np.all(np.diff(counts) > 0) and list(counts[-turns - 1 :]) == _counts(warm_up_runs, turns, runs)):
        said["counts"].refuse(f"rise to {warm_up_runs} in the warm-up and then {turns} times by {runs}")
    readings = _array(said["readings_us"], folder, np.dtype(np.int64), (len(counts), len(layers)))
    if readings.size and not (readings.min() >= 0 and readings.max() <= CLOCKS_AGREE * 1e6 * within_s):
        raise ChildError(
            f"the layers' times of {said.place} must be 0 to {1e6 * within_s:.0f} microseconds, which have passed, but "
            f"got {readings.min()} to {readings.max()}."
        )
    return Counters(layers, counts, readings, warm_up_runs)  # type: ignore[arg-type]


def _counts(warm_up_runs: int, turns: int, runs: int) -> list[int]:
    return [warm_up_runs + turn * runs for turn in range(turns + 1)]


def outputs(answer: Mapping[str, Any], folder: Path, images: int) -> NDArray[np.float32]:
    """Return the outputs for so many images, [images, classes]."""
    said = Field("predict", answer)["outputs"]
    found = _array(said, folder, np.dtype(np.float32), (images, None))
    if not np.isfinite(found).all():
        raise ChildError(f"{said.place} must be finite, but got {np.count_nonzero(~np.isfinite(found))} that are not.")
    return found


def written(answer: Mapping[str, Any], folder: Path) -> tuple[bytes, bytes] | None:
    """Return the content of the two files of the IR: xml, weights; None where the runtime has no such thing."""
    said = Field("convert", answer)
    if said["xml"].value is None and said["bin"].value is None:
        return None
    return _file(said["xml"], folder).read_bytes(), _file(said["bin"], folder).read_bytes()


def _file(said: Field, folder: Path) -> Path:
    """Return the path of a file that the process was to write to `folder`."""
    path = Path(said.text())
    if path.parent != folder or not path.is_file() or path.is_symlink():
        said.refuse(f"be a file in {folder}")
    return path


def _array(said: Field, folder: Path, dtype: np.dtype[Any], shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Return the array of a .npy file, of this type and shape; None in the shape is any length."""
    try:
        array = np.load(_file(said, folder), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, MemoryError, SyntaxError) as error:
        raise ChildError(f"{said.place} must be an array that numpy can read, but got: {error}.") from None
    fits = len(array.shape) == len(shape) and all(
        want in (None, got) for want, got in zip(shape, array.shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        raise ChildError(f"{said.place} must be {dtype}, {list(shape)}, but got {array.dtype}, {list(array.shape)}.")
    return np.array(array)
