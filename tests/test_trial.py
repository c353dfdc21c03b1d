import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from threading import Barrier

import numpy as np
import pytest
import torch
from onnx import load_from_string
from torch import nn

import edge_tune as et
from edge_tune.errors import BenchmarkError, RetrainingError
from edge_tune.metrics import METRICS
from edge_tune.networks import pruning, stored
from edge_tune.networks.compute import Compute
from edge_tune.networks.evaluation import Evaluation, evaluate
from edge_tune.networks.images import Split
from edge_tune.records.entries import Answers, Layer, LayerEntry, Ratio, Ratios
from edge_tune.records.results import Record
from edge_tune.search import study, trial
from edge_tune.search.conclusion import untouched
from edge_tune.search.study import Study
from edge_tune.search.trial import Report, Trials, run_trial
from tests.asked import asked
from tests.devices import Answer, Formula
from tests.networks import experiment

HALF = asked({"first": 0.5, "second": 0.5})


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@cache
def trained_study() -> Study:
    recipe = et.Retraining(epochs=12, lr=0.1, batch_size=32, precision="f32")
    return study.prepare(
        study.load(experiment(training=recipe, dataset=et.Data("digits", image_size=16))), lambda _: None
    )


def study_with(**changes: object) -> Study:
    return replace(trained_study(), experiment=experiment(**changes))


def collapsed_study(**changes: object) -> Study:
    """A study whose network answers class 0 whatever it sees, and that retraining can mend."""
    one = study_with(**changes)
    network = one.network()
    with torch.no_grad():
        network.fc.weight.zero_()
        network.fc.bias.copy_(torch.tensor([1.0] + [0.0] * 9))
    return replace(one, weights=stored.to_bytes(network))


def reports(one: Study, device: Formula | None = None, **options: object) -> list[Report]:
    epochs = one.experiment.retraining.epochs
    return list(run_trial(one, HALF, device or Formula(), **{"epochs": epochs, "trial": 7, **options}))  # type: ignore[arg-type]


def check_full(found: list[Report]) -> None:
    for report in found:
        assert set(report.record.metrics) == set(METRICS)
        assert all(math.isfinite(value) for value in report.record.metrics.values())


def test_layers_that_no_group_may_prune_keep_their_weights_however_much_is_pruned() -> None:
    one = trained_study()
    whole = one.network()
    plan = pruning.make_plan(whole, one.experiment.groups, HALF, one.coupled)
    pruned = dict(pruning.prune(one.network(), plan, one.coupled).named_modules())
    layers = [name for name, layer in whole.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    same = [name for name in layers if whole.get_submodule(name).weight.shape == pruned[name].weight.shape]
    assert untouched(one) == same
    assert 0 < len(same) < len(layers)


def test_run_trial_says_which_images_the_network_is_right_for() -> None:
    """In the order of the split, as the network that the trial leaves answers them one by one."""
    one = study_with(retraining=et.Retraining(epochs=1, lr=0.05, batch_size=32, precision="f32"))
    *_, last = reports(one)
    assert last.weights
    assert last.record.answers
    network = stored.rebuild(
        stored.Description(one.experiment.model, one.num_classes, one.input_shape, last.record.plan), last.weights
    )
    right = [network(images).argmax(1) == labels for images, labels in one.validation.batches(1)]
    with torch.no_grad():
        packed = np.packbits(torch.cat(right).numpy()).tobytes()
    assert last.record.answers == Answers.of(len(one.validation), packed)
    assert last.record.metrics["top1"] == 100 * last.record.answers.correct / len(one.validation)


def test_run_trial_reports_after_pruning_and_each_epoch() -> None:
    device = Formula()
    found = reports(study_with(), device)
    check_full(found)
    assert [(report.record.status, report.record.epoch) for report in found] == [
        ("running", 0),
        ("running", 1),
        ("finished", 2),
    ]
    last = found[-1].record
    assert [entry.epoch for entry in last.curve] == [1, 2]
    assert last.curve[1].metrics["top1"] == last.metrics["top1"]
    assert last.metrics["top1"] > last.pruned["top1"]
    assert (last.name, last.point["first.sparsity"]) == ("trial_0007", 0.5)
    assert [cut.kept for cut in last.plan] == [4, 4]
    assert set(last.seconds) == {"plan", "prune", "evaluate", "export", "queue", "measure", "retrain"}
    assert 0.25 <= last.seconds["queue"] <= 0.5  # the first of two measurements ran while the trial classified
    assert 0.5 <= last.seconds["measure"] <= 1.0


def test_trial_classifies_while_the_device_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Barrier(2, timeout=60)

    class Waits(Formula):
        def measure(self, onnx: bytes, remember: str | None = None) -> Answer:
            if remember:
                both.wait()
            return super().measure(onnx, remember)

    def classify(network: nn.Module, split: Split, compute: Compute) -> Evaluation:
        if not classified:
            both.wait()
        classified.append(evaluate(network, split, compute=compute))
        return classified[-1]

    classified: list[Evaluation] = []
    monkeypatch.setattr(trial, "evaluate", classify)
    assert reports(study_with(), Waits())[-1].record.status == "finished"


def untimed(record: Record) -> Record:
    """A record without what differs from run to run: the clock's readings."""
    curve = tuple(replace(entry, seconds=0.0, images_per_s=None) for entry in record.curve)
    return replace(record, curve=curve, seconds={}, started_at="", ended_at="")


PLAIN = et.Retraining(epochs=4, lr=0.05, batch_size=32, precision="f32", decay=et.Exponential(gamma=0.5))


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize(
    "recipe", [PLAIN, replace(PLAIN, distillation=et.Distillation(), average=et.Ema(0.9), warmup_epochs=2)]
)
def test_run_trial_goes_on_from_a_checkpoint_as_if_it_had_not_been_interrupted(
    recipe: et.Retraining, epoch: int
) -> None:
    one = study_with(retraining=recipe)
    whole = reports(one)
    assert [report.checkpoint is not None for report in whole] == [False, True, True, True, False]
    torch.manual_seed(99)
    device = Formula()
    rest = reports(one, device, checkpoint=whole[epoch].checkpoint)
    assert [report.record.epoch for report in rest] == [*range(epoch + 1, 5)]
    assert untimed(rest[-1].record) == untimed(whole[-1].record)
    assert rest[-1].weights == whole[-1].weights
    assert device.asked == [None]  # the pruned network is not measured again
    assert sum(rest[-1].record.seconds.values()) > sum(whole[epoch].record.seconds.values())


def test_run_trial_stops_at_its_limit_of_time_but_not_after_its_last_epoch() -> None:
    late = {"search": et.Search("random", trials=1, trial_time_limit_s=1e-3)}
    found = reports(study_with(retraining=et.Retraining(epochs=2, lr=0.05, batch_size=64), **late))
    check_full(found)
    last = found[-1].record
    assert (last.status, last.stopped_by, last.epoch) == ("stopped", "time_limit", 0)
    assert last.reason is not None
    assert last.reason.endswith(" s of work, of 0.001 s that a trial may take")
    assert reports(study_with(retraining=et.Retraining(epochs=0, lr=0.1), **late))[-1].record.status == "finished"
    assert reports(study_with(**late), baseline="half")[-1].record.status == "finished"
    # The device was busy with others for far longer than this trial may work.
    waited = study_with(search=et.Search("random", trials=1, trial_time_limit_s=600))
    assert reports(waited, Formula(queue_s=1000.0))[-1].record.status == "finished"


def test_run_trial_measures_the_pruned_network_by_its_plan_and_the_retrained_one_anew() -> None:
    device = Formula()
    last = reports(study_with(), device)[-1].record
    plan = last.plan
    assert device.asked == [pruning.digest(plan), None]
    assert set(last.measurements) == {"pruned", "retrained"}


class Layered(Formula):
    """A device that tells where the time goes: half a millisecond in each convolution, none in what is fused."""

    def measure(self, onnx: bytes, remember: str | None = None) -> Answer:
        answer = super().measure(onnx, remember)
        layers = [
            Layer(f"{node.name}/WithoutBiases", "Convolution", "k", 0.5 * (node.op_type == "Conv"))
            for node in load_from_string(onnx).graph.node
        ]
        return replace(answer, measurement=replace(answer.measurement, layers=layers))


def test_run_trial_records_the_layers_of_the_last_measurement_under_the_networks_own_names() -> None:
    last = reports(study_with(), Layered(), epochs=1)[-1].record
    names = ["stem", "block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2"]
    assert last.layers == [LayerEntry(name, "Convolution", "k", ms=0.5, share=0.2) for name in names]
    assert Record.from_entry(json.loads(last.to_json())).layers == last.layers


def test_run_trial_aligns_its_plan_to_the_studys_granularity() -> None:
    last = reports(replace(study_with(), granularity=8), epochs=0)[-1].record
    assert [(cut.sparsity, cut.before, cut.kept) for cut in last.plan] == [(0.5, 8, 8), (0.5, 8, 8)]
    last = reports(replace(study_with(), granularity=3), epochs=0)[-1].record
    assert [cut.kept for cut in last.plan] == [3, 3]
    last = reports(replace(study_with(), granularity=3), epochs=0, baseline="half")[-1].record
    assert [cut.kept for cut in last.plan] == [4, 4]


def test_run_trial_records_the_ratio_to_the_unpruned_network() -> None:
    one = study_with(target=et.Minimise("latency_ratio"))
    last = reports(one, Formula(reference=one.reference()))[-1].record
    # The formula: 0.1 ms and 1 ms for each million bytes.
    unpruned_ms = 0.1 + len(one.reference()) / 1e6
    assert last.metrics["latency_ratio"] == pytest.approx(last.metrics["latency_ms"] / unpruned_ms)
    assert last.metrics["latency_ratio"] < 1
    ratio = last.measurements["retrained"].intervals["latency_ratio"]
    assert ratio.low <= last.metrics["latency_ratio"] <= ratio.high


def test_run_trial_gives_the_unpruned_network_the_ratio_1() -> None:
    one = study_with()
    (only,) = run_trial(one, {}, Formula(reference=one.reference()), epochs=0, trial=0, baseline="unpruned")
    assert (only.record.metrics["latency_ratio"], only.record.metrics["total_latency_ratio"]) == (1, 1)


def test_run_trial_retrains_the_unpruned_network_as_any_other() -> None:
    one, device = study_with(), Formula()
    assert one.experiment.baseline_names == ("half", "unpruned_retrained")
    *_, last = Trials(one).begin({}, device, trial=2, baseline="unpruned_retrained", checkpoint=None)
    assert (last.record.status, last.record.epoch, last.record.plan) == ("finished", 2, ())
    assert (last.record.label, last.record.name) == ("unpruned, 2 epochs", "unpruned_retrained")
    assert (last.record.pruned["latency_ratio"], last.record.metrics["latency_ratio"]) == (1, 1)
    assert last.record.metrics["loss"] != last.record.pruned["loss"]
    assert last.record.metrics["parameters"] == sum(weight.numel() for weight in one.network().parameters())


class Noisy(Formula):
    """A device by which a network is 2 % faster than itself."""

    def measure(self, onnx: bytes, remember: str | None = None) -> Answer:
        answer = super().measure(onnx, remember)
        faster = Ratio(0.98, 0.97, 0.99)
        ratios = Ratios(latency_ratio=faster, total_latency_ratio=faster, is_precise=True)
        evidence = replace(answer.measurement.evidence, ratios=ratios)
        return replace(answer, measurement=replace(answer.measurement, latency_ratio=0.98, evidence=evidence))


def test_run_trial_takes_a_plan_that_removes_nothing_for_the_unpruned_network() -> None:
    device, unpruned = Noisy(), Noisy()
    nothing = asked({"first": 0.0, "second": 0.0})
    one = study_with(retraining=et.Retraining(epochs=1, lr=0.05, batch_size=32, precision="f32"))
    list(run_trial(one, {}, unpruned, epochs=0, trial=0, baseline="unpruned"))
    last = list(run_trial(one, nothing, device, epochs=1, trial=7))[-1].record
    assert device.asked[0] == unpruned.asked[0]  # so that the queue remembers
    assert (last.pruned["latency_ratio"], last.metrics["latency_ratio"]) == (1.0, 1.0)
    for evidence in last.measurements.values():
        assert evidence.intervals["latency_ratio"] == Ratio(1.0, 1.0, 1.0)
        assert evidence.is_unpruned
        assert evidence.metrics["latency_ms"] == evidence.reference_ms["latency_ms"]
    other = list(run_trial(one, HALF, device, epochs=1, trial=8))[-1].record
    assert other.metrics["latency_ratio"] == 0.98


def test_run_trial_measures_during_retraining_when_asked() -> None:
    recipe = et.Retraining(epochs=5, lr=0.05, batch_size=64)
    device = Formula()
    one = study_with(retraining=recipe, benchmark=et.Benchmark(device="fake", every_epochs=2))
    last = reports(one, device)[-1].record
    assert set(last.measurements) == {"pruned", "epoch_2", "epoch_4", "retrained"}
    assert [entry.epoch for entry in last.curve if "latency_ms" in entry.metrics] == [2, 4]


def test_run_trial_measures_the_last_epoch_once_and_shows_it_in_the_curve() -> None:
    one = study_with(benchmark=et.Benchmark(device="fake", every_epochs=1))
    last = reports(one)[-1].record
    assert set(last.measurements) == {"pruned", "epoch_1", "retrained"}
    assert last.curve[1].metrics["latency_ms"] == last.metrics["latency_ms"]
    assert "latency_ms" in last.curve[0].metrics


def test_run_trial_gives_weights_that_score_what_the_record_says() -> None:
    one = study_with()
    *earlier, last = reports(one)
    assert all(report.weights is None for report in earlier)
    assert last.weights is not None
    description = stored.Description("tests.networks:small", 10, one.input_shape, last.record.plan)
    network: nn.Module = stored.rebuild(description, last.weights)
    ((images, labels),) = one.validation.batches(len(one.validation))
    with torch.no_grad():
        right = (network(images).argmax(dim=1) == labels).double().mean()
    assert last.record.metrics["top1"] == pytest.approx(100 * float(right))


def test_run_trial_without_retraining_reports_once() -> None:
    (only,) = reports(study_with(retraining=et.Retraining(epochs=0, lr=0.1)))
    check_full([only])
    assert (only.record.status, only.record.epoch) == ("finished", 0)
    assert only.record.pruned == only.record.metrics


def test_run_trial_is_the_same_whatever_ran_before() -> None:
    first = reports(study_with())[-1].record
    torch.manual_seed(99)
    torch.rand(5)
    assert reports(study_with())[-1].record.metrics == first.metrics


@pytest.mark.parametrize(
    ("rule", "epochs", "ending"),
    [
        (et.Hopeless(after_epochs=0), 2, ("stopped", "hopeless", 0)),
        (et.Hopeless(after_epochs=1), 0, ("stopped", "hopeless", 0)),
        (et.Hopeless(after_epochs=1), 2, ("finished", None, 2)),
    ],
)
def test_run_trial_stops_a_collapsed_network_when_its_rule_says(
    rule: et.Hopeless, epochs: int, ending: tuple[str, str | None, int]
) -> None:
    recipe = et.Retraining(epochs=epochs, lr=0.1, batch_size=16)
    found = reports(collapsed_study(stopping=[rule], retraining=recipe))
    check_full(found)
    last = found[-1].record
    assert (last.status, last.stopped_by, last.epoch) == ending
    if last.status == "stopped":
        assert last.reason == "hopeless: all 143 validation images are predicted as class 0, right after pruning"
        assert found[-1].weights is None


def test_run_trial_stops_a_network_that_stays_collapsed_after_retraining() -> None:
    recipe = et.Retraining(epochs=3, lr=1e-9, batch_size=64)
    last = reports(collapsed_study(stopping=[et.Hopeless()], retraining=recipe))[-1].record
    assert (last.status, last.epoch) == ("stopped", 1)
    assert last.reason is not None
    assert last.reason.endswith("after 1 epoch of retraining")


def test_run_trial_spares_a_baseline() -> None:
    recipe = et.Retraining(epochs=1, lr=1e-9, batch_size=64)
    one = collapsed_study(stopping=[et.Hopeless(after_epochs=0)], retraining=recipe)
    last = reports(one, baseline="half")[-1].record
    assert (last.status, last.epoch, last.name) == ("finished", 1, "half")
    assert last.collapsed == "all 143 validation images are predicted as class 0"


def test_run_trial_raises_when_the_validation_loss_is_not_finite() -> None:
    one = study_with()
    network = one.network()
    with torch.no_grad():
        network.fc.bias.fill_(math.inf)
    with pytest.raises(
        RetrainingError, match=r"before any retraining: the validation loss must be finite, but got nan"
    ):
        reports(replace(one, weights=stored.to_bytes(network)))


def test_run_trial_raises_when_the_device_fails_or_retraining_diverges() -> None:
    with pytest.raises(BenchmarkError, match="the stick is gone"):
        reports(study_with(), Formula(fails_from=2))
    recipe = et.Retraining(epochs=3, lr=1e20, batch_size=32, precision="f32")
    found: Iterator[Report] = run_trial(study_with(retraining=recipe), HALF, Formula(), epochs=3, trial=1)
    check_full([next(found)])
    with pytest.raises(RetrainingError, match="must be finite, but got nan"):
        list(found)


@pytest.mark.parametrize("granularity", [1, 4])
@pytest.mark.parametrize("baseline", [None, "half"])
def test_planner_tells_the_plan_that_a_trial_then_has(granularity: int, baseline: str | None) -> None:
    one = replace(study_with(retraining=et.Retraining(epochs=0, lr=0.1)), granularity=granularity)
    point = asked({"first": 0.7, "second": 0.3})
    planned = Trials(one).planner()(point, is_baseline=baseline is not None)
    (report,) = run_trial(one, point, Formula(), epochs=0, trial=7, baseline=baseline)
    assert planned.plan == report.record.plan
    assert planned.digest == pruning.digest(report.record.plan)


def test_planner_tells_the_digest_of_a_record_with_and_without_a_plan() -> None:
    one = study_with(retraining=et.Retraining(epochs=0, lr=0.1))
    planner = Trials(one).planner()
    (report,) = run_trial(one, HALF, Formula(), epochs=0, trial=7)
    expected = planner(HALF, is_baseline=False).digest
    assert planner.digest(report.record) == planner.digest(replace(report.record, plan=())) == expected


def test_planner_counts_the_networks_that_lists_of_sparsities_give() -> None:
    """Of 8 filters, 0.0 and 0.1 leave all, 0.5 and 0.6 leave 4; of multiples of 4, 8 or 4 stay."""
    groups = {
        label: replace(group, sparsity=et.Choice([0.0, 0.1, 0.3, 0.5, 0.6]))
        for label, group in experiment().pruner_groups.items()
    }
    one = study_with(pruner_groups=groups)
    assert Trials(one).planner().count() == 3 * 3
    assert Trials(replace(one, granularity=4)).planner().count() == 2 * 2
    ranged = {**groups, "first": experiment().pruner_groups["first"]}
    assert Trials(study_with(pruner_groups=ranged)).planner().count() is None


def test_trial_is_retrained_by_the_recipe_of_its_point_and_equal_plans_of_other_recipes_are_other_networks() -> None:
    recipe = et.Retraining(epochs=1, lr=et.LogUniform(0.001, 0.5), precision="f32")
    one = study_with(retraining=recipe, baselines={})
    points = [{**HALF, "retraining.lr": lr} for lr in (0.01, 0.3)]
    planner = Trials(one).planner()
    first, second = (planner(point, is_baseline=False) for point in points)
    assert first.plan == second.plan
    assert first.digest != second.digest
    ends = [list(run_trial(one, point, Formula(), epochs=1, trial=1))[-1].record for point in points]
    assert [end.curve[0].lr for end in ends] == [0.01, 0.3]
    assert ends[0].metrics["loss"] != ends[1].metrics["loss"]
    assert [planner.digest(end) for end in ends] == [first.digest, second.digest]
    assert planner.count() is None
    two = replace(recipe, lr=et.Choice([0.01, 0.3]))
    groups = {label: replace(group, sparsity=et.Choice([0.5])) for label, group in experiment().pruner_groups.items()}
    assert Trials(study_with(retraining=two, baselines={}, pruner_groups=groups)).planner().count() == 2
