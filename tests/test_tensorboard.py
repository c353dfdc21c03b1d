import io
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import edge_tune as et
from edge_tune.display.tensorboard import TensorBoard
from edge_tune.metrics import METRICS
from edge_tune.objective import Objective
from edge_tune.records.entries import EpochEntry
from edge_tune.records.results import Record
from tests.asked import asked
from tests.boards import Board, serving
from tests.studies import evidence

PARAMETERS = {
    "layer_1.sparsity": et.Uniform(0.0, 0.9),
    "layer_2.sparsity": et.Choice([0.0, 0.25, 0.5]),
    "layer_1.structure": et.Choice(["filters"]),
    "layer_2.structure": et.Choice(["filters", "channels"]),
}
PRUNED = {
    "top1": 40.0,
    "top5": 90.0,
    "loss": 1.0,
    "latency_ms": 1.5,
    "total_latency_ms": 1.75,
    "latency_ratio": 0.75,
    "total_latency_ratio": 0.875,
    "throughput_fps": 600.0,
    "parameters": 1000.0,
    "macs": 2000.0,
}
TARGET = Objective.of(et.Minimise("latency_ratio"))
TRIAL = Record(
    trial=3,
    point=asked({"layer_1": 0.7, "layer_2": 0.25}, {"layer_1": "filters", "layer_2": "channels"}),
    pruned=PRUNED,
    metrics=PRUNED,
    started_at="2026-11-22T10:00:00.000+00:00",
)


def report(epoch: int, record: Record = TRIAL, rise: float = 1.0) -> Record:
    """What a trial says after an epoch: top1 rises by `rise` each."""
    curve = [
        EpochEntry(
            epoch=e,
            lr=0.1,
            train_loss=2.0 / e,
            seconds=9.0,
            metrics={"top1": 40.0 + rise * e, "top5": 90.0, "loss": 1.0},
        )
        for e in range(1, epoch + 1)
    ]
    return replace(record, epoch=epoch, curve=curve, metrics={**PRUNED, "top1": 40.0 + rise * epoch})


def finished(record: Record, latency_ratio: float = 0.5) -> Record:
    """The same, at its end: measured once more."""
    metrics = {**record.metrics, "latency_ratio": latency_ratio, "latency_ms": 2 * latency_ratio}
    return replace(
        record, status="finished", metrics=metrics, measurements={"pruned": evidence(), "retrained": evidence()}
    )


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(point.step, point.value) for point in events.Scalars(tag)]


def test_tensorboard_shows_a_point_an_epoch(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, PARAMETERS)
    for record in (report(0), report(1), finished(report(2))):
        board.add(record)
    assert curve(tmp_path / "trial_0003", "validation/top1") == [(0, 40.0), (1, 41.0), (2, 42.0)]
    assert curve(tmp_path / "trial_0003", "retraining/train_loss") == [(1, 2.0), (2, 1.0)]
    assert curve(tmp_path / "trial_0003", "size/parameters") == [(0, 1000.0)]


def test_tensorboard_shows_a_latency_where_it_was_measured(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, PARAMETERS)
    last = finished(report(3))
    first, second, third = last.curve
    second = replace(second, metrics={**second.metrics, "latency_ratio": 0.625})
    last = replace(last, curve=[first, second, third])
    for record in (report(0), report(1), replace(report(2), curve=last.curve[:2]), last):
        board.add(record)
    assert curve(tmp_path / "trial_0003", "device/latency_ratio") == [(0, 0.75), (2, 0.625), (3, 0.5)]
    board.add(replace(report(2, replace(TRIAL, trial=4)), status="stopped", stopped_by="asha"))
    assert curve(tmp_path / "trial_0004", "device/latency_ratio") == [(0, 0.75)]


def test_tensorboard_starts_a_trial_over_when_a_resumed_study_runs_it_again(tmp_path: Path) -> None:
    first = TensorBoard(tmp_path, PARAMETERS)
    for record in (report(0), report(1, rise=9), report(2, rise=9)):
        first.add(record)
    resumed = TensorBoard(tmp_path, PARAMETERS)
    for record in (report(0), report(1), replace(report(2), status="stopped")):
        resumed.add(record)
    assert curve(tmp_path / "trial_0003", "validation/top1") == [(0, 40.0), (1, 41.0), (2, 42.0)]


def test_tensorboard_writes_the_epochs_before_a_checkpoint_anew(tmp_path: Path) -> None:
    first = TensorBoard(tmp_path, PARAMETERS)
    for epoch in range(4):
        first.add(report(epoch))
    resumed = TensorBoard(tmp_path, PARAMETERS)
    for record in (report(3), finished(report(4))):  # goes on from epoch 2
        resumed.add(record)
    assert curve(tmp_path / "trial_0003", "validation/top1") == [(e, 40.0 + e) for e in range(5)]


def test_tensorboard_starts_over_when_a_trial_does_within_a_session(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, PARAMETERS)
    for record in (report(0), report(1, rise=9), report(2, rise=9), report(1), finished(report(2))):
        board.add(record)
    assert curve(tmp_path / "trial_0003", "validation/top1") == [(0, 40.0), (1, 41.0), (2, 42.0)]


def test_tensorboard_takes_a_trial_that_failed_before_its_first_report(tmp_path: Path) -> None:
    TensorBoard(tmp_path, PARAMETERS).add(Record(trial=4, status="failed", reason="x"))
    events = EventAccumulator(str(tmp_path / "trial_0004"))
    events.Reload()
    assert events.Tags()["scalars"] == []


def write_study(folder: Path) -> None:
    """A study of every kind of ending, in two sessions: trial 6 is interrupted and goes on, 7 begins again."""
    board = TensorBoard(folder, PARAMETERS)
    unpruned = replace(report(0), trial=0, baseline="unpruned", status="finished", point={})
    stopped = {"status": "stopped", "metrics": PRUNED}
    ended = [
        unpruned,
        finished(report(3, replace(TRIAL, trial=1, baseline="half")), 0.6),
        finished(report(4, replace(TRIAL, trial=2), rise=10), 0.55),
        replace(report(0, replace(TRIAL, trial=3)), stopped_by="hopeless", **stopped),  # type: ignore[arg-type]
        replace(report(2, replace(TRIAL, trial=4)), stopped_by="asha", **stopped),  # type: ignore[arg-type]
        replace(report(1, replace(TRIAL, trial=5)), status="failed", reason="the stick is gone"),
    ]
    for record in ended:
        board.add(record)
    for trial in (6, 7):
        for epoch in range(4):
            board.add(report(epoch, replace(TRIAL, trial=trial), rise=8))
    board.add_study("# early", ended, TARGET)
    resumed = TensorBoard(folder, PARAMETERS)
    resumed.add(report(3, replace(TRIAL, trial=6), rise=8))
    ended += [finished(report(4, replace(TRIAL, trial=6), rise=8), 0.5)]
    resumed.add(ended[-1])
    for epoch in range(4):
        resumed.add(report(epoch, replace(TRIAL, trial=7), rise=5))
    ended += [finished(report(4, replace(TRIAL, trial=7), rise=5), 0.65)]
    resumed.add(ended[-1])
    resumed.add_study("# Study of the parts\n\n| network | top1 |\n|---|---:|\n| unpruned | 40.00 |\n", ended, TARGET)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    folder = tmp_path_factory.mktemp("board") / "tensorboard"
    write_study(folder)
    with serving(folder) as served:
        yield served


TRIALS = ["trial_0002", "trial_0003", "trial_0004", "trial_0005", "trial_0006", "trial_0007"]


def test_served_runs_sort_baselines_first_then_trials_by_number(board: Board) -> None:
    assert sorted(board.get("runs")) == ["00_unpruned", "01_half", "study", *TRIALS]


def test_served_curves_never_go_back(board: Board) -> None:
    tags = board.get("plugin/scalars/tags")
    assert set(tags) == {"01_half", "00_unpruned", *TRIALS}

    def steps(run: str, tag: str) -> list[tuple[int, float]]:
        return [(step, value) for _, step, value in board.get("plugin/scalars/scalars", run=run, tag=tag)]

    assert steps("trial_0006", "validation/top1") == [(e, 40.0 + 8 * e) for e in range(5)]
    assert steps("trial_0007", "validation/top1") == [(e, 40.0 + 5 * e) for e in range(5)]
    for run, names in tags.items():
        for tag in names:
            in_order = [step for step, _ in steps(run, tag)]
            assert in_order == sorted(set(in_order)), (run, tag)


def test_served_hparams_hold_every_metric_of_whatever_ended(board: Board) -> None:
    experiment = board.post("plugin/hparams/experiment", experimentName="")
    shown = [info["displayName"] for info in experiment["metricInfos"]]
    assert sorted(shown) == sorted(METRICS)
    assert {"top1", "latency_ratio", "latency_ms"} <= set(shown[:5])
    infos = {info["name"]: info for info in experiment["hparamInfos"]}
    assert set(infos) == {"layer_1.sparsity", "layer_2.sparsity", "layer_2.structure", "ended"}
    assert infos["layer_1.sparsity"]["domainInterval"] == {"minValue": 0.0, "maxValue": 0.9}
    assert infos["layer_2.structure"]["domainDiscrete"] == ["filters", "channels"]
    metrics = [info["name"] for info in experiment["metricInfos"]]
    groups = board.post(
        "plugin/hparams/session_groups",
        experimentName="",
        allowedStatuses=["STATUS_SUCCESS", "STATUS_FAILURE"],
        colParams=[{"hparam": name} for name in infos] + [{"metric": name} for name in metrics],
        aggregationType="AGGREGATION_AVG",
        startIndex=0,
        sliceSize=100,
    )["sessionGroups"]
    rows = {group["name"]: group for group in groups}
    assert sorted(rows) == ["00_unpruned", "01_half", *TRIALS]
    assert {name: row["hparams"]["ended"] for name, row in rows.items() if row["hparams"]["ended"] != "finished"} == {
        "trial_0003": "hopeless",
        "trial_0004": "asha",
        "trial_0005": "failed",
    }
    values = rows["trial_0006"]["hparams"]
    assert (values["layer_1.sparsity"], values["layer_2.sparsity"], values["layer_2.structure"]) == (
        0.7,
        0.25,
        "channels",
    )
    assert rows["00_unpruned"]["hparams"]["layer_1.sparsity"] == 0.0
    for name, row in rows.items():
        values = {value["name"]["tag"]: value["value"] for value in row["metricValues"]}
        assert len(values) == len(METRICS), name
    values = {value["name"]["tag"]: value["value"] for value in rows["trial_0006"]["metricValues"]}
    assert (values["validation/top1"], values["device/latency_ratio"], values["size/macs"]) == (72.0, 0.5, 2000.0)


def test_served_study_has_its_card_and_its_plots(board: Board) -> None:
    (text,) = board.get("plugin/text/text", run="study", tag="study/text_summary")
    assert "<h1>Study of the parts</h1>" in text["text"]
    assert "<td>unpruned</td>" in text["text"]
    tags = board.get("plugin/images/tags")
    assert set(tags) == {"study"}
    assert sorted(tags["study"]) == ["study/1_pareto_front", "study/2_best_so_far", "study/3_latencies"]
    for tag in tags["study"]:
        (sample,) = board.get("plugin/images/images", run="study", tag=tag, sample=0)
        picture = Image.open(io.BytesIO(board.bytes(f"plugin/images/individualImage?{sample['query']}")))
        assert picture.size == (960, 780)
        assert len(picture.convert("RGB").getcolors(10**6) or []) > 20


CHROMIUM = [
    "--headless",
    "--no-sandbox",  # CI is root in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1500,1000",
    "--virtual-time-budget=30000",
]


def screenshot(url: str, folder: Path) -> NDArray[np.int64]:
    """Look at a page in headless Chromium: [height, width, 3]."""
    file = folder / "page.png"
    command = ["chromium", *CHROMIUM, f"--user-data-dir={folder / 'profile'}", f"--screenshot={file}", url]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    return np.asarray(Image.open(file).convert("RGB")).astype(np.int64)


def near(picture: NDArray[np.int64], colour: str) -> int:
    """Count the pixels that are nearly of a colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(picture - wanted).max(axis=2) < 24).sum())


def lines_of_a_table(dark: NDArray[np.bool_], columns: int, gap: int = 40) -> int:
    """Count the lines of text that consist of at least `columns` pieces, so many pixels apart: not those of prose."""
    edges = np.flatnonzero(np.diff(dark.any(axis=1).astype(int), prepend=0, append=0))
    lines = [np.flatnonzero(dark[top:bottom].any(axis=0)) for top, bottom in zip(edges[::2], edges[1::2], strict=True)]
    return sum(int((np.diff(inked) > gap).sum()) + 1 >= columns for inked in lines)


@pytest.mark.browser
def test_browser_shows_the_plots_the_curves_and_the_hparams(board: Board, tmp_path: Path) -> None:
    """What a tab shows, below its bar and right of its list: the plots' colours, lines in run colours, rows of text."""
    images = screenshot(f"{board.url}/#images", tmp_path)[150:, 370:]
    assert near(images, "#4477aa") > 100
    assert near(images, "#cc3311") > 100
    curves = screenshot(f"{board.url}/#timeseries", tmp_path)[250:, 310:1240]
    assert int((curves.max(axis=2) - curves.min(axis=2) > 80).sum()) > 300
    rows = screenshot(f"{board.url}/#hparams", tmp_path)[180:, 310:]
    assert lines_of_a_table(rows.max(axis=2) < 120, columns=5) == 8
