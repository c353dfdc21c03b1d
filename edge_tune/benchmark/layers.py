"""Where the time goes: the layers of a measured network, under the network's own names.

python -m edge_tune.benchmark.layers NETWORK.onnx                    its layers, as CSV
python -m edge_tune.benchmark.layers BEFORE.onnx AFTER.onnx          which layers lost channels and no time, and why

What a runtime fuses into a convolution, batch-norm, ReLU, addition, counts as the convolution's.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edge_tune import command
from edge_tune.arguments import given_path, given_text
from edge_tune.benchmark.backend import RunnerBackend, require_device
from edge_tune.benchmark.cores import measuring_cpus
from edge_tune.benchmark.measurement import Measurement
from edge_tune.benchmark.names import Names, is_network
from edge_tune.command import say
from edge_tune.errors import BenchmarkError, ExperimentError
from edge_tune.experiment import Benchmark
from edge_tune.records.entries import Layer, LayerEntry
from edge_tune.records.results import as_csv
from edge_tune.wording import counted

FELL = 0.95
"""A layer became faster if it takes less than this share of its time; nearer to it, the counters are too coarse."""

ROUNDS = 5


@dataclass(frozen=True)
class Stuck:
    """A layer that lost channels and no time.

    Attributes:
        before, after: (C_out, C_in) of its weight.
        ms_before, ms_after: Its time, reorders for it included.
        reasons: What can be seen to have eaten the gain; empty if nothing.
    """

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    ms_before: float
    ms_after: float
    reasons: tuple[str, ...]


def read_network(path: Path) -> bytes:
    """Return the content of an ONNX file.

    Raises:
        ExperimentError: It cannot be read, or holds no network.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExperimentError(f"{path}: must be an ONNX file that can be read, but got: {error.strerror}.") from None
    if not is_network(content):
        raise ExperimentError(f"{path}: must be an ONNX network, but cannot be read as one; export it again.")
    return content


def layers_of(measurement: Measurement) -> Sequence[Layer]:
    """Return the layers that a measurement holds.

    Raises:
        BenchmarkError: It holds none; a formula has no layers.
    """
    if not measurement.layers:
        raise BenchmarkError(
            f"the measurement must hold the layers' times, but {measurement.evidence.device!r} gave none."
        )
    return measurement.layers


def rows(layers: Sequence[Layer], network: bytes) -> list[LayerEntry]:
    """Return the layers that took time, under the names of the ONNX `network` they were measured in."""
    names = Names(network).all_own([layer.name for layer in layers])
    total = sum(layer.ms for layer in layers)
    return [
        LayerEntry(names[layer.name], layer.type, layer.kernel, round(layer.ms, 6), round(layer.ms / total, 5))
        for layer in layers
        if layer.ms > 0
    ]


def stuck(
    before: Sequence[LayerEntry],
    after: Sequence[LayerEntry],
    networks: tuple[bytes, bytes],
    granularity: int | None = None,
) -> list[Stuck]:
    """Return the layers of `after` that have fewer filters or channels than in `before`, and no less time.

    Args:
        before, after: Layers of both networks, measured in turns.
        networks: Both as ONNX; tell how wide each layer is.
        granularity: The device's channel granularity, if known.
    """
    widths = [Names(network).widths for network in networks]
    then, now = _by_name(before), _by_name(after)
    return [
        Stuck(name, widths[0][name], widths[1][name], _ms(then[name]), _ms(now[name]), reasons)
        for name in now
        if name in then
        and _is_narrower(widths[1].get(name, ()), widths[0].get(name, ()))
        and _ms(now[name]) >= FELL * _ms(then[name])
        for reasons in [(*_reasons(then[name], now[name]), *_off(granularity, widths[0][name], widths[1][name]))]
    ]


def narrowed(before: bytes, after: bytes) -> list[str]:
    """Return the layers of the ONNX network `after` that have fewer filters or channels than in `before`."""
    then, now = Names(before).widths, Names(after).widths
    return [name for name in now if _is_narrower(now[name], then.get(name, ()))]


def _by_name(table: Iterable[LayerEntry]) -> dict[str, list[LayerEntry]]:
    grouped: dict[str, list[LayerEntry]] = defaultdict(list)
    for row in table:
        grouped[row.name].append(row)
    return grouped


def _ms(group: Iterable[LayerEntry]) -> float:
    return sum(row.ms for row in group)


def _is_narrower(now: tuple[int, ...], then: tuple[int, ...]) -> bool:
    return len(now) == len(then) and any(a < b for a, b in zip(now, then, strict=True))


def _is_reorder(row: LayerEntry) -> bool:
    """Tell whether a layer only changes the order of numbers: OpenVINO's Reorder, ONNX Runtime's ReorderInput."""
    return row.type.startswith("Reorder")


def _reasons(then: Sequence[LayerEntry], now: Sequence[LayerEntry]) -> Iterator[str]:
    kernels = [{row.kernel for row in group if not _is_reorder(row)} for group in (then, now)]
    if kernels[0] != kernels[1]:
        yield f"kernel {'+'.join(sorted(kernels[0]))} -> {'+'.join(sorted(kernels[1]))}"
    added = sum(map(_is_reorder, now)) - sum(map(_is_reorder, then))
    if added > 0:
        yield f"{counted(added, 'reorder')} added, {_ms(filter(_is_reorder, now)):.3f} ms"


def _off(granularity: int | None, then: tuple[int, ...], now: tuple[int, ...]) -> Iterator[str]:
    for side, before, after in zip(("filters", "channels"), then, now, strict=True):
        if granularity and after < before and after % granularity:
            yield f"{after} {side} are no multiple of {granularity}"


def medians(rounds: Sequence[Sequence[Layer]]) -> list[Layer]:
    """Return the layers of one network with the median of each one's time over several measurements."""
    first, times = rounds[0], np.median([[layer.ms for layer in layers] for layers in rounds], axis=0)
    return [Layer(layer.name, layer.type, layer.kernel, float(ms)) for layer, ms in zip(first, times, strict=True)]


def report(found: Sequence[Stuck]) -> str:
    """Return the stuck layers as text, one a line."""
    if not found:
        return "Every layer that lost filters or channels became faster."
    lines = [f"{counted(len(found), 'layer')} lost filters or channels and no time (C_out x C_in):"]
    for layer in found:
        widths = f"{'x'.join(map(str, layer.before))} -> {'x'.join(map(str, layer.after))}"
        why = "; ".join(layer.reasons) or "no reason seen"
        lines.append(f"{layer.name:24} {widths:18} {layer.ms_before:.3f} -> {layer.ms_after:.3f} ms  {why}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, program: str = "python -m edge_tune.benchmark layers") -> int:
    """Measure one network or two and print what became of their layers."""
    return command.run(lambda words: _main(words, program), arguments)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description="Show which layers lost channels and no time.")
    parser.add_argument("network", type=given_path, help="ONNX file; the one before pruning if two are given")
    parser.add_argument("pruned", type=given_path, nargs="?", help="ONNX file of the pruned network")
    parser.add_argument("--device", default="CPU", metavar="NAME", help="OpenVINO device, or onnxruntime:CPU")
    parser.add_argument(
        "--granularity", type=int, metavar="N", help="channel granularity of the device, as `granularity` measures it"
    )
    parser.add_argument("--device-python", type=given_text, metavar="FILE", help="interpreter that has the device")
    parser.add_argument(
        "--device-host", type=given_text, metavar="USER@HOST", help="board that has the device, as ssh names it"
    )
    return parser


def _main(words: Sequence[str], program: str) -> int:
    given = _parser(program).parse_args(words)
    settings = Benchmark(device=given.device, python=given.device_python, host=given.device_host)
    ExperimentError.raise_if(settings.problems())
    networks = [read_network(path) for path in (given.network, given.pruned) if path]
    if given.pruned and not narrowed(*networks):
        raise ExperimentError(
            f"{given.pruned}: some layer must be one of {given.network} with fewer filters or channels, but got "
            f"none; give a network and the same one pruned."
        )
    require_device(settings, computes=True)
    tables = measure_in_turns(networks, settings)
    if given.pruned:
        say(report(stuck(tables[0], tables[1], (networks[0], networks[1]), given.granularity)))
    else:
        say(as_csv([asdict(row) for row in tables[0]]).removesuffix("\n"))
    return 0


def measure_in_turns(networks: Sequence[bytes], settings: Benchmark) -> list[list[LayerEntry]]:
    """Return the rows of each network: medians over ROUNDS measurements, in turns."""
    backend = RunnerBackend(settings, measuring_cpus(settings.threads))
    try:
        rounds = [[layers_of(backend.measure(network, settings)) for network in networks] for _ in range(ROUNDS)]
    finally:
        backend.close()
    return [rows(medians(taken), network) for taken, network in zip(zip(*rounds, strict=True), networks, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
