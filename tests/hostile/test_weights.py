"""Weights that no network can have, and files that hold none: a sentence, and no code of theirs runs."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from edge_tune.errors import ExperimentError
from edge_tune.networks.weights import load_weights, read_weights

pytestmark = pytest.mark.hostile


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 10))


def state(**changes: Any) -> dict[str, Any]:
    return {**network().state_dict(), **{name.replace("_in_", "."): value for name, value in changes.items()}}


def saved(content: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def filled(name: str, value: float, **options: Any) -> dict[str, Any]:
    return {**state(), name: torch.full(network().state_dict()[name].shape, value, **options)}


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path.touch, (Path("ran"),)  # type: ignore[return-value]


def header(entries: object, length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


def bomb() -> bytes:
    """A zip archive of a kilobyte that holds a megabyte of zeros where torch keeps its pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**20))
        archive.writestr("archive/version", b"3\n")
    return file.getvalue()


WHOLE = saved(state())
SAFE = safetensors.torch.save(state())
NOT_WEIGHTS: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "a page": b"<!DOCTYPE html><html>404</html>",
    "a pointer of git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "zeros": bytes(1000),
    "half a file": WHOLE[: len(WHOLE) // 2],
    "all but its end": WHOLE[:-1],
    "its end only": WHOLE[len(WHOLE) // 2 :],
    "an empty zip": b"PK\x05\x06" + bytes(18),
    "a zip of zeros": bomb(),
    "pickle of a number": pickle.dumps(5),
    "pickle of another protocol": b"\x80\x09.",
    "numpy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}",
    "half of safetensors": SAFE[: len(SAFE) // 2],
    "safetensors with a long header": header({}, 2**60),
    "safetensors with a short header": header({"a": 1}, 3),
    "safetensors without tensors": header({}),
    "safetensors beyond their end": header({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}),
    "safetensors of another size": header({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}) + bytes(4),
    "safetensors of an unknown type": header({"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}) + bytes(4),
    "a number": saved(5),
    "a list": saved([torch.zeros(1)]),
    "a tensor": saved(torch.zeros(1)),
    "nothing": saved({}),
    "no tensors": saved({"state_dict": {"a": 1}, "epoch": 3}),
}
CODE: dict[str, object] = {
    "a trap": Trap(),
    "a trap beside weights": {"state_dict": state(), "optimizer": Trap()},
    "a whole network": network(),
    "a function": print,
}
VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": (filled("0.weight", float("nan")), "must be finite numbers, but 0.weight hold NaN"),
    "infinity": (filled("3.bias", float("inf")), "must be finite numbers, but 3.bias hold NaN or infinity"),
    "minus infinity": (filled("1.running_mean", -float("inf")), "finite numbers, but 1.running_mean hold"),
    "too large for f32": (filled("3.bias", 1e300, dtype=torch.float64), "must be finite numbers, but 3.bias hold"),
    "many NaN": (
        {name: value * float("nan") if value.is_floating_point() else value for name, value in state().items()},
        "0.weight, 0.bias, 1.weight and",
    ),
    "int8": (filled("0.weight", 1, dtype=torch.int8), "but got int8 for 0.weight; give weights that are not quant"),
    "bool": (filled("0.weight", 1, dtype=torch.bool), "but got bool for 0.weight"),
    "complex": (filled("0.weight", 1, dtype=torch.complex64), "but got complex64 for 0.weight"),
    "a counter of f32": (filled("1.num_batches_tracked", 1.0), "but got float32 for 1.num_batches_tracked"),
    "sparse": ({**state(), "3.bias": torch.zeros(10).to_sparse()}, "but got float32 for 3.bias"),
    "too few": ({"0.weight": torch.zeros(4, 3, 3, 3)}, "the file lacks 0.bias, 1.weight, 1.bias and"),
    "too many": ({**state(), "4.bias": torch.zeros(1)}, "has the unknown 4.bias"),
    "another shape": ({**state(), "0.bias": torch.zeros(5)}, r"has the shapes 0.bias \[5\] instead of \[4\]"),
    "a scalar": ({**state(), "0.bias": torch.zeros(())}, r"has the shapes 0.bias \[\] instead of \[4\]"),
    "no values": ({**state(), "0.bias": torch.zeros(0)}, r"has the shapes 0.bias \[0\] instead of \[4\]"),
    "a view of 4 TB": (
        {**state(), "0.bias": torch.zeros(1).expand(10**12)},
        r"has the shapes 0.bias \[1000000000000\] instead of \[4\]",
    ),
    "other classes": (
        {**state(), "3.weight": torch.zeros(7, 36), "3.bias": torch.zeros(7)},
        r"has the shapes 3.weight \[7, 36\] instead of \[10, 36\], 3.bias \[7\] instead of \[10\]",
    ),
    "names that are numbers": (dict(enumerate(network().state_dict().values())), "the file lacks 0.weight"),  # type: ignore[arg-type]
}
PLACES = [
    "nowhere.pt",
    "folder",
    "pipe",
    "loop",
    300 * "x",
    "~nobody9/x.pt",
    "file:///nowhere.pt",
    "file://host/x.pt",
    "ftp://host/x.pt",
    "s3://bucket/x.pt",
    "https://[x.pt",
    "http://no host/x.pt",
    "http:///x.pt",
    "http://127.0.0.1:99999/x.pt",
    "http://127.0.0.1:port/x.pt",
    "http://127.0.0.1:9/x.pt",
    "http://" + 300 * "x" + "/x.pt",
    "a\0b.pt",
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))


def refused(content: bytes, problem: str) -> None:
    Path("x.pt").write_bytes(content)
    with pytest.raises(ExperimentError, match=problem) as error:
        load_weights(network(), read_weights("x.pt"), "x.pt")
    assert str(error.value).startswith("x.pt: ")
    assert len(str(error.value).splitlines()) == 1
    assert not Path("ran").exists()


@pytest.mark.parametrize("what", NOT_WEIGHTS)
def test_file_that_holds_no_weights(what: str) -> None:
    refused(NOT_WEIGHTS[what], "must be a file that torch.save.* or safetensors wrote|must hold a state_dict")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("what", CODE)
def test_file_that_runs_code(what: str, legacy: bool) -> None:
    content = saved(CODE[what], _use_new_zipfile_serialization=not legacy)
    refused(content, "must hold tensors only, but got whole pickled objects, which could run code; save model.state")


@pytest.mark.parametrize("what", VALUES)
def test_values_that_the_network_cannot_have(what: str) -> None:
    content, problem = VALUES[what]
    refused(saved(content), problem)


@pytest.mark.parametrize("what", ["NaN", "int8", "too few", "too many", "another shape", "other classes"])
def test_values_that_the_network_cannot_have_as_safetensors(what: str) -> None:
    content, problem = VALUES[what]
    tensors: dict[str, Tensor] = content
    refused(safetensors.torch.save(tensors), problem)


@pytest.mark.parametrize("place", PLACES)
def test_place_where_there_are_none(place: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ExperimentError, match=r"weights must be a file or a URL|weights must be downloaded once, but"):
        read_weights(place)
