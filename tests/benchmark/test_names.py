from pathlib import Path

import numpy as np
import onnxruntime
import openvino as ov
import pytest
from onnx import load
from torch import nn

from edge_tune.benchmark.names import Names, module_of
from edge_tune.networks import models, pruning
from edge_tune.networks.couplings import couplings
from edge_tune.networks.onnx_export import to_onnx
from edge_tune.networks.pruning import Cut

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def resnet56() -> nn.Module:
    plan = (
        Cut("layer1.0.conv1.weight", "filters", "out", "l1", 0.7, 16, tuple(range(5))),
        Cut("layer3.3.conv1.weight", "filters", "out", "l1", 0.4, 64, tuple(range(39))),
    )
    network = models.build("resnet56_cifar", 10)
    return pruning.prune(network, plan, couplings(network, SHAPE))


@pytest.fixture(scope="module")
def onnx(resnet56: nn.Module) -> bytes:
    return to_onnx(resnet56, SHAPE)


@pytest.mark.parametrize(
    ("node", "has_weights", "module"),
    [
        ("/conv1/Conv", True, "conv1"),
        ("/layer1/layer1.0/conv1/Conv", True, "layer1.0.conv1"),
        ("/layer1/layer1.0/Relu_1", False, "layer1.0.Relu_1"),
        ("/Relu", False, "Relu"),
        ("/features/features.1/conv/conv.0/conv.0.0/Conv", True, "features.1.conv.0.0"),
        ("/0/0.1/Conv", True, "0.1"),
        ("/blocks.0/conv/Conv", True, "blocks.0.conv"),
        ("Conv_12", True, "Conv_12"),
        ("", True, ""),
    ],
)
def test_module_of_undoes_the_exporters_scopes(node: str, has_weights: bool, module: str) -> None:
    assert module_of(node, has_weights=has_weights) == module


def test_names_knows_the_width_of_every_module_with_a_weight(resnet56: nn.Module, onnx: bytes) -> None:
    modules = {name: part for name, part in resnet56.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)}
    assert Names(onnx).widths == {name: tuple(part.weight.shape[:2]) for name, part in modules.items()}
    assert Names(onnx).widths["layer1.0.conv2"] == (16, 5)


def test_own_names_each_layer_that_openvino_executes(resnet56: nn.Module, onnx: bytes) -> None:
    compiled = ov.compile_model(ov.Core().read_model(onnx), "CPU", {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    request.infer({0: np.zeros((1, *SHAPE), np.float32)})
    names = Names(onnx)
    executed = [layer for layer in request.profiling_info if str(layer.status).endswith("EXECUTED")]
    found = {names.own(layer.node_name) for layer in executed if layer.node_type in ("Convolution", "FullyConnected")}
    assert found == set(names.widths)
    modules = {name for name, _ in resnet56.named_modules()}
    others = {names.own(layer.node_name) for layer in executed} - found
    assert all(name.rpartition(".")[0] in modules for name in others)


@pytest.mark.parametrize("level", ["ORT_ENABLE_ALL", "ORT_ENABLE_EXTENDED"])  # in blocks of channels, and without
def test_own_names_each_layer_that_onnx_runtime_executes(level: str, onnx: bytes, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 3
    onnxruntime.InferenceSession(onnx, options)
    layers = load(tmp_path / "optimised.onnx").graph.node
    weighted = [layer.name for layer in layers if layer.op_type in ("Conv", "FusedConv", "Gemm", "FusedGemm")]
    names = Names(onnx)
    assert sorted(names.own(layer) for layer in weighted) == sorted(names.widths)


@pytest.mark.parametrize(
    ("runtime_name", "own"),
    [
        ("/conv1/Conv/WithoutBiases", "conv1"),
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("input_abcd_acdb_/conv1/Conv/WithoutBiases", "conv1"),
        ("/conv1/Conv_abcd_acdb_/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/layer1/layer1.0/Relu_1", "layer1.0.Relu_1"),
        ("output", "fc"),
        ("fused /conv1/Conv", "conv1"),
        ("/layer1/layer1.0/Relu_output_0_nchwc_token_3", "layer1.0.conv1"),
        ("<Extra>", "<Extra>"),
    ],
)
def test_own_takes_the_last_node_that_is_mentioned(runtime_name: str, own: str, onnx: bytes) -> None:
    assert Names(onnx).own(runtime_name) == own


def test_all_own_matches_nameless_convolutions_by_their_order() -> None:
    depthwise = nn.Conv2d(8, 8, 3, groups=8)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), depthwise, nn.Flatten(), nn.Linear(8 * 28 * 28, 2))
    runtime_names = ["output", "GroupConvolution_117", "input_FP32_BF16_Convolution_99", "Convolution_99@FP16"]
    assert Names(to_onnx(network, SHAPE)).all_own(runtime_names) == {
        "output": "4",
        "GroupConvolution_117": "2",
        "input_FP32_BF16_Convolution_99": "0",
        "Convolution_99@FP16": "0",
    }


def test_all_own_leaves_nameless_convolutions_alone_when_some_are_missing() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    names = Names(to_onnx(network, SHAPE))
    assert names.all_own(["Convolution_99", "/1/Conv"]) == {"Convolution_99": "Convolution_99", "/1/Conv": "1"}
