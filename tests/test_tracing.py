"""Networks that cannot be traced: each is refused in a sentence that names the innermost module, and is true of it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest
from torch import Tensor, nn
from torch.autograd import grad

import edge_tune as et
from edge_tune.errors import ExperimentError
from edge_tune.networks import checking
from edge_tune.networks.couplings import Side, couplings
from tests.networks import Block, Small

SHAPE = (3, 16, 16)
GROUPS = {"g": et.PrunerGroup("filters", ["block1.conv1.weight"], sparsity=et.Uniform(0.0, 0.5))}
NAN = r"where values are NaN, by which channels are followed"
DECIDES = (
    r": its code decides by values, as an `if`, .*; let it take the same steps whatever they are, such as by torch\.w"
)


class Own(nn.Module):
    """A module whose forward is what it is given."""

    def __init__(self, forward: Callable[..., object], **layers: nn.Module) -> None:
        super().__init__()
        self.does = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, features: Tensor) -> object:
        return self.does(self, features)


def within(forward: Callable[..., object], **layers: nn.Module) -> nn.Module:
    """Small, with a module of one's own inside its second block."""
    model = Small(10)
    model.block2.relu = nn.Sequential(nn.ReLU(), Own(forward, **layers))
    return model


class Twofold(nn.Conv2d):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features), features  # type: ignore[return-value]


class Scaled(nn.Conv2d):
    """A convolution that is called by a name of its own."""

    def forward(self, scale: float, *, features: Tensor) -> Tensor:  # type: ignore[override]
        return scale * super().forward(features)


class Called(nn.Linear):
    """A layer that needs no features."""

    def forward(self, times: int) -> Tensor:  # type: ignore[override]
        return self.bias.sum() * times


@dataclass
class Logits:
    logits: Tensor


class Ending(Small):
    """Small, which returns something else beside what it should, or while it trains."""

    def __init__(self, ending: Callable[[Tensor], object]) -> None:
        super().__init__(10)
        self.ending = ending

    def forward(self, images: Tensor) -> Tensor:
        outputs = super().forward(images)
        return self.ending(outputs) if self.training else outputs  # type: ignore[return-value]


def conv() -> nn.Module:
    return nn.Conv2d(8, 8, 3, padding=1)


def only_if_bright(net: nn.Module, x: Tensor) -> object:
    return net.c(x) if x.mean() > -1e9 else x


def twice_unless_bright(net: nn.Module, x: Tensor) -> object:
    return net.c(x) if x.mean() > -1e9 else net.c(net.c(x))


def to_a_number(net: nn.Module, x: Tensor) -> object:
    return x * int(x.max() > 0) + round(float(x.detach().max()))


def finite_only(net: nn.Module, x: Tensor) -> object:
    kept = x.flatten()[x.flatten().isfinite()]
    return kept.view(x.shape)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (
            within(to_a_number),
            rf"'block2.relu.1' \(class Own\) fails {NAN} \(ValueError: cannot convert float NaN to integer\){DECIDES}",
        ),
        (
            within(finite_only),
            rf"'block2.relu.1' \(class Own\) fails {NAN} \(RuntimeError: shape .* is invalid.*\){DECIDES}",
        ),
        (
            within(only_if_bright, c=conv()),
            rf"'block2.relu.1' \(class Own\) does not call 'block2.relu.1.c' 2 times {NAN}, as it does .*{DECIDES}",
        ),
        (
            within(twice_unless_bright, c=conv()),
            rf"'block2.relu.1' \(class Own\) does not call 'block2.relu.1.c' 2 times {NAN}, as it does .*{DECIDES}",
        ),
        (
            within(lambda net, x: x.view(1, 8, 8, 8) if len(x) < 2 else x.view(2, 8, 9, 8)),
            r"'block2.relu.1' \(class Own\) fails on 2 images at once, though not on 1 \(RuntimeError: shape .*\): its "
            r"code counts on how many there are; take the number from what it is given, as in x.flatten\(1\) or x.shap",
        ),
        (
            within(lambda net, x: x.view(2 if len(x) == 2 else 1, 8, 8, 8)),
            r"'block2.relu.1' \(class Own\) fails on \d+ images at once, though not on 1 \(",
        ),
        (
            within(lambda net, x: net.c(x)[0], c=Twofold(8, 8, 1)),
            r"'block2.relu.1.c' \(class Twofold\) is a Conv2d and must return one tensor as that does, but returns a t",
        ),
        (
            within(lambda net, x: x * net.c(net.c.bias[:1].view(1, 1)), c=nn.Linear(1, 1)),
            r"'block2.relu.1.c' \(class Linear\) must be given something for each image in the first dimension, of 2 ",
        ),
        (
            within(lambda net, x: x @ net.missing if net.training else x),
            r"'block2.relu.1' \(class Own\) fails while the network trains on images of shape \[3, 2, 2\] \(Attribute"
            r"Error: 'Own' object has no attribute 'missing'\); mend it, or change image_size",
        ),
        (
            within(lambda net, x: x + (grad(net.c(x).sum(), net.c.weight)[0] if net.training else 0), c=conv()),
            r"'block2.relu.1' \(class Own\) computes gradients while the network trains \(RuntimeError: element 0 .*\)",
        ),
        (
            within(lambda net, x: x * net.c(1), c=Called(8, 8)),
            r"'block2.relu.1.c' \(class Called\) must be given a tensor, but is given int; call the layer with",
        ),
        (
            Ending(Logits),
            r"the network's own forward \(class Ending\) must return tensors, alone or in .*, but returns Logits; r",
        ),
        (
            Ending(lambda outputs: (outputs, outputs.mean())),
            r"the network's own forward \(class Ending\) must return tensors with a row for each of the 2 imag.*\[\];",
        ),
    ],
)
def test_what_cannot_be_traced_is_named_with_its_module_and_what_to_do(model: nn.Module, sentence: str) -> None:
    with pytest.raises(
        ExperimentError, match=rf"^model: the way of the channels through this network cannot be traced: {sentence}"
    ) as error:
        checking.check_groups(model, GROUPS, SHAPE)
    assert str(error.value).count("\n") == 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_layer_that_gets_its_features_by_name_is_traced_and_pruned() -> None:
    model = within(lambda net, x: net.c(0.5, features=net.d(input=x)), c=Scaled(8, 8, 1), d=conv())
    groups = {"g": et.PrunerGroup("filters", ["block2.relu.1.d.weight"], sparsity=et.Uniform(0.0, 0.5))}
    coupled = checking.check_groups(model, groups, SHAPE)
    made, read = coupled.atoms[Side("block2.relu.1.d", "out")], coupled.atoms[Side("block2.relu.1.c", "in")]
    assert made.tolist() == read.tolist()


def test_what_a_module_catches_itself_does_not_name_the_wrong_one() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        with suppress(RuntimeError):
            net.c(x[:, :3])
        return net.d(x) * round(float(x.detach().max()))

    model = within(forward, c=conv(), d=nn.Sequential(Block(8)))
    with pytest.raises(ExperimentError, match=r"traced: 'block2.relu.1' \(class Own\) fails where values are NaN"):
        checking.check_groups(model, GROUPS, SHAPE)


def test_tracing_leaves_no_hook_behind() -> None:
    model = Small(10)
    couplings(model, SHAPE)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
