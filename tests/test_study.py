from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge_tune as et
from edge_tune.benchmark.granularity import GranularityVerdict
from edge_tune.errors import ExperimentError
from edge_tune.networks.images import Split
from edge_tune.search import study
from tests.networks import experiment, write_image_folder


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.parametrize(("align", "granularity"), [(None, 1), (1, 1), (8, 8)])
def test_granularity_of_is_what_the_settings_say(align: int | None, granularity: int) -> None:
    said: list[str] = []
    assert study.granularity_of(et.Benchmark(align=align), said.append) == granularity
    assert said == []


@pytest.mark.parametrize(
    ("found", "granularity", "sentence"),
    [
        (16, 16, "Channel granularity: 16 channels (97% of 1000 resamples agree). Kept counts are multiples of 16."),
        (1, 1, "Channel granularity: 1, the time rises evenly with the width (97% of 1000 resamples agree). Kept "),
        (None, 1, "Channel granularity: no verdict"),
    ],
)
def test_granularity_of_is_measured_when_the_settings_say_auto(
    found: int | None, granularity: int, sentence: str
) -> None:
    said: list[str] = []
    measure = lambda _: GranularityVerdict(found, 0.97, {})  # noqa: E731
    assert study.granularity_of(et.Benchmark(align="auto"), said.append, measure) == granularity
    assert said[0].startswith(sentence)
    assert said[0].endswith(f"Kept counts are {'multiples of 16' if granularity > 1 else 'not aligned'}.")


def test_load_refuses_what_cannot_be_exported_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_TUNE_CACHE", str(tmp_path))
    with pytest.raises(ExperimentError, match=r"model: the network must be one that ONNX .* can hold, but torch\.onnx"):
        study.load(experiment(model="tests.networks:Pooled"))
    assert list(tmp_path.iterdir()) == []


def test_prepare_tells_studies_apart_whose_measured_granularities_differ() -> None:
    def digest(found: int, align: str | int | None) -> str:
        benchmark = et.Benchmark(align=align)  # type: ignore[arg-type]
        one = study.prepare(
            study.load(experiment(benchmark=benchmark)), lambda _: None, lambda _: GranularityVerdict(found, 0.97, {})
        )
        assert one.granularity == (found if align == "auto" else align or 1)
        return one.digest

    assert digest(16, "auto") != digest(8, "auto")
    assert digest(16, None) == digest(8, 4)


def test_images_digest_tells_files_apart_and_names_one_that_a_node_lacks(tmp_path: Path) -> None:
    files = sorted(write_image_folder(tmp_path).glob("train/*/*.png"))
    streamed = Split(tuple(map(str, files)), np.zeros(len(files), dtype=np.int64), (16, 16))
    in_memory = study.load(experiment()).dataset
    assert (in_memory.streams, replace(in_memory, train=streamed).streams) == (False, True)
    before = study.images_digest(streamed, streamed)
    assert study.images_digest(streamed, streamed) == before
    with files[3].open("ab") as file:
        file.write(b"x")
    assert study.images_digest(streamed, streamed) != before
    files[3].unlink()
    with pytest.raises(
        ExperimentError, match=r"train/.*\.png: the images must be on each node .* No such file .* on \S+;"
    ):
        study.images_digest(streamed, streamed)
