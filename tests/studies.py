"""Made-up studies, as their files: what a run of a small network would have written."""

import json
import math
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_tune.records.entries import FORM, PRUNED, SUGGESTED, Answers, Cut, EpochEntry, Evidence, LayerEntry
from edge_tune.records.jsonfiles import converted
from edge_tune.records.results import Record
from tests.asked import asked

GROUPS = {"layer_1": [f"layer1.{block}.conv1.weight" for block in range(9)], "layer_2": ["layer2.1.conv1.weight"]}
WIDTHS = {"layer_1": 16, "layer_2": 32}
SCHEDULE = {"layer_1": 0.7, "layer_2": 0.5}
START = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
UNPRUNED_MS = 1.3


def write_study(
    folder: Path, trials: int, *, epochs: int = 0, nodes: int = 1, seed: int = 0, target: str = "latency_ratio"
) -> list[Record]:
    """Write a study's folder and return its trials. One in eight is hopeless, one in twenty failed."""
    generator = np.random.default_rng(seed)
    found = [_trial(number, generator, epochs, f"node-{number % nodes}") for number in range(2, trials + 2)]
    baselines = [
        record(0, {}, "node-0", baseline="unpruned"),
        record(1, SCHEDULE, "node-0", baseline="off_the_shelf", epochs=epochs),
    ]
    write_files(folder, baselines, found, target=target, epochs=epochs)
    return found


def write_files(
    folder: Path, baselines: list[Record], trials: list[Record], *, target: str = "latency_ratio", epochs: int = 0
) -> None:
    """Write the files of a study that holds these records."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in (("baselines", baselines), ("trials", trials)):
        (folder / f"{name}.jsonl").write_text("".join(f"{one.to_json()}\n" for one in records))
    (folder / "experiment.py").write_text('"""A study <made up> & small."""\n')
    (folder / "run.json").write_text(json.dumps(run(target, epochs)))


def run(target: str = "latency_ratio", epochs: int = 0) -> dict[str, Any]:
    """Return what run.json would hold."""
    groups = {label: {"type": "PrunerGroup", "structure": "filters", "weights": ws} for label, ws in GROUPS.items()}
    goal = "Maximise" if target in ("top1", "top5", "throughput_fps") else "Minimise"
    return {
        "form": FORM,
        "identity": {
            "model": "resnet56_cifar",
            "dataset": {"type": "Data", "name": "cifar10"},
            "pruner_groups": groups,
            "target": {"type": goal, "metric": target},
            "retraining": {"epochs": epochs},
            "weights and images": "0123456789abcdef",
        },
        "seed": 0,
        "sessions": [
            {
                "started_at": START.isoformat(),
                "experiment_file": "experiments/made_up.py",
                "command": "python -m edge_tune.run experiments/made_up.py",
                "commit": "c0ffee",
                "host": "node-0",
                "versions": {"python": "3.11.7", "ray": "2.60.0", "openvino": "2026.4.1"},
                "device": {"device": "CPU", "device_name": "A made-up CPU"},
            }
        ],
    }


def record(
    trial: int,
    sparsities: dict[str, float],
    node: str,
    *,
    baseline: str | None = None,
    epochs: int = 0,
    noise: float = 0.0,
    **changes: Any,
) -> Record:
    """Return the record of a network whose figures follow from its sparsities, up to `noise`."""
    removed = sum(sparsities.values()) / len(GROUPS) if sparsities else 0.0
    ratio = 1 - 0.6 * removed + 0.02 * noise
    pruned = _metrics(ratio, max(10.0, 98 - 95 * removed**2 + 3 * noise))
    after = _metrics(ratio, max(10.0, 95 - 20 * removed + noise)) if epochs else pruned
    steps = [
        EpochEntry(
            epoch=epoch,
            lr=0.1,
            train_loss=1.5 / epoch,
            seconds=10.0,
            metrics={"top1": pruned["top1"] + (after["top1"] - pruned["top1"]) * epoch / epochs},
        )
        for epoch in range(1, epochs + 1)
    ]
    begin = START + timedelta(seconds=20 * trial)
    entry = {
        "trial": trial,
        "baseline": baseline,
        "status": "finished",
        "point": asked(sparsities),
        "epoch": epochs,
        "pruned": pruned,
        "metrics": after,
        "curve": steps,
        "plan": tuple(_cut(label, weight, sparsities[label]) for label in sparsities for weight in GROUPS[label]),
        "measurements": {"retrained" if epochs else "pruned": _evidence(ratio)},
        "layers": [
            LayerEntry(weight.removesuffix(".weight"), "Convolution", "k", ms=0.1 * ratio, share=0.1)
            for weights in GROUPS.values()
            for weight in weights
        ],
        "seconds": {"plan": 0.5, "prune": 0.5, "evaluate": 8.0, "measure": 4.0, **({"retrain": 5.0} if epochs else {})},
        "node": node,
        "started_at": begin.isoformat(timespec="milliseconds"),
        "ended_at": (begin + timedelta(seconds=19)).isoformat(timespec="milliseconds"),
    }
    return Record(**{**entry, **changes})


def answered(one: Record, right: NDArray[np.bool_]) -> Record:
    """Return the record of a network that is right for these images of the validation split."""
    answers = Answers.of(len(right), np.packbits(right).tobytes())
    return replace(one, answers=answers, metrics={**one.metrics, "top1": 100 * float(right.mean())})


def _metrics(ratio: float, top1: float) -> dict[str, float]:
    return {
        "top1": top1,
        "top5": min(100.0, top1 + 30),
        "loss": 5 - top1 / 25,
        "latency_ms": UNPRUNED_MS * ratio,
        "total_latency_ms": UNPRUNED_MS * ratio + 0.1,
        "latency_ratio": ratio,
        "total_latency_ratio": ratio + 0.01,
        "throughput_fps": 700 / ratio,
        "parameters": round(855770 * ratio),
        "macs": round(126837386 * ratio),
    }


def evidence(**parts: Any) -> Evidence:
    """Return the evidence that holds these parts, written as in a file."""
    return converted(parts, Evidence)


def _evidence(ratio: float) -> Evidence:
    measured = {"latency_ratio": ratio, "total_latency_ratio": ratio + 0.01}
    return evidence(ratios={name: {"ratio": r, "low": r - 0.01, "high": r + 0.01} for name, r in measured.items()})


def _cut(label: str, weight: str, sparsity: float) -> Cut:
    before = WIDTHS[label]
    kept = max(1, before - int(sparsity * before))
    return Cut(weight, "filters", "out", "l1", sparsity, before, tuple(range(kept)))


def _trial(number: int, generator: np.random.Generator, epochs: int, node: str) -> Record:
    sparsities = {label: float(generator.uniform(0, 0.99)) for label in GROUPS}
    noise = float(generator.normal())
    if number % 20 == 19:
        return Record(
            trial=number,
            status="failed",
            reason="the device did not answer within 60 s",
            point=asked(sparsities),
            node=node,
            started_at=START.isoformat(),
        )
    one = record(number, sparsities, node, epochs=epochs, noise=noise, attempts=2 if number % 10 == 8 else 1)
    if epochs:
        one = replace(one, predictions=_predictions(one))
    if number % 8 == 0:
        why = "hopeless: all 5000 validation images are predicted as class 3"
        metrics = {**one.metrics, "top1": 10.0}
        return replace(one, status="stopped", stopped_by="hopeless", reason=why, collapsed=why, metrics=metrics)
    return one


def _predictions(one: Record) -> dict[str, dict[str, float]]:
    """Return what was expected of a trial: up to 3 % above or below what came."""
    off = 1 + 0.03 * math.sin(one.trial)
    ratio, top1 = one.metrics["latency_ratio"], one.metrics["top1"]
    return {SUGGESTED: {"latency_ratio": ratio * off, "top1": top1 * off}, PRUNED: {"top1": top1 / off}}
