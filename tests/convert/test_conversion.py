from pathlib import Path

import pytest

import edge_tune as et
from edge_tune.convert.conversion import convert
from edge_tune.errors import ExperimentError
from edge_tune.experiment import PrunerGroup
from edge_tune.networks import models, pruning
from edge_tune.networks.couplings import couplings
from tests.convert.files import HERE

ANY = et.Uniform(0.0, 0.99)
IMAGE = (3, 32, 32)


def conv1(stage: int, blocks: list[int]) -> list[str]:
    return [f"layer{stage}.{block}.conv1.weight" for block in blocks]


def li_et_al(*sparsities: et.Uniform | et.Choice) -> dict[str, PrunerGroup]:
    weights = {
        "filter_pruner_70": conv1(1, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        "filter_pruner_60": conv1(2, [1, 2, 3, 4, 6, 7]),
        "filter_pruner_20": conv1(3, [1]),
        "filter_pruner_40": conv1(3, [2, 3, 5, 6, 7, 8]),
    }
    return {
        label: et.PrunerGroup("filters", names, sparsity=sparsity)
        for (label, names), sparsity in zip(weights.items(), sparsities, strict=True)
    }


OFF_THE_SHELF = {"filter_pruner_70": 0.7, "filter_pruner_60": 0.6, "filter_pruner_20": 0.2, "filter_pruner_40": 0.4}
BY_HAND = et.Experiment(
    model="resnet56_cifar",
    dataset="cifar10",
    pruner_groups=li_et_al(ANY, ANY, ANY, ANY),
    target=et.Minimise("latency_ms"),
    retraining=et.Retraining(epochs=70, lr=0.1, decay=et.Exponential(gamma=0.95, from_epoch=10), batch_size=256),
    weights="baseline.pth.tar",
    search=et.Search("hyperopt", trials=256, seed=0),
    baselines={"off_the_shelf": OFF_THE_SHELF},
)
SWEPT_BY_HAND = et.Experiment(
    model="resnet56_cifar",
    dataset="cifar10",
    pruner_groups=li_et_al(et.Uniform(0.0, 0.95), ANY, et.Choice([0.0, 0.2, 0.4]), et.Choice([0.4])),
    target=et.Minimise("latency_ms"),
    retraining=et.Retraining(
        epochs=70, lr=0.1, decay=et.Exponential(gamma=0.95, from_epoch=10), batch_size=128, weight_decay=5e-4
    ),
    weights="baseline.pth.tar",
    stopping=[et.Asha(et.Maximise("top1"), grace_epochs=5, reduction_factor=3)],
    search=et.Search("hyperopt", trials=96, seed=0),
    baselines={"off_the_shelf": OFF_THE_SHELF},
)


def test_schedule_becomes_the_experiment_written_by_hand() -> None:
    conversion = convert(HERE / "filter_rank.yaml", None)
    assert conversion.experiment == BY_HAND
    assert [note.partition(" ")[0] for note in conversion.notes] == [
        "filter_rank.yaml:",
        *["filter_rank.yaml:3:"] * 6,
        "filter_rank.yaml:",
        "filter_rank.yaml:87:",
    ]


def test_schedule_and_sweep_become_the_experiment_written_by_hand() -> None:
    conversion = convert(HERE / "filter_rank.yaml", HERE / "sweep.yaml")
    assert conversion.experiment == SWEPT_BY_HAND
    assert (
        "filter_rank.yaml:42: the sweep gives 'filter_pruner_40' no range, so its sparsity stays 0.4."
        in conversion.notes
    )


@pytest.mark.parametrize(
    ("schedule", "parameters"),
    [("filter_rank.yaml", 570_704), ("channel_rank.yaml", 566_887)],  # Distiller printed them for these schedules
)
def test_groups_fit_the_network_and_prune_it_as_distiller_did(schedule: str, parameters: int) -> None:
    assert weights_left(convert(HERE / schedule, None).experiment) == parameters


def weights_left(experiment: et.Experiment) -> int:
    """Count the weights of the layers, as Distiller does, that the schedule's own sparsities leave."""
    network, groups = models.build(experiment.model, 10), experiment.pruner_groups
    point = experiment.point(experiment.baselines["off_the_shelf"])
    coupled = couplings(network, IMAGE)
    pruned = pruning.prune(network, pruning.make_plan(network, groups, point, coupled), coupled)
    return sum(weight.numel() for weight in pruned.parameters() if weight.dim() > 1)


def test_all_that_a_schedule_holds_is_carried_over_or_noted_with_its_line() -> None:
    conversion = convert(HERE / "gradual.yaml", None)
    assert list(conversion.experiment.pruner_groups) == ["pruner_the_one"]
    assert conversion.experiment.model == "resnet20_cifar"
    assert conversion.experiment.retraining.decay == et.MultiStep(gamma=0.1, milestones=[31, 60])
    noted = {int(line) for note in conversion.notes if (line := note.split(":")[1]).isdigit()}
    assert noted == {
        *(4, 11, 17, 21, 27, 31, 37, 43),  # pruners
        *(46, 50, 88, 90, 97),  # name, group_size, epochs and args of the one that is carried over; a policy of nobody
        *(54, 58, 62, 80),  # regularizer, quantizer, extension, a section of no schedule
        *(74, 76),  # the other learning-rate schedulers
    }


def write(folder: Path, schedule: str) -> Path:
    file = folder / "schedule.yaml"
    file.write_text(schedule)
    return file


def schedule(*, arch: str, dataset: str, pruners: str, policies: str, command: str = "") -> str:
    return (
        f"# {command}\npruners:\n{pruners}extensions:\n"
        f"  thinner: {{class: FilterRemover, thinning_func_str: remove_filters, arch: {arch}, dataset: {dataset}}}\n"
        f"policies:\n{policies}"
    )


def gradual(name: str, final: float, weights: list[str]) -> str:
    names = ", ".join(f"module.{weight}" for weight in weights)
    return (
        f"  {name}:\n    class: L1RankedStructureParameterPruner_AGP\n    initial_sparsity: 0.1\n"
        f"    final_sparsity: {final}\n    group_type: Filters\n    weights: [{names}]\n"
    )


def conv2(stage: int, blocks: list[int]) -> list[str]:
    return [f"layer{stage}.{block}.conv2.weight" for block in blocks]


@pytest.mark.parametrize(
    ("pruners", "parameters"),
    [
        ({"a": (0.4, conv1(1, [0, 1, 2]) + conv1(2, [0, 1, 2]))}, 246_704),
        (
            {
                "a": (0.5, conv1(2, [0, 1, 2]) + conv2(2, [0, 1, 2]) + ["layer2.0.downsample.0.weight"]),
                "b": (0.5, [*conv2(3, [0, 1, 2]), "layer3.0.downsample.0.weight"]),
            },
            130_544,
        ),
    ],
)
def test_gradual_schedule_prunes_once_to_the_size_that_distiller_published(
    tmp_path: Path, pruners: dict[str, tuple[float, list[str]]], parameters: int
) -> None:
    text = schedule(
        arch="resnet20_cifar",
        dataset="cifar10",
        pruners="".join(gradual(name, *given) for name, given in pruners.items()),
        policies="".join(
            f"  - pruner: {{instance_name: {name}}}\n    starting_epoch: 0\n    ending_epoch: 20\n    frequency: 2\n"
            for name in pruners
        )
        + "  - extension: {instance_name: thinner}\n    epochs: [22]\n",
    )
    assert weights_left(convert(write(tmp_path, text), None).experiment) == parameters


def test_schedule_for_imagenet_keeps_its_images_and_its_command(tmp_path: Path) -> None:
    common = "class: L1RankedStructureParameterPruner, group_type: Filters, desired_sparsity: 0.1"
    text = schedule(
        arch="vgg19",
        dataset="imagenet",
        pruners="".join(
            f"  p{number}: {{{common}, weights: [features.module.{layer}.weight]}}\n"
            for number, layer in ((1, 2), (2, 34))
        ),
        policies="".join(
            f"  - pruner: {{instance_name: p{number}}}\n    epochs: [{epoch}]\n"
            f"  - extension: {{instance_name: thinner}}\n    epochs: [{epoch}]\n"
            for number, epoch in ((1, 0), (2, 1), (1, 4))
        ),
        command="time python3 compress_classifier.py -a=vgg19 ../data.imagenet --epochs=10 --lr=0.00001 "
        "--compress=s.yaml --pretrained",
    )
    conversion = convert(write(tmp_path, text), None)
    experiment = conversion.experiment
    assert experiment.dataset == et.Data("imagenet", image_size=224)
    assert (experiment.model, experiment.retraining.epochs, experiment.retraining.lr) == ("vgg19", 10, 0.00001)
    assert experiment.pruner_groups["p1"].weights == ("features.2.weight",)
    assert experiment.baselines == {}  # p1 is applied twice, with a thinner in between
    for expected in (
        "schedule.yaml:6: 'imagenet' is not at hand: give a folder of its images",
        "schedule.yaml:3: pruner 'p1' is applied again after a thinner",
        "schedule.yaml:1: --pretrained of the command line is not carried over: give the file or URL",
        "schedule.yaml:1: not carried over from the command line: ../data.imagenet;",
    ):
        assert any(note.startswith(expected) for note in conversion.notes), expected


def test_disagreement_of_command_and_schedule_is_noted(tmp_path: Path) -> None:
    text = (HERE / "filter_rank.yaml").read_text().replace("-a=resnet56_cifar", "-a=resnet20_cifar")
    conversion = convert(write(tmp_path, text), None)
    assert conversion.experiment.model == "resnet56_cifar"
    assert (
        "schedule.yaml:3: arch resnet20_cifar is not carried over: schedule.yaml:55 says resnet56_cifar."
        in conversion.notes
    )


def test_baseline_outside_the_sweeps_ranges_is_noted(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text((HERE / "sweep.yaml").read_text().replace("0.95", "0.5"))
    conversion = convert(HERE / "filter_rank.yaml", sweep)
    assert conversion.experiment.baselines == {}
    assert any(
        note.startswith(
            "filter_rank.yaml:9: the schedule is not carried over as a baseline: 'filter_pruner_70' has 0.7"
        )
        for note in conversion.notes
    )


def test_network_and_images_that_nothing_names_are_noted(tmp_path: Path) -> None:
    text = (HERE / "channel_rank.yaml").read_text()
    unnamed = convert(write(tmp_path, text.replace("      arch: resnet56_cifar\n      dataset: cifar10\n", "")), None)
    assert unnamed.experiment.model == "resnet56_cifar"
    assert any(
        "usual values are taken: arch resnet56_cifar, dataset cifar10, epochs 90" in note for note in unnamed.notes
    )
    elsewhere = convert(write(tmp_path, text.replace("dataset: cifar10", "dataset: imagenet")), None)
    assert elsewhere.experiment.dataset == et.Data("imagenet", image_size=224)
    assert any(note.startswith("schedule.yaml:54: 'imagenet' is not at hand") for note in elsewhere.notes)


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        (
            "services:\n  web: {image: x}\n",
            r"schedule.yaml: must be a Distiller schedule .* but got the keys \['services'\]",
        ),
        ("policies:\n  - {}\n", r"pruners must hold at least one of class L1Ranked.* but got \[\]; write one"),
        ("pruners:\n  - a\n", r"schedule.yaml:1: pruners must name its entries, as in .* but got a list"),
        (
            "pruners:\n  p: {class: SensitivityPruner}\n",
            r"(?s)schedule.yaml:2: pruner 'p' .*schedule.yaml: pruners must hold",
        ),
    ],
)
def test_convert_refuses_what_is_no_schedule(tmp_path: Path, schedule: str, problem: str) -> None:
    with pytest.raises(ExperimentError, match=problem):
        convert(write(tmp_path, schedule), None)


def test_convert_says_which_files_make_no_valid_experiment(tmp_path: Path) -> None:
    text = (HERE / "filter_rank.yaml").read_text().replace("gamma: 0.95", "gamma: 1.5")
    with pytest.raises(
        ExperimentError, match=r"schedule.yaml, as an experiment: retraining: gamma must hold .* but got 1.5"
    ):
        convert(write(tmp_path, text), None)
