"""The exceptions of EdgeTune.

EdgeTuneError
├── ExperimentError    what the user gave, before anything starts; may hold several problems
├── PruningError       this plan cannot be carried out on this network
├── RetrainingError    this network diverged: its loss, or a weight, is not a finite number
├── ComputeError       a trial cannot compute where it was put: no GPU that PyTorch can use, too little memory
├── ExportError        this network cannot be written as ONNX
├── BenchmarkError     the device, or the process that owns it
├── StudyError         the whole study cannot go on; what it found so far is kept
└── AllFailedError     a study has come to its end, and each of its trials failed
"""

from collections.abc import Iterable


class EdgeTuneError(Exception):
    """Base of every error that EdgeTune raises on purpose. Its text is meant for the user."""


class ExperimentError(EdgeTuneError):
    """What the user gave cannot be run: every problem found, one sentence each.

    Attributes:
        problems: Sentences that say where, what must hold, what was given and what to do.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    @classmethod
    def raise_if(cls, problems: Iterable[str]) -> None:
        """Raise one error with all `problems`, or return when there are none."""
        if found := tuple(problems):
            raise cls(*found)


class PruningError(EdgeTuneError):
    """A plan cannot be carried out on this network."""


class RetrainingError(EdgeTuneError):
    """A loss, in training or on validation, or a weight that was trained is not a finite number."""


class ComputeError(EdgeTuneError):
    """A GPU was asked for that PyTorch cannot use, or that has too little memory."""


class ExportError(EdgeTuneError):
    """A network cannot be written as ONNX, which every device reads."""


class BenchmarkError(EdgeTuneError):
    """The device could not be measured, or its owner did not answer."""


class StudyError(EdgeTuneError):
    """A study cannot go on. What it found so far is kept, and it can be resumed."""


class AllFailedError(EdgeTuneError):
    """A study has come to its end, and each of its trials failed. Their records are kept, and none is run again."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, to stand within a sentence."""
    return str(error).partition("\n")[0].rstrip(".")
