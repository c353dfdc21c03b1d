"""What an experiment file is written with: frozen dataclasses, and every check on them.

`Experiment` collects the problems of all its parts and raises them together, so that a file is
mended once. Knows neither torch nor ray: an experiment can be read and checked in milliseconds.
"""

import math
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, TypeVar, get_args

from edge_tune.errors import ExperimentError
from edge_tune.objective import UNPRUNED, UNPRUNED_RETRAINED, Goal, Objective
from edge_tune.objective_text import parse
from edge_tune.parameters import Bounds, Choice, Integer, Parameter, Point, Uniform, Value, is_number, is_whole

STRUCTURES = ("filters", "channels")
IMPORTANCES = ("l1", "l2", "batch_norm", "taylor", "random")
AUTO = "auto"
METHODS = ("hyperopt", "random", "grid", "latency_aware")
Precision = Literal["f32", "bf16", "f16"]
KeepWeights = Literal["best", "front", "all"]

NAME_LENGTH = 100
"""Files are named after names, with a few characters before and behind; file systems take 143 at least."""

NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{NAME_LENGTH - 1}}}")
NAME_RULE = f"must consist of at most {NAME_LENGTH} letters, digits, '_', '.' and '-'"
IMPORTABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
"""What an experiment brings with it: "package.module:name"."""

RESOURCE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
HOST = re.compile(r"(?!-)[!#-&(-+\--~]+")
"""A host as ssh names it: no option, and neither quotes nor commas, which a list as text has."""

TRIAL_NAME = re.compile(r"trial_\d+", re.IGNORECASE)

DATA_SETS = ("digits", "cifar10", "cifar100")
"""Names that mean a data set, not a folder."""

MAX_SEED = 2**32 - 1
"""The greatest that numpy's RandomState takes, which draws HyperOpt's suggestions."""

SPARSITY = Bounds("0 <= {} < 1", lambda value: 0 <= value < 1)

Channels = tuple[float, float, float]
"""A number for each of red, green and blue."""

MEAN: Channels = (0.485, 0.456, 0.406)
STD: Channels = (0.229, 0.224, 0.225)
"""Of the channels of ImageNet's images, RGB in 0..1: what published networks were trained with."""

NATIVE = "native"
AUGMENTATIONS = ("crop", "resized_crop", "flip")
IN_OWN_UNITS = ("googlenet", "inception_v3")
"""Networks that bring their input from MEAN and STD to the units that their published weights were trained on."""

MAY_CHANGE = {"may_change": True}
"""Of a field that may change between the sessions of a study: how many trials, limits, what is kept. What every other
field says, and each that is added, is part of what the study is: it must stay the same."""

ADDED = {"added": True}
"""Of a field that earlier studies did not know: while it has its default, a study is as one that was without it."""


@dataclass(frozen=True)
class PrunerGroup:
    """The weights that share one sparsity, and what is removed from them.

    Its parameters are "sparsity", "structure" and "importance".

    Attributes:
        structure: "filters" (dim 0 of a weight [C_out, C_in, K_h, K_w]), "channels" (dim 1), a structure of your own as
            "package.module:name", or a list of these, from which the search chooses.
        weights: Names as in the network's `state_dict`; a leading "module." is dropped where the network has no such
            name.
        sparsity: The fraction of the slices of each weight to remove: a range to search.
        importance: By which the slices stay that have most of it: the "l1" or "l2" norm of their weights; "batch_norm",
            the scale of the batch norm behind them; "taylor", the change of the loss without them, from gradients of
            some training images; "random"; a criterion of your own as "package.module:name"; or a list of these, from
            which the search chooses.
    """

    structure: str | Sequence[str]
    weights: Sequence[str]
    _: KW_ONLY
    sparsity: Uniform | Choice
    importance: str | Sequence[str] = "l1"

    MAIN: ClassVar = "sparsity"

    def __post_init__(self) -> None:
        _freeze(self, "structure", list, tuple)
        _freeze(self, "weights", list | tuple, tuple)
        _freeze(self, "importance", list, tuple)

    def named_in(self, known: Container[str]) -> "PrunerGroup":
        """Return the group with its weights named as in a network that has these."""
        return replace(self, weights=tuple(own_name(weight, known) for weight in self.weights))

    @property
    def structures(self) -> tuple[str, ...]:
        """The structures the search may choose from; one when there is nothing to choose."""
        return tuple(_listed(self.structure))

    @property
    def importances(self) -> tuple[str, ...]:
        """The criteria of importance the search may choose from; one when there is nothing to choose."""
        return tuple(_listed(self.importance))

    def parameters(self) -> dict[str, Parameter]:
        """Return name -> what this group lets the search choose."""
        return {
            "sparsity": self.sparsity,
            "structure": Choice(self.structures),
            "importance": Choice(self.importances),
        }

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with this group."""
        yield from _names("structure", self.structure, STRUCTURES)
        yield from _names("importance", self.importance, IMPORTANCES)
        if isinstance(self.weights, str):
            yield f"weights must be a list of names, but got the text {self.weights!r}; write [{self.weights!r}]."
        elif not isinstance(self.weights, tuple):
            yield f"weights must be a list of names, but got {self.weights!r}."
        elif not self.weights:
            yield "weights must name at least one weight, but got none; name one or remove the group."
        elif others := [weight for weight in self.weights if not isinstance(weight, str)]:
            yield f"weights must be a list of names, but got {others[0]!r} in it."
        if isinstance(self.sparsity, Uniform | Choice):
            yield from self.sparsity.problems("sparsity", SPARSITY)
        else:
            yield f"sparsity must be a Uniform or a Choice, but got {self.sparsity!r}."


@dataclass(frozen=True)
class BlockGroup:
    """Blocks of which the search chooses how many stay. One that goes leaves its shortcut: what came in comes out.

    Its parameter is "keep".

    Attributes:
        blocks: Names of modules that add something to their input, which has the shape of their output, such as
            "layer1.3". What comes with one, such as its batch norms, goes with it.
        keep: How many of them stay: a range to search.
        order: All of `blocks`, the one that goes first before the others. None: those without which the network loses
            least go first; this is measured when a study starts, and run.json says what was found.
    """

    blocks: Sequence[str]
    _: KW_ONLY
    keep: Integer | Choice
    order: Sequence[str] | None = None

    MAIN: ClassVar = "keep"

    def __post_init__(self) -> None:
        _freeze(self, "blocks", list | tuple, tuple)
        _freeze(self, "order", list | tuple, tuple)

    def named_in(self, known: Container[str]) -> "BlockGroup":
        """Return the group with its blocks named as in a network that has these modules."""
        order = self.order and tuple(own_name(block, known) for block in self.order)
        return replace(self, blocks=tuple(own_name(block, known) for block in self.blocks), order=order)

    def parameters(self) -> dict[str, Parameter]:
        """Return name -> what this group lets the search choose."""
        return {"keep": self.keep}

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with this group."""
        if not (isinstance(self.blocks, tuple) and all(isinstance(block, str) for block in self.blocks)):
            yield f"blocks must be a list of names, but got {self.blocks!r}."
            return
        if not self.blocks:
            yield "blocks must name at least one block, but got none; name one or remove the group."
        if not isinstance(self.keep, Integer | Choice):
            yield f"keep must be an Integer or a Choice, but got {self.keep!r}."
        else:
            most = len(self.blocks)
            problems = list(
                self.keep.problems("keep", Bounds(f"0 <= {{}} <= {most}", lambda value: 0 <= value <= most))
            )
            yield from problems
            if not problems and not all(map(is_whole, self.keep.values)):
                yield f"keep must offer whole numbers, but got {self.keep!r}."
        if self.order is not None and (
            not isinstance(self.order, tuple) or sorted(map(str, self.order)) != sorted(self.blocks)
        ):
            yield f"order must list each of blocks once, or be None, but got {self.order!r}."


Group = PrunerGroup | BlockGroup


def own_name(name: str, known: Container[str]) -> str:
    """Return what is called so in a network that has these names: torch's DataParallel puts "module." before them."""
    return name if name in known else name.removeprefix("module.")


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """Decay that starts late: lr(epoch) = lr * gamma ** max(0, epoch - from_epoch).

    Epochs count from 0, so the first epoch that runs at a smaller rate is `from_epoch + 1`. The
    curve has no jump; Distiller's has one (docs/decisions.md says why it is not repeated here).

    Attributes:
        gamma: What the rate is multiplied by after each epoch, 0 < gamma <= 1.
        from_epoch: The epoch until which the rate stays.
    """

    gamma: float
    from_epoch: int = 0

    def factor(self, place: float, epochs: int) -> float:
        """Return lr(epoch) / lr at `place`: so many of `epochs` epochs are done, of which the last in part."""
        return self.gamma ** max(0, math.floor(place) - self.from_epoch)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with this decay."""
        yield from _gamma_problems(self.gamma)
        yield from _at_least("from_epoch", self.from_epoch, 0)


@dataclass(frozen=True, kw_only=True)
class Step:
    """Fall in equal steps: lr(epoch) = lr * gamma ** (max(0, epoch - from_epoch) // every_epochs).

    Epochs count from 0, so the first epoch that runs at a smaller rate is `from_epoch + every_epochs`.

    Attributes:
        gamma: What the rate is multiplied by at each step, 0 < gamma <= 1.
        every_epochs: Epochs between two steps.
        from_epoch: The epoch from which the steps are counted.
    """

    gamma: float
    every_epochs: int
    from_epoch: int = 0

    def factor(self, place: float, epochs: int) -> float:
        """Return lr(epoch) / lr at `place`: so many of `epochs` epochs are done, of which the last in part."""
        return self.gamma ** (max(0, math.floor(place) - self.from_epoch) // self.every_epochs)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with this decay."""
        yield from _gamma_problems(self.gamma)
        yield from _at_least("every_epochs", self.every_epochs, 1)
        yield from _at_least("from_epoch", self.from_epoch, 0)


@dataclass(frozen=True, kw_only=True)
class MultiStep:
    """Fall at given epochs: lr(epoch) = lr * gamma ** (number of milestones <= epoch).

    Epochs count from 0, so a milestone is the first epoch that runs at the smaller rate; one that is
    listed twice lowers the rate twice.

    Attributes:
        gamma: What the rate is multiplied by at each milestone, 0 < gamma <= 1.
        milestones: Epochs.
    """

    gamma: float
    milestones: Sequence[int]

    def __post_init__(self) -> None:
        _freeze(self, "milestones", list, tuple)

    def factor(self, place: float, epochs: int) -> float:
        """Return lr(epoch) / lr at `place`: so many of `epochs` epochs are done, of which the last in part."""
        return self.gamma ** sum(milestone <= math.floor(place) for milestone in self.milestones)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with this decay."""
        yield from _gamma_problems(self.gamma)
        if not isinstance(self.milestones, tuple):
            yield f"milestones must be a list of epochs, but got {self.milestones!r}."
            return
        if not self.milestones:
            yield "milestones must name at least one epoch, but got none; write decay=None to keep the rate."
        for milestone in self.milestones:
            yield from _at_least("each of milestones", milestone, 0)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from lr to nearly 0: lr(epoch) = lr * (1 + cos(pi * epoch / epochs)) / 2."""

    def factor(self, place: float, epochs: int) -> float:
        """Return lr(epoch) / lr at `place`: so many of `epochs` epochs are done, of which the last in part."""
        return (1 + math.cos(math.pi * math.floor(place) / epochs)) / 2

    def problems(self) -> Iterator[str]:
        """Yield nothing: a cosine has no parameters."""
        yield from ()


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """One rise to lr and one fall to nearly 0, both linear, step by step instead of epoch by epoch.

    With x the share of all steps that are done, the rate is lr * (start + (1 - start) * x / rise) up to x = rise, and
    lr * (1 - x) / (1 - rise) from there on. Momentum stays as it is.

    Attributes:
        rise: The share of the steps in which the rate rises, 0 < rise < 1.
        start: The first rate as a share of lr, 0 < start <= 1.

    Source: Smith and Topin, Super-Convergence, arXiv:1708.07120.
    """

    rise: float = 0.3
    start: float = 0.04

    def factor(self, place: float, epochs: int) -> float:
        """Return lr(step) / lr at `place`: so many of `epochs` epochs are done, of which the last in part."""
        done = place / epochs
        if done < self.rise:
            return self.start + (1 - self.start) * done / self.rise
        return (1 - done) / (1 - self.rise)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with this cycle."""
        if not (is_number(self.rise) and 0 < self.rise < 1):
            yield f"rise must hold 0 < rise < 1, but got {self.rise!r}."
        if not (is_number(self.start) and 0 < self.start <= 1):
            yield f"start must hold 0 < start <= 1, but got {self.start!r}."


Decay = Exponential | Step | MultiStep | Cosine | OneCycle


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """The unpruned network teaches the pruned one, on the same augmented images.

    The loss is (1 - weight) * cross-entropy + weight * temperature ** 2 * KL(teacher || student), where KL is the
    divergence between the softmaxes of the logits divided by the temperature, its mean over the images.

    Weight and temperature may be ranges or choices: the parameters "retraining.distillation_weight" and
    "retraining.distillation_temperature".

    Attributes:
        weight: The teacher's part in the loss, 0 <= weight <= 1.
        temperature: What the logits are divided by, above 0: the higher, the more the teacher's lesser answers tell.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, arXiv:1503.02531, section 2.
    """

    weight: float | Uniform | Choice = 0.9
    temperature: float | Uniform | Choice = 4.0


@dataclass(frozen=True)
class Ema:
    """An exponential moving average of the weights over the steps of the retraining, which is what comes of it.

    After step t the average is the sum of (1 - decay) * decay ** (t - i) * weights(i) over the steps i = 1 ... t,
    divided by the sum of these factors: the weights before the first step have no part in it. Its batch-norm
    statistics are its own.

    The decay may be a range or a choice: the parameter "retraining.average_decay".

    Attributes:
        decay: 0 <= decay < 1; the average looks back about 1 / (1 - decay) steps.

    Source: Polyak and Juditsky, SIAM J. Control Optim. 30 (1992); divided as in Kingma and Ba, arXiv:1412.6980.
    """

    decay: float | Uniform | Choice


RETRAINING = "retraining"
"""The part that the parameters of the recipe belong to; no pruner group is called so."""

UNIT = Bounds("0 <= {} < 1", lambda value: 0 <= value < 1)

NUMBERS = {
    "lr": Bounds("0 < {}", lambda value: value > 0),
    "batch_size": Bounds("2 <= {}", lambda value: value >= 2),
    "momentum": UNIT,
    "weight_decay": Bounds("0 <= {}", lambda value: value >= 0),
    "warmup_epochs": Bounds("0 <= {}", lambda value: value >= 0),
    "label_smoothing": UNIT,
    "distillation_weight": Bounds("0 <= {} <= 1", lambda value: 0 <= value <= 1),
    "distillation_temperature": Bounds("0 < {}", lambda value: value > 0),
    "average_decay": UNIT,
}
"""The numbers of a recipe that can be searched."""

WHOLE = {"batch_size": 2, "warmup_epochs": 0}
"""Those of them that are whole, and the least that they may be."""

PARTS: Mapping[str, tuple[type, Sequence[str]]] = {
    "distillation": (Distillation, ("weight", "temperature")),
    "average": (Ema, ("decay",)),
}
"""The parts of a recipe that have numbers of their own, which are named after both: "distillation_weight"."""

Optimiser = Literal["sgd", "adamw"]

CROSS_ENTROPY = "cross_entropy"

USUAL_MOMENTUM = 0.9
"""Of SGD, where a recipe names none."""


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """Training after pruning; also the recipe by which a network without weights is trained.

    Its numbers may be ranges or choices, as in `lr=et.LogUniform(0.005, 0.2)`: parameters of the search, named
    "retraining.lr" and so on.

    Attributes:
        epochs: Passes over the training split; 0 leaves the pruned network as it is.
        lr: The learning rate that decay and warm-up take shares of.
        decay: How the rate falls from epoch to epoch, or rises and falls from step to step (OneCycle); None keeps it.
        batch_size: Images a step.
        momentum: Of SGD; None: 0.9.
        weight_decay: L2 penalty on every parameter; with AdamW, what it takes off every parameter apart from the
            gradient.
        precision: "bf16" runs the forward pass in bfloat16 (autocast), "f32" does not, "auto"
            takes bf16 where the CPU computes it natively.
        warmup_epochs: Epochs in which the rate rises in equal steps to what it would be without; the decay counts on.
        label_smoothing: The share of the target that is spread evenly over all classes (arXiv:1512.00567, section 7).
        optimiser: "sgd" or "adamw" (arXiv:1711.05101) with its usual betas, 0.9 and 0.999.
        nesterov: Whether SGD's momentum is Nesterov's.
        distillation: How the unpruned network teaches; None: it does not.
        average: The average of the weights that comes of the retraining; None: the last weights do.
        loss: "cross_entropy", or a function of your own as "package.module:function", from logits [B, num_classes] in
            float32 and labels [B], whole numbers from 0, to their mean loss, a scalar tensor with a gradient. It takes
            cross-entropy's place in distillation, too; what is reported as a validation loss stays cross-entropy.
    """

    epochs: int
    lr: float | Uniform | Choice
    decay: Decay | None = None
    batch_size: int | Integer | Choice = 128
    momentum: float | Uniform | Choice | None = None
    weight_decay: float | Uniform | Choice = 1e-4
    precision: Literal["auto", "f32", "bf16"] = "auto"
    warmup_epochs: int | Integer | Choice = 0
    label_smoothing: float | Uniform | Choice = 0.0
    optimiser: Optimiser = "sgd"
    nesterov: bool = False
    distillation: Distillation | None = None
    average: Ema | None = None
    loss: str = field(default=CROSS_ENTROPY, metadata=ADDED)

    def lr_at(self, epoch: int, step: int = 0, steps: int = 1) -> float:
        """Return the learning rate of a step of `epoch`, both counted from 0, where an epoch has so many `steps`."""
        lr = settled(self.lr) * (self.decay.factor(epoch + step / steps, self.epochs) if self.decay else 1.0)
        warmup_epochs = settled(self.warmup_epochs)
        risen = epoch + (step + 1) / steps
        return lr * risen / warmup_epochs if risen < warmup_epochs else lr

    def parameters(self) -> dict[str, Parameter]:
        """Return name -> what this recipe lets the search choose."""
        return {name: value for name, value in self._numbers().items() if isinstance(value, Parameter)}

    def at(self, values: Mapping[str, Any]) -> "Retraining":
        """Return the recipe with these values, name -> value, in place of what was to be searched."""
        changes = dict(values)
        for part, (_, names) in PARTS.items():
            if own := {name: changes.pop(f"{part}_{name}") for name in names if f"{part}_{name}" in changes}:
                changes[part] = replace(getattr(self, part), **own)
        return replace(self, **changes)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with this recipe."""
        yield from _at_least("epochs", self.epochs, 0)
        for name, value in self._numbers().items():
            if name != "momentum" or value is not None:
                yield from _number_problems(name, value)
        if self.epochs == 0 and (searched := self.parameters()):
            yield f"epochs must be at least 1 where {list(searched)} of the recipe are searched, but got 0."
        yield from _one_of("precision", self.precision, ("auto", "f32", "bf16"))
        if isinstance(self.decay, Decay):
            yield from self.decay.problems()
        elif self.decay is not None:
            yield f"decay must be Exponential, Step, MultiStep, Cosine, OneCycle or None, but got {self.decay!r}."
        for part, (kind, _) in PARTS.items():
            if not isinstance(given := getattr(self, part), kind | None):
                yield f"{part} must be et.{kind.__name__}(...) or None, but got {given!r}."
        yield from self._warmup_problems()
        yield from self._optimiser_problems()
        yield from self._loss_problems()

    def _numbers(self) -> dict[str, Any]:
        """Return name -> number or range, of the recipe and of those parts that it has."""
        of_parts = {f"{part}_{name}": (part, name) for part, (_, names) in PARTS.items() for name in names}
        found = {name: getattr(self, name) for name in NUMBERS if name not in of_parts}
        for name, (part, own) in of_parts.items():
            if isinstance(given := getattr(self, part), PARTS[part][0]):
                found[name] = getattr(given, own)
        return found

    def _warmup_problems(self) -> Iterator[str]:
        _, most = _limits(self.warmup_epochs)
        if most and isinstance(self.decay, OneCycle):
            yield f"warmup_epochs must be 0 with OneCycle, which rises by itself, but got {self.warmup_epochs!r}."
        if isinstance(self.epochs, int) and 0 < self.epochs < most:
            yield f"warmup_epochs must be at most epochs, {self.epochs}, but got {self.warmup_epochs!r}."

    def _optimiser_problems(self) -> Iterator[str]:
        yield from _one_of("optimiser", self.optimiser, get_args(Optimiser))
        if not isinstance(self.nesterov, bool):
            yield f"nesterov must be True or False, but got {self.nesterov!r}."
        if self.optimiser == "adamw":
            if self.momentum is not None:
                yield f"momentum must be left out with AdamW, which has betas instead, but got {self.momentum!r}."
            if self.nesterov is True:
                yield "nesterov must be left out with AdamW, since it is SGD's, but got True."
        elif self.nesterov is True and _limits(self.momentum)[0] == 0:
            yield f"momentum must be above 0 where nesterov is True, but got {self.momentum!r}."

    def _loss_problems(self) -> Iterator[str]:
        if not (isinstance(self.loss, str) and (self.loss == CROSS_ENTROPY or IMPORTABLE.fullmatch(self.loss))):
            yield f"loss must be {CROSS_ENTROPY!r} or 'package.module:function', but got {self.loss!r}."
        elif self.loss != CROSS_ENTROPY and _limits(self.label_smoothing)[1]:
            yield (
                f"label_smoothing must be left out with a loss of your own, which itself says what it asks of each "
                f"class, but got {self.label_smoothing!r}."
            )


def _number_problems(name: str, value: object) -> Iterator[str]:
    """Yield what is wrong with a number of a recipe, or with the range of one."""
    bounds, whole = NUMBERS[name], name in WHOLE
    ranges = (Integer, Choice) if whole else (Uniform, Choice)
    if isinstance(value, ranges):
        problems = list(value.problems(name, bounds))
        yield from problems
        if whole and not problems and isinstance(value, Choice) and not all(map(is_whole, value.values)):
            yield f"{name} must offer whole numbers, but got {value!r}."
    elif isinstance(value, Parameter):
        yield f"{name} must be a number, {' or a '.join(kind.__name__ for kind in ranges)}, but got {value!r}."
    elif whole:
        yield from _at_least(name, value, WHOLE[name])
    elif not (is_number(value) and bounds.hold(value)):  # type: ignore[arg-type]
        yield f"{name} must be a number and hold {bounds.rule.format(name)}, but got {value!r}."


@dataclass(frozen=True)
class Asha:
    """Stop a trial that is outside the best 1/reduction_factor of those that came to its rung.

    Rungs stand at grace_epochs * reduction_factor ** k epochs of retraining.

    Attributes:
        goal: What trials of a rung are compared by. None: the study's objective, as the trials are at that epoch, or,
            once enough have finished, as they are expected to end: first those that meet the conditions, by the goal,
            then the others by how far they miss them. Of a front, those that no other one beats in both metrics come
            first, and of these those that add most area to it.
        grace_epochs: Epochs that each trial gets before it is compared, at the first rung.
        reduction_factor: Of so many trials that come to a rung, the best one goes on.
        audit: The share of the trials that it would stop, drawn by their numbers, which are trained to their end all
            the same, so that the report can say what stopping the others has cost. 0 <= audit < 1.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, arXiv:1810.05934.
    """

    goal: Goal | None = None
    _: KW_ONLY
    grace_epochs: int = 1
    reduction_factor: int = 3
    audit: float = 0.0

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with this rule."""
        if isinstance(self.goal, Goal):
            yield from self.goal.problems()
        elif self.goal is not None:
            yield f"goal must be Minimise(metric), Maximise(metric) or None, but got {self.goal!r}."
        yield from _at_least("grace_epochs", self.grace_epochs, 1)
        yield from _at_least("reduction_factor", self.reduction_factor, 2)
        yield from _audit_problems(self.audit)


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Pause a trial that is predicted not to reach the objective.

    The accuracy that it will end with is predicted from what is known of it by regressions over the study's own
    finished trials: after 1, 2, 4, ... epochs, up to half of them, so that the first one is a probe, once 3 have
    finished; right after pruning once enough have for a judgement. A trial is paused if even the most that it can end
    with, by this confidence, breaks a condition, or is no better than the best so far, or than the front.

    Attributes:
        confidence: With which the final accuracy of a trial lies below the bounds of all its judgements together,
            0.5 <= confidence < 1: each has its part of it, 0.975 of 0.9 where there are four. That is counted by what
            is missed of the finished trials, n of which tell n / (n + 1) at most; with fewer than 10, and above that
            share, it rests on what is believed of the curves of pruned networks. Right after pruning nothing is
            believed: there nobody is paused before 39 have finished where there are four judgements, 49 where five.
        audit: The share of the trials that it would pause, drawn by their numbers, which are trained to their end all
            the same: by them the report says how often the prediction was wrong. 0 <= audit < 1.

    Source: edge_tune/search/prediction.py.
    """

    confidence: float = 0.9
    audit: float = 0.1

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with this rule."""
        if not (is_number(self.confidence) and 0.5 <= self.confidence < 1):
            yield f"confidence must hold 0.5 <= confidence < 1, but got {self.confidence!r}."
        yield from _audit_problems(self.audit)


@dataclass(frozen=True, kw_only=True)
class Hopeless:
    """Stop a network whose predictions are still no better than chance after some retraining.

    Attributes:
        after_epochs: Epochs of retraining a collapsed network gets to recover. 0 judges right
            after pruning, as the dissertation did; the fastest network that it found would not
            have survived that on this project's data, hence 1.
    """

    after_epochs: int = 1

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with this rule."""
        yield from _at_least("after_epochs", self.after_epochs, 0)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """How the device is measured.

    Attributes:
        device: An OpenVINO device ("CPU", "GPU", "MYRIAD", ...), "onnxruntime:CPU" for ONNX Runtime's, or "fake": a
            formula, no device. "CPU" is ONNX Runtime's where the interpreter has no OpenVINO.
        runs: Inferences of a measurement at least, after the warm-up, if they fit in `max_s`.
        precision: The arithmetic the device is told to use.
        threads: Threads that a CPU computes with; other devices have none.
        every_epochs: Measure during retraining too, each so many epochs; None measures before
            and after only.
        align: Round each kept count to a multiple of this, the width in whose steps the device's
            time rises; "auto" measures it before the search; None rounds nothing. Baselines stay as they are.
        max_s: Seconds that the networks of a measurement may run in all, warm-up included, compiling not; it ends
            before when its ratio is known to 1 %. Each network runs at least once, however long that takes.
        python: Interpreter (a text or a Path) with numpy and the runtime that has the device, on the host that
            measures; None takes EdgeTune's own, or python3 on a `host`.
        host: Where the device is, if that is no node of Ray's, as ssh names it: "pi@board". A node drives it from
            there; it needs an sshd, and numpy and a runtime for `python`, nothing of EdgeTune. Several, which must be
            alike, are so many devices. None: on the node.
        retries: How often a measurement is begun again when the process that owns the device fails.
        resource: Ray resource that marks the nodes of a cluster with the device, one unit a device. A Ray that is
            started for the study gives it to this machine.
    """

    device: str = "CPU"
    runs: int = 200
    precision: Precision = "f32"
    threads: int = 1
    every_epochs: int | None = None
    align: int | Literal["auto"] | None = None
    max_s: float = 3.0
    python: str | None = None
    host: str | Sequence[str] | None = field(default=None, metadata=ADDED)
    retries: int = 2
    resource: str = "ncs"

    def __post_init__(self) -> None:
        _freeze(self, "python", PathLike, fspath)
        _freeze(self, "host", list | tuple, lambda hosts: hosts[0] if len(hosts) == 1 else tuple(hosts))

    @property
    def boards(self) -> tuple[str, ...]:
        """The hosts that have a device and are no node of Ray's; none if the nodes have it."""
        return (self.host,) if isinstance(self.host, str) else tuple(self.host or ())

    @property
    def board(self) -> str | None:
        """The first of the boards, or the one; None if the nodes have the device."""
        return next(iter(self.boards), None)

    @property
    def each_board(self) -> "tuple[Benchmark, ...]":
        """These settings for each board alone; none if the nodes have the device."""
        return tuple(replace(self, host=board) for board in self.boards)

    @property
    def takes_cores(self) -> bool:
        """Tell whether measuring takes cores of a node, which trials must then leave to it."""
        return self.device != "fake" and not self.boards

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with these settings; whether the device exists is asked later."""
        yield from _text("device", self.device, "the name of a device")
        if self.device == "onnxruntime":
            yield "device must name a device of ONNX Runtime, as 'onnxruntime:CPU' does, but got 'onnxruntime'."
        yield from _at_least("runs", self.runs, 1)
        yield from _one_of("precision", self.precision, get_args(Precision))
        yield from _at_least("threads", self.threads, 1)
        if self.every_epochs is not None:
            yield from _at_least("every_epochs", self.every_epochs, 1)
        if isinstance(self.align, str):
            yield from _one_of("align", self.align, ("auto",))
        elif self.align is not None:
            yield from _at_least("align", self.align, 1)
        if self.align == "auto" and self.device == "fake":
            yield "align must be a number or None for the device 'fake', a formula without steps, but got 'auto'."
        if not (is_number(self.max_s) and self.max_s > 0):
            yield f"max_s must be a number above 0, but got {self.max_s!r}."
        if self.python is not None:
            yield from _text("python", self.python, "the path of an interpreter or None")
        yield from self._host_problems()
        yield from _at_least("retries", self.retries, 0)
        if not (isinstance(self.resource, str) and RESOURCE.fullmatch(self.resource)):
            yield f"resource must be a name of letters, digits and '_', such as 'ncs', but got {self.resource!r}."
        if self.resource in ("CPU", "GPU", "memory"):
            yield f"resource must be one that only hosts with the device offer, but got {self.resource!r}."

    def _host_problems(self) -> Iterator[str]:
        hosts = self.host if isinstance(self.host, tuple) else () if self.host is None else (self.host,)
        if self.host == ():
            yield "host must name at least one host, or be None, but got an empty list."
        for host in hosts:
            if not (isinstance(host, str) and HOST.fullmatch(host)):
                yield f"host must be one as ssh names it, such as 'pi@board', or None, but got {host!r}."
            elif hosts.count(host) > 1:
                yield f"host must name each host once, but got {host!r} {hosts.count(host)} times."
                return


@dataclass(frozen=True)
class Search:
    """How the next point is chosen, how many, and what they may cost.

    Attributes:
        method: "hyperopt" (tree-structured Parzen estimators), "random", "grid" (the product of all values; each
            parameter must have some that can be counted), "latency_aware" (latency is predicted, accuracy learned by a
            Gaussian process, and that point is tried of which most is expected), or a sampler of your own as
            "package.module:name".
        trials: Networks to try, besides the baselines. A point that gives a network which was tried takes its record
            over, and is not counted. None: as many as the epochs afford.
        epochs: Of retraining that all trials may take together, besides the baselines, over all sessions: another
            trial begins only if it can come to its end. What is left when there is no other to begin is spent on
            paused trials, those first that promise most. None: no limit.
        seed: Of the suggestions, the validation split and the retraining.
        max_concurrent_trials: At most so many at once; None: as many as the CPUs allow.
        cpus_per_trial: Cores, and threads, of one trial.
        gpus_per_trial: GPUs of one trial: 1/n for n trials on each, 0 for none; None: one where the cluster has any
            that PyTorch can use. A trial computes on one GPU.
        time_budget_s: Seconds of searching after which the study ends with what it has; None: no limit. What is
            under way then is kept, and `--resume` resumes it.
        trial_time_limit_s: A trial that has worked for so many seconds is stopped before its next epoch; one that
            has not come to a report after twice as many and a minute is ended. None: no limit.
        max_failed_trials: So many failed trials end the study. Where numbers of the recipe are searched, a trial that
            diverged is not counted once another has come through its retraining: it is what the search looks into.
    """

    method: str
    _: KW_ONLY
    trials: int | None = field(default=None, metadata=MAY_CHANGE)
    epochs: int | None = field(default=None, metadata=MAY_CHANGE)
    seed: int = 0
    max_concurrent_trials: int | None = field(default=None, metadata=MAY_CHANGE)
    cpus_per_trial: int = field(default=1, metadata=MAY_CHANGE)
    gpus_per_trial: float | None = field(default=None, metadata=MAY_CHANGE)
    time_budget_s: float | None = field(default=None, metadata=MAY_CHANGE)
    trial_time_limit_s: float | None = field(default=None, metadata=MAY_CHANGE)
    max_failed_trials: int = field(default=10, metadata=MAY_CHANGE)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with this search."""
        if not (isinstance(self.method, str) and (self.method in METHODS or IMPORTABLE.fullmatch(self.method))):
            yield f"method must be one of {list(METHODS)} or 'package.module:name', but got {self.method!r}."
        if self.trials is None and self.epochs is None:
            yield "trials or epochs must say how long to search, but got neither; give one of them."
        for name in ("trials", "epochs"):
            if getattr(self, name) is not None:
                yield from _at_least(name, getattr(self, name), 1)
        yield from _at_least("seed", self.seed, 0)
        if isinstance(self.seed, int) and self.seed > MAX_SEED:
            yield f"seed must be at most {MAX_SEED}, but got {self.seed}."
        if self.max_concurrent_trials is not None:
            yield from _at_least("max_concurrent_trials", self.max_concurrent_trials, 1)
        yield from _at_least("cpus_per_trial", self.cpus_per_trial, 1)
        if self.gpus_per_trial is not None and not _is_share(self.gpus_per_trial):
            yield (
                f"gpus_per_trial must be 0, 1, a fraction 1/n for n trials on each GPU, or None, but got "
                f"{self.gpus_per_trial!r}."
            )
        for name in ("time_budget_s", "trial_time_limit_s"):
            seconds = getattr(self, name)
            if seconds is not None and not (is_number(seconds) and seconds > 0):
                yield f"{name} must be a number above 0, or None, but got {seconds!r}."
        yield from _at_least("max_failed_trials", self.max_failed_trials, 1)


@dataclass(frozen=True)
class Data:
    """Images to train, choose and test on.

    Attributes:
        name: "digits" (scikit-learn's, embedded), "cifar10", "cifar100" (downloaded), or the
            path of an image folder `train/CLASS/*`, `test/CLASS/*`. A Path is always a folder, and kept as text. Or
            "package.module:function", a callable that returns two torch datasets, train and test, of items (image,
            label): PIL images, uint8 arrays [H, W, 3] or uint8 tensors [3, H, W], which are kept in memory.
        image_size: Pixels that every image is resized to, whatever its proportions: one number for a square, or
            (height, width). "native": the size that the images have, which must be the same of all.
        validation_fraction: Share of the training images of each class that the search is
            judged on, and that is never trained on.
        train_images: Train on so many images only, the same share of each class; None: on all.
        horizontal_flip: Mirror half of the training images; None: yes, but for digits. It is "flip" in `augmentation`,
            for who wants the rest as it is.
        mean: What is taken off a network's input, red, green, blue in 0..1; by default, ImageNet's.
        std: What it is divided by then: (RGB in 0..1 - mean) / std.
        augmentation: What changes training images at random, each anew in every epoch: "crop" shifts them by at most an
            eighth of their shorter side, over black; "resized_crop" enlarges a part of them, a quarter of the area at
            least, to the whole; "flip" mirrors half of them. A list of these, of which [] changes nothing; None: "crop"
            and what `horizontal_flip` says.
    """

    name: str | Path
    _: KW_ONLY
    image_size: int | Sequence[int] | Literal["native"] = 32
    validation_fraction: float = 0.1
    train_images: int | None = None
    horizontal_flip: bool | None = None
    mean: Sequence[float] = field(default=MEAN, metadata=ADDED)
    std: Sequence[float] = field(default=STD, metadata=ADDED)
    augmentation: Sequence[str] | None = field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        if isinstance(self.name, Path):
            name = str(self.name)
            object.__setattr__(self, "name", f"./{name}" if name in DATA_SETS or IMPORTABLE.fullmatch(name) else name)
        for several in ("image_size", "mean", "std", "augmentation"):
            _freeze(self, several, list, tuple)
        match self.image_size:
            case (height, width) if height == width:
                object.__setattr__(self, "image_size", height)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with these settings; whether the images exist is asked later."""
        if not (isinstance(self.name, str) and self.name):
            yield f"name must be a data set or the path of an image folder, but got {self.name!r}."
        yield from self._size_problems()
        if not (is_number(self.validation_fraction) and 0 < self.validation_fraction < 1):
            yield f"validation_fraction must hold 0 < fraction < 1, but got {self.validation_fraction!r}."
        if self.train_images is not None:
            yield from _at_least("train_images", self.train_images, 2)
        if not isinstance(self.horizontal_flip, bool | None):
            yield f"horizontal_flip must be True, False or None, but got {self.horizontal_flip!r}."
        yield from _channel_problems("mean", self.mean, Bounds("0 <= {} <= 1", lambda value: 0 <= value <= 1))
        yield from _channel_problems("std", self.std, Bounds("0 < {} <= 1", lambda value: 0 < value <= 1))
        yield from self._augmentation_problems()

    def _size_problems(self) -> Iterator[str]:
        size = self.image_size
        if isinstance(size, tuple) and len(size) == 2:
            for side in size:
                yield from _at_least("each of image_size", side, 8)
        elif isinstance(size, int):
            yield from _at_least("image_size", size, 8)
        elif size != NATIVE:
            yield (
                f"image_size must be a whole number of at least 8, two of them, (height, width), or {NATIVE!r}, but "
                f"got {size!r}."
            )

    def _augmentation_problems(self) -> Iterator[str]:
        kinds = self.augmentation
        if kinds is None:
            return
        if not (isinstance(kinds, tuple) and all(kind in AUGMENTATIONS for kind in kinds)):
            yield f"augmentation must be a list of some of {list(AUGMENTATIONS)}, or None, but got {kinds!r}."
        elif len(set(kinds)) < len(kinds) or {"crop", "resized_crop"} <= set(kinds):
            yield f"augmentation must crop and mirror in one way each, but got {list(kinds)}."
        if self.horizontal_flip is not None:
            yield (
                f"horizontal_flip must be left out where augmentation is given, but got {self.horizontal_flip!r}; "
                f"write 'flip' into augmentation, or not."
            )


StoppingRule = Asha | Hopeless | Predicted
Rule = TypeVar("Rule", Asha, Hopeless, Predicted)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """All that a study needs. Constructing one checks it; ExperimentError holds every problem.

    Attributes:
        model: "resnet20_cifar" ... "resnet110_cifar", the name of a torchvision classifier, or
            "package.module:function", a callable that returns an nn.Module.
        dataset: A name or path as in `Data`, or a `Data`.
        pruner_groups: Label -> group of weights or of blocks. Labels name the searched parameters in every table.
            "auto" finds groups in the network when a study starts; run.json says which.
        target: What the search looks for: Minimise(metric), Maximise(metric), or an objective in a line of text such as
            "minimise latency_ratio where top1 >= unpruned - 1" or "front of latency_ratio and top1" (objective_text.py
            has the whole of it).
        retraining: What each pruned network gets; 0 epochs studies pruning alone.
        weights: File (a text or a Path) or URL of the trained weights; None trains the network first and keeps it.
            Those of another number of classes get a new classifier, which is trained alone, then with the network.
        training: The recipe of that training; None takes the data set's own, or, for given weights of other classes, 10
            epochs in batches of 64 from a learning rate of 0.01 on a cosine.
        stopping: Rules that end a trial early; at most one of a kind.
        benchmark: How the device is measured.
        search: How the points are chosen.
        baselines: Name -> label -> sparsity, or how many blocks stay: known schedules, run first and shown beside the
            best, as the unpruned network is, and that network retrained as they are where all are by one recipe. A
            baseline may give other parameters a value by their whole names, as in "layer_1.structure"; if not, a
            structure and an importance are the first of their lists. What is searched of the recipe must be given.
        keep_weights: Which trials' weights stay on the disk, besides the baselines': the "best", also those of the
            Pareto "front" of latency_ratio against top1, or of what the target is the front of, or "all" that finish.
            Until the best is named, the few trials that may be it keep theirs too. The front is that of the figures
            while the study runs: what is measured again at its end may move a network to it whose weights are gone.
    """

    model: str
    dataset: str | Path | Data
    pruner_groups: Mapping[str, Group] | Literal["auto"]
    target: Goal | str
    retraining: Retraining
    weights: str | None = None
    training: Retraining | None = None
    stopping: Sequence[StoppingRule] = ()
    benchmark: Benchmark = field(default_factory=Benchmark)
    search: Search = Search("hyperopt", trials=64)
    baselines: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    keep_weights: KeepWeights = field(default="front", metadata=MAY_CHANGE)

    def __post_init__(self) -> None:
        _freeze(self, "dataset", PathLike, fspath)
        _freeze(self, "weights", PathLike, fspath)
        _freeze(self, "pruner_groups", Mapping, dict)
        _freeze(self, "stopping", list, tuple)
        _freeze(self, "baselines", Mapping, _copied)
        ExperimentError.raise_if(self.problems())

    @property
    def data(self) -> Data:
        """The data settings, whichever way they were written."""
        return self.dataset if isinstance(self.dataset, Data) else Data(self.dataset)

    @property
    def objective(self) -> Objective:
        """The target, whichever way it was written."""
        return Objective.of(self.target) if isinstance(self.target, Goal) else parse(self.target)

    @property
    def groups(self) -> Mapping[str, Group]:
        """The groups of weights and of blocks; none before those of "auto" are found."""
        return self.pruner_groups if isinstance(self.pruner_groups, Mapping) else {}

    @property
    def pruners(self) -> Mapping[str, PrunerGroup]:
        """The groups of weights."""
        return {label: group for label, group in self.groups.items() if isinstance(group, PrunerGroup)}

    @property
    def block_groups(self) -> Mapping[str, BlockGroup]:
        """The groups of blocks."""
        return {label: group for label, group in self.groups.items() if isinstance(group, BlockGroup)}

    def named_in(self, known: Container[str]) -> "Experiment":
        """Return the experiment with its groups' weights and blocks named as in a network that has these."""
        groups = {label: group.named_in(known) for label, group in self.groups.items()}
        return self if groups == self.groups else replace(self, pruner_groups=groups)

    def ordered(self, orders: Mapping[str, Sequence[str]]) -> "Experiment":
        """Return the experiment with the order in which blocks go, label -> blocks, where it gives none itself."""
        found = {
            label: replace(group, order=tuple(orders[label]))
            for label, group in self.block_groups.items()
            if group.order is None and sorted(orders.get(label, ())) == sorted(group.blocks)
        }
        return replace(self, pruner_groups={**self.groups, **found}) if found else self

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Name -> what the search chooses: first all sparsities, then all structures, and so on."""
        own = {label: group.parameters() for label, group in self.groups.items()}
        own[RETRAINING] = self.retraining.parameters()
        kinds = dict.fromkeys(kind for parameters in own.values() for kind in parameters)
        return {
            f"{label}.{kind}": parameters[kind]
            for kind in kinds
            for label, parameters in own.items()
            if kind in parameters
        }

    def point(self, values: Mapping[str, Value]) -> Point:
        """Return a point as baselines are written: label -> sparsity, parameter -> value, and what is not given."""
        given = {
            f"{key}.{self.groups[key].MAIN}" if key in self.groups else key: value for key, value in values.items()
        }
        return {
            name: parameter.taken(given[name]) if name in given else parameter.default
            for name, parameter in self.parameters.items()
        }

    @property
    def baseline_names(self) -> tuple[str, ...]:
        """The baselines that are retrained, in the order of their numbers, from 1.

        The known schedules come first; then, where all networks are retrained by one recipe, the unpruned network.
        """
        return (*self.baselines, *([UNPRUNED_RETRAINED] if self._has_one_recipe else []))

    def baseline_point(self, name: str) -> Point:
        """Return the point of a baseline; an empty one for the unpruned network."""
        return self.point(self.baselines[name]) if name in self.baselines else {}

    @property
    def planned_trials(self) -> int:
        """How many networks a study tries besides the baselines, if each is trained to its end."""
        search, a_trial = self.search, self.retraining.epochs
        afforded = max(1, search.epochs // a_trial) if search.epochs and a_trial else None
        return min(number for number in (search.trials, afforded) if number is not None)

    @property
    def _has_one_recipe(self) -> bool:
        recipe = self.retraining
        return isinstance(recipe, Retraining) and recipe.epochs != 0 and not recipe.parameters()

    def rule(self, kind: type[Rule]) -> Rule | None:
        """Return the stopping rule of this kind, or None."""
        return next((rule for rule in self.stopping if isinstance(rule, kind)), None)

    def problems(self) -> Iterator[str]:
        """Yield every problem of every part, each with the place it is in."""
        yield from _text("model:", self.model, "the name of a network or 'package.module:function'")
        if self.weights is not None:
            yield from _text("weights:", self.weights, "a file, a URL or None")
        if isinstance(self.dataset, str | Path | Data):
            yield from _within("dataset", self.data.problems())
            if self.model in IN_OWN_UNITS and (self.data.mean, self.data.std) != (MEAN, STD):
                yield (
                    f"dataset: mean and std must be left out with {self.model}, which itself brings its input from "
                    f"{MEAN} and {STD} to the units of its published weights, but got {self.data.mean} and "
                    f"{self.data.std}."
                )
        else:
            yield f"dataset: must be a name, a path or a Data, but got {self.dataset!r}."
        if isinstance(self.pruner_groups, Mapping):
            yield from self._group_problems()
        elif self.pruner_groups != AUTO:
            yield (
                f"pruner_groups: must be a dict of label -> PrunerGroup or BlockGroup, or 'auto', but got "
                f"{self.pruner_groups!r}."
            )
        yield from _within("target", self._target_problems())
        for name, kind in (("retraining", Retraining), ("benchmark", Benchmark), ("search", Search)):
            part = getattr(self, name)
            if isinstance(part, kind):
                yield from _within(name, part.problems())
            else:
                yield f"{name}: must be a {kind.__name__}, but got {part!r}."
        if isinstance(self.training, Retraining):
            yield from _within("training", self.training.problems())
            if searched := self.training.parameters():
                yield f"training: must be settled, since only retraining is searched, but {list(searched)} are ranges."
            if self.training.distillation is not None:
                yield (
                    "training: must not distil, since it makes the unpruned network, which would be the teacher; leave "
                    "distillation out."
                )
        elif self.training is not None:
            yield f"training: must be a Retraining or None, but got {self.training!r}."
        yield from self._budget_problems()
        if isinstance(self.stopping, tuple):
            yield from self._stopping_problems()
        else:
            yield f"stopping: must be a list of Asha, Hopeless and Predicted rules, but got {self.stopping!r}."
        if not isinstance(self.baselines, Mapping):
            yield f"baselines: must be a dict of name -> label -> sparsity, but got {self.baselines!r}."
        sound = isinstance(self.retraining, Retraining) and not any(self.retraining.problems())
        if isinstance(self.search, Search) and sound and self.groups and not any(self._group_problems()):
            yield from self._parameter_problems()
        if isinstance(self.baselines, Mapping) and isinstance(self.pruner_groups, Mapping):
            yield from self._baseline_problems()
        yield from _one_of("keep_weights", self.keep_weights, get_args(KeepWeights))

    def _budget_problems(self) -> Iterator[str]:
        if not (isinstance(self.search, Search) and isinstance(self.retraining, Retraining)):
            return
        budget, a_trial = self.search.epochs, self.retraining.epochs
        if isinstance(budget, int) and isinstance(a_trial, int) and budget >= 1 and not 0 < a_trial <= budget:
            if a_trial:
                yield f"search: epochs must be those of one trial at least, {a_trial}, but got {budget}."
            else:
                yield f"search: epochs must be left out where nothing is retrained, but got {budget}; give trials."

    def _target_problems(self) -> Iterator[str]:
        if not isinstance(self.target, Goal | str):
            yield f"must be Minimise(metric), Maximise(metric) or an objective as text, but got {self.target!r}."
            return
        if isinstance(self.target, Goal) and (problems := list(self.target.problems())):
            yield from problems
            return
        try:
            objective = self.objective
        except ExperimentError as error:
            yield from error.problems
        else:
            asked = UNPRUNED_RETRAINED in objective.baselines
            if asked and not self._has_one_recipe:
                yield (
                    f"compares with {UNPRUNED_RETRAINED!r}, which there is only where epochs of retraining are above 0 "
                    f"and no number of the recipe is searched; compare with {UNPRUNED!r} or a baseline of your own."
                )
            names = self.baselines if isinstance(self.baselines, Mapping) else ()
            own = [UNPRUNED_RETRAINED] if asked or self._has_one_recipe else []
            yield from objective.problems([*names, *own])

    def _group_problems(self) -> Iterator[str]:
        if not self.groups:
            yield "pruner_groups: must hold at least one group, but got none."
        owner: dict[str, str] = {}
        taken = {RETRAINING, *(f"{RETRAINING}.{name}" for name in NUMBERS)}
        taken |= {
            f"{label}.{name}" for label in self.groups for name in ("sparsity", "structure", "importance", "keep")
        }
        for label, group in self.groups.items():
            place = f"pruner_groups[{label!r}]"
            if not (isinstance(label, str) and NAME.fullmatch(label)):
                yield f"{place}: a label {NAME_RULE}, but got {label!r}."
            if label in taken:
                yield f"{place}: a label must not be the name of a parameter or of the recipe; choose another."
            if not isinstance(group, Group):
                yield f"{place}: must be a PrunerGroup or a BlockGroup, but got {group!r}."
                continue
            yield from _within(place, group.problems())
            noun, names = ("weight", group.weights) if isinstance(group, PrunerGroup) else ("block", group.blocks)
            if not (isinstance(names, tuple) and all(isinstance(name, str) for name in names)):
                continue
            for name in names:
                if name in owner:
                    yield (
                        f"{place}: a {noun} must be in one group only, but {name!r} is already in {owner[name]!r}; "
                        f"remove it from one of them."
                    )
                owner.setdefault(name, label)

    def _parameter_problems(self) -> Iterator[str]:
        parameters = self.parameters
        if parameters and all(parameter.is_fixed for parameter in parameters.values()):
            yield "pruner_groups: must leave something to search, but each has one value; widen a range."
        ranges = [name for name, parameter in parameters.items() if parameter.values is None]
        if self.search.method == "grid" and ranges:
            yield (
                f"search: a grid needs values that can be counted, as in Choice([...]), but {ranges} have a "
                f"range; list the values or search with 'hyperopt' or 'random'."
            )

    def _stopping_problems(self) -> Iterator[str]:
        for rule in self.stopping:
            if isinstance(rule, StoppingRule):
                yield from _within(f"stopping, {type(rule).__name__}", rule.problems())
            else:
                yield f"stopping: must list Asha, Hopeless and Predicted rules, but got {rule!r}."
        if len({type(rule) for rule in self.stopping}) < len(self.stopping):
            yield f"stopping: must hold at most one rule of a kind, but got {list(self.stopping)!r}."

    def _baseline_problems(self) -> Iterator[str]:
        own = (UNPRUNED, UNPRUNED_RETRAINED)
        names = {name: name for name in own}
        for name, point in self.baselines.items():
            place = f"baselines[{name!r}]"
            if not (isinstance(name, str) and NAME.fullmatch(name)):
                yield f"{place}: a name {NAME_RULE}, but got {name!r}."
                continue
            if (same := names.setdefault(name.casefold(), name)) != name:
                yield f"{place}: must differ from {same!r} by more than capitals, as its files do; rename one of them."
            if not isinstance(point, Mapping):
                yield f"{place}: must be a dict of label -> sparsity, but got {point!r}."
                continue
            if name in own:
                yield f"{place}: {name!r} is measured anyway; give this baseline another name."
            if TRIAL_NAME.fullmatch(name):
                yield f"{place}: trials are named so, trial_0001 and on; give this baseline another name."
            yield from _within(place, self._value_problems(point))

    def _value_problems(self, point: Mapping[Any, Any]) -> Iterator[str]:
        """Yield what is wrong with the values that a baseline gives; a wrong range is told of elsewhere."""
        sound = {
            label: group
            for label, group in self.groups.items()
            if isinstance(group, Group) and not any(group.problems())
        }
        ranges = {f"{label}.{name}": one for label, group in sound.items() for name, one in group.parameters().items()}
        is_sound = isinstance(self.retraining, Retraining) and not any(self.retraining.problems())
        recipe = self.retraining.parameters() if is_sound else {}
        for name, parameter in recipe.items():
            ranges[f"{RETRAINING}.{name}"] = parameter
            if f"{RETRAINING}.{name}" not in point:
                yield f"must give each number of the recipe that is searched, but it lacks '{RETRAINING}.{name}'."
        main = {label: f"{label}.{getattr(group, 'MAIN', 'sparsity')}" for label, group in self.groups.items()}
        for label in self.groups.keys() - point.keys():
            if main[label] not in point:
                what = "how many blocks stay of" if main[label].endswith(".keep") else "a sparsity for"
                yield f"must give {what} each pruner group, but it lacks the group {label!r}."
        for key, value in point.items():
            allowed = ranges.get(main.get(key, key))
            if key in main and main[key] in point:
                yield f"must give each value once, but gives {key!r} and {main[key]!r}."
            if allowed is None and key not in self.groups and (sound or not self.groups):
                yield f"must give a sparsity for each pruner group, but it has no group or parameter {key!r}."
            elif allowed is not None and value not in allowed:
                yield (
                    f"{key!r} must lie within {allowed.shown}, but got {value!r}; widen the range or change the "
                    f"baseline."
                )


def _within(place: str, problems: Iterator[str]) -> Iterator[str]:
    return (f"{place}: {problem}" for problem in problems)


def _freeze(part: object, name: str, kind: type | UnionType, copy: Callable[[Any], object]) -> None:
    """Replace a field by a copy of its own, if it is of the kind it must be; if not, `problems` says so."""
    value = getattr(part, name)
    if isinstance(value, kind):
        object.__setattr__(part, name, copy(value))


def _copied(baselines: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: dict(point) if isinstance(point, Mapping) else point for name, point in baselines.items()}


def _is_share(value: object) -> bool:
    """Tell whether a number is 0, 1 or 1/n, as near as a decimal fraction may come to it."""
    if not (is_number(value) and 0 <= value <= 1):  # type: ignore[operator]
        return False
    return not value or (value >= 0.001 and abs(value - 1 / round(1 / value)) <= 0.01)  # type: ignore[operator]


def settled(value: float | Parameter) -> float:
    """Return a number of a recipe of which nothing is left to search."""
    assert not isinstance(value, Parameter), value
    return value


def _limits(value: object) -> tuple[float, float]:
    """Return the least and the most that a number of a recipe may be; (1, 0) for what is told to be wrong elsewhere."""
    values: Sequence[Any] = (value,)
    if isinstance(value, Uniform | Integer):
        values = (value.low, value.high)
    elif isinstance(value, Choice) and isinstance(value.values, tuple):
        values = value.values
    numbers = [one for one in values if is_number(one)]
    return (min(numbers), max(numbers)) if numbers and len(numbers) == len(values) else (1.0, 0.0)


def _listed(names: object) -> Sequence[Any]:
    """Return what is a name or a list of names as a list."""
    return names if isinstance(names, tuple) else (names,)


def _names(name: str, value: object, known: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with a name, or a list of names, of what is known or can be imported."""
    names = _listed(value)
    if not names or not all(isinstance(one, str) and (one in known or IMPORTABLE.fullmatch(one)) for one in names):
        yield f"{name} must be one of {list(known)}, 'package.module:name' or a list of them, but got {value!r}."
    elif len(set(names)) < len(names):
        yield f"{name} must list each kind once, but got {list(names)}."


def _text(name: str, value: object, what: str) -> Iterator[str]:
    if not (isinstance(value, str) and value):
        yield f"{name} must be {what}, but got {'an empty text' if value == '' else repr(value)}."


def _audit_problems(audit: object) -> Iterator[str]:
    if not (is_number(audit) and 0 <= audit < 1):  # type: ignore[operator]
        yield f"audit must hold 0 <= audit < 1, but got {audit!r}."


def _channel_problems(name: str, values: object, bounds: Bounds) -> Iterator[str]:
    """Yield what is wrong with three numbers, one a channel."""
    if not (isinstance(values, tuple) and len(values) == 3):
        yield f"{name} must be a list of three numbers, for red, green and blue in 0..1, but got {values!r}."
    elif not all(is_number(value) and bounds.hold(value) for value in values):
        yield (
            f"{name} must hold {bounds.rule.format(name)} for each channel, of images in 0..1, but got {values!r}; "
            f"divide those of images in 0..255 by 255."
        )


def _gamma_problems(gamma: object) -> Iterator[str]:
    if not (is_number(gamma) and 0 < gamma <= 1):  # type: ignore[operator]
        yield f"gamma must hold 0 < gamma <= 1, but got {gamma!r}."


def _at_least(name: str, value: object, low: int) -> Iterator[str]:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        yield f"{name} must be a whole number of at least {low}, but got {value!r}."


def _one_of(name: str, value: object, choices: Sequence[str]) -> Iterator[str]:
    if value not in choices:
        yield f"{name} must be one of {list(choices)}, but got {value!r}."
