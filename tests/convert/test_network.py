import pytest

import edge_tune as et
from edge_tune.convert import network
from edge_tune.convert.reading import read_yaml
from edge_tune.errors import ExperimentError
from tests.convert.files import HERE


def test_network_is_that_of_the_extension_that_thins_it() -> None:
    notes: list[str] = []
    found = network.read_network(read_yaml(HERE / "gradual.yaml"), notes)
    assert {name: (setting.value, setting.place) for name, setting in found.items()} == {
        "arch": ("resnet20_cifar", "gradual.yaml:64"),
        "dataset": ("cifar10", "gradual.yaml:64"),
    }
    (teacher,) = notes
    assert teacher.startswith(
        "gradual.yaml:62: extension 'teacher' of class 'KnowledgeDistillation' is not carried over"
    )


@pytest.mark.parametrize(
    ("arch", "dataset"),
    [("resnet20_cifar", "cifar10"), ("simplenet_mnist", "mnist"), ("vgg19", "imagenet"), ("resnet50", "imagenet")],
)
def test_usual_dataset_is_distillers(arch: str, dataset: str) -> None:
    assert network.usual_dataset(arch) == dataset


@pytest.mark.parametrize("arch", ["resnet56_cifar", "vgg19", "resnet50"])
def test_network_that_is_at_hand_is_not_noted(arch: str) -> None:
    notes: list[str] = []
    network.check_arch(arch, "a.yaml:3", notes)
    assert notes == []


@pytest.mark.parametrize("arch", ["vgg16_cifar", "preact_resnet18", "mobilenet", "resnet1202_cifar"])
def test_network_that_is_not_at_hand_is_noted(arch: str) -> None:
    notes: list[str] = []
    network.check_arch(arch, "a.yaml:3", notes)
    assert notes == [
        f"a.yaml:3: network '{arch}' is none that EdgeTune has by name; write model='package.module:function' in the "
        f"file, for a function that returns it."
    ]


def test_network_that_would_be_imported_is_refused() -> None:
    with pytest.raises(ExperimentError, match=r"a.yaml:3: arch must be a network's name, .* but got 'os:system'; name"):
        network.check_arch("os:system", "a.yaml:3", [])


@pytest.mark.parametrize(
    ("values", "images", "note"),
    [
        ({"dataset": "cifar10"}, "cifar10", None),
        ({"dataset": "cifar10", "validation_fraction": 0.2}, et.Data("cifar10", validation_fraction=0.2), None),
        ({"dataset": "imagenet"}, et.Data("imagenet", image_size=224), "224 x 224 pixels, as Distiller cuts them to."),
        ({"dataset": "mnist"}, et.Data("mnist", image_size=28), "28 x 28 pixels, as Distiller cuts them to."),
        ({"dataset": "birds"}, "birds", "32 x 32 pixels, the usual, since their size is not known here."),
    ],
)
def test_images_have_the_size_that_distiller_gives_them(
    values: dict[str, object], images: str | et.Data, note: str | None
) -> None:
    notes: list[str] = []
    assert network.read_images(values, "a.yaml:3", notes) == images
    assert len(notes) == (note is not None)
    assert note is None or notes[0].startswith(f"a.yaml:3: {values['dataset']!r} is not at hand: give a folder")
    assert note is None or notes[0].endswith(note)
