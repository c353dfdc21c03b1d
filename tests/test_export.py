from pathlib import Path

import onnx
import openvino
import pytest
import torch
from torch import nn

from edge_tune.errors import ExperimentError, ExportError
from edge_tune.files import write_atomically
from edge_tune.networks import onnx_export, pruning, stored
from edge_tune.records.jsonfiles import to_json
from tests.asked import asked
from tests.networks import BLOCKS, Pooled
from tests.test_pruning import COUPLED, SHAPE, trained_small


def test_to_onnx_writes_opset_13_with_a_static_batch_of_one() -> None:
    model = onnx.load_from_string(onnx_export.to_onnx(trained_small(), SHAPE))
    onnx.checker.check_model(model)
    assert [entry.version for entry in model.opset_import] == [13]
    (given,), (out,) = model.graph.input, model.graph.output
    assert (given.name, [dim.dim_value for dim in given.type.tensor_type.shape.dim]) == ("input", [1, *SHAPE])
    assert (out.name, [dim.dim_value for dim in out.type.tensor_type.shape.dim]) == ("output", [1, 5])


def test_to_onnx_refuses_what_onnx_cannot_hold_in_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    says = (
        r"the network must be one that ONNX \(opset 13\) can hold, but torch\.onnx says: Unsupported: .*adaptive_max_po"
    )
    with pytest.raises(
        ExportError, match=says + r"ol2d, output size that are not factor of input size; change"
    ) as error:
        onnx_export.to_onnx(Pooled(10), SHAPE)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")  # torch.onnx prints its whole graph


@pytest.mark.parametrize("size", [3, (7, 5), (None, 3), 1, 4, 16])
def test_average_pooling_to_any_size_is_exported(size: int | tuple[int | None, int]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(size)).eval()  # of a map of 8x8
    network = openvino.Core().read_model(onnx_export.to_onnx(model, (3, 8, 8)))
    images = torch.randn(1, 3, 8, 8)
    compiled = openvino.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(compiled(images.numpy())[0]), model(images), rtol=1e-5, atol=1e-6)


def test_to_onnx_refuses_a_forward_that_fails_while_it_is_traced() -> None:
    class Fussy(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if torch.jit.is_tracing():
                raise ValueError("not while\nyou watch")
            return images

    with pytest.raises(ExportError, match=r"torch\.onnx says: ValueError: not while; change that operation"):
        onnx_export.to_onnx(Fussy(), SHAPE)


def test_load_network_gives_back_the_pruned_network(tmp_path: Path) -> None:
    model = trained_small()
    plan = pruning.make_plan(model, BLOCKS, asked({"first": 0.7, "second": 0.2}), COUPLED)
    pruned = pruning.prune(model, plan, COUPLED)
    description = stored.Description("tests.networks:small", 5, SHAPE, plan)
    write_atomically(tmp_path / "plan.json", to_json(description).encode())
    write_atomically(tmp_path / "weights.pt", stored.to_bytes(pruned))
    images = torch.randn(3, *SHAPE)
    torch.testing.assert_close(stored.load_network(tmp_path, trust_model=True)(images), pruned(images), rtol=0, atol=0)


def test_load_network_imports_a_module_only_when_it_is_trusted(tmp_path: Path) -> None:
    description = stored.Description("no_such_module:net", 5, SHAPE, ())
    write_atomically(tmp_path / "plan.json", to_json(description).encode())
    write_atomically(tmp_path / "weights.pt", stored.to_bytes(trained_small()))
    with pytest.raises(
        ExperimentError, match=r"plan.json: model 'no_such_module:net' must be imported .* trust_model=T"
    ):
        stored.load_network(tmp_path)
    with pytest.raises(ExperimentError, match=r"weights.pt: model .*: 'no_such_module' must be importable, but got"):
        stored.load_network(tmp_path, trust_model=True)
