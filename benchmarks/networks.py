"""Which of torchvision's classifiers can be pruned, and how much goes with everything halved: docs/networks.md.

python -m benchmarks.networks > docs/networks.md

The smallest of each family, with random weights: all sets of filters are found, half of each is removed, and the
outputs are compared with those of the network without these filters. Beside it, what torch-pruning's own pruner leaves
of the same network at the same share. Then all blocks that can go are left out as well, and what remains is exported
and run by OpenVINO, whose outputs are compared with PyTorch's. Seconds are of one core, beside whatever else runs.
"""

import argparse
import platform
import time
from collections.abc import Iterator

import openvino
import torch
import torch_pruning as tp
from torch import nn

from edge_tune.errors import EdgeTuneError, ExperimentError, first_line
from edge_tune.networks import blocks, finding, models, onnx_export, oracle, pruning
from edge_tune.networks.couplings import couplings
from edge_tune.parameters import Point, Value

FAMILIES = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "vgg11",
    "vit_b_32",
)
SIZES = {"inception_v3": 96, "vit_b_32": 224}
SIZE = 64
CLASSES = 10


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description=__doc__)
    parser.add_argument("networks", nargs="*", default=FAMILIES, help="names of torchvision; all families if none")
    torch.set_num_threads(1)
    print(HEAD.format(machine=platform.processor() or platform.machine(), torch=torch.__version__))
    for name in parser.parse_args().networks:
        print(f"| {' | '.join(row(name))} |", flush=True)
    print(TAIL)


def row(name: str) -> Iterator[str]:
    """Yield the cells of a network."""
    size = SIZES.get(name, SIZE)
    torch.manual_seed(0)
    model = models.build(name, CLASSES).eval()
    before = count(model)
    yield f"{name}, {size} px"
    yield f"{before:,}"
    started = time.perf_counter()
    try:
        finding.check_kind(model)
        coupled = couplings(model, (3, size, size))
        sets = finding.coupled_sets(model, coupled)
        free = {f"set_{number}": one.group() for number, one in enumerate(sets) if not one.problem}
        pruned = pruning.prune(model, pruning.make_plan(model, free, halved(list(free)), coupled), coupled)
    except EdgeTuneError as error:
        yield from ("-", "-", "-", "-", f"refused: {first_line(error)}")
        return
    after = count(pruned)
    seconds = time.perf_counter() - started
    yield f"{len(free)} of {len(sets)}"
    yield f"{after:,} ({100 * after / before:.1f} %)"
    yield by_torch_pruning(models.build(name, CLASSES).eval(), size)
    yield without_blocks(model, size)
    kept = [one for one in sets if one.problem and "make the network's output" not in one.problem]
    yield f"{seconds:.0f} s" + (f"; {len(kept)} stay: {kept[0].problem}" if kept else "")


def without_blocks(model: nn.Module, size: int) -> str:
    """Return how many blocks can go, and what is left without them and with half of all filters, tried in OpenVINO."""
    shape = (3, size, size)
    found = blocks.removable(model, shape)
    shorter = blocks.without(model, found)
    blocks.check(model, shorter, found, shape)
    coupled = couplings(shorter, shape)
    free = [one for one in finding.coupled_sets(shorter, coupled) if not one.problem]
    groups = {f"set_{number}": one.group() for number, one in enumerate(free)}
    pruned = pruning.prune(shorter, pruning.make_plan(shorter, groups, halved(list(groups)), coupled), coupled)
    pruned = oracle.made_up(pruned, shape, rising=True)  # torchvision's of some are so small that nothing comes through
    images = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = pruned(images)
    network = openvino.Core().read_model(onnx_export.to_onnx(pruned, shape))
    compiled = openvino.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    difference = (torch.tensor(compiled(images.numpy())[0]) - expected).abs().max() / expected.abs().max()
    return f"{len(found)}: {count(pruned):,}, {difference:.0e}"


def halved(labels: list[str]) -> Point:
    """Return the point that asks half of every set."""
    asked: dict[str, Value] = {"sparsity": 0.5, "structure": "filters", "importance": "l1"}
    return {f"{label}.{name}": value for label in labels for name, value in asked.items()}


def by_torch_pruning(model: nn.Module, size: int) -> str:
    """Return what torch-pruning's own pruner leaves of a network, all but its output halved."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    output = [layer for layer in layers if layer.weight.shape[0] == CLASSES][-1:]
    try:
        tp.pruner.MagnitudePruner(
            model,
            torch.randn(1, 3, size, size),
            tp.importance.MagnitudeImportance(p=1),
            pruning_ratio=0.5,
            ignored_layers=output,
        ).step()
        model(torch.randn(1, 3, size, size))
    except Exception as error:  # of any kind
        return f"fails: {type(error).__name__}"
    return f"{count(model):,}"


def count(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


HEAD = """# Which networks can be pruned

Made by `python -m benchmarks.networks > docs/networks.md` ({machine}, torch {torch}; n = 1).

The smallest of each of torchvision's families of classifiers, with random weights: all sets of filters are found, half
of each is removed, and the outputs are compared with those of the network without these filters. Beside it, what
torch-pruning's own pruner leaves of the same network at the same share. Then the blocks that can go, found by what they
compute: how many there are, what is left without all of them and with half of all filters, and how far the outputs
differ between PyTorch and OpenVINO on the CPU (f32, of the largest).

| network | parameters | sets that can go | left with all halved | torch-pruning | blocks: left, differs by | tried in |
|---|---|---|---|---|---|---|"""
TAIL = """
A set is what can only be removed together: what residual additions, products or depthwise convolutions tie. The one
that makes the network's output always stays. `pruner_groups="auto"` makes groups of the others, and of the blocks.

Transformers are refused, and so are detectors and networks for segmentation: EdgeTune prunes classifiers made of
convolutions and linear layers. Where a network's code counts on how many channels there are or on their order, that set
stays, with the layer at which it fails; also if it does so only while it trains. So do filters that a layer counts in
groups of one each, what only runs while the network trains, and blocks of which the code asks more than what they put
out, or that clamp their shortcut, as a ReLU6 at the end does. So does a set where the code computes over channels what
depends on their number, or computes a layer's weight anew from itself, as weight standardisation does; norms, means,
maxima and sums over channels are fine, but not a mean and a length of the same channels, of which nobody can tell what
either would be without some of them. Networks that draw random numbers while they infer are refused. Whatever is
tried runs on copies: a network must be one of which a copy computes the same."""


if __name__ == "__main__":
    try:
        main()
    except ExperimentError as error:
        raise SystemExit(str(error)) from error
