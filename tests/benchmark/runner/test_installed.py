import sys

import pytest

from installed import open_runtime
from refusals import RefusalError


def test_open_runtime_names_an_interpreter_without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("openvino", "openvino.runtime", "openvino.inference_engine", "openvino_telemetry"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RefusalError, match=rf"must have OpenVINO, but {sys.executable} has none; pip install"):
        open_runtime()
