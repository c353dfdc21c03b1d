"""Programs that measure EdgeTune itself, each run as a module: python -m benchmarks.NAME."""

import edge_tune  # noqa: F401  # before torch: it sets how PyTorch's threads wait
