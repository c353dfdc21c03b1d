"""Show what of a network can be removed, what that costs and saves, and write an experiment that searches it.

python -m edge_tune.inspect resnet56_cifar --data IMAGES --weights resnet56.pt
Works on any network that runs and is made of convolutions and linear layers. Nothing is retrained; a network without
weights is trained first, once, as by edge_tune.train. What was found is kept in EDGE_TUNE_CACHE: the same command
again takes seconds, and one that was interrupted goes on.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import edge_tune
from edge_tune import command
from edge_tune.arguments import given_path, given_size, given_text
from edge_tune.benchmark.backend import require_device
from edge_tune.benchmark.cores import usable_cpus
from edge_tune.command import say
from edge_tune.convert.source import experiment_source
from edge_tune.errors import ExperimentError, PruningError
from edge_tune.experiment import (
    NAME,
    Benchmark,
    Cosine,
    Data,
    Experiment,
    Hopeless,
    Predicted,
    Retraining,
    Search,
)
from edge_tune.files import write_atomically, writing
from edge_tune.inspect import parts, text
from edge_tune.inspect.measuring import Measured, cache_file, measure
from edge_tune.inspect.page import page
from edge_tune.inspect.proposal import Proposal, left_out_text, propose
from edge_tune.loading import without_secrets
from edge_tune.networks import checking, datasets, finding, models, training
from edge_tune.networks.couplings import couplings
from edge_tune.networks.tracing import Shape
from edge_tune.networks.weights import load_pretrained, load_weights, read_weights
from edge_tune.records.entries import DeviceEntry
from edge_tune.records.kept import Kept
from edge_tune.waiting import told

TARGET = "minimise latency_ratio where top1 >= unpruned - 1"
RECIPE = Retraining(epochs=20, lr=0.05, decay=Cosine())
UNNORMALISED = replace(RECIPE, lr=0.005)
"""For networks without batch norm: at the other rate, VGG-11 diverges in the first epoch."""

TRIALS_A_GROUP = 8
FEWEST_TRIALS = 32
WRITABLE = "must be a file that can be written"


def main(arguments: Sequence[str] | None = None, program: str = "python -m edge_tune.inspect") -> int:
    """Inspect a network; return 0 if an experiment was written, 1 if there is nothing to search, 2 for bad input."""
    return command.run(lambda words: _main(words, program), arguments)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Show what of a network can be removed, what each part costs and saves, measured on the device, "
        "and write an experiment that searches it.",
    )
    parser.add_argument(
        "model", type=given_text, metavar="MODEL", help="resnet56_cifar, a torchvision classifier, package.module:name"
    )
    parser.add_argument(
        "--data", required=True, type=given_text, metavar="NAME|PATH", help="images, as in edge_tune.run"
    )
    parser.add_argument(
        "--weights",
        type=given_text,
        metavar="FILE|URL",
        help="trained weights (state_dict); without any, the network is trained first, as by edge_tune.train; "
        "weights of other classes are a start",
    )
    parser.add_argument(
        "--image-size",
        type=given_size,
        default=Data("digits").image_size,
        metavar="N|HxW|native",
        help="pixels that images are resized to, or the size that all of them have (default: %(default)s)",
    )
    parser.add_argument(
        "--device", default=Benchmark().device, type=given_text, metavar="NAME", help="that measures (default: CPU)"
    )
    parser.add_argument("--device-python", type=given_text, metavar="FILE", help="interpreter that has the device")
    parser.add_argument(
        "--device-host", type=given_text, metavar="USER@HOST", help="board that has the device, as ssh names it"
    )
    parser.add_argument(
        "--output", type=given_path, metavar="FILE", help="experiment file to write (default: MODEL_on_DATA.py)"
    )
    parser.add_argument(
        "--report", type=given_path, metavar="FILE", help="page to write (default: beside the experiment, as .html)"
    )
    return parser


def _main(words: Sequence[str], program: str) -> int:
    given = _parser(program).parse_args(words)
    output = given.output or Path(f"{_stem(given.model)}_on_{_stem(given.data)}.py")
    report = given.report or output.with_suffix(".html")
    _check_places(output, report)
    experiment = Experiment(
        model=given.model,
        dataset=Data(given.data, image_size=given.image_size) if given.image_size != 32 else given.data,
        weights=given.weights,
        pruner_groups="auto",
        target=TARGET,
        retraining=RECIPE,
        stopping=[Predicted(), Hopeless()],
        benchmark=Benchmark(device=given.device, python=given.device_python, host=given.device_host),
        search=Search("latency_aware", trials=FEWEST_TRIALS),
    )
    try:
        measured, proposal, recipe = _inspect(experiment)
    except KeyboardInterrupt as interruption:
        interruption.args = (
            "Interrupted: what was measured so far is kept, and the same command goes on; a training begins again.",
        )
        raise
    _tell(measured, proposal)
    with writing(report, WRITABLE):
        write_atomically(report, page(given.model, Path(given.data).name, measured, proposal, str(output)).encode())
    say(f"Page, for a browser: {report}")
    if not proposal.groups:
        say("No experiment is written: whatever could be removed is too sensitive or saves nothing, as told above.")
        return 1
    _write(_source(replace(experiment, retraining=recipe), proposal, measured, output), output)
    say(f"Written: {output}. To run it: {_command(output)}")
    return 0


def _inspect(experiment: Experiment) -> tuple[Measured, Proposal, Retraining]:
    """Check whatever can be wrong, before anything that takes long; then measure, and propose groups and a recipe."""
    torch.set_num_threads(len(usable_cpus()))
    data = experiment.data
    num_classes, size = datasets.check(data, seed=experiment.search.seed)
    shape = (3, *size)
    network = models.build(experiment.model, num_classes)
    models.check_output(network, shape, num_classes)
    finding.check_kind(network)
    training.checked_onnx(network, shape)
    pretrained = None
    if experiment.weights:
        given = read_weights(experiment.weights, say)
        pretrained = load_pretrained(network, given, num_classes, without_secrets(experiment.weights), say)
    with told(say, f"{experiment.benchmark.device} to answer"):
        device = require_device(experiment.benchmark)
    try:
        with told(say, "all sets of filters to be found and tried"):
            coupled = couplings(network, shape)
            known = Kept(cache_file(_architecture(network, experiment, shape), "parts"), list[parts.Part])
            found = known("parts", lambda: parts.find(network, coupled))
    except PruningError as error:
        raise ExperimentError(f"model: {error}") from error
    if all(part.problem for part in found):
        raise ExperimentError(
            f"model: something of the network must be removable, but nothing of {experiment.model!r} is: "
            f"{found[0].problem if found else 'it has no convolution or linear layer'}"
        )
    say(_found(found, device))
    dataset = datasets.load(data, seed=experiment.search.seed, say=say)
    if pretrained or not experiment.weights:
        load_weights(network, training.trained_weights(experiment, dataset, say, pretrained), "the trained baseline")
    measured = measure(network.eval(), found, coupled, dataset, experiment.benchmark, device, say)
    proposal = propose(measured, num_classes)
    if proposal.groups:
        groups = {label: one.group for label, one in proposal.groups.items()}
        checked = Kept(cache_file(_architecture(network, experiment, shape), "checked"), bool)
        with told(say, "the groups to be tried together"):
            checked(repr(groups), lambda: checking.check_groups(network, groups, shape) is not None)
    return measured, proposal, recipe_for(network)


def recipe_for(network: torch.nn.Module) -> Retraining:
    """Return the recipe that is proposed for a network."""
    is_normalised = any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())
    return RECIPE if is_normalised else UNNORMALISED


def _architecture(network: torch.nn.Module, experiment: Experiment, shape: Shape) -> bytes:
    """Return what decides which parts a network has, for this version of EdgeTune: its definition, not its weights."""
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    definition = [experiment.model, models.source(experiment.model), shapes, shape]
    return json.dumps([edge_tune.__version__, definition]).encode()


def _found(found: Sequence[parts.Part], device: DeviceEntry) -> str:
    sets = [part for part in found if part.kind == "set"]
    stay = sum(bool(part.problem) for part in sets)
    return (
        f"{len(sets) - stay} of {len(sets)} sets of filters and {len(found) - len(sets)} blocks can be removed; "
        f"measuring on {device.text}."
    )


def _tell(measured: Measured, proposal: Proposal) -> None:
    for block in (text.parts_table(measured), text.TIME_NOTE, *text.must_stay(measured)):
        say(block)
    for block in ("", text.costs_table(measured), text.RATIO_NOTE, text.LOSS_NOTE, *text.how(measured), ""):
        say(block)
    for line in text.proposal_lines(proposal):
        say(line)


def _source(experiment: Experiment, proposal: Proposal, measured: Measured, output: Path) -> str:
    groups = {label: one.group for label, one in proposal.groups.items()}
    trials = max(FEWEST_TRIALS, TRIALS_A_GROUP * len(groups))
    weights = without_secrets(experiment.weights) if experiment.weights else None
    changes = {"pruner_groups": groups, "weights": weights, "search": Search("latency_aware", trials=trials)}
    fields = {name: getattr(experiment, name) for name in Experiment.__dataclass_fields__}
    notes = [
        "Groups interact, and retraining makes up for much of what is lost without it: these are ranges to search. "
        "The search decides, not this file. Change them, or leave groups out, as you like.",
        *text.how(measured),
        *(left_out_text(one) for one in proposal.left_out),
    ]
    if weights != experiment.weights:
        notes.append("The URL of the weights is written without what may be secret in it; give it whole by --weights.")
    return experiment_source(
        Experiment(**{**fields, **changes}),
        command=_command(output),
        origin="Proposed by edge_tune.inspect.",
        notes=notes,
        heading="What was measured, each part alone, and what was left out:",
        comments={label: one.why for label, one in proposal.groups.items()},
    )


def _check_places(output: Path, report: Path) -> None:
    if output.suffix != ".py" or not NAME.fullmatch(output.stem):
        raise ExperimentError(
            f"{output}: the experiment file must end in .py and its name consist of letters, digits, '_', '.' and '-', "
            f"but got {output.name!r}; name it by --output."
        )
    if output.exists():
        raise _exists(output)
    for file, option in ((output, "--output"), (report, "--report")):
        if not file.parent.is_dir():
            raise ExperimentError(f"{file}: its folder must be there, but is not; make it, or choose another {option}.")
    if report.suffix != ".html":
        raise ExperimentError(f"{report}: the page must end in .html, but got {report.name!r}; name it by --report.")


def _write(source: str, output: Path) -> None:
    with writing(output, WRITABLE):
        try:
            with output.open("x", encoding="utf-8") as file:
                file.write(source)
        except FileExistsError as error:
            raise _exists(output) from error


def _exists(output: Path) -> ExperimentError:
    return ExperimentError(
        f"{output}: the experiment file must be new, but there is one; remove it, or name another by --output."
    )


def _stem(name: str) -> str:
    """Return the last word of a network's or a folder's name, for a file."""
    return re.sub(r"[^\w.-]", "_", re.split(r"[:/]", name.rstrip("/"))[-1], flags=re.ASCII) or "data"


def _command(output: Path) -> str:
    return shlex.join(["python", "-m", "edge_tune.run", str(output)])


if __name__ == "__main__":
    sys.exit(main())
