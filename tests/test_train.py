import importlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import edge_tune as et
from edge_tune import train
from edge_tune.errors import RetrainingError
from edge_tune.networks import datasets, stored, training
from edge_tune.networks.evaluation import evaluate
from edge_tune.networks.weights import Pretrained
from tests.networks import experiment, small

FILE = """
import edge_tune as et
from tests.networks import experiment as make

experiment = make()
"""

NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, {width}, 3), nn.Linear({width}, num_classes)

    def forward(self, x):
        return self.fc(self.conv({forward}).mean(dim=(2, 3)))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_trained_weights_are_trained_once_and_kept() -> None:
    one, said = experiment(), list[str]()
    dataset = datasets.load(one.data, seed=0)
    first = training.trained_weights(one, dataset, said.append)
    assert [line.strip().split()[0] for line in said] == ["No", "epoch", "epoch", "val_top1", "Unpruned"]
    said.clear()
    again = training.trained_weights(one, dataset, said.append)
    assert [line.split(":")[0] for line in said] == ["Unpruned weights"]
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_trained_weights_are_those_of_whoever_trains_in_its_place() -> None:
    one, said = experiment(), list[str]()
    dataset = datasets.load(one.data, seed=0)

    def elsewhere(*asked: Any) -> bytes:
        assert asked == (one, dataset, say, None)
        return stored.to_bytes(trained)

    say, trained = said.append, small(10)
    expected = trained.state_dict()
    weights = training.trained_weights(one, dataset, say, train_by=elsewhere)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert [line.split()[0] for line in said] == ["No", "Unpruned"]


def test_weights_file_differs_by_network_data_recipe_and_seed() -> None:
    one = experiment()
    dataset = datasets.load(one.data, seed=0)
    other_data = datasets.load(replace(one.data, train_images=64), seed=0)
    files = {
        training.weights_file(one, dataset),
        training.weights_file(replace(one, model="tests.networks:Small"), dataset),
        training.weights_file(one, other_data),
        training.weights_file(replace(one, training=et.Retraining(epochs=3, lr=0.1)), dataset),
        training.weights_file(replace(one, search=et.Search("random", trials=3, seed=1)), dataset),
    }
    assert len(files) == 5
    same_but_for_retraining = replace(one, retraining=et.Retraining(epochs=9, lr=0.3), target=et.Maximise("top1"))
    assert training.weights_file(same_but_for_retraining, dataset) == training.weights_file(one, dataset)


def test_weights_file_differs_when_ones_own_network_was_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another shape, or of the same shapes and another forward: neither may have the weights trained before."""
    monkeypatch.syspath_prepend(str(tmp_path))
    dataset = datasets.load(experiment().data, seed=0)
    one = experiment(model="my_network:Net")
    texts = [
        NETWORK.format(width=4, forward="x"),
        NETWORK.format(width=8, forward="x"),
        NETWORK.format(width=4, forward="-x"),
    ]
    files = []
    for text in (*texts, texts[0]):
        (tmp_path / "my_network.py").write_text(text)
        monkeypatch.delitem(sys.modules, "my_network", raising=False)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        importlib.invalidate_caches()
        files.append(training.weights_file(one, dataset))
    assert len(set(files)) == 3
    assert files[0] == files[3]


def test_training_recipe_is_the_experiments_or_the_data_sets() -> None:
    own = et.Retraining(epochs=3, lr=0.2)
    assert training.training_recipe(experiment(training=own)) == own
    assert training.training_recipe(experiment(training=None)) == training.RECIPES["digits"]
    assert training.training_recipe(experiment(training=None, dataset="cifar10")) == training.USUAL_RECIPE


def other_classes() -> Pretrained:
    """Small's weights, with statistics of batch norm that are not the initial ones, and without its classifier."""
    torch.manual_seed(3)
    network = small(1000).train()
    with torch.no_grad():
        network(torch.randn(32, 3, 16, 16))
    body = {name: value.clone() for name, value in network.state_dict().items() if not name.startswith("fc.")}
    return Pretrained(body, ("fc.weight", "fc.bias"))


def test_new_classifier_is_trained_alone_first() -> None:
    """With no epochs of the whole network, all else stays as it was given, and does what it had learned."""
    one, said = experiment(training=et.Retraining(epochs=0, lr=0.1, decay=et.Cosine(), batch_size=32)), list[str]()
    dataset, given = datasets.load(one.data, seed=0), other_classes()
    learned = replace(one, training=et.Retraining(epochs=30, lr=0.1, decay=et.Cosine(), batch_size=32))
    body = training.trained_weights(learned, dataset, lambda line: None)
    given = replace(given, body={name: body[name] for name in given.body})
    weights = training.trained_weights(one, dataset, said.append, given)
    assert said[0] == "Training tests.networks:small with its new classifier on digits once."
    assert said[1].startswith("  the new classifier alone, 50 passes: training loss ")
    assert [line.split()[0] for line in said[2:]] == ["val_top1", "Unpruned"]
    assert weights.keys() - given.body.keys() == set(given.classifier)
    assert all(torch.equal(value, weights[name]) for name, value in given.body.items())
    with_both = [small(10), small(10)]
    for network, its in zip(with_both, (weights, body), strict=True):
        network.load_state_dict(its)
    new, old = (evaluate(network, dataset.validation).top1 for network in with_both)
    assert old > 60
    assert new > old - 15


def test_the_whole_network_is_trained_after_its_new_classifier_and_kept_by_what_was_given() -> None:
    one, said, given = experiment(), list[str](), other_classes()
    dataset = datasets.load(one.data, seed=0)
    weights = training.trained_weights(one, dataset, said.append, given)
    assert sum(line.startswith("  epoch ") for line in said) == 2
    assert not any(torch.equal(value, weights[name]) for name, value in given.body.items() if name.endswith("weight"))
    said.clear()
    assert training.trained_weights(one, dataset, said.append, given)["fc.bias"].tolist() == weights["fc.bias"].tolist()
    assert [line.split(":")[0] for line in said] == ["Unpruned weights"]
    other = Pretrained({**given.body, "stem.bias": given.body["stem.bias"] + 1}, given.classifier)
    files = {training.weights_file(one, dataset, what) for what in (None, given, other)}
    assert len(files) == 3


def test_recipe_for_other_classes_is_short_and_slow_unless_the_experiment_has_one() -> None:
    own = et.Retraining(epochs=3, lr=0.2)
    assert training.training_recipe(experiment(training=own), other_classes()) == own
    assert training.training_recipe(experiment(training=None), other_classes()) == training.FINE_TUNING


def test_new_classifier_that_diverges_is_told_of(cache: Path) -> None:
    one = experiment(training=et.Retraining(epochs=1, lr=1e38, batch_size=32))
    with pytest.raises(RetrainingError, match=r"the new classifier alone, pass \d+: the training loss must be finite"):
        training.trained_weights(one, datasets.load(one.data, seed=0), lambda line: None, other_classes())
    assert list((cache / "weights").iterdir()) == []


def test_main_trains_a_new_classifier_or_says_that_the_weights_fit(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for classes in (10, 1000):
        torch.save(small(classes).state_dict(), tmp_path / f"{classes}.pt")
        (tmp_path / f"of_{classes}.py").write_text(FILE.replace("make()", f"make(weights='{tmp_path}/{classes}.pt')"))
        assert train.main([str(tmp_path / f"of_{classes}.py")]) == 0
    _, fits, _, line, *_, last = capsys.readouterr().out.splitlines()
    assert fits == f"{tmp_path}/10.pt: these weights fit the network and its data: there is nothing to train."
    assert line.startswith("weights: 1000 classes, the data has 10: a new classifier (fc.weight, fc.bias) is trained, ")
    assert [last] == [f"Unpruned weights: {file}" for file in (cache / "weights").iterdir()]


def test_main_says_where_the_weights_are(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.py").write_text(FILE)
    assert train.main([str(tmp_path / "study.py"), "--train-images", "64", "--seed", "3"]) == 0
    (file,) = (cache / "weights").iterdir()
    assert f"Unpruned weights: {file}\n" in capsys.readouterr().out
    # What `edge_tune.run` with the same options looks for.
    asked = experiment(
        dataset=et.Data("digits", image_size=16, train_images=64), search=et.Search("random", trials=1, seed=3)
    )
    assert training.weights_file(asked, datasets.load(asked.data, seed=3)) == file
    assert train.main([str(tmp_path / "study.py"), "--seed", "-1"]) == 2
    assert "search: seed must be a whole number of at least 0, but got -1" in capsys.readouterr().err


def test_main_says_when_training_diverges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = "training=et.Retraining(epochs=1, lr=1e20, batch_size=32)"
    (tmp_path / "study.py").write_text(FILE.replace("make()", f"make({recipe})"))
    assert train.main([str(tmp_path / "study.py")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("epoch 1: the training loss must be finite, but got nan at lr 1e+20")


def test_training_that_leaves_weights_without_numbers_has_diverged(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step may spoil them after its loss was taken. Kept, they would be refused as weights that were given."""
    one = experiment()

    def retrain(network: torch.nn.Module, *arguments: object, **options: object) -> list[object]:
        network.state_dict()["block1.bn1.running_var"].fill_(torch.inf)
        return []

    monkeypatch.setattr(training, "retrain", retrain)
    sentence = r"after epoch 2: the trained weights must be finite numbers, but block1\.bn1\.running_var hold NaN or"
    with pytest.raises(RetrainingError, match=sentence):
        training.trained_weights(one, datasets.load(one.data, seed=0), lambda line: None)
    assert list((cache / "weights").iterdir()) == []


def test_main_refuses_a_network_that_could_not_be_measured(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.py").write_text(FILE.replace("make()", 'make(model="tests.networks:Pooled")'))
    assert train.main([str(tmp_path / "study.py")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("model: the network must be one that ONNX (opset 13) can hold, but torch.onnx says: ")
    assert [line.partition(":")[0] for line in said.out.splitlines()] == ["Images"]
    assert not cache.exists()


def test_main_refuses_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([str(tmp_path / "none.py")]) == 2
    (tmp_path / "study.py").write_text(FILE)
    assert train.main([str(tmp_path / "study.py"), "--data", str(tmp_path / "images")]) == 2
    missing, data = capsys.readouterr().err.splitlines()
    assert "none.py: an experiment must be a Python file" in missing
    assert "images" in data
