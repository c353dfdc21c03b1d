"""python -m edge_tune.benchmark, as a person types it."""

import json
import re
from pathlib import Path

import openvino
import pytest

from edge_tune.benchmark.__main__ import main
from edge_tune.benchmark.granularity import pairs


@pytest.fixture
def files(tmp_path: Path, onnx: bytes, wide_onnx: bytes) -> tuple[str, str]:
    paths = tmp_path / "small.onnx", tmp_path / "wide.onnx"
    for path, content in zip(paths, (onnx, wide_onnx), strict=True):
        path.write_bytes(content)
    return str(paths[0]), str(paths[1])


def test_main_measures_one_network(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([files[0], "--runs", "10"]) == 0
    device, latency, total, runs, throughput = capsys.readouterr().out.splitlines()
    assert device.startswith("CPU (")
    version = openvino.get_version().partition("-")[0]
    assert device.endswith(f"), OpenVINO {version}, f32, threads: 1")
    assert float(latency.removeprefix("latency_ms")) > 0
    assert float(total.removeprefix("total_latency_ms")) > 0
    assert runs.endswith("; n = 10")
    assert float(throughput.removeprefix("throughput_fps")) > 0


def test_main_gives_the_ratio_to_a_reference_and_its_noise(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    small, wide = files
    assert main([small, "--reference", wide, "--runs", "50", "--max-s", "0.5", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert 0 < answer["model"]["latency_ratio"] < 0.5  # a quarter of the channels: about a 14th of the work
    assert answer["reference"]["latency_ratio"] == 1
    assert answer["reference"]["evidence"]["ratios"]["to_itself"]


def test_main_prints_a_formula_too(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    small, wide = files
    assert main([small, "--reference", wide, "--device", "fake"]) == 0
    text = capsys.readouterr().out
    assert "total_latency_ratio: 0." in text
    assert re.search(r"^latency_ms +0\.\d{4} of 0\.\d{4}$", text, re.MULTILINE)
    assert text.endswith("(noise floor 0.0 %)\n")


@pytest.mark.parametrize(
    ("options", "code", "problem"),
    [
        (["--runs", "0"], 2, "runs must be a whole number of at least 1, but got 0"),
        (["--reference", "none.onnx"], 2, "none.onnx: must be an ONNX file that can be read, but got: No such file"),
        (["--device", "GPUX"], 2, "device must be one OpenVINO finds on this host"),
        (["--device-python", "no-python"], 2, "no-python: the interpreter must start, but got: "),
    ],
)
def test_main_says_in_one_sentence_what_is_wrong(
    options: list[str], code: int, problem: str, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([files[0], *options]) == code
    assert problem in capsys.readouterr().err


def test_main_ends_with_1_when_the_device_fails_while_it_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This file passes for a network, and no device compiles it: the device was there, and measuring went wrong."""
    (tmp_path / "broken.onnx").write_bytes(pairs([16]).replace(b"GlobalAveragePool", b"GlobalAverageFool"))
    assert main([str(tmp_path / "broken.onnx")]) == 1
    assert "GlobalAverageFool" in capsys.readouterr().err


def test_main_refuses_a_file_that_is_no_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    assert main([str(tmp_path / "text.onnx")]) == 2
    assert re.match(r".*text\.onnx: must be an ONNX network, but cannot be read as one", capsys.readouterr().err)


@pytest.mark.parametrize("word", ["granularity", "layers"])
def test_first_word_leads_to_another_command(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([word, "--help"])
    assert f"usage: python -m edge_tune.benchmark {word} " in capsys.readouterr().out
