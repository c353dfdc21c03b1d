from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_tune.networks.decoding import decode, reason, shown
from tests.pictures import SIZE, quarters, stored, tiff


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_turns_an_image_as_its_exif_says(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(stored(quarters(80, 160), orientation)).save(tmp_path / "x.jpg", exif=exif, quality=95)

    image = decode(str(tmp_path / "x.jpg"), (SIZE, SIZE))

    corners = (0, 0, -1, -1), (0, -1, 0, -1)  # between the quarters, resizing mixes them
    assert np.abs(image[corners].astype(int) - quarters(SIZE, SIZE)[corners]).max() < 12


def test_decode_lays_what_is_transparent_on_white(tmp_path):
    Image.new("RGBA", (SIZE, SIZE), (0, 0, 100, 51)).save(tmp_path / "x.png")  # a fifth of it over white

    assert decode(str(tmp_path / "x.png"), (SIZE, SIZE))[3, 3].tolist() == [204, 204, 224]


@pytest.mark.parametrize(("values", "grey"), [((0.0, 0.4), 102), ((0.4, 1.0), 102), ((0.4, 0.4), 102)])
def test_decode_reads_floating_point_from_0_to_1(tmp_path, values, grey):
    (tmp_path / "x.tif").write_bytes(tiff(np.array([*values, 0.4, 0.4], np.float32).tobytes(), 2, 2, bits=32, kind=3))

    assert decode(str(tmp_path / "x.tif"), (2, 2))[1, 1].tolist() == [grey] * 3


@pytest.mark.parametrize(
    ("values", "bits", "kind", "said"),
    [
        (
            np.array([0, 255, 0, 0], np.float32),
            32,
            3,
            "mode F, floating point, with values from 0 to 255 that do not say",
        ),
        (np.array([0, 200, 0, 0], np.int32), 32, 2, "mode I, integers of 32 bits that do not say"),
    ],
)
def test_decode_refuses_numbers_that_do_not_say_what_is_white(tmp_path, values, bits, kind, said):
    (tmp_path / "x.tif").write_bytes(tiff(values.tobytes(), 2, 2, bits=bits, kind=kind))

    with pytest.raises(ValueError, match=said):
        decode(str(tmp_path / "x.tif"), (SIZE, SIZE))


def test_reason_is_one_line_whatever_was_raised():
    assert reason(FileNotFoundError(2, "No such file", "x.jpg")) == "No such file"
    assert reason(OSError("two\nlines.")) == "two lines"
    assert reason(EOFError()) == "EOFError"


def test_shown_leaves_a_usual_path_alone_and_quotes_another():
    assert shown(Path("größe/1 a.png")) == "größe/1 a.png"
    assert shown("a\nb\udce9") == r"'a\nb\udce9'"
