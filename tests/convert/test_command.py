from pathlib import Path

import pytest

from edge_tune.convert.command import from_comments, from_words


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (
            "compress_classifier.py -a=resnet56_cifar -p=50 ../data --epochs=70 --lr=0.1 --compress=x.yaml -j=1",
            {"arch": "resnet56_cifar", "epochs": 70, "lr": 0.1},
        ),
        (
            "--arch resnet20_cifar -b 64 --wd 1e-4 --momentum=0.8 --learning-rate 0.4 --seed 3",
            {"arch": "resnet20_cifar", "batch_size": 64, "weight_decay": 1e-4, "momentum": 0.8, "lr": 0.4, "seed": 3},
        ),
        ("${env} python3 --epochs ${args.epochs} --lr", {}),
    ],
)
def test_from_words_takes_distillers_options(words: str, values: dict[str, object]) -> None:
    found = from_words(words.split(), "sweep.yaml:3")
    assert {name: setting.value for name, setting in found.items()} == values
    assert {setting.place for setting in found.values()} <= {"sweep.yaml:3"}


def test_from_comments_takes_the_first_command_line_that_compresses(tmp_path: Path) -> None:
    file = tmp_path / "schedule.yaml"
    file.write_text(
        "# python3 other.py --epochs=1\n#   time python3 a.py --epochs=2 --compress=s.yaml\n"
        "# b.py --epochs=3 --compress=s.yaml\nb.py --epochs=4 --compress=s.yaml\n"
    )
    found = from_comments(file)
    assert [(name, setting.value, setting.place) for name, setting in found.items()] == [
        ("epochs", 2, "schedule.yaml:2")
    ]
    file.write_text("version: 1\n")
    assert from_comments(file) == {}
