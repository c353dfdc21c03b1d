"""A network as ONNX that every supported runtime reads."""

import copy
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from edge_tune.errors import ExportError
from edge_tune.networks.tracing import Shape

OPSET = 13
CALL_TO_ARMS = re.compile(r"\. Please feel free|\s*\[Caused by|\n")
"""Where torch.onnx, having said what is wrong, goes on to where support is asked for and to its graph."""


def to_onnx(model: nn.Module, input_shape: Shape) -> bytes:
    """Return `model` as ONNX, opset 13, one input "input" [1, C, H, W], one output "output".

    The legacy exporter is used on purpose: what the newer one writes cannot be read by OpenVINO
    2021.4 and 2022.3, the last versions with the Neural Compute Stick's plugin.

    Raises:
        ExportError: The network does something that ONNX cannot hold, or fails while it is traced.
    """
    model = on_cpu(model)
    buffer: Any = io.BytesIO()  # the legacy exporter writes to a buffer too, which its annotation leaves out
    try:
        with warnings.catch_warnings(), _without_graphs(), _PoolingAsProducts():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=TracerWarning)
            torch.onnx.export(
                model.eval(),
                (torch.zeros(1, *input_shape),),
                buffer,
                dynamo=False,
                opset_version=OPSET,
                input_names=["input"],
                output_names=["output"],
            )
    except Exception as error:  # tracing runs the network's own forward, which may raise anything
        raise ExportError(
            f"the network must be one that ONNX (opset {OPSET}) can hold, but torch.onnx says: {_said(error)}; change "
            f"that operation, or image_size where it is a pooling whose output must divide its input."
        ) from error
    onnx: bytes = buffer.getvalue()
    return onnx


def on_cpu(model: nn.Module) -> nn.Module:
    """Return a network on the CPU: itself, or a copy."""
    parameter = next(model.parameters(), None)
    return model if parameter is None or parameter.device.type == "cpu" else copy.deepcopy(model).cpu()


class _PoolingAsProducts(TorchFunctionMode):
    """Computes adaptive average pooling to sizes that do not divide the input's as products with two matrices.

    ONNX has no such pooling. VGG and AlexNet pool so, whatever comes of small images, to the size of their classifier.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call what was called, but for such a pooling."""
        kwargs = kwargs or {}
        if func is functional.adaptive_avg_pool2d and (pooled := _pooled(*args, **kwargs)) is not None:
            return pooled
        return func(*args, **kwargs)


def _pooled(input: Tensor, output_size: int | Sequence[int | None]) -> Tensor | None:
    """Return what such a pooling gives; None if the sizes divide the input's, or are not what PyTorch takes."""
    before = [int(size) for size in input.shape[-2:]]
    asked = [output_size] * 2 if isinstance(output_size, int) else output_size
    after = [own if size is None else size for own, size in zip(before, asked, strict=False)]
    if len(after) != 2 or min(after) < 1 or not any(own % size for own, size in zip(before, after, strict=True)):
        return None
    rows, columns = (_averaging(*sizes) for sizes in zip(before, after, strict=True))
    return rows @ input @ columns.T


def _averaging(before: int, after: int) -> Tensor:
    """Return the matrix [after, before] whose row i averages places floor(i b / a) to ceil((i + 1) b / a) of before b.

    Source: adaptive_avg_pool2d in PyTorch's aten/src/ATen/native/AdaptiveAveragePooling.cpp.
    """
    averaging = torch.zeros(after, before)
    for i in range(after):
        first, end = i * before // after, -(-(i + 1) * before // after)
        averaging[i, first:end] = 1 / (end - first)
    return averaging


@contextmanager
def _without_graphs() -> Iterator[None]:
    """Keep torch.onnx from printing the whole graph of a network that it refuses.

    It means to do so only when asked, but tests whether the function `_jit_is_onnx_log_enabled` exists, not its answer.
    """
    log = torch._C._jit_onnx_log
    setattr(torch._C, "_jit_onnx_log", lambda *_: None)  # noqa: B010 - mypy knows it as a function, which stays one
    try:
        yield
    finally:
        setattr(torch._C, "_jit_onnx_log", log)  # noqa: B010


def _said(error: Exception) -> str:
    """Return what an error says is wrong, in one line, with its type unless it is torch.onnx's own."""
    text = CALL_TO_ARMS.split(str(error))[0].rstrip(".")
    return text if isinstance(error, torch.onnx.OnnxExporterError) else f"{type(error).__name__}: {text}"
