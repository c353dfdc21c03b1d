"""Which slices of a network reach which: found by marking slices with NaN and looking where NaN arrives.

Whatever a forward does with NaN gives NaN again: it may be added, multiplied, pooled, flattened, permuted, shuffled,
concatenated or cut. So marks tell the way of each channel through any code. Layers that compute every output from
every input (convolutions, linear layers) do not hand marks on: while marks travel, their outputs come from a recording,
marked where asked. Neither gradients nor the names of operations are needed.

A *slice* is an output channel of such a layer, a channel of the image, or an element of a parameter that the network's
own code adds or multiplies. A *column* is where a slice may arrive: an input channel of a layer, or an output.
"""

import copy
import math
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils import _pytree as pytree

from edge_tune.errors import PruningError, first_line
from edge_tune.wording import counted

Shape = tuple[int, int, int]
Indices = npt.NDArray[np.int64]

IMAGE = "the image"
OUTPUT = "the network's output"

VALUES_AT_ONCE = 2**26
"""Of the largest output of a layer, over all patterns that run at once: a quarter of a gigabyte."""

SOME = 24
"""What is reached by so many slices, drawn at random, is reached by all. What half of them reach would be taken for
that once in 16 million times; then the pruned network differs from its oracle."""

Pattern = Mapping[str, Tensor]
"""Layer, parameter or IMAGE -> which of its slices are marked, bool [slices]."""


@dataclass(frozen=True)
class Way:
    """From the slices of one layer, or of the image, to the columns of another, without a layer between that mixes.

    Attributes:
        slices: Number of slices at the start.
        pairs: (slice, column) that is reached by it, [n, 2].
        mixed: Columns that every slice reaches, because the network computes over channels, such as their mean.
    """

    slices: int
    pairs: frozenset[tuple[int, int]]
    mixed: frozenset[int]


@dataclass(frozen=True)
class Trace:
    """All ways of a network.

    Attributes:
        ways: (start, end) -> the way between them: from a layer, a parameter or IMAGE to a layer or OUTPUT.
        starts: Start -> how many slices it has, whether or not they reach anything.
        columns: End -> how many columns it has.
        branches: Whether the network calls other layers while it trains.
    """

    ways: Mapping[tuple[str, str], Way]
    starts: Mapping[str, int]
    columns: Mapping[str, int]
    branches: bool = False


def mixes(module: nn.Module) -> bool:
    """Tell whether each output of a layer is computed from all of its inputs, or of its group's."""
    return isinstance(module, _ConvNd | nn.Linear) and not is_depthwise(module)


def is_depthwise(module: nn.Module) -> bool:
    """Tell whether the filters of a convolution only follow its input, with nothing to decide."""
    return isinstance(module, _ConvNd) and module.groups == module.in_channels and module.groups > 1


def hookable(module: nn.Module) -> bool:
    """Tell whether a hook can be put on a module: those of TorchScript take none."""
    return not isinstance(module, torch.jit.ScriptModule)


def follows(module: nn.Module) -> bool:
    """Tell whether a layer has something of its own for each channel that passes through it."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return len(module.normalized_shape) == 1
    if isinstance(module, nn.PReLU):
        return module.num_parameters > 1
    return is_depthwise(module) or isinstance(module, _BatchNorm | _InstanceNorm | nn.GroupNorm)


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a network to try things on: its forward may gather statistics, count, or keep what it computed.

    Raises:
        PruningError: It cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:  # such as a network that keeps what it computed, or holds an open file
        raise PruningError(
            f"the network must be one that can be copied, but copy.deepcopy raised {type(error).__name__}: {error}; "
            f"keep nothing in it but layers, parameters and buffers."
        ) from error


def _copied_alike(model: nn.Module, input_shape: Shape) -> nn.Module:
    """Return a copy that computes what the network computes.

    Raises:
        PruningError: It cannot be copied, or a copy computes something else.
    """
    generator = torch.Generator().manual_seed(0)
    try:
        _inferred(model, torch.randn(2, *input_shape, generator=generator))  # what it may keep is of other images
        own = copied(model)
        right = _inferred(model, images := torch.randn(2, *input_shape, generator=generator))
    except PruningError:
        raise
    except Exception:  # what fails in the network itself is said where its copy is traced
        return copied(model)
    try:
        is_alike = all(map(_near, right, _inferred(own, images)))
    except Exception:  # a copy that lacks what the network has may fail in any way
        is_alike = False
    if not is_alike:
        raise PruningError(
            "the network must be one of which a copy computes the same, but a copy does not: a hook or a function in "
            "it holds on to the network that it was made for; let it use the module that it is given."
        )
    return own


def _inferred(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Return every output of a network as it infers; its statistics stay as they were."""
    with torch.no_grad(), in_mode(model, training=False), drawing(), _buffers_restored(model):
        return [leaf for leaf in pytree.tree_leaves(model(images)) if isinstance(leaf, Tensor)]


def _near(one: Tensor, other: Tensor) -> bool:
    """Tell whether two outputs of the same weights are the same."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)


def able_to_learn(model: nn.Module) -> nn.Module:
    """Return a copy of a network in inference, all of whose parameters learn, but for those that are whole numbers."""
    copied = copy.deepcopy(model).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    return copied


def with_memory_of_their_own(model: nn.Module) -> None:
    """Replace a network's buffers by copies that can be written to: elements of one made by `expand` share a place."""
    own: dict[int, Tensor] = {}  # one buffer may belong to two modules
    for module in _in_python(model):
        for name, its in module._buffers.items():
            if its is not None:
                module._buffers[name] = own.setdefault(id(its), its.clone())


def _in_python(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules whose buffers can be replaced: those of TorchScript stay where they are."""
    return (module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule))


def trace(model: nn.Module, input_shape: Shape, mixing: Container[str] = ()) -> Trace:
    """Return the ways of `model`, those that it takes only while it trains included.

    Args:
        input_shape: (C, H, W) of one image.
        mixing: Layers that mix before a removal. One whose groups were left with a channel each looks depthwise.

    Raises:
        PruningError: The network does not run, or not on values that are not numbers; the sentence names the innermost
            module in which it failed.
    """
    model = _copied_alike(model, input_shape)
    with _watched(model) as under_way:
        try:
            with in_mode(model, training=False):
                recording = _recorded_small(model, input_shape, under_way, mixing)
                found = _trace(recording)
            with in_mode(model, training=True):
                under_way.training = True
                while_training = _Recording(model, recording.input_shape, under_way, mixing)
                if while_training.layers_called() != recording.layers_called():
                    found = _joined(found, _trace(while_training))
        except Exception as error:  # a forward can fail in any way, also on values that are not numbers
            where, why = under_way.place(model, error), _why(model, under_way, error)
            raise PruningError(
                f"the way of the channels through this network cannot be traced: {where} {why}."
            ) from error
    return found


class _UntraceableError(Exception):
    """What a module does so that a pass would tell nothing, and what to do about it.

    Args:
        module: The module, if it is not the innermost one that the pass is in.
    """

    def __init__(self, why: str, module: str | None = None) -> None:
        super().__init__(why)
        self.module = module


@dataclass
class _UnderWay:
    """What a pass is, and where it failed, for the sentence.

    Attributes:
        images: What it was given, [images, C, H, W].
        is_marked: Whether marks travel in it.
        training: Whether the network's own code trains.
        failed: The last error that left a module, and the first module that it left.
    """

    images: Tensor = field(default_factory=lambda: torch.zeros(0))
    is_marked: bool = False
    training: bool = False
    failed: tuple[BaseException, str] | None = None

    @property
    def mode(self) -> str:
        """Words for the mode, unless it is the usual one."""
        return " while the network trains" if self.training else ""

    def begin(self, images: Tensor, *, is_marked: bool) -> None:
        """Begin another pass."""
        self.images, self.is_marked = images, is_marked

    def place(self, model: nn.Module, error: Exception) -> str:
        """Return the innermost module that an error came from, for a sentence."""
        name = self.failed[1] if self.failed and self.failed[0] is error else ""
        if isinstance(error, _UntraceableError) and error.module is not None:
            name = error.module
        kind = type(model.get_submodule(name)).__name__
        return f"{name!r} (class {kind})" if name else f"the network's own forward (class {kind})"


@contextmanager
def _watched(model: nn.Module) -> Iterator[_UnderWay]:
    """Note from which modules of a network errors come."""
    under_way = _UnderWay()

    def leaving(name: str) -> Callable[..., None]:
        def leave(*_: object) -> None:
            error = sys.exc_info()[1]
            if error is not None and (under_way.failed is None or under_way.failed[0] is not error):
                under_way.failed = error, name

        return leave

    handles = [
        module.register_forward_hook(leaving(name), always_call=True)
        for name, module in model.named_modules()
        if hookable(module)
    ]
    try:
        yield under_way
    finally:
        for handle in handles:
            handle.remove()


DECIDES = (
    "its code decides by values, as an `if`, a number, an index or a shape that is taken from them does; let it take "
    "the same steps whatever they are, such as by torch.where or a mask"
)


def _why(model: nn.Module, under_way: _UnderWay, error: Exception) -> str:
    """Return what the module that a pass failed in does, and what to do about it."""
    if isinstance(error, _UntraceableError):
        return str(error)
    raised = f"{type(error).__name__}: {first_line(error)}".removesuffix(": ")
    images, mode = under_way.images, under_way.mode
    if "allocate memory" in str(error) or isinstance(error, MemoryError):
        return f"needs more memory than there is ({raised}); lower image_size, or trace it on a larger host"
    if "require grad" in str(error) or "backward" in str(error):
        return (
            f"computes gradients{mode} ({raised}), which cannot be done where channels are followed; leave that out of "
            f"the network's forward, as a loss of its own"
        )
    usual, other = torch.randn(images.shape), 1 if len(images) > 1 else 2
    if _runs(model, usual, under_way.training):
        if under_way.is_marked:
            return f"fails{mode} where values are NaN, by which channels are followed ({raised}): {DECIDES}"
        return f"takes channels in a way that cannot be followed ({raised}); put them behind the images, as usual"
    if _runs(model, usual[:1].repeat(other, 1, 1, 1), under_way.training):
        return (
            f"fails{mode} on {counted(len(images), 'image')} at once, though not on {other} ({raised}): its code "
            f"counts on how many there are; take the number from what it is given, as in x.flatten(1) or x.shape[0]"
        )
    return f"fails{mode} on images of shape {list(images.shape[1:])} ({raised}); mend it, or change image_size"


def _runs(model: nn.Module, images: Tensor, training: bool) -> bool:
    """Tell whether a network runs on these images, in this mode."""
    try:
        with in_mode(model, training=training), torch.no_grad(), drawing():
            model(images)
    except Exception:  # a forward can fail in any way
        return False
    return True


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Have the network's own code train, or not, for a while; the library's layers compute as in inference.

    So do classes derived from its norms and dropouts. Batch norms that train mix the images of a batch, and dropout
    draws; what matters here are branches that a network takes only while it trains.
    """
    before = {module: module.training for module in model.modules()}
    for module in before:
        is_own = not type(module).__module__.startswith(("torch.nn.", "torchvision.ops."))
        module.training = training and is_own and not isinstance(module, _NormBase | _DropoutNd)
    try:
        yield
    finally:
        for module, was_training in before.items():
            module.training = was_training


@contextmanager
def drawing(seed: int = 0) -> Iterator[None]:
    """Have a network's code draw the numbers of this seed for a while, and leave those of others as they were.

    It may draw by torch, by Python's `random` or by NumPy.
    """
    by_python, by_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            yield
    finally:
        random.setstate(by_python)
        np.random.set_state(by_numpy)


Note = Callable[[str, nn.Module, tuple[Any, ...], Mapping[str, Any], Any], None]
"""Is told of a call: the module's name and itself, its arguments by place and by name, its output."""


def each_call(model: nn.Module, images: Tensor, note: Note) -> None:
    """Run a network on images, [B, C, H, W], as in inference, and tell `note` of each call of a module.

    A module comes after those inside it. What runs is a copy: nothing of the network changes. What it draws does not
    change the random numbers of others.
    """
    model = copied(model)

    def hook(name: str) -> Callable[..., None]:
        return lambda module, given, named, output: note(name, module, given, named, output)

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if hookable(module):
                hooks.callback(module.register_forward_hook(hook(name), with_kwargs=True).remove)
        with torch.no_grad(), in_mode(model, training=False), drawing():
            model(images)


def _recorded_small(model: nn.Module, input_shape: Shape, under_way: _UnderWay, mixing: Container[str]) -> "_Recording":
    """Record the smallest images on which the network calls the layers that it calls on whole ones."""
    whole = _Recording(model, input_shape, under_way, mixing)
    channels, height, width = input_shape
    for divisor in (8, 4, 2):
        try:
            small = _Recording(model, (channels, height // divisor, width // divisor), under_way, mixing)
        except Exception:  # too small to be pooled so often, or flattened to another length
            continue
        if small.layers_called() == whole.layers_called() and small.columns == whole.columns:
            return small
    return whole


class _Recording:
    """One pass of two images: what each layer gave; and passes in which marks travel instead."""

    def __init__(self, model: nn.Module, input_shape: Shape, under_way: _UnderWay, mixing: Container[str]) -> None:
        self.model, self.input_shape, self.under_way = model, input_shape, under_way
        self.layers = {name: module for name, module in model.named_modules() if mixes(module) or follows(module)}
        self.mixing = {name for name, layer in self.layers.items() if mixes(layer) or name in mixing}
        self.images = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
        self.outputs: dict[str, list[Tensor]] = defaultdict(list)
        self.dims: dict[str, int] = {}
        self.columns: dict[str, int] = {}
        under_way.begin(self.images, is_marked=False)
        self._run(self.images, {name: self._recorded(name) for name in self.layers})
        self.parameters = _vectors(model, self.layers)
        self.slices = {
            IMAGE: input_shape[0],
            **{name: self.outputs[name][0].shape[self.dims[name]] for name in self.outputs if name in self.mixing},
            **{name: parameter.numel() for name, parameter in self.parameters.items()},
        }
        largest = max([self.images[0].numel(), *(out[:1].numel() for outs in self.outputs.values() for out in outs)])
        self.at_once = max(1, VALUES_AT_ONCE // largest)

    def layers_called(self) -> dict[str, int]:
        """Return layer -> how often a pass calls it."""
        return {name: len(outputs) for name, outputs in self.outputs.items()}

    def arrivals(self, patterns: Sequence[Pattern]) -> dict[str, Tensor]:
        """Return end -> which of its columns each pattern reaches, bool [patterns, columns]."""
        parts = [self._arrivals(some) for some in _split(patterns, self.at_once, self.parameters)]
        return {end: torch.cat([part[end] for part in parts]) for end in self.columns}

    def _arrivals(self, patterns: Sequence[Pattern]) -> dict[str, Tensor]:
        arrived = {end: torch.zeros(len(patterns), columns, dtype=torch.bool) for end, columns in self.columns.items()}
        images = self.images[:1].repeat(len(patterns), 1, 1, 1)
        marks = {
            name: torch.stack([pattern.get(name, torch.zeros(slices, dtype=torch.bool)) for pattern in patterns])
            for name, slices in self.slices.items()
            if any(name in pattern for pattern in patterns)
        }
        if IMAGE in marks:
            images = _marked(images, marks[IMAGE], 1)
        with ExitStack() as stack:
            for name, parameter in self.parameters.items():
                if name in marks:
                    stack.enter_context(_marked_parameter(parameter, marks[name][0]))
            self.under_way.begin(images, is_marked=True)
            calls: Counter[str] = Counter()
            output = self._run(images, {name: self._replayed(name, marks, arrived, calls) for name in self.outputs})
        for name, its in self.outputs.items():
            if calls[name] < len(its):
                raise self._took_another_course(name)
        arrived[OUTPUT] |= _nan_columns(_flat(output), 1, len(patterns))
        return arrived

    def _run(self, images: Tensor, forwards: Mapping[str, Callable[..., Tensor]]) -> Any:
        """Run the network with other forwards in its layers, and its buffers as they were before."""
        with (
            torch.no_grad(),
            drawing(),
            _buffers_restored(self.model),
            _replaced(self.layers, forwards),
        ):
            output = self.model(images)
        _check_output(output, len(images))
        self.columns.setdefault(OUTPUT, _flat(output).shape[1])
        return output

    def _took_another_course(self, name: str) -> _UntraceableError:
        """Return that a pass with marks calls a layer more or less often than one without."""
        return _UntraceableError(
            f"does not call {name!r} {counted(len(self.outputs[name]), 'time')}{self.under_way.mode} where values are "
            f"NaN, by which channels are followed, as it does where they are numbers: {DECIDES}",
            module=name.rpartition(".")[0],
        )

    def _recorded(self, name: str) -> Callable[..., Tensor]:
        layer, forward = self.layers[name], self.layers[name].forward

        def record(*given: Any, **named: Any) -> Tensor:
            input = _tensor_given(given, named)
            output: Tensor = forward(*given, **named)
            _check_layer(layer, input, output, len(self.images))
            self.dims[name] = _channel_dim(layer, input)
            self.columns[name] = input.shape[self.dims[name]]
            self.outputs[name].append(output[: len(output) // len(self.images)])
            return output

        return record

    def _replayed(
        self, name: str, marks: Mapping[str, Tensor], arrived: Mapping[str, Tensor], calls: Counter[str]
    ) -> Callable[..., Tensor]:
        layer, forward, dim = self.layers[name], self.layers[name].forward, self.dims[name]
        outputs = self.outputs[name]
        patterns = len(arrived[name])

        def replay(*given: Any, **named: Any) -> Tensor:
            calls[name] += 1
            if calls[name] > len(outputs):
                raise self._took_another_course(name)
            input = _tensor_given(given, named)
            arrived[name].logical_or_(_nan_columns(input, dim, patterns))
            if name not in self.mixing:  # a norm would hand marks on to all channels
                return forward(*given, **named) if is_depthwise(layer) else input.clone()
            output = outputs[calls[name] - 1]
            output = output.repeat(patterns, *[1] * (output.dim() - 1))
            return _marked(output, marks[name], dim) if name in marks else output

        return replay


def _trace(recording: _Recording) -> Trace:
    touched = _touched(recording)
    ways: dict[tuple[str, str], Way] = {}
    for starts in _apart(touched):
        ways |= _ways(recording, {start: touched[start] for start in starts})
    ways = {ends: way for ends, way in ways.items() if way.pairs or way.mixed}
    return Trace(ways, recording.slices, recording.columns)


def _touched(recording: _Recording) -> dict[str, list[str]]:
    """Return start -> the ends that any of its slices reaches."""
    starts = list(recording.slices)
    arrived = recording.arrivals([{start: torch.ones(recording.slices[start], dtype=torch.bool)} for start in starts])
    return {start: [end for end, columns in arrived.items() if columns[row].any()] for row, start in enumerate(starts)}


def _apart(touched: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the starts in sets that can be marked at the same time, because no two reach the same end."""
    sets: list[tuple[list[str], set[str]]] = []
    for start, ends in touched.items():
        for members, taken in sets:
            if taken.isdisjoint(ends):
                members.append(start)
                taken.update(ends)
                break
        else:
            sets.append(([start], set(ends)))
    return [members for members, _ in sets]


def _ways(recording: _Recording, touched: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], Way]:
    """Follow the slices of starts that reach different ends.

    Each slice is marked by the bits of its number, once where a bit is set and once where it is not. A column that one
    slice reaches spells that slice's number; one that several reach answers to a bit both ways. Then some slices are
    marked alone, and unless all of them reach it, as where a network computes over channels, every slice is.
    """
    bits = {start: max(1, (recording.slices[start] - 1).bit_length()) for start in touched}
    arrived = recording.arrivals(
        [
            {start: _has_bit(recording.slices[start], bit) == is_set for start in touched if bit < bits[start]}
            for bit in range(max(bits.values()))
            for is_set in (True, False)
        ]
    )
    ways: dict[tuple[str, str], Way] = {}
    unclear: dict[tuple[str, str], Tensor] = {}
    for start, ends in touched.items():
        for end in ends:
            seen = arrived[end][: 2 * bits[start]].view(bits[start], 2, -1)
            ways[start, end] = _spelled(recording.slices[start], seen)
            if bool((several := (seen[:, 0] & seen[:, 1]).any(dim=0)).any()):
                unclear[start, end] = several
    if not unclear:
        return ways
    some = _reached_by_some(recording, {start: touched[start] for start, _ in unclear})
    settled = {ends for ends, several in unclear.items() if torch.equal(several, some[ends])}
    ways |= {ends: _with_mixed(ways[ends], some[ends]) for ends in settled}
    left = {ends[0]: touched[ends[0]] for ends in unclear if ends not in settled}
    return ways | (_ways_one_by_one(recording, left) if left else {})


def _reached_by_some(recording: _Recording, touched: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], Tensor]:
    """Return which columns are reached by each of a few slices, bool [columns], each marked alone."""
    generator = torch.Generator().manual_seed(0)
    some = {start: torch.randperm(recording.slices[start], generator=generator)[:SOME] for start in touched}
    most = max(map(len, some.values()))
    arrived = recording.arrivals(
        [
            {start: torch.arange(recording.slices[start]) == its[n] for start, its in some.items() if n < len(its)}
            for n in range(most)
        ]
    )
    return {
        (start, end): arrived[end][: len(some[start])].all(dim=0) for start, ends in touched.items() for end in ends
    }


def _with_mixed(way: Way, mixed: Tensor) -> Way:
    """Return a way some of whose columns are reached by every slice."""
    columns = frozenset(mixed.nonzero().flatten().tolist())
    return Way(way.slices, frozenset(pair for pair in way.pairs if pair[1] not in columns), columns)


def _ways_one_by_one(recording: _Recording, touched: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], Way]:
    most = max(recording.slices[start] for start in touched)
    arrived = recording.arrivals(
        [
            {
                start: torch.arange(recording.slices[start]) == number
                for start in touched
                if number < recording.slices[start]
            }
            for number in range(most)
        ]
    )
    return {
        (start, end): _listed(arrived[end][: recording.slices[start]])
        for start, ends in touched.items()
        for end in ends
    }


def _has_bit(slices: int, bit: int) -> Tensor:
    return (torch.arange(slices) >> bit) % 2 == 1


def _spelled(slices: int, seen: Tensor) -> Way:
    """Return the way of columns that spell the number of the one slice that reaches them.

    Args:
        seen: Which columns answered to each bit, [bits, set or not, columns].
    """
    numbers = (seen[:, 0].long() << torch.arange(len(seen))[:, None]).sum(dim=0)
    reached = seen.any(dim=(0, 1)).nonzero().flatten()
    return Way(slices, frozenset(zip(numbers[reached].tolist(), reached.tolist(), strict=True)), frozenset())


def _listed(seen: Tensor) -> Way:
    """Return the way of columns [slices, columns], each slice marked alone."""
    mixed = seen.all(dim=0) & (len(seen) > 1)
    pairs = (seen & ~mixed).nonzero().tolist()
    return Way(len(seen), frozenset(map(tuple, pairs)), frozenset(mixed.nonzero().flatten().tolist()))


def _joined(one: Trace, other: Trace) -> Trace:
    """Return the ways that a network takes in either mode."""
    ways = dict(one.ways)
    for ends, way in other.ways.items():
        known = ways.get(ends, way)
        ways[ends] = Way(way.slices, known.pairs | way.pairs, known.mixed | way.mixed)
    return Trace(ways, {**one.starts, **other.starts}, {**one.columns, **other.columns}, branches=True)


def _vectors(model: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Return the parameters of the network's own modules that could hold a value for each channel."""
    return {
        f"{name}.{own}" if name else own: parameter
        for name, module in model.named_modules()
        if name not in layers and not isinstance(module, ParametrizationList)
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.is_floating_point() and parameter.numel() > 1 and parameter.numel() == max(parameter.shape)
    }


def _split(patterns: Sequence[Pattern], at_once: int, parameters: Mapping[str, Any]) -> Iterator[Sequence[Pattern]]:
    """Yield patterns that can run as one batch: a parameter is the same for the whole batch."""
    some: list[Pattern] = []
    for pattern in patterns:
        alone = any(name in parameters for name in pattern)
        if some and (alone or len(some) == at_once):
            yield some
            some = []
        some.append(pattern)
        if alone:
            yield some
            some = []
    if some:
        yield some


@contextmanager
def _replaced(layers: Mapping[str, nn.Module], forwards: Mapping[str, Callable[..., Tensor]]) -> Iterator[None]:
    own = {name: vars(layers[name])["forward"] for name in forwards if "forward" in vars(layers[name])}
    try:
        for name, forward in forwards.items():
            layers[name].forward = forward
        yield
    finally:
        for name in forwards:
            del layers[name].forward
        for name, forward in own.items():
            layers[name].forward = forward


@contextmanager
def _buffers_restored(model: nn.Module) -> Iterator[None]:
    """Have statistics that a network gathers end with a pass: marks among them would reach the next one."""
    before = [(module, dict(module._buffers)) for module in _in_python(model)]
    with_memory_of_their_own(model)
    try:
        yield
    finally:
        for module, buffers in before:
            module._buffers.clear()
            module._buffers.update(buffers)


@contextmanager
def _marked_parameter(parameter: nn.Parameter, marks: Tensor) -> Iterator[None]:
    values = parameter.detach().clone()
    try:
        parameter.data.view(-1)[marks] = math.nan
        yield
    finally:
        parameter.data.copy_(values)


def _marked(values: Tensor, marks: Tensor, dim: int) -> Tensor:
    """Set the channels of `values` [patterns * rows, ...] that `marks` [patterns, channels] names to NaN."""
    shape = [1] * values.dim()
    shape[0], shape[dim] = len(values), marks.shape[1]
    return values.masked_fill(marks.repeat_interleave(len(values) // len(marks), dim=0).view(shape), math.nan)


def _nan_columns(values: Tensor, dim: int, patterns: int) -> Tensor:
    """Return which channels hold a mark, bool [patterns, channels]."""
    marked = values.isnan().movedim(dim, 1).flatten(2).any(dim=2) if values.dim() > 2 else values.isnan()
    return marked.view(patterns, -1, marked.shape[1]).any(dim=1)


def _tensor_given(given: Sequence[Any], named: Mapping[str, Any]) -> Tensor:
    """Return the features that a layer is given: its first tensor, by place or by name."""
    tensors = (value for value in (*given, *named.values()) if isinstance(value, Tensor))
    if (found := next(tensors, None)) is None:
        kinds = ", ".join(type(value).__name__ for value in (*given, *named.values())) or "nothing"
        raise _UntraceableError(f"must be given a tensor, but is given {kinds}; call the layer with the tensor itself")
    return found


def _check_layer(layer: nn.Module, input: Tensor, output: object, images: int) -> None:
    """Check that a layer takes and returns a tensor whose first dimension is that of the images, or a multiple."""
    kind = next(kind.__name__ for kind in type(layer).__mro__ if kind.__module__.startswith("torch.nn."))
    if not isinstance(output, Tensor):
        raise _UntraceableError(
            f"is a {kind} and must return one tensor as that does, but returns a {type(output).__name__}; return what "
            f"else there is from a module around it"
        )
    if len(input) % images or len(output) % images:
        raise _UntraceableError(
            f"must be given something for each image in the first dimension, of {images} here, but is given "
            f"{list(input.shape)} and returns {list(output.shape)}; move the images there, or expand what is the same "
            f"for all"
        )


def _check_output(output: object, images: int) -> None:
    """Check that a network returns tensors with a row for each image."""
    leaves = pytree.tree_leaves(output)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if not tensors:
        kinds = ", ".join(dict.fromkeys(type(leaf).__name__ for leaf in leaves)) or "nothing"
        raise _UntraceableError(
            f"must return tensors, alone or in tuples, lists and dicts, but returns {kinds}; return what it holds"
        )
    strange = [list(tensor.shape) for tensor in tensors if not tensor.dim() or len(tensor) != images]
    if strange:
        raise _UntraceableError(
            f"must return tensors with a row for each of the {images} images it is given, but one has the shape "
            f"{strange[0]}; leave it out, or compute it outside of the network"
        )


def _flat(output: Any) -> Tensor:
    """Return every output of a network beside each other, [images, outputs]."""
    tensors = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
    return torch.cat([tensor.flatten(1) if tensor.dim() > 1 else tensor[:, None] for tensor in tensors], dim=1)


def _channel_dim(layer: nn.Module, features: Tensor) -> int:
    """Return the dimension of `features` that a layer counts as channels."""
    if isinstance(layer, nn.Linear):
        return features.dim() - 1
    if not isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        return 1
    if not layer.elementwise_affine:
        return features.dim() - 1
    marked = copy.deepcopy(layer)  # torchvision's LayerNorm2d has its channels elsewhere than its base class
    marked.weight.data[0] = math.nan
    forward: Callable[..., Tensor] = type(layer).forward
    nan = forward(marked, features[:1]).isnan()
    return next(dim for dim in range(1, nan.dim()) if bool((nan.any(dim=dim) != nan.all(dim=dim)).any()))
