import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx as onnx_package
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_tune.benchmark import layers
from edge_tune.benchmark.backend import FakeBackend
from edge_tune.benchmark.layers import Stuck, layers_of, medians, narrowed, report, rows, stuck
from edge_tune.errors import BenchmarkError
from edge_tune.experiment import Benchmark
from edge_tune.records.entries import Layer, LayerEntry

AVX512, AVX2 = "brgconv_avx512_f32", "jit_avx2_f32"


def chain(*widths: int) -> bytes:
    """A network of convolutions /a/Conv, /b/Conv, ... between these widths."""
    nodes, weights = [], []
    for index, (channels, filters) in enumerate(itertools.pairwise(widths)):
        name = "abcdef"[index]
        weights.append(numpy_helper.from_array(np.zeros((filters, channels, 1, 1), np.float32), f"{name}.weight"))
        source = f"{'abcdef'[index - 1]}.out" if index else "input"
        nodes.append(helper.make_node("Conv", [source, f"{name}.weight"], [f"{name}.out"], f"/{name}/Conv"))
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, widths[0], 4, 4])
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [1, widths[-1], 4, 4])
    graph = helper.make_graph(nodes, "chain", [image], [output], weights)
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    onnx_package.checker.check_model(network)
    return bytes(network.SerializeToString())


def convolution(name: str, ms: float, kernel: str = AVX512) -> Layer:
    return Layer(f"/{name}/Conv/WithoutBiases", "Convolution", kernel, ms)


def reorder(name: str, ms: float) -> Layer:
    return Layer(f"input_abcd_acdb_/{name}/Conv/WithoutBiases", "Reorder", "jit_uni_f32", ms)


def found(
    before: list[Layer], after: list[Layer], widths: tuple[int, ...], granularity: int | None = None
) -> list[Stuck]:
    """What is stuck after a chain 3 -> 32 -> 32 -> 8 became one of `widths`."""
    networks = chain(3, 32, 32, 8), chain(*widths)
    return stuck(rows(before, networks[0]), rows(after, networks[1]), networks, granularity)


def test_layers_of_refuses_a_formula() -> None:
    measurement = FakeBackend().measure(b"", Benchmark(device="fake"))
    with pytest.raises(BenchmarkError, match=r"must hold the layers' times, but 'fake' gave none"):
        layers_of(measurement)


def test_rows_names_the_layers_that_took_time_and_their_shares() -> None:
    fused = Layer("/a/Relu", "Relu", "undef", 0.0)
    assert rows([reorder("a", 1.0), convolution("a", 2.0), fused, convolution("b", 5.0)], chain(3, 8, 8)) == [
        LayerEntry("a", "Reorder", "jit_uni_f32", 1.0, 0.125),
        LayerEntry("a", "Convolution", AVX512, 2.0, 0.25),
        LayerEntry("b", "Convolution", AVX512, 5.0, 0.625),
    ]


def test_stuck_lists_what_lost_width_and_no_time() -> None:
    before = [convolution("a", 1.0), convolution("b", 1.0), convolution("c", 1.0)]
    after = [convolution("a", 0.99), convolution("b", 0.5), convolution("c", 1.0)]
    # a loses filters, b channels; c stays as it was.
    assert [layer.name for layer in found(before, after, (3, 17, 32, 8))] == ["a"]
    (layer,) = found(before, after, (3, 17, 32, 8))
    assert (layer.before, layer.after, layer.ms_before, layer.ms_after) == ((32, 3), (17, 3), 1.0, 0.99)
    assert layer.reasons == ()


def test_stuck_finds_nothing_when_all_became_faster() -> None:
    before = [convolution("a", 1.0), convolution("b", 1.0), convolution("c", 1.0)]
    after = [convolution("a", 0.6), convolution("b", 0.7), convolution("c", 1.2)]
    assert found(before, after, (3, 16, 32, 8)) == []


@pytest.mark.parametrize(
    ("after", "granularity", "reason"),
    [
        ([convolution("a", 1.0, AVX2)], None, f"kernel {AVX512} -> {AVX2}"),
        ([convolution("a", 0.9), reorder("a", 0.2)], None, "1 reorder added, 0.200 ms"),
        ([convolution("a", 1.0)], 16, "17 filters are no multiple of 16"),
    ],
)
def test_stuck_gives_the_reason(after: list[Layer], granularity: int | None, reason: str) -> None:
    (layer,) = found([convolution("a", 1.0)], after, (3, 17, 32, 8), granularity)
    assert layer.reasons[0] == reason


def test_medians_takes_each_layers_own() -> None:
    rounds = [[convolution("a", ms), convolution("b", 10 - ms)] for ms in (1.0, 9.0, 2.0)]
    assert [layer.ms for layer in medians(rounds)] == [2.0, 8.0]


def test_report_has_a_line_a_layer() -> None:
    line = Stuck("layer1.0.conv1", (16, 16), (9, 16), 0.034, 0.035, ("9 filters are no multiple of 16", "more"))
    head, text = report([line]).splitlines()
    assert head.startswith("1 layer lost filters or channels and no time")
    assert " ".join(text.split()) == (
        "layer1.0.conv1 16x16 -> 9x16 0.034 -> 0.035 ms 9 filters are no multiple of 16; more"
    )
    assert report([]) == "Every layer that lost filters or channels became faster."


class Device:
    """Stands in for the backend: the time of a layer is its filters."""

    def __init__(self, settings: Benchmark, cpus: object) -> None:
        self.asked: list[bytes] = []

    def measure(self, network: bytes, settings: Benchmark) -> SimpleNamespace:
        self.asked.append(network)
        widths = {weight.name[0]: weight.dims[0] for weight in onnx_package.load_from_string(network).graph.initializer}
        taken = [Layer(f"/{name}/Conv", "Convolution", AVX512, max(width, 20) / 100) for name, width in widths.items()]
        return SimpleNamespace(layers=taken)

    def close(self) -> None:
        networks = self.asked
        assert networks[: len(set(networks))] * layers.ROUNDS == networks  # in turns


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(layers, "RunnerBackend", Device)
    for name, widths in (("before", (3, 20, 32)), ("after", (3, 17, 24))):
        (tmp_path / f"{name}.onnx").write_bytes(chain(*widths))
    return [str(tmp_path / "before.onnx"), str(tmp_path / "after.onnx")]


def test_main_refuses_a_device_that_has_no_layers(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert layers.main([files[0], "--device", "fake"]) == 2
    assert capsys.readouterr().err.startswith("device must be one that computes, but got 'fake', a formula; pass")


def test_main_prints_the_layers_of_one_network(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert layers.main(files[:1]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1:] == [
        f"a,Convolution,{AVX512},0.2,0.38462",
        f"b,Convolution,{AVX512},0.32,0.61538",
    ]


def test_main_prints_what_is_stuck_in_the_second(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert layers.main([*files, "--granularity", "16"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.startswith("1 layer ")
    assert line.startswith("a ")
    assert line.endswith("17 filters are no multiple of 16")


def test_narrowed_names_what_lost_filters_or_channels() -> None:
    assert narrowed(chain(3, 32, 32, 8), chain(3, 17, 32, 8)) == ["a", "b"]
    assert narrowed(chain(3, 32, 8), chain(3, 32, 8)) == narrowed(chain(3, 16, 8), chain(3, 32, 8)) == []


def test_main_refuses_a_second_network_that_is_not_the_first_one_pruned(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert layers.main(files[::-1]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert re.search(
        r"before.onnx: some layer must be one of .*after.onnx with fewer filters .*, but got none", output.err
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["missing.onnx"], "missing.onnx: must be an ONNX file that can be read, but got: No such file or directory."),
        (["missing.onnx", "--device", ""], "device must be the name of a device, but got an empty text."),
    ],
)
def test_main_says_in_one_sentence_what_is_wrong(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert layers.main(arguments) == 2
    assert capsys.readouterr().err == f"{problem}\n"
