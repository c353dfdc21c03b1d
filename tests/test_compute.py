"""Where trials compute. Ray's nodes with GPUs that are none, what PyTorch then says, and, where there is one, a GPU."""

import io
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.cluster_utils import Cluster as Nodes

import edge_tune as et
from edge_tune.errors import ComputeError, ExperimentError, RetrainingError, StudyError
from edge_tune.networks import datasets, onnx_export, training
from edge_tune.networks.compute import CPU, Compute, Gpus, gpus_here, take
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.images import Split
from edge_tune.networks.retraining import retrain
from edge_tune.run import main
from edge_tune.search import cluster
from edge_tune.search.checkpoint import Checkpoint
from edge_tune.search.study import Study
from edge_tune.search.trial import Trials, run_trial
from tests.devices import Formula
from tests.networks import Small, experiment
from tests.test_trial import HALF, study_with

HAS_GPU = torch.cuda.is_available()
FAKE = et.Benchmark(device="fake")
RECIPE = et.Retraining(epochs=2, lr=0.05, batch_size=32, precision="f32", distillation=et.Distillation())


def test_no_gpu_where_one_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    # First of all here: the others share a Ray that stays.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    Path("one.py").write_text("from tests.networks import experiment as make\nexperiment = make(baselines={})\n")
    assert main(["one.py", "--gpus-per-trial=0.3", "--results=out"]) == 2
    assert "gpus_per_trial must be 0, 1, a fraction 1/n for n trials on each GPU, or None, but got 0.3" in (
        capsys.readouterr().err
    )
    assert main(["one.py", "--gpus-per-trial=1e-320", "--results=out"]) == 2
    assert "gpus_per_trial must be 0, 1, a fraction 1/n" in capsys.readouterr().err
    if HAS_GPU:
        return
    assert main(["one.py", "--gpus-per-trial=1", "--results=out"]) == 2
    assert "search: gpus_per_trial must be 0 where no node offers a GPU to Ray, but got 1; give 0, or join a node" in (
        capsys.readouterr().err
    )
    assert not Path("out").exists()


@pytest.fixture(scope="module")
def here() -> Iterator[cluster.Cluster]:
    """A head that trains nothing, a trainer with two GPUs that are none, a trainer without."""
    with pytest.MonkeyPatch.context() as patch:
        there: Any = Nodes(initialize_head=True, head_node_args={"num_cpus": 0})
        there.add_node(num_cpus=6, num_gpus=2)
        there.add_node(num_cpus=3)
        patch.setenv("RAY_ADDRESS", there.address)
        with cluster.joined(FAKE) as joined:
            yield joined
        there.shutdown()


@pytest.mark.parametrize(("asked", "at_once"), [(0.0, 9), (1.0, 2), (0.5, 4), (0.34, 6), (0.25, 6)])
def test_as_many_trials_run_as_gpus_and_cpus_have_room_for(here: cluster.Cluster, asked: float, at_once: int) -> None:
    assert {node.gpus for node in here.nodes} == {0, 2}
    assert here.trials_at_once(1, asked) == at_once


@pytest.mark.skipif(HAS_GPU, reason="PyTorch sees a GPU here")
def test_gpus_that_pytorch_does_not_see_are_told_of_and_refused_where_they_are_asked_for(here: cluster.Cluster) -> None:
    said: list[str] = []
    assert here.gpus_per_trial(None, said.append) == 0
    assert here.gpus_per_trial(0, said.append) == 0
    problem = (
        r"node \S+: offers 2 GPUs, but PyTorch \S+ (is built without CUDA|sees none \(is there a driver for it\?\))"
    )
    assert [line.endswith("So trials compute on CPUs.") for line in said] == [True, False]
    with pytest.raises(ExperimentError, match=rf"{problem}; mend that, take it out of the cluster, or give gpus_per_"):
        here.gpus_per_trial(0.5, said.append)


def test_only_the_gpus_that_a_node_offers_must_be_usable(
    monkeypatch: pytest.MonkeyPatch, here: cluster.Cluster
) -> None:
    def asked(*further: str | None) -> float:
        seen = Gpus(("NVIDIA H200",) * 3, None, shared=True, further=further)
        monkeypatch.setattr(
            cluster.Cluster, "on_each_node", lambda self, _, ends: [(node, seen) for node in self.nodes]
        )
        return here.gpus_per_trial(None, said.append)

    said: list[str] = []
    assert asked(None, "PyTorch cannot use GT 710") == 1  # Ray gives the first two to trials
    assert asked("PyTorch cannot use GT 710", None) == 0
    assert said[-1].endswith("offers 2 GPUs, but PyTorch cannot use GT 710. So trials compute on CPUs.")


def test_the_first_lines_say_what_each_trial_gets(monkeypatch: pytest.MonkeyPatch, here: cluster.Cluster) -> None:
    seen = Gpus(("NVIDIA H200", "NVIDIA H200"), None, shared=False)
    monkeypatch.setattr(cluster.Cluster, "on_each_node", lambda self, _, ends: [(node, seen) for node in self.nodes])
    said: list[str] = []
    assert here.gpus_per_trial(None, said.append) == 1
    assert here.gpus_per_trial(0.5, said.append) == 0.5
    host = here.nodes[0].host
    assert said[0] == (f"1 trial on each of 2 GPUs of {host} (NVIDIA H200); none on {host}, {host}, without GPUs.")
    assert "2 trials on each of 2 GPUs" in said[1]
    assert "without MPS: they take turns (docs/cluster.md)" in said[1]


def test_ray_gives_a_trial_its_share_of_a_gpu(here: cluster.Cluster) -> None:
    @ray.remote(num_cpus=1, num_gpus=0.5)
    def visible() -> str:
        return os.environ["CUDA_VISIBLE_DEVICES"]

    assert ray.get(visible.remote()) in ("0", "1")


def test_network_without_weights_is_trained_where_trials_are(here: cluster.Cluster) -> None:
    def train(word: str, say: Callable[[str], None]) -> bytes:
        say(f"GPU {os.environ['CUDA_VISIBLE_DEVICES']}")
        say("epoch 1")
        return word.encode()

    said: list[str] = []
    assert here.as_a_trial(1, 0.5, train, "weights", say=said.append) == b"weights"
    assert said in (["GPU 0", "epoch 1"], ["GPU 1", "epoch 1"])


def test_training_that_fails_elsewhere_fails_here(here: cluster.Cluster) -> None:
    def diverge(say: Callable[[str], None]) -> bytes:
        say("epoch 1")
        raise RetrainingError("epoch 1: the training loss must be finite")

    def die(say: Callable[[str], None]) -> bytes:
        os._exit(1)

    said: list[str] = []
    with pytest.raises(RetrainingError, match="epoch 1: the training loss must be finite"):
        here.as_a_trial(1, 0.5, diverge, say=said.append)
    assert said == ["epoch 1"]
    with pytest.raises(StudyError, match=r"a process on another node was lost: .*; run the study again\."):
        here.as_a_trial(1, 0.5, die, say=said.append)


@pytest.mark.skipif(HAS_GPU, reason="PyTorch sees a GPU here")
def test_training_on_a_gpu_that_pytorch_does_not_see_is_a_sentence(here: cluster.Cluster) -> None:
    dataset = datasets.load(experiment().data, seed=0)
    with pytest.raises(ComputeError, match=r"gpus_per_trial is 0.5, but PyTorch \S+ (is built|sees none)"):
        here.as_a_trial(1, 0.5, training.train_with, 1, 0.5, experiment(), dataset, None, say=lambda line: None)


@pytest.mark.parametrize("value", [0, 1, 0.5, 0.25, 0.33, 0.1, None])
def test_shares_of_a_gpu(value: float | None) -> None:
    assert list(et.Search("random", trials=1, gpus_per_trial=value).problems()) == []


@pytest.mark.parametrize("value", [-1, 2, 0.7, 0.4, "half", True])
def test_no_shares_of_a_gpu(value: Any) -> None:
    (problem,) = et.Search("random", trials=1, gpus_per_trial=value).problems()
    assert problem.endswith(f"but got {value!r}.")


def test_process_without_gpus_sees_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert take(torch.get_num_threads(), 0) == CPU
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.skipif(HAS_GPU, reason="PyTorch sees a GPU here")
def test_process_that_was_given_a_gpu_that_pytorch_does_not_see() -> None:
    with pytest.raises(ComputeError, match=r"gpus_per_trial is 0.5, but PyTorch \S+ (is built|sees none)"):
        take(torch.get_num_threads(), 0.5)
    assert gpus_here().names == ()


@pytest.mark.skipif(HAS_GPU, reason="PyTorch sees a GPU here")
def test_a_driver_that_is_too_old_is_the_reason_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's library counts a GPU that CUDA's runtime then refuses."""

    said: list[str] = []

    def refused() -> bool:
        if not said:  # CUDA's runtime says it once in a process
            said.append("CUDA initialization: The NVIDIA driver on your system is too old (found 12020).")
            warnings.warn(said[0], stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", refused)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = gpus_here()
    assert found.names == ("GPU 0",)
    assert found.problem_of(1) == f"PyTorch {torch.__version__} sees none ({said[0]})"


@pytest.mark.parametrize(
    ("share", "held", "fits"), [(1.0, 0, True), (0.5, 0, True), (0.25, 0, False), (0.5, 10, False)]
)
def test_images_must_fit_in_the_share_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, share: float, held: int, fits: bool
) -> None:
    gib, asked = 2**30, []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (79 * gib, 80 * gib))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: share)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: held * gib)
    monkeypatch.setattr(Split, "bytes", 16 * gib)
    monkeypatch.setattr(Split, "on", lambda self, device, *, resident: asked.append((device, resident)))
    Compute("cuda").images(Split(np.zeros((1, 3, 2, 2), np.uint8), np.zeros(1, np.int64)))
    assert asked == [("cuda", fits)]


class OutOfMemory(Small):
    """Takes more memory than there is, in one kind of pass."""

    when = "training"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        now = "classifying" if not self.training else "training" if torch.is_grad_enabled() else "statistics"
        if now == self.when:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nAnd more.")
        return super().forward(images)


@pytest.mark.parametrize(
    ("when", "sentence"),
    [
        ("training", "retraining: must fit in the GPU's memory, .* 2 GiB; lower retraining.batch_size, or give each"),
        (
            "statistics",
            "estimating batch-norm statistics: must fit .*; lower retraining.batch_size, or give",
        ),
        ("classifying", "classifying: must fit in the GPU's memory, but got: .* 2 GiB; give each trial a larger share"),
    ],
)
def test_whatever_takes_too_much_memory_says_what_to_change(
    monkeypatch: pytest.MonkeyPatch, when: str, sentence: str
) -> None:
    monkeypatch.setattr(OutOfMemory, "when", when)
    dataset = datasets.load(experiment().data, seed=0)
    network, recipe = OutOfMemory(10), replace(RECIPE, distillation=None, epochs=1)

    def compute() -> None:
        list(retrain(network, dataset.train, recipe, augmentation=None, seed=0))
        evaluate(network, dataset.validation)

    with pytest.raises(ComputeError, match=sentence):
        compute()


def test_optimiser_and_average_that_take_too_much_memory_are_a_sentence_in_a_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_large(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    one = study_with(retraining=replace(RECIPE, distillation=None, average=et.Ema(0.9)))
    monkeypatch.setattr("edge_tune.networks.retraining.Average", too_large)
    with pytest.raises(ComputeError, match="retraining: must fit in the GPU's memory"):
        list(run_trial(one, HALF, Formula(), epochs=1, trial=7))


def test_loss_that_takes_too_much_memory_is_no_fault_of_the_loss() -> None:
    recipe = replace(RECIPE, distillation=None, loss="tests.test_compute:too_large_loss")
    dataset = datasets.load(experiment().data, seed=0)
    with pytest.raises(ComputeError, match="retraining: must fit in the GPU's memory"):
        list(retrain(Small(10), dataset.train, recipe, augmentation=None, seed=0))


def too_large_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_process_that_computed_on_a_gpu_ends(here: cluster.Cluster) -> None:
    """It would keep that GPU's memory."""

    def process(say: Callable[[str], None] | None = None) -> int:
        return os.getpid()

    there = here.as_a_trial(1, 0.5, process, say=lambda line: None)
    asked = [found for _, found in here.on_each_node(process, ends=True)]
    deadline = time.monotonic() + 30
    while alive := [one for one in (there, *asked) if Path(f"/proc/{one}").exists()]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)


def test_record_says_what_computed_it() -> None:
    reports = list(Trials(study_with()).begin(HALF, Formula(), trial=3, baseline=None, checkpoint=None))
    computed = reports[-1].record.compute
    assert computed is not None
    assert (computed.device, computed.precision, computed.varies) == ("cpu", "f32", None)
    assert all(entry.images_per_s for entry in reports[-1].record.curve)
    assert [entry.steps_ran for entry in reports[-1].record.curve] == [None, None]


@pytest.mark.cuda
@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU that PyTorch can use")
def test_gpu_and_cpu_compute_the_same_but_for_rounding() -> None:
    gpu, dataset = Compute("cuda"), datasets.load(experiment().data, seed=0)
    found = []
    for compute in (CPU, gpu):
        torch.manual_seed(0)
        network, teacher = Small(10), Small(10)
        images = compute.images(dataset.train)
        epochs = list(
            retrain(
                network, images, RECIPE, augmentation=dataset.augmentation, seed=0, teacher=teacher, compute=compute
            )
        )
        found.append((network, epochs, evaluate(network, compute.images(dataset.validation), compute=compute)))
    (on_cpu, cpu_epochs, cpu_says), (on_gpu, gpu_epochs, gpu_says) = found
    assert [next(one.parameters()).device.type for one in (on_cpu, on_gpu)] == ["cpu", "cuda"]
    for one, other in zip(cpu_epochs, gpu_epochs, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-2)
    assert {epoch.steps_ran for epoch in gpu_epochs} == {"captured"}
    assert cpu_says.loss == pytest.approx(gpu_says.loss, rel=2e-2)
    assert evaluate(on_gpu.cpu(), dataset.validation).loss == pytest.approx(gpu_says.loss, rel=1e-4)


def on_gpu(one: Study) -> Study:
    """Return a study whose images come to the GPU."""
    return replace(one, train=one.train.on("cuda", resident=True), validation=one.validation.on("cuda", resident=True))


@pytest.mark.cuda
@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU that PyTorch can use")
def test_what_a_gpu_made_is_stored_exported_and_resumed_on_a_cpu() -> None:
    gpu, here = Compute("cuda"), study_with(retraining=replace(RECIPE, distillation=None, average=et.Ema(0.9)))
    one = on_gpu(here)
    reports = list(run_trial(one, HALF, Formula(), epochs=2, trial=7, compute=gpu))
    assert reports[-1].record.compute is not None
    assert reports[-1].record.compute.device == "cuda"
    assert reports[-1].record.compute.varies == "cuDNN adds in an order that differs from run to run"
    checkpoint = next(report.checkpoint for report in reports if report.checkpoint)
    assert all(value.device.type == "cpu" for value in Checkpoint.from_bytes(checkpoint).weights.values())
    resumed = list(run_trial(here, HALF, Formula(), epochs=2, trial=7, checkpoint=checkpoint, compute=CPU))
    assert resumed[-1].record.status == "finished"
    network = gpu.network(Small(10))
    exported = onnx_export.to_onnx(network, (3, 16, 16))
    assert next(network.parameters()).device.type == "cuda"
    assert exported == onnx_export.to_onnx(network.cpu(), (3, 16, 16))


@pytest.mark.cuda
@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU that PyTorch can use")
def test_network_without_weights_is_trained_on_a_gpu() -> None:
    said: list[str] = []
    dataset = datasets.load(experiment().data, seed=0)
    content = training.train(experiment(), dataset, said.append, None, Compute("cuda"))
    weights = torch.load(io.BytesIO(content), weights_only=True)
    assert all(value.device.type == "cpu" for value in weights.values())
    assert said[-1].startswith("  val_top1 ")


@pytest.mark.cuda
@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU that PyTorch can use")
def test_memory_does_not_grow_over_trials() -> None:
    gpu, one = Compute("cuda"), on_gpu(study_with())
    used = []
    for trial in range(1, 51):
        list(run_trial(one, HALF, Formula(), epochs=1, trial=trial, compute=gpu))
        used.append(torch.cuda.memory_allocated())
    assert max(used[5:]) <= used[5] * 1.05 + 2**20


@pytest.mark.cuda
@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU that PyTorch can use")
def test_too_little_memory_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, dataset = Compute("cuda"), datasets.load(experiment().data, seed=0)
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        recipe = replace(RECIPE, distillation=None, batch_size=128)
        network = gpu.network(Small(10))
        images = dataset.train.on("cuda", resident=False)
        with pytest.raises(ComputeError, match=r"retraining: must fit in the GPU's memory, .* lower retraining.batch_"):
            list(retrain(network, images, recipe, augmentation=None, seed=0, compute=gpu))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
