"""Small networks of the structures that are known to trouble tools that prune, each with what it is about."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.networks import Small


def conv(inputs: int, outputs: int, kernel_size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution and batch norm; its weight is NAME.0.weight."""
    own = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    return nn.Sequential(own, nn.BatchNorm2d(outputs))


class Between(nn.Module):
    """A stem of 16 filters, `between`, the mean of each channel, a linear layer of 10 outputs."""

    def __init__(self, forward: Callable[..., Tensor], width: int = 16, **layers: nn.Module) -> None:
        super().__init__()
        self.stem, self.fc = conv(3, 16, stride=2), nn.Linear(width, 10)
        self.between = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, images: Tensor) -> Tensor:
        features = self.between(self, functional.relu(self.stem(images)))
        return self.fc(features.mean((2, 3)) if features.dim() == 4 else features)


def coordinates(features: Tensor) -> Tensor:
    """Two channels that say where a pixel is."""
    images, _, height, width = features.shape
    down = torch.linspace(-1, 1, height)[None, None, :, None].expand(images, 1, height, width)
    return torch.cat([down, torch.linspace(-1, 1, width).expand(images, 1, height, width)], dim=1)


def coordinates_first() -> nn.Module:
    """The channels of `a` arrive two places further on."""
    return Between(
        lambda net, x: functional.relu(net.b(torch.cat([coordinates(x), functional.relu(net.a(x))], dim=1))),
        a=conv(16, 16),
        b=conv(18, 16),
    )


def flattened(*order: int) -> nn.Module:
    """A map of 4x4 is flattened, its dimensions in this order before."""
    return Between(
        lambda net, x: functional.relu(net.f(functional.relu(net.a(x)).permute(*order).flatten(1))),
        width=32,
        a=conv(16, 12, stride=4),
        f=nn.Linear(12 * 16, 32),
    )


def flattened_beside_another() -> nn.Module:
    """Two maps of different sizes are flattened and joined."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        maps = functional.relu(net.a(x)).flatten(1), functional.relu(net.b(x)).flatten(1)
        return functional.relu(net.f(torch.cat(maps, dim=1)))

    return Between(
        forward, width=32, a=conv(16, 12, stride=4), b=conv(16, 4, stride=8), f=nn.Linear(12 * 16 + 4 * 4, 32)
    )


def convolution_makes_the_output() -> nn.Module:
    """No linear layer: the filters of `head` are the classes."""

    class Convolutional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.head = conv(3, 16, stride=2), nn.Conv2d(16, 10, 1)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(functional.relu(self.a(images))).mean((2, 3))

    return Convolutional()


class BranchInTraining(nn.Module):
    """While it trains, and only then, `aux` reads what `a` gives."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.aux, self.b, self.fc = conv(3, 16, stride=2), conv(16, 8), conv(16, 16), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.a(images))
        logits = self.fc(functional.relu(self.b(features)).mean((2, 3)))
        return logits + self.aux(features).mean() if self.training else logits


def noise_in_training() -> nn.Module:
    """While it trains, the number of channels is written in the code; the layers that are called are the same."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = functional.relu(net.a(x))
        return functional.relu(net.b(y + 0.1 * torch.randn(len(y), 16, 1, 1) if net.training else y))

    return Between(forward, a=conv(16, 16), b=conv(16, 16))


def centre_in_training() -> nn.Module:
    """While it trains, a buffer follows the channels; nothing that is put out depends on it."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = functional.relu(net.a(x))
        if net.training:
            net.centre.lerp_(y.detach().mean((0, 2, 3)), 0.1)
        return functional.relu(net.b(y))

    net = Between(forward, a=conv(16, 16), b=conv(16, 16))
    net.register_buffer("centre", torch.zeros(16))
    return net


def dropout_in_training() -> nn.Module:
    """While it trains, the code draws random numbers, as many as there are channels."""
    return Between(
        lambda net, x: functional.relu(net.b(functional.dropout(functional.relu(net.a(x)), 0.5, net.training))),
        a=conv(16, 16),
        b=conv(16, 16),
    )


def head_in_training() -> nn.Module:
    """While it trains, what two more layers make of the features is added."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = functional.relu(net.b(x)).mean((2, 3))
        return y + net.more(functional.relu(net.aux(x)).mean((2, 3))) if net.training else y

    return Between(forward, b=conv(16, 16), aux=conv(16, 8), more=nn.Linear(8, 16))


def attention_over_places() -> nn.Module:
    """A map of one channel, made of the mean and the maximum over channels, multiplies all."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = functional.relu(net.a(x))
        seen = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], dim=1)
        return functional.relu(net.b(y * torch.sigmoid(net.m(seen))))

    return Between(forward, a=conv(16, 16), m=nn.Conv2d(2, 1, 7, padding=3), b=conv(16, 16))


def concatenation_is_added() -> nn.Module:
    """Two branches of 8 beside each other are added to one of 16."""
    return Between(
        lambda net, x: functional.relu(net.c(x) + torch.cat([net.a(x), net.b(x)], dim=1)),
        a=conv(16, 8),
        b=conv(16, 8),
        c=conv(16, 16),
    )


def halves() -> nn.Module:
    """What `a` gives is cut in two by its number; one half goes through `m`."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        one, other = functional.relu(net.a(x)).chunk(2, dim=1)
        return functional.relu(net.b(torch.cat([one, other, functional.relu(net.m(other))], dim=1)))

    return Between(forward, a=conv(16, 16, 1), m=conv(8, 8), b=conv(24, 16, 1))


def cut_to_a_number() -> nn.Module:
    """A depthwise copy stands beside its input; of both, the first 15 channels are read."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = functional.relu(net.a(x))
        return functional.relu(net.b(torch.cat([y, functional.relu(net.d(y))], dim=1)[:, :15]))

    return Between(forward, a=conv(16, 8, 1), d=conv(8, 8, groups=8), b=conv(15, 16, 1))


def grouped() -> nn.Module:
    """A convolution of four groups between two plain ones, as in ResNeXt."""
    return Between(
        lambda net, x: functional.relu(net.b(functional.relu(net.g(functional.relu(net.a(x))))) + x),
        a=conv(16, 16, 1),
        g=conv(16, 16, groups=4),
        b=conv(16, 16, 1),
    )


def group_norm() -> nn.Module:
    """Channels are normalised in four groups."""
    return Between(
        lambda net, x: functional.relu(net.b(functional.relu(net.n(net.a(x))))),
        a=conv(16, 16)[0],
        n=nn.GroupNorm(4, 16),
        b=conv(16, 16),
    )


def grouped_before_a_norm() -> nn.Module:
    """Of four groups of a convolution, each may be left with one channel: it looks depthwise then, and is not."""
    return Between(
        lambda net, x: functional.relu(net.b(functional.relu(net.n(net.g(functional.relu(net.a(x))))))),
        a=conv(16, 16),
        g=nn.Conv2d(16, 16, 3, padding=1, groups=4),
        n=nn.GroupNorm(4, 16),
        b=conv(16, 16),
    )


def norm_of_each_channel() -> nn.Module:
    """Each channel is a group of the norm: none of them can go."""
    return Between(
        lambda net, x: functional.relu(net.b(functional.relu(net.n(net.a(x))))),
        a=conv(16, 16)[0],
        n=nn.GroupNorm(16, 16),
        b=conv(16, 16),
    )


def groups_of_one_filter() -> nn.Module:
    """Each filter of `d` reads two channels of its own: none of the filters can go."""
    return Between(
        lambda net, x: functional.relu(net.b(functional.relu(net.d(functional.relu(net.a(x)))))),
        a=conv(16, 16),
        d=conv(16, 8, groups=8),
        b=conv(8, 16),
    )


def layer_norm_and_scale() -> nn.Module:
    """As in ConvNeXt: channels last, a norm over them, linear layers, a scale for each channel, and an addition."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = functional.relu(net.a(x))
        z = net.q(functional.gelu(net.p(net.n(y.permute(0, 2, 3, 1))))) * net.scale
        return functional.relu(net.b(y + z.permute(0, 3, 1, 2)))

    net = Between(forward, a=conv(16, 16), n=nn.LayerNorm(16), p=nn.Linear(16, 32), q=nn.Linear(32, 16), b=conv(16, 16))
    net.scale = nn.Parameter(torch.rand(16))
    return net


def shuffle() -> nn.Module:
    """Channels change their order on the way, as in ShuffleNet."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        shuffled = functional.relu(net.a(x)).unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        return functional.relu(net.b(net.d(shuffled)))

    return Between(forward, a=conv(16, 16, 1), d=conv(16, 16, groups=16), b=conv(16, 16, 1))


def dense() -> nn.Module:
    """Each layer reads all that came before it."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        for layer in (net.a, net.b):
            x = torch.cat([x, functional.relu(layer(x))], dim=1)
        return x

    return Between(forward, width=32, a=conv(16, 8), b=conv(24, 8))


def twice() -> nn.Module:
    """One convolution is called two times in a row."""
    return Between(
        lambda net, x: functional.relu(net.c(functional.relu(net.c(functional.relu(net.a(x)))))),
        a=conv(16, 16),
        c=conv(16, 16),
    )


def upsampled() -> nn.Module:
    """A transposed convolution reads what `a` gives."""
    return Between(
        lambda net, x: functional.relu(net.b(functional.relu(net.u(functional.relu(net.a(x)))) + x)),
        a=conv(16, 16, stride=2),
        u=nn.ConvTranspose2d(16, 16, 2, 2),
        b=conv(16, 16),
    )


def groups_beside_each_other(norm: bool) -> nn.Module:
    """Two groups of `n` read two branches, one each."""
    return Between(
        lambda net, x: functional.relu(net.c(net.n(torch.cat([net.a(x), net.b(x)], dim=1)))),
        a=conv(16, 8),
        b=conv(16, 8),
        n=nn.GroupNorm(2, 16) if norm else nn.Conv2d(16, 16, 3, padding=1, groups=2),
        c=conv(16, 16),
    )


def chain(**layers: nn.Module) -> nn.Module:
    """What `a` gives goes through `c`, then `b`; `c` is called by the name of its argument."""
    own = {"a": conv(16, 16), "c": conv(16, 16)[0], "b": conv(16, 16), **layers}
    return Between(
        lambda net, x: functional.relu(net.b(functional.relu(net.c(input=functional.relu(net.a(x)))))), **own
    )


def one_parameter_in_two() -> nn.Module:
    """The weights of two layers are the same parameter."""
    net = chain(a=conv(16, 16)[0])
    net.c.weight = net.a.weight
    return net


class Remembering(nn.Module):
    """Counts its calls, and while it trains draws random numbers, has another output, and a batch norm of its own."""

    class Norm(nn.BatchNorm2d):
        """Not of PyTorch's own module."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = conv(3, 16, stride=2)[0], self.Norm(16), conv(16, 16)
        self.fc, self.other = nn.Linear(16, 10), nn.Linear(16, 10)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        self.calls += 1
        features = functional.dropout(functional.relu(self.norm(self.a(images))), 0.3, self.training)
        features = functional.relu(self.b(features)).mean((2, 3))
        return (self.fc(features), self.other(features)) if self.training else self.fc(features)


def attention_between_places() -> nn.Module:
    """As in non-local networks: channels of `q` and `k` are multiplied pairwise and summed; `v` is read by place."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2) for layer in (net.q, net.k, net.v))
        return (v @ (k.transpose(1, 2) @ q).softmax(1)).mean(2)

    return Between(forward, q=nn.Conv2d(16, 8, 1), k=nn.Conv2d(16, 8, 1), v=nn.Conv2d(16, 16, 1))


def weights_along_channels() -> nn.Module:
    """As in ECA: the weight of each channel is computed from its neighbours."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = functional.relu(net.a(x))
        beside = net.e(y.mean((2, 3))[:, None])[:, 0]
        return functional.relu(net.b(y * torch.sigmoid(beside)[:, :, None, None]))

    return Between(forward, a=conv(16, 16), e=nn.Conv1d(1, 1, 3, padding=1, bias=False), b=conv(16, 16))


def constants_by_place_before_a_norm() -> nn.Module:
    """Each channel is multiplied by a constant that its number decides; then all are normalised."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = net.a(x)
        return functional.relu(net.b(net.n(y * torch.linspace(0.5, 2, y.shape[1])[:, None, None])))

    return Between(forward, a=conv(16, 16), n=nn.GroupNorm(1, 16), b=conv(16, 16))


def centred(buffer: Tensor, norm: nn.Module | None = None) -> nn.Module:
    """What is stored for each of the first channels is subtracted from whatever channels there are."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = functional.relu(net.a(x))
        return functional.relu(net.b(net.n(y - net.centre[: y.shape[1], None, None])))

    net = Between(forward, a=conv(16, 16), n=norm or nn.Identity(), b=conv(16, 16))
    net.register_buffer("centre", buffer)
    return net


def rolled(norm: nn.Module | None = None) -> nn.Module:
    """Beside what `a` gives stands the same one place further on; pruned, each channel gets another neighbour."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = functional.relu(net.n(net.a(x)))
        return functional.relu(net.b(torch.cat([y, y.roll(1, 1)], dim=1)))

    return Between(forward, a=conv(16, 16)[0], n=norm or nn.Identity(), b=conv(32, 16))


class Hiding(nn.Module):
    """The last two classes of a network must not be chosen: their logits are a large negative number."""

    def __init__(self, network: nn.Module, hidden: float) -> None:
        super().__init__()
        self.network, self.hidden = network, hidden

    def forward(self, images: Tensor) -> Tensor:
        return torch.where(torch.arange(10) < 8, self.network(images), torch.tensor(self.hidden))


class Drawing(nn.Module):
    """Something random is done to what a network puts out, though it only infers."""

    def __init__(self, network: nn.Module, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.draw = network, draw

    def forward(self, images: Tensor) -> Tensor:
        return self.draw(self.network(images))


class Frozen(nn.Module):
    """A batch norm of one's own, whose variance is a parameter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean, self.variance = (nn.Parameter(torch.full((1, width, 1, 1), value)) for value in (0.0, 1.0))

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / torch.sqrt(self.variance + 1e-5)


def standardised(norm: nn.Module) -> nn.Module:
    """As in BiT: `b` computes its weight anew from its own mean and deviation over all its inputs."""

    class Standardised(nn.Conv2d):
        def forward(self, features: Tensor) -> Tensor:
            mean, deviation = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
            return self._conv_forward(features, (self.weight - mean) / deviation, self.bias)

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return functional.relu(net.m(net.b(functional.relu(net.n(net.a(x))))))

    return Between(forward, a=conv(16, 16)[0], n=norm, b=Standardised(16, 16, 3, padding=1), m=nn.BatchNorm2d(16))


def divided_by_their_number() -> nn.Module:
    """What `a` gives is multiplied by 16 over the number of channels; beside it stands its mean."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = functional.relu(net.a(x))
        y = y * (16 / y.shape[1])
        return functional.relu(net.b(torch.cat([y, y.mean(1, keepdim=True)], dim=1)))

    return Between(forward, a=conv(16, 16), b=conv(17, 16))


def beside(over: Callable[[Tensor], Tensor]) -> nn.Module:
    """Beside what `a` gives stands what is computed over its channels."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = functional.relu(net.a(x))
        return functional.relu(net.b(torch.cat([y, over(y)], dim=1)))

    return Between(forward, a=conv(16, 16), b=conv(17, 16))


def normalised(norm: nn.Module, others: int = 8) -> nn.Module:
    """What `a` gives is normalised over channels, together with what `c` gives."""
    return Between(
        lambda net, x: functional.relu(net.b(net.n(torch.cat([net.a(x), net.c(x)], dim=1)))),
        a=conv(16, 16)[0],
        c=conv(16, others),
        n=norm,
        b=conv(16 + others, 16),
    )


def constants_by_place_and_another_number() -> nn.Module:
    """Channels are multiplied by constants by their number, and normalised together with 15 others."""
    net = normalised(nn.GroupNorm(1, 31), others=15)

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = net.a(x)
        y = y * torch.linspace(0.5, 2, 16)[: y.shape[1], None, None]
        return functional.relu(net.b(net.n(torch.cat([y, net.c(x)], dim=1))))

    net.between = forward
    return net


class Prefixed(nn.Module):
    """Every name of the network inside begins with "module."."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.module = network

    def forward(self, images: Tensor) -> Tensor:
        return self.module((images - 0.5) / 0.25)


def prefixed(num_classes: int) -> nn.Module:
    """A residual network of eight filters in such a module."""
    return Prefixed(Small(num_classes))


class OwnNorm(nn.Module):
    """A batch norm by hand: its statistics are buffers, which training moves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.rand(channels))
        self.register_buffer("var", torch.rand(channels) + 0.1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.lerp_(x.detach().mean((0, 2, 3)), 0.1)
            self.var.lerp_(x.detach().var((0, 2, 3)), 0.1)
        return (x - self.mean[:, None, None]) / (self.var[:, None, None] + 1e-5).sqrt()


class Residual(nn.Module):
    """A block that its shortcut replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.c = conv(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.relu(self.c(x))


def norm_by_hand_before_blocks() -> nn.Module:
    """Statistics that a network gathers in buffers, in training and, of what it has seen, also where it infers."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        net.seen.mul_(0.9).add_(0.1 * x.mean())
        return net.r(net.n(x))

    net = Between(forward, n=OwnNorm(16), r=nn.Sequential(Residual(), Residual()))
    net.register_buffer("seen", torch.zeros(()))
    return net


class Gate(nn.Module):
    """Multiplies its input in place, which it returns: no block."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x *= torch.sigmoid(self.up(functional.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return x


def gate_in_place() -> nn.Module:
    """As in SENet, but in place."""
    return Between(lambda net, x: functional.relu(x + net.gate(net.a(x))), a=conv(16, 16), gate=Gate())


def asks_its_blocks(*, training: bool) -> nn.Module:
    """The code reads something of the second block besides what it puts out, always or while it trains."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = net.r[1](net.r[0](x))
        return x * 2 if (net.training or not training) and net.r[1].is_last else x

    net = Between(forward, r=nn.Sequential(Residual(), Residual()))
    net.r[1].is_last = True
    return net


class Skipped(nn.Module):
    """A block that is left out of some passes while it trains, as numbers of its own say."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.c, self.draw = conv(16, 16), draw

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training and self.draw() < 0.5 else x + functional.relu(self.c(x))


def stochastic_depth(draw: Callable[[], float]) -> nn.Module:
    """Blocks that are left out at random while they train."""
    return Between(lambda net, x: net.r(x), r=nn.Sequential(Skipped(draw), Skipped(draw)))


def numbers_in_one_vector() -> nn.Module:
    """As in ReZero, a number multiplies each branch: all are elements of one parameter. Beside it, one of integers."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return functional.relu(net.b(x + net.alpha[0] * net.a(x))) * net.alpha[1]

    net = Between(forward, a=conv(16, 16), b=conv(16, 16))
    net.alpha = nn.Parameter(torch.rand(2))
    net.steps = nn.Parameter(torch.arange(3), requires_grad=False)
    return net


def branch_of_unit_length() -> nn.Module:
    """What a branch adds has the length 1 over its channels, which other branches share."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return functional.relu(x + functional.normalize(net.b(functional.relu(net.a(x))), dim=1))

    return Between(forward, a=conv(16, 8), b=conv(8, 16))


def buffers_without_memory() -> nn.Module:
    """Constants whose elements share a place, one of which is made in the first pass."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        if net.ramp is None:
            net.ramp = torch.linspace(0, 1, x.shape[3]).expand(x.shape[2], -1)
        return functional.relu(net.b(functional.relu(net.a(x - net.mean) + net.ramp)))

    net = Between(forward, a=conv(16, 16), b=conv(16, 16))
    net.register_buffer("mean", torch.tensor(0.5).expand(16, 1, 1)[:1])
    net.register_buffer("same", torch.tensor(0.5).expand(16, 1, 1))
    net.register_buffer("ramp", None)
    return net


def centred_as_it_goes() -> nn.Module:
    """A mean that is gathered while the network infers is subtracted from what it puts out."""

    class Centring(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network
            self.register_buffer("mean", torch.zeros(10))

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.network(images)
            self.mean = 0.9 * self.mean + 0.1 * logits.mean(0)
            return logits - self.mean

    return Centring(Between(lambda net, x: functional.relu(net.b(net.a(x))), a=conv(16, 16), b=conv(16, 16)))
