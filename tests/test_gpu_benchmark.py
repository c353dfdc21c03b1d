"""benchmarks/gpu.py, as far as a host without a GPU can tell."""

from pathlib import Path
from queue import SimpleQueue
from threading import Barrier
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import Amount
from edge_tune.networks.compute import CPU, Gpus
from tests.networks import Small, write_image_folder

TINY = Amount(train=160, validation=64, epochs=1, trials=6, processes=())


@pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch sees a GPU here")
def test_main_without_a_gpu_is_a_sentence(capsys: Any) -> None:
    assert gpu.main(["--quick"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("benchmarks.gpu: a GPU is needed that PyTorch can use, but PyTorch ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("on_folder", [False, True])
def test_main_prints_a_table(on_folder: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    """On this CPU in the place of a GPU, and a small network."""
    monkeypatch.setattr(gpu, "gpus_here", lambda: Gpus(("made up",), None, shared=False))
    monkeypatch.setattr(gpu, "take", lambda threads, gpus: CPU)
    monkeypatch.setattr(gpu, "QUICK", TINY)
    monkeypatch.setattr(gpu, "network", lambda images, depth=56: Small(images.num_classes))
    data = ["--data", str(write_image_folder(tmp_path, images=20))] if on_folder else []
    assert gpu.main(["--quick", *data]) == 0
    first, empty, *rows = capsys.readouterr().out.splitlines()
    assert "MPS off; ResNet-56, batch 128, 160 images, n = 1 epoch after a first one" in first
    assert empty == ""
    assert {row.count("|") for row in rows} == {5}
    named = [row.split(" | ")[0].removeprefix("| ") for row in rows[2:]]
    assert named[:4] == ["one trial, f32"] * 2 + ["one trial, bf16"] * 2
    assert named[-2:] == ["classify 64 images, f32", "memory after each of 6 trials in one process"]


def test_main_refuses_a_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(gpu, "gpus_here", lambda: Gpus(("made up",), None, shared=False))
    assert gpu.main(["--data", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_trial_in_a_process_of_its_own_waits_for_the_others_after_its_first_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu, "take", lambda threads, gpus: CPU)
    monkeypatch.setattr(gpu, "network", lambda images, depth=56: Small(images.num_classes))
    waited, answers = Barrier(1), SimpleQueue[Any]()
    gpu._trial(waited, answers, None, TINY, 0.25)  # type: ignore[arg-type]
    images, began, ended, ran = answers.get()
    assert (images, ran) == (160, None)
    assert began < ended
    waited.abort()
    gpu._trial(waited, answers, None, TINY, 0.25)  # type: ignore[arg-type]
    assert answers.get().startswith("failed: BrokenBarrierError")


def test_speed_leaves_the_first_epoch_out() -> None:
    epochs = [
        gpu.Epoch(number, 0.1, 1.0, seconds, 600 / seconds) for number, seconds in ((1, 60.0), (2, 2.0), (3, 4.0))
    ]
    assert gpu.speed(epochs) == pytest.approx(200.0)
