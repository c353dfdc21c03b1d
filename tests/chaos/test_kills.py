"""One study, and everything in it killed at random moments: nothing is lost, nothing is done twice."""

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge_tune.records.results import Record, Results
from tests.chaos.cluster import Driver, machines, run_undisturbed

SEED = 0


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is done to how long a study.

    Attributes:
        kills: How often each of what can be killed dies.
        until: The share of the time of the study left alone in which the kills fall. What is to be killed may have to
            be waited for while the study prepares, which is more of a short study; the last must not come after it.
    """

    trials: int
    epochs: int
    kills: Mapping[str, int]
    until: float


LONG = Size(
    trials=40,
    epochs=24,
    kills={
        "worker": 5,
        "child": 3,
        "device's actor": 2,
        "queue": 1,
        "trainer node": 3,
        "device node": 2,
        "driver, SIGKILL": 2,
        "driver, SIGINT": 1,
        "driver, SIGTERM": 1,
    },
    until=0.95,
)
SHORT = Size(trials=8, epochs=8, kills=dict.fromkeys(LONG.kills, 1), until=0.7)
SIZES = [
    pytest.param(SHORT, id="short", marks=pytest.mark.chaos),
    pytest.param(LONG, id="long", marks=pytest.mark.figures),
]


def study_text(size: Size) -> str:
    """Return the file of a study that is not over before the last kill."""
    return f"""
import edge_tune as et

BLOCKS = [f"layer{{stage}}.{{block}}.conv1.weight" for stage in (1, 2, 3) for block in (0, 1, 2)]

experiment = et.Experiment(
    model="resnet20_cifar",
    dataset=et.Data("digits", image_size=16, train_images=500),
    pruner_groups={{
        "first": et.PrunerGroup("filters", BLOCKS[:4], sparsity=et.Uniform(0.0, 0.8)),
        "second": et.PrunerGroup("filters", BLOCKS[4:], sparsity=et.Uniform(0.0, 0.8)),
    }},
    target=et.Minimise("latency_ratio"),
    training=et.Retraining(epochs=3, lr=0.05, batch_size=50, precision="f32"),
    retraining=et.Retraining(epochs={size.epochs}, lr=0.02, batch_size=50, precision="f32"),
    benchmark=et.Benchmark(runs=20, max_s=0.5),
    search=et.Search("hyperopt", trials={size.trials}, seed=0),
)
"""


def entries(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def untimed(record: Record) -> dict[str, float]:
    return {name: record.metrics[name] for name in ("top1", "top5", "loss", "parameters", "macs")}


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("size", SIZES)
def test_study_comes_through_whatever_dies(
    size: Size, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    study = tmp_path / "chaos.py"
    study.write_text(study_text(size))
    undisturbed_s, _ = run_undisturbed(study, tmp_path / "undisturbed")

    chance = random.Random(SEED)
    to_kill = [kind for kind, times in size.kills.items() for _ in range(times)]
    chance.shuffle(to_kill)
    moments = sorted(chance.uniform(0.05, size.until) * undisturbed_s for _ in to_kill)
    killed: Counter[str] = Counter()
    with machines() as there:
        began = time.monotonic()
        driver = Driver(there, study, tmp_path / "disturbed")
        kill = {
            "worker": there.killer_of("ray::ResourceTrainable"),
            "child": there.killer_of("benchmark/runner"),
            "device's actor": there.killer_of("ray::BenchmarkActor"),
            "queue": there.killer_of("ray::BenchmarkQueue"),
            "trainer node": there.lose_a_trainer,
            "device node": there.lose_the_device_host,
            "driver, SIGKILL": driver.killer(signal.SIGKILL),
            "driver, SIGINT": driver.killer(signal.SIGINT),
            "driver, SIGTERM": driver.killer(signal.SIGTERM),
        }
        for gap, kind in zip(np.diff(moments, prepend=0.0), to_kill, strict=True):
            time.sleep(gap)  # from the last kill, however long that took: else those that are late come all at once
            while driver.process.poll() is None and not kill[kind](chance):
                time.sleep(0.2)
            killed[kind] += driver.process.poll() is None
        code = driver.wait(max(60.0, 4 * undisturbed_s))
        disturbed_s = time.monotonic() - began
        said = driver.said()

    assert code == 0, said
    ratio = disturbed_s / undisturbed_s
    again = Counter(record.attempts for record in Results(tmp_path / "disturbed").trials())
    kinds = ", ".join(f"{kind}: {times}" for kind, times in killed.items())
    print(
        f"\n{size.trials} trials of {size.epochs} epochs, {killed.total()} kills ({kinds}): "
        f"{disturbed_s:.0f} s, undisturbed {undisturbed_s:.0f} s, ratio {ratio:.2f}; "
        f"trials by attempts: {dict(sorted(again.items()))}"
    )
    assert killed == size.kills
    written = entries(tmp_path / "disturbed" / "trials.jsonl")
    # Those that may be the best are written once more, with the figures of the final confirmation.
    finished = [entry["trial"] for entry in written if not entry.get("confirmed")]
    assert sorted(finished) == list(range(2, size.trials + 2)), said
    disturbed, whole = (
        {record.trial: record for record in Results(tmp_path / name).trials()} for name in ("disturbed", "undisturbed")
    )
    unfinished = {record.name: record.reason for record in disturbed.values() if record.status != "finished"}
    assert not unfinished, said
    assert not list((tmp_path / "disturbed" / "checkpoints").glob("*"))
    # The first points do not depend on results, so that they are the same; and so is what came of them.
    for trial in range(2, size.trials // 4 + 2):
        assert disturbed[trial].point == whole[trial].point
        assert untimed(disturbed[trial]) == untimed(whole[trial])
        assert [entry.epoch for entry in disturbed[trial].curve] == list(range(1, size.epochs + 1))
    assert "Traceback" not in said
