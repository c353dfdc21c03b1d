from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from runtime import Layer, Network, Runtime


class ScriptedNetwork(Network):
    """A network whose answer and whose counters are written down beforehand."""

    shape = (1, 3, 4, 4)

    def __init__(self, name: str, microseconds: int, answer: float, log: list[str]) -> None:
        self.name, self.microseconds, self.answer, self.log = name, microseconds, answer, log
        self.inferences = 0

    def infer(self, image: Any) -> Any:
        self.inferences += 1
        self.log.append(self.name)
        return np.full((1, 2), self.answer, dtype=np.float32)

    def layers(self) -> list[Layer]:
        return [("conv", "Convolution", "jit", self.microseconds)]

    def stream(self, images: Iterable[Any], take: Callable[[int, Any], None] | None = None) -> None:
        for index, image in enumerate(images):
            output = self.infer(image)
            if take:
                take(index, output)

    def used(self) -> dict[str, Any]:
        return {"precision": "f32"}


class ScriptedRuntime(Runtime):
    """Its CPU answers 1; its stick answers what it is told to."""

    def __init__(self, microseconds: int = 50, stick_answers: float = 1.0) -> None:
        self.microseconds, self.stick_answers = microseconds, stick_answers
        self.loaded: list[ScriptedNetwork] = []
        self.log: list[str] = []

    def devices(self) -> dict[str, str]:
        return {"CPU": "A double"}

    def probe(self, device: str) -> str:
        return "A double"

    def check(self, device: str, precision: str, threads: int) -> None:
        pass

    def convert(self, onnx: str, xml: str, weights: str) -> None:
        pass

    def load(self, onnx: str, device: str, precision: str, threads: int, full: bool) -> Network:
        answer = 1.0 if device == "CPU" else self.stick_answers
        self.loaded.append(ScriptedNetwork(onnx, self.microseconds, answer, self.log))
        return self.loaded[-1]
