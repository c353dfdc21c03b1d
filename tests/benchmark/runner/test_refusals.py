import pytest

from refusals import RefusalError, sentence


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RefusalError("no such device."), "no such device."),
        (RuntimeError("Exception from a.cpp:1:\nException from b.cpp:2:\nNo kernel.\n\n"), "OpenVINO says: No kernel."),
        (RuntimeError("Exception from a.cpp:1: dead"), "OpenVINO says: Exception from a.cpp:1: dead"),
        (KeyError("onnx"), "the runner failed: KeyError('onnx')"),
    ],
)
def test_sentence_is_one_line_that_says_who_failed(error: Exception, text: str) -> None:
    assert sentence(error, "OpenVINO") == text
