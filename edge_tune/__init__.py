"""EdgeTune: prune a trained CNN until it is fast on your device, measured there.

An experiment file starts with `import edge_tune as et` and needs only what is exported here.
"""

import importlib
import os
from typing import Any

from edge_tune.experiment import (
    Asha,
    Benchmark,
    BlockGroup,
    Cosine,
    Data,
    Distillation,
    Ema,
    Experiment,
    Exponential,
    Hopeless,
    MultiStep,
    OneCycle,
    Predicted,
    PrunerGroup,
    Retraining,
    Search,
    Step,
)
from edge_tune.objective import Maximise, Minimise
from edge_tune.parameters import Choice, Integer, LogUniform, Uniform

# PyTorch's threads sleep while they wait for each other. Its OpenMP, which reads this when torch is imported, would let
# them spin for milliseconds, on a busy host in place of the very thread that they wait for (docs/decisions.md).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

LATER = ("load_study", "run")
"""What a script uses besides; an experiment file does without the modules that these need."""

__version__ = "0.1.0"
"""The one place that says it; pyproject.toml reads it here."""

__all__ = [
    "Asha",
    "Benchmark",
    "BlockGroup",
    "Choice",
    "Cosine",
    "Data",
    "Distillation",
    "Ema",
    "Experiment",
    "Exponential",
    "Hopeless",
    "Integer",
    "LogUniform",
    "Maximise",
    "Minimise",
    "MultiStep",
    "OneCycle",
    "Predicted",
    "PrunerGroup",
    "Retraining",
    "Search",
    "Step",
    "Uniform",
    "load_study",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in LATER:
        return getattr(importlib.import_module("edge_tune.studies"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
