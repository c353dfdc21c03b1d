import pytest

from edge_tune.convert.command import from_comments, from_words


def read(words: str) -> tuple[dict[str, object], list[str]]:
    notes: list[str] = []
    found = from_words(words.split(), "sweep.yaml:3", notes)
    assert {setting.place for setting in found.values()} <= {"sweep.yaml:3"}
    assert all(note.startswith("sweep.yaml:3: ") for note in notes)
    return {name: setting.value for name, setting in found.items()}, notes


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("--arch resnet20_cifar -b 64 --wd 1e-4", {"arch": "resnet20_cifar", "batch_size": 64, "weight_decay": 1e-4}),
        ("--momentum=0.8 --learning-rate 0.4 --seed 3", {"momentum": 0.8, "lr": 0.4, "seed": 3}),
        ("time python3 compress_classifier.py -a=ResNet50 --vs=0.2", {"arch": "resnet50", "validation_fraction": 0.2}),
        ("${env} python3 ${program} --epoch=7 ${args}", {"epochs": 7}),  # argparse takes what begins as one option
        ("", {}),
    ],
)
def test_from_words_takes_distillers_options(words: str, values: dict[str, object]) -> None:
    assert read(words) == (values, [])


@pytest.mark.parametrize(
    ("words", "kept", "notes"),
    [
        (
            "--pretrained",
            {},
            ["--pretrained of the command line is not carried over: give the file or URL of the trained weights as"],
        ),
        (
            "--resume-from=best.pth.tar",
            {"weights": "best.pth.tar"},
            [
                "--resume-from=best.pth.tar becomes weights='best.pth.tar' (Distiller may go on with its epoch and "
                "optimizer too): a file with a state_dict must be there"
            ],
        ),
        (
            "--resume best.pth.tar --reset-optimizer",
            {"weights": "best.pth.tar"},
            [
                "--reset-optimizer of the command line is not carried over: EdgeTune begins at epoch 0 with a new",
                "--resume-from=best.pth.tar becomes weights='best.pth.tar': a file with a state_dict must be there",
            ],
        ),
        (
            "--vs=0",
            {},
            ["--validation-split=0 of the command line is not carried over: EdgeTune chooses by validation"],
        ),
        ("--epochs=many", {}, ["--epochs=many of the command line is not carried over: EdgeTune has none"]),
        ("--lr", {}, ["--lr of the command line is not carried over"]),
        ("--etrs=0.5", {}, ["--effective-train-size=0.5 of the command line is not carried over: set train_images"]),
        (
            "x.py ../data.imagenet --kd-teacher=resnet152",
            {},
            ["not carried over from the command line: ../data.imagenet --kd-teacher=resnet152; images that"],
        ),
        (
            "-p=50 -j 22 --gpu=0 --compress=a.yaml --name=n -v --act-stats train test",
            {},
            [
                "not carried over from the command line, and without effect on the result: --print-freq=50 "
                "--workers=22 --gpus=0 --compress=a.yaml --name=n --verbose --activation-stats=train test."
            ],
        ),
        ("--eff=1", {}, ["the command line is not carried over: ambiguous option: --eff=1 could match"]),
    ],
)
def test_from_words_notes_each_option_that_is_not_carried_over(
    words: str, kept: dict[str, object], notes: list[str]
) -> None:
    found, said = read(words)
    assert found == kept
    assert [note.removeprefix("sweep.yaml:3: ")[: len(start)] for note, start in zip(said, notes, strict=True)] == notes


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "# python3 other.py --epochs=1\n#   time python3 a.py --epochs=2 --compress=s.yaml\n"
            "# b.py --epochs=3 --compress=s.yaml\nb.py --epochs=4 --compress=s.yaml\n",
            [("epochs", 2, "s.yaml:2")],
        ),
        (
            "# Run it:\n# python3 a.py --epochs=5 \\\n#     --lr=0.5 \\\n#     --compress=s.yaml\n# --lr=1\n",
            [("epochs", 5, "s.yaml:2"), ("lr", 0.5, "s.yaml:2")],
        ),
        ('# a.py --name="two words" --epochs=6 --compress=s.yaml', [("epochs", 6, "s.yaml:1")]),
        ("# it's a.py --epochs=7 --compress=s.yaml", [("epochs", 7, "s.yaml:1")]),
        ("# a.py --epochs=8 --compress=s.yaml \\", [("epochs", 8, "s.yaml:1")]),
        ("version: 1\n", []),
    ],
)
def test_from_comments_takes_the_first_command_line_that_compresses(
    text: str, found: list[tuple[str, object, str]]
) -> None:
    settings = from_comments(text, "s.yaml", [])
    assert [(name, setting.value, setting.place) for name, setting in settings.items()] == found
