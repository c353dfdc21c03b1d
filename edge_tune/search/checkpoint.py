"""What an interrupted trial goes on from: its record, weights and state after an epoch, as the bytes of a file."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edge_tune.records.results import Record


@dataclass(frozen=True)
class Checkpoint:
    """The state of a trial between two epochs.

    Attributes:
        record: What was known of the trial; `record.epoch` epochs are done.
        weights: The pruned network's `state_dict`.
        state: The `state_dict` of its retraining: of the optimiser, and of an average of the weights.
    """

    record: Record
    weights: Mapping[str, Tensor]
    state: dict[str, Any]

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        buffer = io.BytesIO()
        content = {"record": self.record.to_json(), "weights": dict(self.weights), "state": self.state}
        torch.save(content, buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Checkpoint":
        """Return what `to_bytes` was asked to keep; no code is run from it."""
        parts = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return cls(Record.from_entry(json.loads(parts["record"])), parts["weights"], parts["state"])
