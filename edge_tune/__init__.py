"""EdgeTune: prune a trained CNN until it is fast on your device, measured there.

An experiment file starts with `import edge_tune as et` and needs only what is exported here.
"""

from edge_tune.experiment import (
    Asha,
    Benchmark,
    Choice,
    Cosine,
    Data,
    Experiment,
    Exponential,
    Hopeless,
    Maximise,
    Minimise,
    MultiStep,
    PrunerGroup,
    Retraining,
    Search,
    Step,
    Uniform,
)

__all__ = [
    "Asha",
    "Benchmark",
    "Choice",
    "Cosine",
    "Data",
    "Experiment",
    "Exponential",
    "Hopeless",
    "Maximise",
    "Minimise",
    "MultiStep",
    "PrunerGroup",
    "Retraining",
    "Search",
    "Step",
    "Uniform",
]
