"""Image folders as they come: each image is shown as a person sees it, or refused in a sentence that names it."""

import os
import socket
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import edge_tune as et
import edge_tune.run as run
from edge_tune import train
from edge_tune.errors import ExperimentError
from edge_tune.experiment import MEAN, STD
from edge_tune.networks import datasets, reading
from edge_tune.search import session
from tests.networks import experiment, write_image_folder
from tests.pictures import SIZE, png, quarters, small_folder, stored, tiff

pytestmark = pytest.mark.hostile

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "resnet56_latency.py"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path / "cache"))
    return small_folder(tmp_path / "images")


@pytest.fixture(params=["in memory", "streamed"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "streamed":
        monkeypatch.setattr(datasets, "MEMORY_LIMIT_BYTES", 0)
    return request.param


def seen(root: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Return the image as the network sees it, uint8 [H, W, 3], which is the same in memory and streamed."""
    (root / "test/b" / name).write_bytes(content)
    return seen_last(root, monkeypatch)


def seen_last(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    data = et.Data(root, image_size=SIZE)
    in_memory = datasets.load(data, seed=0).test.images[-1].transpose(1, 2, 0)
    monkeypatch.setattr(datasets, "MEMORY_LIMIT_BYTES", 0)
    *_, (batch, _) = datasets.load(data, seed=0).test.batches(2)
    streamed = (batch[-1] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)).mul(255).round()
    assert np.array_equal(streamed.numpy().transpose(1, 2, 0), in_memory)
    return in_memory


def refused(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the sentence that the command answers with; it is one line, and nothing is trained."""
    assert train.main([str(EXPERIMENT), "--data", str(root)]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert said.err.endswith(".\n")
    assert "epoch" not in said.out
    return said.err


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def filled(mode: str, value: object, kind: str, **options: object) -> bytes:
    return file_of(Image.new(mode, (SIZE, SIZE), value), kind, **options)


def grey_png(bits: int, value: int, transparent: bytes = b"") -> bytes:
    row = (
        bytes([int(f"{value:0{bits}b}" * (8 // bits), 2)]) * SIZE * bits
        if bits < 16
        else struct.pack(">8H", *[value] * 8)
    )
    return png(row[: SIZE * bits // 8] * SIZE, SIZE, SIZE, bits=bits, colour=0, transparent=transparent)


def in_palette(index: int, **options: object) -> bytes:
    image = Image.new("P", (SIZE, SIZE), index)
    image.putpalette([0, 0, 0, 200, 100, 50, 9, 9, 9])
    return file_of(image, "PNG", **options)


def twelve_bits(value: int) -> bytes:
    pair = (value << 12 | value).to_bytes(3, "big")
    return tiff(pair * (SIZE * SIZE // 2), SIZE, SIZE, bits=12)


def grey_tiff(values: np.ndarray, **options: int) -> bytes:
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    return tiff(values.tobytes(), SIZE, SIZE, bits=8 * values.dtype.itemsize, kind=kind, **options)


WHITE, BLACK = (255, 255, 255), (0, 0, 0)
SHOWN = {
    "bilevel white.png": (filled("1", 1, "PNG"), WHITE),
    "bilevel black.bmp": (filled("1", 0, "BMP"), BLACK),
    "bilevel.tif": (filled("1", 1, "TIFF"), WHITE),
    "grey.png": (filled("L", 70, "PNG"), (70, 70, 70)),
    "grey.jpg": (filled("L", 70, "JPEG"), (70, 70, 70)),
    "grey.pgm": (filled("L", 70, "PPM"), (70, 70, 70)),
    "grey.gif": (filled("L", 70, "GIF"), (70, 70, 70)),
    "grey where zero is white.tif": (grey_tiff(np.full(64, 55, np.uint8), white=0), (200, 200, 200)),
    "grey of 2 bits.png": (grey_png(2, 2), (170, 170, 170)),
    "grey of 4 bits.png": (grey_png(4, 5), (85, 85, 85)),
    "grey of 16 bits.png": (grey_png(16, 0x6400), (100, 100, 100)),
    "grey of 16 bits, white.png": (grey_png(16, 65535), WHITE),
    "grey of 16 bits.tif": (grey_tiff(np.full(64, 0x6400, np.uint16)), (100, 100, 100)),
    "grey of 16 bits, big-endian.tif": (filled("I;16B", 0x6400, "TIFF"), (100, 100, 100)),
    "grey of 16 bits where zero is white.tif": (grey_tiff(np.full(64, 0x6400, np.uint16), white=0), (155, 155, 155)),
    "grey of 16 bits.pgm": (b"P5 8 8 65535\n" + b"\x64\x00" * 64, (100, 100, 100)),
    "grey up to 1000.pgm": (b"P5 8 8 1000\n" + struct.pack(">H", 1000) * 64, WHITE),
    "grey of 12 bits.tif": (twelve_bits(0x640), (100, 100, 100)),
    "grey of 12 bits, white.tif": (twelve_bits(4095), WHITE),
    "floats 0.5.tif": (grey_tiff(np.full(64, 0.4, np.float32)), (102, 102, 102)),
    "floats white.tif": (grey_tiff(np.ones(64, np.float32)), WHITE),
    "floats black.tif": (grey_tiff(np.zeros(64, np.float32)), BLACK),
    "floats where zero is white.tif": (grey_tiff(np.full(64, 0.4, np.float32), white=0), (153, 153, 153)),
    "portable floats.ppm": (filled("F", 0.4, "PPM"), (102, 102, 102)),
    "grey, opaque.png": (filled("LA", (50, 255), "PNG"), (50, 50, 50)),
    "grey, transparent.png": (filled("LA", (50, 0), "PNG"), WHITE),
    "grey, half transparent.png": (filled("LA", (0, 51), "PNG"), (204, 204, 204)),
    "grey, transparent.tif": (filled("LA", (0, 0), "TIFF"), WHITE),
    "grey with a transparent value.png": (grey_png(8, 70, b"\0F"), WHITE),
    "grey without its transparent value.png": (grey_png(8, 70, b"\0G"), (70, 70, 70)),
    "grey of 16 bits with a transparent value.png": (grey_png(16, 0x6400, b"\x64\0"), WHITE),
    "grey of 16 bits without it.png": (grey_png(16, 0x6401, b"\x64\0"), (100, 100, 100)),
    "palette.png": (in_palette(1), (200, 100, 50)),
    "palette, opaque.png": (in_palette(1, transparency=b"\x00\xff"), (200, 100, 50)),
    "palette, transparent.png": (in_palette(1, transparency=b"\xff\x00"), WHITE),
    "palette with a transparent index.png": (in_palette(1, transparency=1), WHITE),
    "palette with alpha.tif": (filled("PA", (0, 0), "TIFF"), WHITE),
    "rgb.png": (filled("RGB", (1, 2, 3), "PNG"), (1, 2, 3)),
    "rgb.bmp": (filled("RGB", (1, 2, 3), "BMP"), (1, 2, 3)),
    "rgb.ppm": (filled("RGB", (1, 2, 3), "PPM"), (1, 2, 3)),
    "rgb.tif": (filled("RGB", (1, 2, 3), "TIFF"), (1, 2, 3)),
    "rgb.webp": (filled("RGB", (1, 2, 3), "WEBP", lossless=True), (1, 2, 3)),
    "rgb.gif": (filled("RGB", (1, 2, 3), "GIF"), (1, 2, 3)),
    "rgb of 16 bits.png": (
        png(struct.pack(">3H", 0x100, 0x200, 0x300) * 64, SIZE, SIZE, bits=16, colour=2),
        (1, 2, 3),
    ),
    "rgb with a transparent colour.png": (filled("RGB", (1, 2, 3), "PNG", transparency=(1, 2, 3)), WHITE),
    "rgba, opaque.png": (filled("RGBA", (1, 2, 3, 255), "PNG"), (1, 2, 3)),
    "rgba, transparent.png": (filled("RGBA", (1, 2, 3, 0), "PNG"), WHITE),
    "rgba, a fifth.png": (filled("RGBA", (0, 0, 0, 51), "PNG"), (204, 204, 204)),
    "rgba, transparent.webp": (filled("RGBA", (0, 0, 0, 0), "WEBP", lossless=True), WHITE),
    "rgba, transparent.tif": (filled("RGBA", (0, 0, 0, 0), "TIFF"), WHITE),
    "rgba, transparent.gif": (filled("RGBA", (0, 0, 0, 0), "GIF"), WHITE),
    "cmyk white.jpg": (filled("CMYK", (0, 0, 0, 0), "JPEG"), WHITE),
    "cmyk black.tif": (filled("CMYK", (0, 0, 0, 255), "TIFF"), BLACK),
    "ycbcr white.tif": (filled("YCbCr", (255, 128, 128), "TIFF"), WHITE),
    "lab white.tif": (filled("LAB", (255, 128, 128), "TIFF"), WHITE),
    "avif that is called jpg.jpg": (filled("L", 255, "AVIF"), WHITE),
    "png that is called jpg.jpg": (filled("RGB", (1, 2, 3), "PNG"), (1, 2, 3)),
    "jpeg that is called png.png": (filled("L", 70, "JPEG"), (70, 70, 70)),
    "webp that is called jpeg.JPEG": (filled("L", 255, "WEBP"), WHITE),
    "one pixel.png": (file_of(Image.new("L", (1, 1), 70), "PNG"), (70, 70, 70)),
    "one row.png": (file_of(Image.new("L", (9000, 1), 70), "PNG"), (70, 70, 70)),
    "a large photo.jpg": (file_of(Image.new("L", (2000, 3000), 70), "JPEG"), (70, 70, 70)),
}


@pytest.mark.parametrize("name", SHOWN)
def test_image_is_shown_as_a_person_sees_it(name, root, monkeypatch):
    content, colour = SHOWN[name]
    found = seen(root, name, content, monkeypatch)[3, 3]
    assert np.abs(found.astype(int) - colour).max() <= (name == "lab white.tif")  # whose conversion rounds


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "PNG by XMP", "JPEG with rubbish beside it"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_stands_upright_as_its_exif_says(orientation, kind, root, monkeypatch):
    """48 high and 96 wide, so that a JPEG is decoded at a fraction and a wrong turn would show."""
    upright = quarters(48, 96)
    image = Image.fromarray(stored(upright, orientation))
    exif = Image.Exif()
    exif[274] = orientation
    options: dict[str, object] = {"exif": exif}
    if kind == "PNG by XMP":
        xmp = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp)
        options = {"pnginfo": text}
    if kind == "JPEG with rubbish beside it":
        exif[270] = "\x00" * 30
    if kind == "WEBP":
        options["lossless"] = True
    image = seen(root, "turned.png", file_of(image, kind.split()[0], **options), monkeypatch)

    places = [(1, 1), (1, 6), (6, 1), (6, 6)]
    wanted = [upright[48 * row // SIZE, 96 * column // SIZE] for row, column in places]
    assert np.abs(np.array([image[place] for place in places]).astype(int) - wanted).max() < 12


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, which the program turns off
@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0rubbish",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"x" * 40,
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_image_whose_exif_is_damaged_is_shown_as_it_lies(exif, kind, root, monkeypatch):
    image = seen(root, "x.jpg", file_of(Image.new("L", (SIZE, SIZE), 70), kind, exif=exif), monkeypatch)
    assert np.abs(image.astype(int) - 70).max() <= 1


def frames(kind: str, **options: object) -> bytes:
    first, second = (Image.new("RGB", (SIZE, SIZE), colour) for colour in ((200, 0, 0), (0, 0, 200)))
    return file_of(first, kind, save_all=True, append_images=[second], **options)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP", "AVIF", "MPO"])
def test_first_frame_counts(kind, root, monkeypatch):
    image = seen(root, "x.jpg", frames(kind, **({"lossless": True} if kind == "WEBP" else {})), monkeypatch)
    assert np.abs(image[3, 3].astype(int) - (200, 0, 0)).max() < 12


def noise(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return file_of(Image.fromarray(pixels), kind)


PHOTO = noise("JPEG")
BROKEN = {
    "empty.jpg": (b"", "a content that cannot be recognised as JPEG, PNG"),
    "text.jpg": (b"Not found\n", "a content that cannot be recognised"),
    "page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", "a content that cannot be recognised"),
    "zeros.png": (bytes(4096), "a content that cannot be recognised"),
    "noise.gif": (np.random.default_rng(1).bytes(4096), "a content that cannot be recognised"),
    "drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "a content that cannot be recognised"),
    "program.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "a content that cannot be recognised"),
    "photoshop.tif": (b"8BPS\0\1" + bytes(100), "a content that cannot be recognised"),
    "archive.jpg": (b"PK\3\4" + bytes(100), "a content that cannot be recognised"),
    "array.png": (b"\x93NUMPY\1\0" + bytes(100), "a content that cannot be recognised"),
    "pointer of git lfs.jpg": (b"version https://git-lfs.github.com/spec/v1\n", "a content that cannot be recognised"),
    "jpeg, its first bytes.jpg": (PHOTO[:10], ""),
    "jpeg, its header.jpg": (PHOTO[:400], ""),
    "jpeg, half.jpg": (PHOTO[: len(PHOTO) // 2], "image file is truncated"),
    "jpeg, nine tenths.jpg": (PHOTO[: len(PHOTO) * 9 // 10], "image file is truncated"),
    "png, half.png": (noise("PNG")[:6000], "image file is truncated"),
    "png with a wrong checksum.png": (noise("PNG").replace(b"IDAT", b"IDAT\1", 1), ""),
    "png without pixels.png": (png(b"", 8, 8, bits=8, colour=2), ""),
    "gif, half.gif": (noise("GIF")[:3000], ""),
    "bmp, half.bmp": (noise("BMP")[:6000], "image file is truncated"),
    "ppm, half.ppm": (noise("PPM")[:6000], "image file is truncated"),
    "tiff, half.tif": (noise("TIFF")[:6000], ""),
    "webp, half.webp": (noise("WEBP")[:2000], ""),
    "avif, half.jpg": (noise("AVIF")[:2000], ""),
    "png of nothing.png": (png(b"", 0, 0, bits=8, colour=2), ""),
    "bomb.png": (
        png(bytes(64), 30000, 30000, bits=8, colour=2),
        "more than 89478485 pixels",
    ),
    "half a bomb.png": (file_of(Image.new("1", (12000, 8000)), "PNG"), "more than 89478485 pixels"),
    "integers of 32 bits, 0..255.tif": (grey_tiff(np.full(64, 200, np.int32)), "mode I, integers of 32 bits that do"),
    "integers of 32 bits, 0..65535.tif": (grey_tiff(np.full(64, 60000, np.int32)), "mode I, integers of 32 bits that"),
    "integers of 32 bits, all black.tif": (grey_tiff(np.zeros(64, np.int32)), "mode I, integers of 32 bits that"),
    "unsigned integers of 32 bits.tif": (grey_tiff(np.full(64, 2**31, np.uint32)), "mode I, integers of 32 bits that"),
    "integers of 16 bits with a sign.tif": (
        grey_tiff(np.full(64, -5, np.int16)),
        "mode I, integers of 16 bits that do",
    ),
    "floats 0..255.tif": (grey_tiff(np.linspace(0, 255, 64, dtype=np.float32)), "mode F, .* from 0 to 255 that do not"),
    "floats just above 1.tif": (grey_tiff(np.full(64, 1.01, np.float32)), "mode F, .* from 1.01 to 1.01 that do not"),
    "floats below 0.tif": (grey_tiff(np.full(64, -0.1, np.float32)), "mode F, floating point, with values from -0.1"),
    "floats that are none.tif": (grey_tiff(np.full(64, np.nan, np.float32)), "mode F, .* from nan to nan"),
    "floats without end.tif": (grey_tiff(np.full(64, np.inf, np.float32)), "mode F, .* from inf to inf"),
    "floats of 64 bits.tif": (grey_tiff(np.full(64, 0.4, np.float64)), "a content that cannot be recognised"),
    "floats of 16 bits.tif": (grey_tiff(np.full(64, 0.5, np.float16)), "a content that cannot be recognised"),
    "integers of 64 bits.tif": (grey_tiff(np.full(64, 5, np.int64)), "a content that cannot be recognised"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("name", BROKEN)
def test_image_that_cannot_be_shown_is_refused(name, part, way, root, capsys):
    content, got = BROKEN[name]
    (root / part / "b" / name).write_bytes(content)
    advice = r" \(to resume a study: put it back\)" if part == "train" else ""
    with pytest.raises(
        ExperimentError,
        match=rf"/{part}/b/{name}: must be a readable image, but got {got}.*; replace or remove it{advice}\.$",
    ):
        raise ExperimentError(refused(root, capsys).rstrip("\n"))


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "a named pipe"),
    "folder": (Path.mkdir, "a folder"),
    "link to itself": (lambda path: path.symlink_to(path), "a link that leads nowhere"),
    "broken link": (lambda path: path.symlink_to("nowhere.jpg"), "a link that leads nowhere"),
    "link to zeros without end": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "link to a pipe": (
        lambda path: (os.mkfifo(path.parents[3] / "pipe"), path.symlink_to(path.parents[3] / "pipe")),
        "a named pipe",
    ),
    "link to a folder": (lambda path: path.symlink_to(path.parent), "a folder"),
}


@pytest.mark.parametrize("what", KINDS)
def test_entry_that_is_no_file_is_refused_unopened(what, root, capsys):
    make, kind = KINDS[what]
    make(root / "train/a/x.jpg")
    assert f"/train/a/x.jpg: the folder of a class must hold image files, but got {kind}" in refused(root, capsys)


def test_socket_is_refused_unopened(root, capsys, monkeypatch):
    monkeypatch.chdir(root / "train/a")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("x.jpg")
        assert "/train/a/x.jpg: the folder of a class must hold image files, but got a socket" in refused(root, capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["train/a/0.png", "train/a", "train"])
def test_what_may_not_be_read_is_refused(name, root, capsys):
    (root / name).chmod(0)
    try:
        assert "Permission denied" in refused(root, capsys)
    finally:
        (root / name).chmod(0o700)


def test_links_to_images_are_images(root, monkeypatch):
    Image.new("L", (SIZE, SIZE), 70).save(root.parent / "elsewhere.png")
    (root / "test/b/x.jpg").symlink_to(root.parent / "elsewhere.png")
    assert seen_last(root, monkeypatch)[3, 3].tolist() == [70, 70, 70]


NAMES = [
    "with space.png",
    " .png",
    "two\nlines.png",
    "tab\there.png",
    "\x1b[31mred.png",
    "not utf-8 \udce9.png",
    "größe.png",
    "größe.png",
    "日本.png",
    "🐈.png",
    "\u202edesrever.png",
    "-rf.png",
    "--help.png",
    "{braces}%s%d.png",
    "a;b&c|d.png",
    "'quoted\".png",
    "back\\slash.png",
    "x" * 251 + ".png",
    "two.dots..png",
    "UPPER.PNG",
]


@pytest.mark.parametrize("name", NAMES)
def test_name_does_not_matter(name, way, root):
    Image.new("L", (SIZE, SIZE), 70).save(root / "train/a/0.png")
    (root / "train/a/0.png").rename(root / "train/a" / name)
    dataset = datasets.load(et.Data(root, image_size=SIZE), seed=0)
    assert len(dataset.train) + len(dataset.validation) == 8


@pytest.mark.parametrize("name", NAMES)
def test_damaged_image_is_named_in_one_line_that_can_be_printed(name, root, capsys):
    (root / "train/a" / name).write_bytes(b"")
    sentence = refused(root, capsys)
    assert sentence.rstrip("\n").isprintable()
    assert repr(name)[1:-1] in sentence or name in sentence


@pytest.mark.parametrize(
    "name", ["with space", "two\nlines", "not utf-8 \udce9", "größe", "{x}", "x.jpg", "train", "-c"]
)
def test_class_may_be_called_so(name, way, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path / "cache"))
    small_folder(tmp_path / "images", ("a", name))
    assert set(datasets.load(et.Data(tmp_path / "images", image_size=SIZE), seed=0).classes) == {"a", name}


@pytest.mark.parametrize("name", ["train", "test"])
@pytest.mark.parametrize("hidden", [".DS_Store", ".hidden.jpg", "b/._0.png", "b/Thumbs.db", "b/notes.txt", "b/.git"])
def test_hidden_and_other_files_do_not_count(name, hidden, root):
    (root / name / hidden).write_bytes(b"no image")
    dataset = datasets.load(et.Data(root, image_size=SIZE), seed=0)
    assert (len(dataset.train) + len(dataset.validation), len(dataset.test)) == (8, 2)


def nested(root: Path) -> None:
    (root / "train/a/more").mkdir()
    (root / "train/a/0.png").rename(root / "train/a/more/0.png")


def all_nested(root: Path) -> None:
    (root / "train/a").rename(root / "a")
    (root / "train/a").mkdir()
    (root / "a").rename(root / "train/a/more")


def outside(root: Path) -> None:
    (root / "train/a/0.png").rename(root / "train/0.png")


def empty_class(root: Path) -> None:
    for part in ("train", "test"):
        (root / part / "c").mkdir()


def one_class(root: Path) -> None:
    for part in ("train", "test"):
        (root / part / "b").rename(root / f"{part}-b")


def no_test(root: Path) -> None:
    (root / "test").rename(root / "tests")


def class_for_the_test_only(root: Path) -> None:
    (root / "test/c").mkdir()
    (root / "test/a/0.png").rename(root / "test/c/0.png")
    Image.new("L", (SIZE, SIZE)).save(root / "test/a/0.png")


def one_image(root: Path) -> None:
    for number in range(1, 4):
        (root / "train/a" / f"{number}.png").rename(root / f"{number}.png")


def other_endings(root: Path) -> None:
    for number in range(4):
        (root / "train/a" / f"{number}.png").rename(root / "train/a" / f"{number}.heic")


def class_that_is_a_broken_link(root: Path) -> None:
    for part in ("train", "test"):
        (root / part / "c").symlink_to("/nowhere")


def part_that_is_a_file(root: Path) -> None:
    no_test(root)
    (root / "test").touch()


FOLDERS = {
    nested: "train/a/more: the folder of a class must hold image files, but got a folder",
    all_nested: "train/a/more: the folder of a class must hold image files, but got a folder",
    outside: "train/0.png: images must lie in the folders of their classes, but got a file",
    empty_class: "train: every class folder must hold images (.bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, ",
    one_class: "must hold at least two classes to tell apart, but got only 'a'",
    no_test: "must hold train/CLASS/* and test/CLASS/*, but got no test/",
    class_for_the_test_only: "must hold the same classes, but got 'c' in one of them only",
    one_image: "'a' has 1 and validation_fraction=0.1 takes 1",
    other_endings: "but got none in 'a'",
    class_that_is_a_broken_link: "train/c: images must lie in the folders of their classes, but got a link that leads",
    part_that_is_a_file: "but got no test/",
}


@pytest.mark.parametrize("change", FOLDERS, ids=lambda change: change.__name__)
def test_folder_of_another_form_is_refused(change, root, capsys):
    change(root)
    assert FOLDERS[change] in refused(root, capsys)


@pytest.mark.parametrize(
    "path",
    [
        "nowhere",
        "images/train/a/0.png",
        "images/../x\0y",
        "~nobody-of-this-name/images",
        "~nobody\nof\nthis\nname",
        "x" * 300,
        "/dev/null",
        "a\nb",
    ],
)
def test_path_that_is_no_folder_is_refused(path, root, capsys, monkeypatch):
    monkeypatch.chdir(root.parent)
    assert "but got" in refused(Path(path), capsys)


@pytest.mark.parametrize(
    "name", [5, None, b"images", ["images"], ("a", "b"), {"a": 1}, 0.5, True, np.zeros(3), et.Data]
)
def test_name_of_another_type_is_refused(name):
    with pytest.raises(
        ExperimentError, match=r"^dataset: name must be a data set or the path of an image folder, but got"
    ):
        experiment(dataset=et.Data(name))


@pytest.mark.parametrize("data", [5, None, b"images", ["images"], {"name": "digits"}, et.Data])
def test_data_of_another_type_are_refused(data):
    with pytest.raises(ExperimentError, match=r"^dataset: must be a name, a path or a Data, but got"):
        experiment(dataset=data)


@pytest.mark.parametrize("flip", ["no", "yes", "", 0, 1, 0.5, [], "False"])
def test_horizontal_flip_that_is_no_truth_is_refused(flip):
    with pytest.raises(ExperimentError, match=r"^dataset: horizontal_flip must be True, False or None, but got"):
        experiment(dataset=et.Data("digits", horizontal_flip=flip))


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 16, bytes(31), np.random.default_rng(0).bytes(160)])
def test_damaged_memory_of_what_was_read_hides_nothing(content, root, capsys, monkeypatch):
    monkeypatch.setattr(datasets, "MEMORY_LIMIT_BYTES", 0)
    datasets.load(et.Data(root), seed=0)
    (remembered,) = (root.parent / "cache/readable").iterdir()
    good = remembered.read_bytes()
    remembered.write_bytes(content)
    (root / "train/a/0.png").write_bytes(b"damaged")
    assert "train/a/0.png: must be a readable image" in refused(root, capsys)
    assert len(remembered.read_bytes()) >= len(good) - reading.STAMP_BYTES


@pytest.mark.parametrize(
    "make", [Path.touch, lambda path: (path.mkdir(), (path / "readable").touch())], ids=["file", "folder"]
)
def test_cache_that_cannot_be_written_is_said_and_hides_nothing(make, root, capsys, monkeypatch):
    monkeypatch.setattr(datasets, "MEMORY_LIMIT_BYTES", 0)
    make(root.parent / "cache")
    said: list[str] = []
    datasets.load(et.Data(root), seed=0, say=said.append)
    assert "so that the next study reads all images again." in said[-2]


STUDY = """
from tests.networks import experiment as make
import edge_tune as et

experiment = make(
    dataset=et.Data("pictures", image_size=16),
    training=et.Retraining(epochs=30, lr=0.05, batch_size=4),
    retraining=et.Retraining(epochs=0, lr=0.1),
)
"""


def test_image_of_the_test_that_breaks_during_a_study_can_be_replaced(root, tmp_path, capsys, monkeypatch):
    """It is found at the end, nothing is lost, and what is advised works: replace it and resume."""
    monkeypatch.setattr(datasets, "MEMORY_LIMIT_BYTES", 0)
    monkeypatch.chdir(tmp_path)
    write_image_folder(tmp_path / "pictures", images=80)  # dark and bright ones, to be told apart
    monkeypatch.setenv("PYTHONPATH", str(EXPERIMENT.parents[1]))
    Path("study.py").write_text(STUDY)
    broken = Path("pictures/test/dog/0.png")
    search_on = session.tune.run_search

    def search(*arguments, **options):
        search_on(*arguments, **options)
        broken.write_bytes(b"damaged")

    monkeypatch.setattr(session.tune, "run_search", search)
    arguments = ["study.py", "--data", "pictures", "--trials", "1", "--results", "out"]

    assert run.main(arguments) == 1
    err = capsys.readouterr().err
    assert "2 of 2 trials are recorded in out. " in err
    assert "test/dog/0.png: must be a readable image, but got a content that cannot" in err
    assert "To resume when this is mended: " in err
    assert run.main([*arguments, "--resume"]) == 2
    err = capsys.readouterr().err
    assert "test/dog/0.png: must be a readable image" in err
    assert err.endswith("; replace or remove it.\n")
    Image.new("L", (SIZE, SIZE), 70).save(broken)
    assert run.main([*arguments, "--resume"]) == 0
    assert "0 of 2 trials to run" in capsys.readouterr().out
