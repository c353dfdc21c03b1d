"""What a trial reports: the name of each metric, and what kind of figure it is."""

from collections.abc import Mapping

MEANINGS: Mapping[str, str] = {
    "top1": "percent, 0 to 100, of the validation images whose first answer is right",
    "top5": "percent, 0 to 100, of those whose right class is among the first five answers",
    "loss": "mean cross-entropy on the validation images, nats",
    "latency_ms": "device time of the executed layers, summed, of one image, milliseconds",
    "total_latency_ms": "one synchronous request, input copied in and result copied out, milliseconds",
    "latency_ratio": "latency over that of the unpruned network, measured in turns with it: 0.5 is twice as fast",
    "total_latency_ratio": "total latency over that of the unpruned network, measured likewise",
    "throughput_fps": "images a second while the device is kept full",
    "parameters": "numbers that the network has learned: its weights and biases",
    "macs": "multiply-accumulates that one image takes",
}
"""Name -> what it is, and its unit."""

METRICS = tuple(MEANINGS)
"""What every report of a trial holds: accuracy on validation, the device's measurements, size."""

RATIO_OF = {"latency_ms": "latency_ratio", "total_latency_ms": "total_latency_ratio"}
"""The ratio that compares milliseconds of two networks: those of different moments are not subtracted."""

RATIOS = tuple(RATIO_OF.values())
"""The unpruned network's are 1 by definition; each is measured with an interval."""

LARGER_IS_BETTER = frozenset({"top1", "top5", "throughput_fps"})

TRAINED = frozenset({"top1", "top5", "loss"})
"""Those that retraining changes; all others are known as soon as a network is pruned and measured."""

WITHOUT_DEVICE = frozenset({"top1", "top5", "loss", "parameters", "macs"})
"""Those that no device measures."""
