import os
import pickle
import zipfile
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

from edge_tune.errors import ExperimentError
from edge_tune.experiment import MEAN, STD, Data
from edge_tune.networks import datasets
from edge_tune.networks.datasets import cache_folder, load
from edge_tune.networks.images import (
    LEAST_AREA,
    MOST_STRETCHED,
    Augmentation,
    Normalisation,
    Split,
    _bilinear,
    _through_floats,
)

SIZE = 8


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path_factory.mktemp("cache")))


def numbered(count: int, *, classes: int = 2, size: int = SIZE) -> Split:
    """Images of one colour, which is their own number."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 3, size, size)).copy()
    return Split(images, np.arange(count) % classes)


def numbers(images: torch.Tensor) -> list[int]:
    """Undo the normalisation of images from `numbered`, unless they were padded."""
    return (images[:, 0, SIZE // 2, SIZE // 2] * STD[0] + MEAN[0]).mul(255).round().int().tolist()


def write_image(path: Path, value: int = 0, *, mode: str = "RGB", size: tuple[int, int] = (SIZE, SIZE)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (value,) * len(mode) if len(mode) > 1 else value).save(path)


def write_folder(root: Path, train: Mapping[str, int], test: Mapping[str, int] | None = None) -> Path:
    """Write so many images of each class; each has a colour of its own within its part."""
    for part, counts in (("train", train), ("test", test or dict.fromkeys(train, 2))):
        names = [f"{part}/{name}/{index:03}.png" for name, count in counts.items() for index in range(count)]
        for value, name in enumerate(names):
            write_image(root / name, value)
    return root


def folder_data(root: Path, **settings: object) -> Data:
    return Data(str(root), **{"image_size": SIZE, "validation_fraction": 0.25, **settings})


def colours(split: Split) -> set[int]:
    return set(split.images[:, 0, 0, 0].tolist())


# Split.batches


def test_batches_normalises_each_channel_when_checked_by_hand():
    images = np.zeros((1, 3, 1, 2), dtype=np.uint8)
    images[0, :, 0, 1] = (255, 51, 102)

    ((batch, labels),) = Split(images, np.array([7])).batches(4)

    black = [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    bright = [(1.0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (0.4 - 0.406) / 0.225]
    assert batch.dtype == torch.float32
    assert batch[0, :, 0, 0].tolist() == pytest.approx(black, abs=1e-6)
    assert batch[0, :, 0, 1].tolist() == pytest.approx(bright, abs=1e-6)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [7]


def test_batches_normalises_by_the_numbers_that_are_given():
    images = np.full((1, 3, 1, 1), 51, dtype=np.uint8)
    how = Normalisation(mean=(0.0, 0.1, 1.0), std=(0.5, 0.1, 1.0))

    ((batch, _),) = Split(images, np.array([0]), normalisation=how).batches(1)

    assert batch.flatten().tolist() == pytest.approx([0.4, 1.0, -0.8], abs=1e-6)


def test_batches_keeps_the_order_and_every_image_without_a_seed():
    batches = list(numbered(9).batches(4))

    assert [numbers(images) for images, _ in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert [labels.tolist() for _, labels in batches] == [[0, 1, 0, 1], [0, 1, 0, 1], [0]]


def test_batches_shuffles_images_together_with_their_labels():
    batches = list(numbered(100).batches(32, seed=3))

    seen = [number for images, _ in batches for number in numbers(images)]
    assert sorted(seen) == list(range(100))
    assert seen != list(range(100))
    assert [label for _, labels in batches for label in labels.tolist()] == [number % 2 for number in seen]


def test_batches_repeats_itself_with_the_same_seed_only():
    split, augment = numbered(50), Augmentation(padding=2, horizontal_flip=True)

    def pixels(seed: int) -> torch.Tensor:
        return torch.cat([images for images, _ in split.batches(16, augment=augment, seed=seed)])

    assert torch.equal(pixels(1), pixels(1))
    assert not torch.equal(pixels(1), pixels(2))


def test_batches_leaves_the_global_generators_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()

    list(numbered(10).batches(4, augment=Augmentation(1, True), seed=0))

    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


@pytest.mark.parametrize(("count", "batch_size", "sizes"), [(9, 4, [4, 4]), (10, 4, [4, 4, 2]), (3, 1, [1, 1, 1])])
def test_batches_drops_a_last_batch_of_one_when_shuffling(count, batch_size, sizes):
    assert [len(labels) for _, labels in numbered(count).batches(batch_size, seed=0)] == sizes


def test_batches_reads_arrays_that_are_read_only():
    split = numbered(6)
    split.images.setflags(write=False)
    split.labels.setflags(write=False)

    for seed in (None, 0):
        for images, labels in split.batches(4, seed=seed):
            images.zero_()
            labels.zero_()

    assert colours(split) == set(range(6))


def test_what_resizes_on_a_gpu_makes_the_bytes_that_a_cpu_makes_but_for_one_level() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 24, 24), dtype=np.uint8))
    for size in ((9, 9), (16, 24), (32, 32)):
        floats, bytes_ = _through_floats(pixels, size), _bilinear(pixels, size)
        assert floats.dtype == bytes_.dtype == torch.uint8
        assert (floats.int() - bytes_.int()).abs().max() <= 1
        assert floats.max() > 128


def test_batches_resizes_to_the_image_size_when_the_array_has_another():
    split = replace(numbered(3, size=4), size=(SIZE, SIZE))

    ((images, _),) = split.batches(3)

    assert images.shape == (3, 3, SIZE, SIZE)
    assert numbers(images) == [0, 1, 2]


# Augmentation


def test_augmentation_returns_one_of_the_crops_of_the_padded_image():
    count, height, width, padding = 64, 4, 3, 2
    pixels = torch.randint(1, 256, (count, 3, height, width), dtype=torch.uint8)

    augment = Augmentation(padding, horizontal_flip=False)
    augmented = augment(pixels, *augment.draw(len(pixels), torch.Generator().manual_seed(0)))

    padded = np.pad(pixels.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    offsets = Counter()
    for image, result in zip(padded, augmented.numpy(), strict=True):
        crops = {
            (down, right)
            for down in range(2 * padding + 1)
            for right in range(2 * padding + 1)
            if np.array_equal(image[:, down : down + height, right : right + width], result)
        }
        assert len(crops) == 1
        offsets.update(crops)
    # 64 draws of 25 equally likely offsets miss more than half of them with a probability below 1e-9.
    assert len(offsets) > 12


def test_augmentation_mirrors_about_half_of_the_images():
    count = 400
    pixels = torch.arange(5, dtype=torch.uint8).expand(count, 3, 5, 5).contiguous()

    augment = Augmentation(0, horizontal_flip=True)
    augmented = augment(pixels, *augment.draw(len(pixels), torch.Generator().manual_seed(0)))

    mirrored = sum(image[0, 0].tolist() == [4, 3, 2, 1, 0] for image in augmented)
    kept = sum(image[0, 0].tolist() == [0, 1, 2, 3, 4] for image in augmented)
    assert mirrored + kept == count
    assert abs(mirrored - count / 2) < 50  # 5 standard deviations of 10


def test_augmentation_enlarges_parts_of_images_that_no_crop_leaves():
    count, height, width = 200, 32, 48
    down, right = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([down, right, right]).to(torch.uint8).expand(count, 3, height, width)

    augment = Augmentation(None, horizontal_flip=False)
    augmented = augment(pixels, *augment.draw(count, torch.Generator().manual_seed(0)))

    assert augmented.shape == pixels.shape
    areas = []
    for image in augmented:
        # Where an image's values are its places, those of a part rise by its share; the outermost are cut off.
        shares = (image[0, -2, 5] - image[0, 1, 5]) / (height - 3), (image[1, 5, -2] - image[1, 5, 1]) / (width - 3)
        starts = [image[0, 1, 5] - 1.5 * shares[0] + 0.5, image[1, 5, 1] - 1.5 * shares[1] + 0.5]
        for start, share, side in zip(starts, shares, (height, width), strict=True):
            assert start > -1e-3
            assert start + share * side < side + 1e-3
        areas.append(shares[0] * shares[1])
        stretched = max(shares[0] / shares[1], shares[1] / shares[0])
        assert stretched < MOST_STRETCHED + 1e-3
    # Of 200 areas that are equally likely, none in the last twentieth of either side has a probability of 3e-5.
    share = (1 - LEAST_AREA) / 20
    assert LEAST_AREA - 1e-3 < min(areas) < LEAST_AREA + share
    assert 1 - 2 * share < max(areas) < 1 + 1e-3


def test_augmentation_is_what_is_asked_for():
    asked = {
        (): Augmentation(0, False),
        ("flip",): Augmentation(0, True),
        ("crop",): Augmentation(2, False),
        ("flip", "resized_crop"): Augmentation(None, True),
    }
    for kinds, augmentation in asked.items():
        assert load(Data("digits", image_size=(16, 24), augmentation=kinds), seed=0).augmentation == augmentation
    pixels = torch.randint(256, (4, 3, 5, 6), dtype=torch.uint8)
    assert torch.equal(asked[()](pixels, *asked[()].draw(4, torch.Generator())), pixels)


# load: division into splits


def test_load_divides_each_class_by_the_fraction_and_keeps_the_parts_apart(tmp_path):
    dataset = load(folder_data(write_folder(tmp_path, {"a": 40, "b": 20, "c": 8})), seed=0)

    assert dataset.classes == ("a", "b", "c")
    assert dataset.num_classes == 3
    assert dataset.input_shape == (3, SIZE, SIZE)
    assert Counter(dataset.validation.labels.tolist()) == {0: 10, 1: 5, 2: 2}
    assert Counter(dataset.train.labels.tolist()) == {0: 30, 1: 15, 2: 6}
    assert colours(dataset.train) | colours(dataset.validation) == set(range(68))
    assert not colours(dataset.train) & colours(dataset.validation)


def test_load_gives_every_class_a_validation_image_when_the_fraction_is_tiny(tmp_path):
    dataset = load(folder_data(write_folder(tmp_path, {"a": 2, "b": 9}), validation_fraction=0.01), seed=0)

    assert Counter(dataset.validation.labels.tolist()) == {0: 1, 1: 1}


def test_load_keeps_images_with_their_labels(tmp_path):
    dataset = load(folder_data(write_folder(tmp_path, {"a": 10, "b": 10})), seed=5)

    for split in (dataset.train, dataset.validation):
        assert (split.labels == (split.images[:, 0, 0, 0] >= 10)).all()


@pytest.mark.parametrize(("train_images", "counts"), [(21, {0: 14, 1: 7}), (3, {0: 2, 1: 1}), (2, {0: 1, 1: 1})])
def test_load_limits_the_training_images_by_the_same_share_of_each_class(tmp_path, train_images, counts):
    root = write_folder(tmp_path, {"a": 40, "b": 20})
    dataset = load(folder_data(root, train_images=train_images), seed=0)
    everything = load(folder_data(root), seed=0)

    assert Counter(dataset.train.labels.tolist()) == counts
    assert colours(dataset.train) <= colours(everything.train)
    assert colours(dataset.validation) == colours(everything.validation)


def test_load_depends_on_the_seed(tmp_path):
    root = write_folder(tmp_path, {"a": 20, "b": 20})

    first, same, other = (load(folder_data(root), seed=seed) for seed in (1, 1, 2))

    assert np.array_equal(first.train.images, same.train.images)
    assert first.digest == same.digest
    assert colours(first.validation) != colours(other.validation)
    assert first.digest != other.digest
    assert np.array_equal(first.test.images, other.test.images)


def test_load_does_not_depend_on_the_order_of_the_file_system(tmp_path, monkeypatch):
    root = write_folder(tmp_path, {"a": 20, "b": 20})
    scan = os.scandir

    digests = set()
    for is_reverse in (False, True):

        def scandir(path, is_reverse=is_reverse):
            with scan(path) as entries:
                return nullcontext(sorted(entries, key=lambda entry: entry.name, reverse=is_reverse))

        monkeypatch.setattr(os, "scandir", scandir)
        digests.add(load(folder_data(root), seed=1).digest)

    assert len(digests) == 1


def test_load_has_another_digest_when_one_pixel_changed(tmp_path):
    root = write_folder(tmp_path, {"a": 4, "b": 4})
    before = load(folder_data(root), seed=0).digest

    image = Image.open(root / "train/b/001.png")
    image.putpixel((3, 3), (9, 9, 9))
    image.save(root / "train/b/001.png")

    assert load(folder_data(root), seed=0).digest != before


@pytest.mark.parametrize("limit", [0, datasets.MEMORY_LIMIT_BYTES])
def test_load_has_the_same_digest_when_the_test_changed(tmp_path, monkeypatch, limit):
    """So that a study can be resumed when a damaged image of the test was replaced or removed."""
    monkeypatch.setattr(datasets, "MEMORY_LIMIT_BYTES", limit)
    root = write_folder(tmp_path, {"a": 4, "b": 4})
    before = load(folder_data(root), seed=0).digest

    write_image(root / "test/a/000.png", 99, size=(64, 64))
    (root / "test/b/001.png").unlink()

    assert load(folder_data(root), seed=0).digest == before


def test_load_has_another_digest_when_one_label_changed(tmp_path):
    digests = set()
    for name, counts in (("even", {"a": 4, "b": 4}), ("odd", {"a": 3, "b": 5})):
        write_folder(tmp_path / name, counts, test={"a": 1, "b": 1})
        for path in (tmp_path / name).rglob("*.png"):
            write_image(path)
        digests.add(load(folder_data(tmp_path / name), seed=0).digest)

    assert len(digests) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 16},
        {"image_size": (8, 16)},
        {"horizontal_flip": False},
        {"train_images": 4},
        {"mean": (0.5, 0.5, 0.5)},
        {"std": (0.5, 0.5, 0.5)},
        {"augmentation": []},
        {"augmentation": ["resized_crop", "flip"]},
    ],
)
def test_load_has_another_digest_when_a_setting_changed(tmp_path, change):
    root = write_folder(tmp_path, {"a": 4, "b": 4})

    assert load(folder_data(root, **change), seed=0).digest != load(folder_data(root), seed=0).digest


def test_load_has_the_digest_that_studies_have_recorded():
    assert load(Data("digits"), seed=0).digest.startswith("39c3fa6883f2b84b")


def test_dataset_survives_pickling_without_copies(tmp_path):
    dataset = load(folder_data(write_folder(tmp_path, {"a": 20, "b": 20})), seed=0)
    buffers: list[pickle.PickleBuffer] = []

    stream = pickle.dumps(dataset, protocol=5, buffer_callback=buffers.append)
    again = pickle.loads(stream, buffers=[bytes(buffer.raw()) for buffer in buffers])

    pixel_bytes = 44 * 3 * SIZE * SIZE
    assert len(stream) < 2000 < pixel_bytes <= sum(buffer.raw().nbytes for buffer in buffers)
    assert again.digest == dataset.digest
    # Buffers of immutable bytes come back read-only, as they do from Ray.
    assert not again.train.images.flags.writeable
    originals = torch.cat([images for images, _ in dataset.train.batches(8, seed=0)])
    assert torch.equal(torch.cat([images for images, _ in again.train.batches(8, seed=0)]), originals)


# load: image folders


def test_load_reads_every_mode_as_rgb(tmp_path):
    root = write_folder(tmp_path, {"a": 4, "b": 4})
    palette = Image.new("P", (SIZE, SIZE), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    images = {
        "L.png": (Image.new("L", (SIZE, SIZE), 70), (70, 70, 70)),
        "1.bmp": (Image.new("1", (SIZE, SIZE), 1), (255, 255, 255)),
        "P.png": (palette, (10, 20, 30)),
        "RGBA.png": (Image.new("RGBA", (SIZE, SIZE), (1, 2, 3, 255)), (1, 2, 3)),
        "sixteen.png": (Image.fromarray(np.full((SIZE, SIZE), 0x6400, dtype=np.uint16)), (100, 100, 100)),
        "LA.png": (Image.new("LA", (SIZE, SIZE), (50, 255)), (50, 50, 50)),
        "CMYK.jpg": (Image.new("CMYK", (SIZE, SIZE), (0, 0, 0, 0)), (255, 255, 255)),
    }
    for name, (image, _) in images.items():
        transparency = {"transparency": b"\x80\xff"} if image.mode == "P" else {}
        image.save(root / "test" / "b" / name, **transparency)

    test = load(folder_data(root), seed=0).test

    names = sorted(path.name for path in (root / "test/b").iterdir())
    decoded = dict(zip(names, test.images[test.labels == 1], strict=True))
    assert {name: tuple(decoded[name][:, 3, 3].tolist()) for name in images} == {
        name: colour for name, (_, colour) in images.items()
    }


def test_load_resizes_images_of_any_size(tmp_path):
    root = write_folder(tmp_path, {"a": 4, "b": 4})
    stripes = np.zeros((40, 24, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(root / "test" / "b" / "stripes.png")

    image = load(folder_data(root), seed=0).test.images[-1]

    # Antialiased: each of the 8 columns averages about 3 stripes and more of 200 and 0.
    assert image.shape == (3, SIZE, SIZE)
    assert 60 < image.min() <= image.max() < 140


@pytest.mark.parametrize("limit", [0, datasets.MEMORY_LIMIT_BYTES])
def test_load_resizes_images_to_a_height_and_a_width(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(datasets, "MEMORY_LIMIT_BYTES", limit)
    root = write_folder(tmp_path, {"a": 4, "b": 4})
    upper = np.zeros((40, 24, 3), dtype=np.uint8)
    upper[:20] = 255
    Image.fromarray(upper).save(root / "test" / "b" / "upper.png")
    said = []

    dataset = load(folder_data(root, image_size=[8, 16]), seed=0, say=said.append)
    *_, (images, _) = dataset.test.batches(8)

    assert dataset.input_shape == (3, 8, 16)
    assert images.shape == (5, 3, 8, 16)
    assert ((images[-1, 0] > 0).int() == torch.tensor([1, 0]).repeat_interleave(4)[:, None]).all()
    assert said[-1].startswith(
        f"Images: {root}, 2 classes (a, b); 6 to train, 2 to validate, 5 to test; 8x16 pixels, resized (the first has "
        f"8x8); normalised by mean (0.485, 0.456, 0.406) and std (0.229, "
    )
    assert said[-1].endswith("); moved by up to 1 pixel, half of them mirrored while training.")


@pytest.mark.parametrize("limit", [0, datasets.MEMORY_LIMIT_BYTES])
def test_load_takes_the_size_that_all_images_have(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(datasets, "MEMORY_LIMIT_BYTES", limit)
    for number in range(12):
        write_image(tmp_path / f"{'test' if number < 4 else 'train'}/{number % 2}/{number}.png", number, size=(24, 16))
    native = folder_data(tmp_path, image_size="native")

    dataset = load(native, seed=0)
    assert dataset.input_shape == (3, 16, 24)
    assert datasets.check(native, seed=0) == (2, (16, 24))

    write_image(tmp_path / "test/1/3.png", size=(16, 24))
    load(folder_data(tmp_path), seed=0)  # which reads it
    with pytest.raises(
        ExperimentError,
        match=r"test/1/3\.png: must have the size of all others, 16x24 pixels, unless .*, but got 24x16; replace or",
    ):
        load(native, seed=0)


def test_load_takes_the_size_of_digits_and_of_a_first_image_that_can_be_read(tmp_path):
    assert load(Data("digits", image_size="native"), seed=0).input_shape == (3, 8, 8)
    root = write_folder(tmp_path, {"a": 4, "b": 4})
    (root / "train/a/000.png").write_bytes(b"")
    with pytest.raises(ExperimentError, match=r"train/a/000\.png: must be a readable image, but got .*; replace or"):
        datasets.check(folder_data(root, image_size="native"), seed=0)


def test_load_decodes_large_photos_at_a_fraction_of_their_size_without_visible_difference(tmp_path):
    root = write_folder(tmp_path, {"a": 4, "b": 4})
    patches = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    photo = Image.fromarray(patches).resize((96, 96), Image.Resampling.BICUBIC)
    photo.save(root / "test" / "b" / "photo.jpg", quality=95)

    image = load(folder_data(root), seed=0).test.images[-1]

    in_full = np.asarray(photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(image - in_full.astype(float)).mean() < 1.5  # of 255; JPEG itself costs 0.4


def test_load_ignores_hidden_and_other_files(tmp_path):
    root = write_folder(tmp_path, {"a": 4, "b": 4})
    for name in (".DS_Store", "train/.DS_Store", "train/a/._000.png", "train/a/Thumbs.db", "train/notes.txt"):
        (root / name).write_bytes(b"not an image")
    (root / "train/.ipynb_checkpoints").mkdir()
    (root / "train/a/000.png").rename(root / "train/a/000.PNG")

    dataset = load(folder_data(root), seed=0)

    assert dataset.classes == ("a", "b")
    assert len(dataset.train) + len(dataset.validation) == 8


def test_load_streams_large_folders_with_the_same_batches(tmp_path, monkeypatch):
    root = write_folder(tmp_path, {"a": 30, "b": 30})
    in_memory = load(folder_data(root), seed=0)
    monkeypatch.setattr(datasets, "MEMORY_LIMIT_BYTES", 64 * 3 * SIZE * SIZE - 1)  # of 64 images
    streamed = load(folder_data(root), seed=0)

    assert isinstance(streamed.train.images, tuple)
    for seed, augment in ((None, None), (1, in_memory.augmentation)):
        pairs = zip(
            in_memory.train.batches(7, seed=seed, augment=augment),
            streamed.train.batches(7, seed=seed, augment=augment),
            strict=True,
        )
        assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def test_load_tells_a_changed_file_from_its_size_when_streaming(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "MEMORY_LIMIT_BYTES", 0)
    root = write_folder(tmp_path / "here", {"a": 4, "b": 4})
    before = load(folder_data(root), seed=0).digest
    moved = root.rename(tmp_path / "there")
    assert load(folder_data(moved), seed=0).digest == before

    write_image(moved / "train/a/000.png", size=(64, 64))

    assert load(folder_data(moved), seed=0).digest != before


def test_batches_names_the_file_when_a_streamed_one_is_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "MEMORY_LIMIT_BYTES", 0)
    root = write_folder(tmp_path, {"a": 4, "b": 4})
    dataset = load(folder_data(root), seed=0)
    (root / "test/b/001.png").write_bytes(b"broken")

    with pytest.raises(
        ExperimentError, match=r"b/001\.png: must be a readable image, but got a content that .*; put it"
    ):
        list(dataset.test.batches(3))


# load: bad input


def test_load_says_so_when_the_folder_does_not_exist(tmp_path):
    with pytest.raises(ExperimentError, match=r"nowhere: data must be 'digits', .* but got no such folder"):
        load(folder_data(tmp_path / "nowhere"), seed=0)


@pytest.mark.parametrize("part", ["train", "test"])
def test_load_says_so_when_a_part_is_missing(tmp_path, part):
    root = write_folder(tmp_path, {"a": 4, "b": 4})
    (root / part).rename(root / "elsewhere")

    with pytest.raises(ExperimentError, match=rf"must hold train/CLASS/\* and test/CLASS/\*, but got no {part}/;"):
        load(folder_data(root), seed=0)


def test_load_says_so_when_there_are_no_class_folders(tmp_path):
    write_image(tmp_path / "train/1.png")
    write_image(tmp_path / "test/1.png")

    with pytest.raises(ExperimentError, match=r"train: must hold one folder of images for each class, but got no"):
        load(folder_data(tmp_path), seed=0)


def test_load_names_the_class_folders_without_images(tmp_path):
    root = write_folder(tmp_path, {"a": 4, "b": 4})
    for name in ("c", "d", "e", "f"):
        (root / "train" / name).mkdir()
        (root / "train" / name / "notes.txt").touch()

    with pytest.raises(ExperimentError, match=r"must hold images \(\.bmp, .*, but got none in 'c', 'd', 'e' and 1 mo"):
        load(folder_data(root), seed=0)


def test_load_says_so_when_there_is_one_class_only(tmp_path):
    with pytest.raises(ExperimentError, match=r"must hold at least two classes to tell apart, but got only 'a'"):
        load(folder_data(write_folder(tmp_path, {"a": 4})), seed=0)


def test_load_names_the_classes_that_train_and_test_do_not_share(tmp_path):
    root = write_folder(tmp_path, {"a": 4, "b": 4}, test={"a": 2, "b": 2, "c": 2})

    with pytest.raises(ExperimentError, match=r"must hold the same classes, but got 'c' in one of them only"):
        load(folder_data(root), seed=0)


@pytest.mark.parametrize("cut", [0, 30])
def test_load_names_an_image_that_cannot_be_read(tmp_path, cut):
    root = write_folder(tmp_path, {"a": 4, "b": 4})
    file = root / "train/b/002.png"
    file.write_bytes(file.read_bytes()[:cut])

    with pytest.raises(ExperimentError, match=r"train/b/002\.png: must be a readable image, but got .+; replace or"):
        load(folder_data(root), seed=0)


@pytest.mark.parametrize("limit", [0, datasets.MEMORY_LIMIT_BYTES])
def test_load_names_all_images_that_cannot_be_read(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(datasets, "MEMORY_LIMIT_BYTES", limit)
    root = write_folder(tmp_path, {"a": 40, "b": 4})
    names = [f"train/a/{number:03}.png" for number in range(40)] + ["test/b/001.png"]
    for name in names[-3:]:
        (root / name).write_bytes(b"")

    with pytest.raises(ExperimentError, match="must be a readable image") as few:
        load(folder_data(root), seed=0)
    for name in names:
        (root / name).write_bytes(b"")
    with pytest.raises(ExperimentError, match="must be a readable image") as many:
        load(folder_data(root), seed=0)

    advice = [line.partition("; ")[2] for line in few.value.problems]
    to_resume = "replace or remove it (to resume a study: put it back)."
    assert advice == ["replace or remove it.", to_resume, to_resume]
    assert [line.partition(":")[0] for line in few.value.problems] == [str(root / name) for name in sorted(names[-3:])]
    assert len(many.value.problems) == 11
    assert many.value.problems[-1] == "... and 31 more of this kind, 41 in all."


def test_load_refuses_a_pipe_that_is_called_like_an_image(tmp_path):
    root = write_folder(tmp_path, {"a": 4, "b": 4})
    os.mkfifo(root / "train/a/pipe.jpg")

    with pytest.raises(
        ExperimentError, match=r"train/a/pipe\.jpg: the folder of a class must .*, but got a named pipe"
    ):
        load(folder_data(root), seed=0)


@pytest.mark.parametrize("train_images", [1, 13])
def test_load_says_how_many_training_images_there_are(tmp_path, train_images):
    root = write_folder(tmp_path, {"a": 8, "b": 8})

    with pytest.raises(ExperimentError, match=rf"between 2, one a class, and the 12 .*, but got {train_images};"):
        load(folder_data(root, train_images=train_images), seed=0)


@pytest.mark.parametrize(("count", "fraction", "taken"), [(1, 0.1, 1), (4, 0.9, 4)])
def test_load_names_a_class_with_too_few_images_to_divide(tmp_path, count, fraction, taken):
    root = write_folder(tmp_path, {"a": 20, "b": count})

    with pytest.raises(ExperimentError, match=rf"'b' has {count} and validation_fraction={fraction} takes {taken};"):
        load(folder_data(root, validation_fraction=fraction), seed=0)


# load: digits and CIFAR


def test_load_holds_a_fifth_of_each_digit_for_the_test_whatever_the_seed():
    first, other = (load(Data("digits"), seed=seed) for seed in (0, 1))

    available = Counter(load_digits().target.tolist())
    assert Counter(first.test.labels.tolist()) == {digit: round(count / 5) for digit, count in available.items()}
    assert len(first.train) + len(first.validation) + len(first.test) == 1797
    assert np.array_equal(first.test.images, other.test.images)
    assert not np.array_equal(first.validation.images, other.validation.images)


def test_load_shows_digits_as_grey_images_over_the_whole_range_without_mirroring():
    dataset = load(Data("digits"), seed=0)

    images, _ = next(dataset.test.batches(32))
    rgb = images * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)

    assert images.shape == (32, 3, 32, 32)
    assert dataset.classes == tuple("0123456789")
    assert dataset.augmentation == Augmentation(padding=4, horizontal_flip=False)
    assert (rgb[:, 0] - rgb[:, 2]).abs().max() < 1e-5
    assert rgb.min().item() == pytest.approx(0, abs=1e-5)
    assert rgb.max().item() == pytest.approx(1, abs=1e-5)
    assert load(Data("digits", horizontal_flip=True), seed=0).augmentation.horizontal_flip


def test_load_names_the_way_out_when_a_download_fails(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "download", fail)

    with pytest.raises(ExperimentError, match=r"cifar100: .* download failed \(.*not known.*\); .* by --data PATH\.$"):
        load(Data("cifar100"), seed=0)


def test_load_turns_cifar_arrays_into_channels_first(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)

    def read(self, root, train, download):
        assert (root, download) == (str(tmp_path), True)
        self.data, self.targets, self.classes = (pixels if train else pixels[:20]), [0, 1] * (20 if train else 10), "ab"

    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "__init__", read)

    dataset = load(Data("cifar10"), seed=0)

    assert dataset.classes == ("a", "b")
    assert Counter(dataset.train.labels.tolist()) == {0: 18, 1: 18}
    assert dataset.test.images.flags.c_contiguous
    assert np.array_equal(dataset.test.images[7, 2], pixels[7, :, :, 2])


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"

    monkeypatch.setenv("EDGE_TUNE_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "edge_tune"


def test_load_reads_a_part_of_the_shared_cifar_images(tmp_path):
    archive = Path(__file__).parents[1].parent / "shared" / "data" / "cifar10-jpeg.zip"
    if not archive.is_file():
        pytest.skip("needs shared/data/cifar10-jpeg.zip beside the checkout")
    with zipfile.ZipFile(archive) as files:
        files.extractall(tmp_path, [name for name in files.namelist() if name.endswith(("00.jpg", "50.jpg"))])

    dataset = load(Data(str(tmp_path)), seed=0)

    assert dataset.classes[:3] == ("airplane", "automobile", "bird")
    assert Counter(dataset.test.labels.tolist()) == dict.fromkeys(range(10), 20)
    assert Counter(dataset.train.labels.tolist()) == dict.fromkeys(range(10), 90)
    assert dataset.train.images.shape == (900, 3, 32, 32)
