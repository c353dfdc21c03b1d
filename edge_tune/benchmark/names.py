"""Which module of a network a runtime's layer is.

OpenVINO names a layer by an ONNX node or tensor with something before or after it: "/conv1/Conv/WithoutBiases" is a
convolution with all that is fused into it, "input_abcd_acdb_/conv1/Conv/WithoutBiases" a reorder of what conv1 reads.
torch's exporter in turn names a node by its scopes: "/layer1/layer1.0/conv1/Conv" is layer1.0.conv1.

ONNX Runtime names a layer by an ONNX node, "fused /conv1/Conv" where one takes others in; but one that computes in
blocks of channels by the tensor that it writes: "/Relu_output_0_nchwc" is the convolution that the ReLU is fused into.

OpenVINO 2021.4 forgets the name of a convolution that has a bias, and calls it Convolution_171, by a counter that
rises in the order of the ONNX nodes: such layers are matched by their order, when there are as many as convolutions.
"""

import re
from collections.abc import Collection

import onnx
from google.protobuf.message import DecodeError

IN_BLOCKS = "_nchwc"
UNIQUE = re.compile(r"_token_\d+$")  # ONNX Runtime's own, behind a name that there was already
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish")
"""What ONNX Runtime fuses into a convolution."""

NAMELESS = re.compile(r"(?:Group)?Convolution_(\d+)(?!.*Convolution_\d)")


def is_network(content: bytes) -> bool:
    """Tell whether this is the content of an ONNX file."""
    try:
        return bool(onnx.load_from_string(content).graph.node)
    except DecodeError:
        return False


class Names:
    """The nodes of an ONNX network under the names of the modules that they come from.

    Attributes:
        widths: Name of a module with a weight -> (filters, channels) of that weight.
    """

    def __init__(self, network: bytes) -> None:
        graph = onnx.load_from_string(network).graph
        weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self.widths: dict[str, tuple[int, ...]] = {}
        self._own: dict[str, str] = {}
        self._convolutions: list[str] = []
        written_by: dict[str, str] = {}
        for node in graph.node:
            own = [weights[name] for name in node.input if len(weights.get(name, ())) > 1]
            if node.op_type == "Identity" and own:  # equal tensors are kept once
                weights[node.output[0]] = own[0]
                continue
            name = module_of(node.name, has_weights=bool(own)) or node.output[0]
            blocked = (f"{tensor}{IN_BLOCKS}" for tensor in node.output)
            self._own.update(dict.fromkeys((node.name, *node.output, *blocked), name))
            if own:
                self.widths[name] = own[0][:2]
            if node.op_type == "Conv":
                self._convolutions.append(name)
                written_by[node.output[0]] = name
            elif node.op_type in ACTIVATIONS and node.input[0] in written_by:
                self._own[f"{node.output[0]}{IN_BLOCKS}"] = written_by[node.input[0]]

    def all_own(self, runtime_names: Collection[str]) -> dict[str, str]:
        """Return the module's name for each name of a runtime."""
        counters = {name: int(found[1]) for name in runtime_names if (found := NAMELESS.search(name))}
        order = sorted(set(counters.values()))
        if len(order) != len(self._convolutions):
            return {name: self.own(name) for name in runtime_names}
        nameless = dict(zip(order, self._convolutions, strict=True))
        return {name: nameless[counters[name]] if name in counters else self.own(name) for name in runtime_names}

    def own(self, runtime_name: str) -> str:
        """Return the module's name: the last node that the runtime's name mentions; that name itself if none."""
        if (whole := UNIQUE.sub("", runtime_name)) in self._own:
            return self._own[whole]
        found = [(runtime_name.rfind(known), len(known), known) for known in self._own if known]
        mentioned = [place for place in found if place[0] == 0 or (place[0] > 0 and runtime_name[place[0] - 1] in "_ ")]
        return self._own[max(mentioned)[2]] if mentioned else runtime_name


def module_of(node: str, *, has_weights: bool) -> str:
    """Return the name of the module that torch's exporter made an ONNX node from.

    A node without weights may stand for a function called in the module's forward; then its operation is part
    of the name: "/layer1/layer1.0/Relu_1" -> "layer1.0.Relu_1".
    """
    if not node.startswith("/"):
        return node
    *scopes, operation = node.strip("/").split("/")
    path: list[str] = []
    for scope in scopes:
        if path and scope.startswith(path[-1] + "."):  # an item of a Sequential repeats the Sequential's name
            path[-1] = scope
        else:
            path.append(scope)
    return ".".join(path if has_weights and path else [*path, operation])
