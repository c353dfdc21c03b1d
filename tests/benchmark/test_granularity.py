import math
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from edge_tune.benchmark import granularity
from edge_tune.benchmark.backend import FakeBackend
from edge_tune.benchmark.granularity import ROUNDS, WIDTHS, GranularityVerdict, find_granularity, pairs, time_widths
from edge_tune.benchmark.measurement import Measurement
from edge_tune.errors import BenchmarkError
from edge_tune.experiment import Benchmark
from edge_tune.records.entries import Layer


def staircase(
    step: int, noise: float, seed: int, *, slope: float = 0.4, scale: float = 1.0, disturbed: float = 0.05
) -> granularity.Times:
    """Times of which `slope` rises within the steps; the host drifts, and adds up to its double to some of them."""
    generator = np.random.default_rng(seed)
    drift = 1 + 0.3 * generator.random(ROUNDS)
    times = {}
    for width in WIDTHS:
        truth = scale * (20 + 10 * ((1 - slope) * math.ceil(width / step) * step + slope * width))
        added = np.where(generator.random(ROUNDS) < disturbed, 1 + generator.random(ROUNDS), 1.0)
        times[width] = (truth * drift * added * (1 + noise * generator.standard_normal(ROUNDS))).tolist()
    return times


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("step", [1, 2, 4, 8, 16, 32])
def test_find_granularity_finds_the_step_under_noise(step: int, seed: int) -> None:
    assert find_granularity(staircase(step, 0.005, seed)).granularity == step


@pytest.mark.parametrize("step", [8, 16, 32])
def test_find_granularity_finds_the_step_on_a_busy_host(step: int) -> None:
    assert find_granularity(staircase(step, 0.01, 0, disturbed=0.4)).granularity == step


@pytest.mark.parametrize("noise", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("step", [1, 2, 4, 8, 16, 32])
def test_find_granularity_gives_no_verdict_rather_than_a_wrong_one(step: int, noise: float) -> None:
    answers = {find_granularity(staircase(step, noise, seed)).granularity for seed in range(5)}
    assert answers <= {None, step}
    assert step > 8 or noise < 0.3 or answers == {None}


def test_find_granularity_does_not_depend_on_the_unit() -> None:
    times = [find_granularity(staircase(8, 0.01, 0, scale=scale)) for scale in (1e-3, 1e3)]
    assert times[0].granularity == times[1].granularity == 8
    assert times[0].relative == pytest.approx(times[1].relative)


@pytest.mark.parametrize(("slope", "found"), [(0.0, 16), (0.6, 16), (0.95, 1)])
def test_find_granularity_calls_it_a_step_when_it_is_a_quarter_of_the_rise(slope: float, found: int) -> None:
    # Steps make 1 - slope of the rise over a step: all of it, 0.4, and 0.05.
    assert find_granularity(staircase(16, 0.002, 0, slope=slope)).granularity == found


def measured(layers: Sequence[Layer]) -> Measurement:
    return replace(FakeBackend().measure(b"", Benchmark(device="fake")), layers=layers)


def fake_device(step: int, seen: list[Sequence[int]]) -> granularity.Measure:
    """A device whose pairs take a staircase of time, and whose first pair pays for a reorder."""

    def measure(network: bytes) -> Measurement:
        order = widths_of(network)
        seen.append(order)
        layers = [
            Layer(f"/pair{width}/{part}/Conv", "Convolution", "k", math.ceil(width / step) * 0.5)
            for width in order
            for part in "ab"
        ]
        layers += [
            Layer("/stem/Conv", "Convolution", "k", 9.0),
            Layer(f"/stem/Relu_x_/pair{order[0]}/a/Conv", "Reorder", "k", 0.4),
        ]
        return measured(layers)

    return measure


def widths_of(network: bytes) -> list[int]:
    model = ov.Core().read_model(network)
    names = [node.get_friendly_name() for node in model.get_ops() if "/a/Conv" in node.get_friendly_name()]
    return [int(name.split("/")[1].removeprefix("pair")) for name in names]


def test_time_widths_orders_each_round_anew_and_sums_what_belongs_to_a_pair() -> None:
    seen: list[Sequence[int]] = []
    times = time_widths(fake_device(16, seen), widths=range(16, 34), rounds=4)
    assert [sorted(order) for order in seen] == [list(range(16, 34))] * 4
    assert len({tuple(order) for order in seen}) == 4
    assert sorted(times) == list(range(16, 34))
    assert [len(rounds) for rounds in times.values()] == [4] * 18
    plain = {16: 1.0, 17: 2.0, 32: 2.0, 33: 3.0}
    assert {width: min(times[width]) for width in plain} == plain
    assert sum(max(rounds) > min(rounds) for rounds in times.values()) <= 4  # the reorders


def test_time_widths_refuses_counters_without_time() -> None:
    with pytest.raises(BenchmarkError, match=r"time in every pair of layers, but show none for widths \[16, 17\]"):
        time_widths(lambda _: measured([Layer("/stem/Conv", "Convolution", "k", 9.0)]), widths=[16, 17], rounds=1)


def test_measure_granularity_asks_whom_it_is_given() -> None:
    seen: list[Sequence[int]] = []
    assert granularity.measure_granularity(Benchmark(), fake_device(8, seen)).granularity == 8
    assert len(seen) == ROUNDS


def test_pairs_keeps_values_in_range() -> None:
    order = random.Random(0).sample(WIDTHS, len(WIDTHS))
    compiled = ov.compile_model(ov.Core().read_model(pairs(order)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    output = compiled(
        np.random.default_rng(0).standard_normal((1, 3, granularity.SIDE, granularity.SIDE)).astype(np.float32)
    )[0]
    assert output.shape == (1, 64, 1, 1)
    assert np.all(np.isfinite(output))
    assert 0.1 < output.std() < 100  # not drowned, not exploded


def test_table_shows_each_width_and_the_verdict() -> None:
    text = granularity.table(GranularityVerdict(16, 0.98, {width: width / 65 for width in WIDTHS}))
    assert all(f"{width:4d}: {width / 65:5.3f}" in text for width in WIDTHS)
    assert text.splitlines()[-1] == "Channel granularity: 16 channels (98% of 1000 resamples agree)."


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (GranularityVerdict(None, 0.6, {}), "no verdict, .*only 60%"),
        (GranularityVerdict(1, 1.0, {}), "Channel granularity: 1, the time rises evenly"),
    ],
)
def test_says_tells_when_there_is_no_step(verdict: GranularityVerdict, sentence: str) -> None:
    assert re.search(sentence, granularity.says(verdict))


@pytest.mark.parametrize(("found", "code"), [(16, 0), (None, 1)])
def test_main_fails_without_a_verdict(
    found: int | None, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Benchmark] = []
    verdict = GranularityVerdict(found, 0.9, {16: 0.5, 17: 1.0})
    monkeypatch.setattr(granularity, "require_device", lambda settings, *, computes: asked.append(settings))
    monkeypatch.setattr(granularity, "measure_granularity", lambda settings: asked.append(settings) or verdict)
    assert granularity.main(["--device", "GPU", "--threads", "2", "--device-python", "python3.9"]) == code
    assert asked == 2 * [Benchmark(device="GPU", threads=2, python="python3.9")]
    assert capsys.readouterr().out == granularity.table(verdict) + "\n"


def test_main_says_why_the_device_cannot_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert granularity.main(["--device-python", "no-such-python"]) == 2
    assert "no-such-python: the interpreter must start" in capsys.readouterr().err
    assert granularity.main(["--device", "fake"]) == 2
    assert capsys.readouterr().err.startswith("device must be one that computes, but got 'fake', a formula; pass")


def test_main_refuses_settings_before_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert granularity.main(["--precision", "f64"]) == 2
    assert capsys.readouterr().err == "precision must be one of ['f32', 'bf16', 'f16'], but got 'f64'.\n"


@pytest.mark.slow
def test_measure_granularity_finds_16_on_avx512_or_says_that_it_cannot() -> None:
    if "avx512f" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("needs a CPU with AVX-512")
    verdict = granularity.measure_granularity(Benchmark())
    assert verdict.granularity in (16, None)
    assert verdict.relative[64] < verdict.relative[65]
