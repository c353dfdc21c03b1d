import io
import sys
import types

import pytest
import torch
import torchvision
from torch import nn

from edge_tune.errors import ExperimentError
from edge_tune.networks.models import build, check_output

INPUT_SHAPE = (3, 32, 32)


class Pair(nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images, images


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def functions(monkeypatch):
    """A module of the user's, importable as `user_networks`."""
    module = types.ModuleType("user_networks")
    monkeypatch.setitem(sys.modules, "user_networks", module)
    return module


# ResNets for CIFAR


def resnet_weights(blocks: int, classes: int) -> int:
    """Count the convolutions' and the classifier's weights, layer by layer."""
    stem = 3 * 16 * 9
    first = blocks * 2 * 16 * 16 * 9
    second = 16 * 32 * 9 + (2 * blocks - 1) * 32 * 32 * 9 + 16 * 32
    third = 32 * 64 * 9 + (2 * blocks - 1) * 64 * 64 * 9 + 32 * 64
    return stem + first + second + third + 64 * classes


@pytest.mark.parametrize(("depth", "blocks"), [(20, 3), (32, 5), (44, 7), (56, 9), (110, 18)])
def test_build_makes_resnets_of_the_depth_in_their_name(depth, blocks):
    model = build(f"resnet{depth}_cifar", 10)

    assert sum(p.numel() for p in model.parameters() if p.dim() > 1) == resnet_weights(blocks, classes=10)
    main_path = [m for name, m in model.named_modules() if "downsample" not in name]
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in main_path) == depth


def test_build_makes_the_resnet56_of_851504_weights():
    assert sum(p.numel() for p in build("resnet56_cifar", 10).parameters() if p.dim() > 1) == 851_504


def test_build_names_the_weights_as_distiller_does():
    names = [name for name in build("resnet20_cifar", 10).state_dict() if name.endswith("weight")]

    assert names[:4] == ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.weight"]
    assert [name for name in names if "downsample" in name] == [
        f"layer{stage}.0.downsample.{part}.weight" for stage in (2, 3) for part in (0, 1)
    ]
    assert names[-1] == "fc.weight"


def test_resnet_halves_the_resolution_twice():
    model = build("resnet20_cifar", 7)
    shapes = []
    for stage in (model.layer1, model.layer2, model.layer3):
        stage.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape)))

    assert model(torch.zeros(2, *INPUT_SHAPE)).shape == (2, 7)
    assert shapes == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]


def test_resnet_block_adds_its_input_when_its_convolutions_are_zero():
    block = build("resnet20_cifar", 10).layer1[1].eval()
    nn.init.zeros_(block.conv2.weight)
    features = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))

    assert torch.equal(block(features), features.clamp(min=0))


def test_resnet_convolutions_start_with_the_variance_of_he():
    weight = build("resnet20_cifar", 10).layer3[0].conv1.weight  # 32 to 64 filters, 18,432 values

    # The standard deviation of n normal values is known to about 1 / sqrt(2 n), here 0.5 %.
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


def test_resnet_can_be_traced_by_fx():
    model = build("resnet20_cifar", 10).eval()
    images = torch.randn(2, *INPUT_SHAPE, generator=torch.Generator().manual_seed(0))

    assert torch.equal(torch.fx.symbolic_trace(model)(images), model(images))


def test_resnet_can_be_pruned_by_torch_pruning():
    tp = pytest.importorskip("torch_pruning")
    model = build("resnet20_cifar", 10)
    graph = tp.DependencyGraph().build_dependency(model, torch.zeros(1, *INPUT_SHAPE))

    graph.get_pruning_group(model.layer1[0].conv1, tp.prune_conv_out_channels, [0, 5, 7]).prune()

    assert model.layer1[0].conv1.weight.shape == (13, 16, 3, 3)
    assert model.layer1[0].conv2.weight.shape == (16, 13, 3, 3)
    assert model(torch.zeros(1, *INPUT_SHAPE)).shape == (1, 10)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the exporter's own; what it is called with is export.py's
def test_resnet_can_be_exported_to_onnx():
    onnx = pytest.importorskip("onnx")
    model, file = build("resnet20_cifar", 10).eval(), io.BytesIO()

    torch.onnx.export(model, (torch.zeros(1, *INPUT_SHAPE),), file, opset_version=13, dynamo=False)

    kinds = [node.op_type for node in onnx.load_from_string(file.getvalue()).graph.node]
    assert kinds.count("Conv") == 19 + 2
    assert kinds.count("Add") == 9


# build: torchvision and functions


def test_build_knows_the_classifiers_of_torchvision():
    assert build("squeezenet1_1", 7)(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_build_returns_one_output_when_torchvision_has_three():
    model = build("googlenet", 7).train()

    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "matches"), [("resnet65_cifar", "resnet56_cifar, .*"), ("fcn_resnet50", ".*resnet50.*"), ("@", "none")]
)
def test_build_lists_close_matches_when_the_name_is_unknown(name, matches):
    with pytest.raises(
        ExperimentError, match=rf"'package.module:function', but got '{name}'; close matches: {matches}\.$"
    ):
        build(name, 10)


def test_build_calls_a_function_with_the_number_of_classes_when_it_takes_it(functions):
    functions.by_name = lambda num_classes: nn.Linear(3, num_classes)
    functions.by_keywords = lambda **settings: nn.Linear(3, settings["num_classes"])
    functions.by_class = type(
        "Net", (nn.Linear,), {"__init__": lambda self, num_classes=2: nn.Linear.__init__(self, 3, num_classes)}
    )
    functions.fixed = lambda: nn.Linear(3, 4)

    outputs = [
        build(f"user_networks:{name}", 7).out_features for name in ("by_name", "by_keywords", "by_class", "fixed")
    ]

    assert outputs == [7, 7, 7, 4]


def test_build_takes_the_network_out_of_what_spreads_images_over_gpus(functions):
    functions.parallel = lambda: nn.DataParallel(nn.Linear(3, 10))

    assert isinstance(build(f"{functions.__name__}:parallel", 10), nn.Linear)


def test_build_says_so_when_the_module_cannot_be_imported():
    with pytest.raises(
        ExperimentError, match=r"'no_such_module' must be importable, but got ModuleNotFoundError: No mod"
    ):
        build("no_such_module:net", 10)


def test_build_says_so_when_the_module_fails_while_importing(tmp_path, monkeypatch):
    (tmp_path / "failing_network.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(
        ExperimentError, match=r"'failing_network' must be importable, but got ZeroDivisionError: divis"
    ):
        build("failing_network:net", 10)


def test_build_says_so_when_there_is_no_such_function(functions):
    with pytest.raises(ExperimentError, match=r"user_networks must define 'net', but got no such name"):
        build("user_networks:net", 10)


def test_build_says_so_when_the_name_is_not_a_function(functions):
    functions.net = 3

    with pytest.raises(ExperimentError, match=r"'net' must be something to call, but got 3;"):
        build("user_networks:net", 10)


def test_build_says_so_when_the_function_fails(functions):
    functions.net = lambda: [][0]

    with pytest.raises(
        ExperimentError, match=r"must return a network, but raised IndexError: list index out of range;"
    ):
        build("user_networks:net", 10)


def test_build_says_so_when_the_function_returns_something_else(functions):
    functions.net = lambda: "a network"

    with pytest.raises(ExperimentError, match=r"must return a torch\.nn\.Module, but got 'a network';"):
        build("user_networks:net", 10)


# check_output


@pytest.mark.parametrize("is_training", [True, False])
def test_check_output_leaves_the_network_as_it_was(is_training):
    model = build("resnet20_cifar", 10).train(is_training)
    before = weights_of(model)

    check_output(model, INPUT_SHAPE, 10)

    assert model.training is is_training
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_check_output_says_so_when_the_network_cannot_take_the_images():
    with pytest.raises(
        ExperimentError, match=r"must take images of shape \[3, 32, 32\], but got RuntimeError: .*; chan"
    ):
        check_output(torchvision.models.alexnet(num_classes=10), INPUT_SHAPE, 10)


@pytest.mark.parametrize(
    ("model", "got"),
    [
        (build("resnet20_cifar", 100), r"\[1, 100\]"),
        (nn.Identity(), r"\[1, 3, 32, 32\]"),
        (Pair(), "tuple"),
    ],
)
def test_check_output_says_so_when_the_output_is_not_one_value_a_class(model, got):
    with pytest.raises(ExperimentError, match=rf"must return \[1, 10\], one value a class, but got {got}; change the"):
        check_output(model, INPUT_SHAPE, 10)
