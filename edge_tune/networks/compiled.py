"""A network compiled by OpenVINO for this host's CPU, which classifies many images in less than PyTorch's time.

Nothing is measured by it: the device's own process does that (benchmark/).
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_tune.networks import onnx_export

BATCH_SIZE = 50
"""Larger batches are no faster on two cores, and take longer to fill."""


class Compiled:
    """A network that computes in f32, with as many threads as PyTorch has.

    Args:
        model: One whose forward does not look at the values of its input: ONNX holds one way through it.
        shape: (C, H, W) of one image.

    Raises:
        Exception: Of any kind: ONNX or OpenVINO cannot hold the network, or not in batches.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, int, int]) -> None:
        import openvino  # only here: half a second, which few images are not worth

        core = openvino.Core()
        network = core.read_model(onnx_export.to_onnx(model, shape))
        network.reshape([BATCH_SIZE, *shape])
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._queue = openvino.AsyncInferQueue(core.compile_model(network, "CPU", settings))
        self._logits: dict[int, NDArray[np.float32]] = {}
        logits = self._logits  # not self: Python does not see the queue's hold on its callback, and would free neither
        self._queue.set_callback(
            lambda request, place: logits.update({place: request.get_output_tensor(0).data.copy()})
        )

    def __call__(self, images: Iterable[Tensor]) -> Tensor:
        """Return logits [N, num_classes] of batches [B, C, H, W], B <= BATCH_SIZE, in their order."""
        self._logits.clear()
        counts = []
        for place, batch in enumerate(images):
            counts.append(len(batch))
            missing = BATCH_SIZE - len(batch)
            filled = torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]) if missing else batch
            self._queue.start_async({0: filled.numpy()}, place)
        self._queue.wait_all()
        return torch.cat([torch.from_numpy(self._logits[place][:count]) for place, count in enumerate(counts)])
