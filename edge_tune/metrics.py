"""What a trial reports: the name of each metric, and what kind of figure it is."""

METRICS = (
    "top1",
    "top5",
    "loss",
    "latency_ms",
    "total_latency_ms",
    "latency_ratio",
    "total_latency_ratio",
    "throughput_fps",
    "parameters",
    "macs",
)
"""What every report of a trial holds: accuracy on validation, the device's measurements, size. A ratio is that to the
unpruned network, measured in turns with it."""

RATIO_OF = {"latency_ms": "latency_ratio", "total_latency_ms": "total_latency_ratio"}
"""The ratio that compares milliseconds of two networks: those of different moments are not subtracted."""

RATIOS = tuple(RATIO_OF.values())
"""The unpruned network's are 1 by definition; each is measured with an interval."""

LARGER_IS_BETTER = frozenset({"top1", "top5", "throughput_fps"})

TRAINED = frozenset({"top1", "top5", "loss"})
"""Those that retraining changes; all others are known as soon as a network is pruned and measured."""

WITHOUT_DEVICE = frozenset({"top1", "top5", "loss", "parameters", "macs"})
"""Those that no device measures."""
