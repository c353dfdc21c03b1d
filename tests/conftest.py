"""Sets how PyTorch's threads wait, as the commands do, before any test imports torch: tests run on busy hosts too."""

import edge_tune  # noqa: F401
