"""Before any test: how PyTorch's threads wait, as the commands set it, and one token for all of Ray that tests start.

ONNX Runtime, which some tests start in this process, is not to report home.

Ray reads its token once a process, and this process starts Ray many times, with and without EdgeTune.
"""

import os
import secrets

import edge_tune  # noqa: F401  (before torch)

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
