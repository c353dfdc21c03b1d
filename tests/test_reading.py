import os
from pathlib import Path

import pytest

from edge_tune.networks import decoding, images, reading
from tests.pictures import SIZE, small_folder


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return sorted(map(str, small_folder(tmp_path / "images").glob("*/*/*.png")))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    paths: list[str] = []
    monkeypatch.setattr(images, "decode", lambda path, size: paths.append(path) or decoding.decode(path, size))
    return paths


def test_check_reads_each_file_once(files, opened, tmp_path):
    assert reading.check(files, (SIZE, SIZE), lambda _: None, tmp_path / "cache/known") == {}
    assert sorted(opened) == files
    opened.clear()

    reading.check(files[:3], (SIZE, SIZE), lambda _: None, tmp_path / "cache/known")
    reading.check(files, (SIZE, SIZE), lambda _: None, tmp_path / "cache/known")

    assert opened == []


@pytest.mark.parametrize("change", ["size", "date", "name"])
def test_check_reads_a_file_again_when_it_changed(files, opened, tmp_path, change):
    reading.check(files, (SIZE, SIZE), lambda _: None, tmp_path / "known")
    opened.clear()
    one = Path(files[2])
    before = one.stat()
    if change == "size":
        one.write_bytes(one.read_bytes() + b"more")
        os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "date":
        os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    else:
        one = one.rename(one.with_name("other.png"))

    reading.check([*files[:2], str(one), *files[3:]], (SIZE, SIZE), lambda _: None, tmp_path / "known")

    assert opened == [str(one)]


def test_check_remembers_what_it_read_before_it_was_interrupted(files, opened, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "GROUP", 2)

    def interrupted(*given, **settings):
        for number, decoded in enumerate(images.decode_groups(*given, **settings)):
            if number == 3:
                raise KeyboardInterrupt
            yield decoded

    monkeypatch.setattr(reading, "decode_groups", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reading.check(files, (SIZE, SIZE), lambda _: None, tmp_path / "known")
    monkeypatch.setattr(reading, "decode_groups", images.decode_groups)
    opened.clear()
    reading.check(files, (SIZE, SIZE), lambda _: None, tmp_path / "known")

    assert sorted(opened) == files[6:]


def test_check_does_not_remember_a_file_that_cannot_be_read(files, opened, tmp_path):
    Path(files[0]).write_bytes(b"damaged")

    found = [list(reading.check(files, (SIZE, SIZE), lambda _: None, tmp_path / "known")) for _ in range(2)]

    assert found == [[files[0]], [files[0]]]
    assert sorted(opened) == sorted([*files, files[0]])


def test_into_memory_says_how_far_it_is_until_it_ends(files, monkeypatch):
    monkeypatch.setattr(reading, "NEWS_S", 1e-3)
    monkeypatch.setattr(reading, "GROUP", 1)
    said: list[str] = []

    pixels, faults = reading.into_memory(files * 50, (SIZE, SIZE), said.append)
    ended_with = len(said)

    assert faults == {}
    assert (pixels == [[[10]], [[20]], [[30]]]).all()
    assert said
    assert set(said) <= {f"Reading images: {done} of 500." for done in range(501)}
    assert len(said) == ended_with
