"""A network as ONNX that every supported runtime reads."""

import copy
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.jit._trace import TracerWarning

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
        with warnings.catch_warnings(), _without_graphs():
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
