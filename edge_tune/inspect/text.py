"""What was found, for the terminal: a table of the parts, one of what each removal costs and saves, the proposal."""

from collections.abc import Iterator

from edge_tune.benchmark.statistics import is_distinguishable
from edge_tune.experiment import Group
from edge_tune.inspect.measuring import Measured, Removal, ranked
from edge_tune.inspect.parts import Part
from edge_tune.inspect.proposal import Proposal, left_out_text
from edge_tune.wording import aligned, counted

TIME_NOTE = (
    "Device time of a set: the layers that make its filters, those that only follow, and those that read them, each in "
    "full; of a block: all that runs inside. Layers count for each part that they touch, so that shares overlap and "
    "add up to more than 100 %. What a removal saves is measured, not taken from them."
)
RATIO_NOTE = (
    "latency_ratio: to the unpruned network in turns with it, with its 95 % interval; ~: not distinguishable from 1; "
    "=: measured on a part of the same shapes."
)
LOSS_NOTE = (
    "Loss and top1 on validation images, batch norm estimated anew, nothing retrained: it ranks the parts, and is no "
    "forecast of what retraining leaves."
)
PARTS_HEAD = (
    "part",
    "ties",
    "filters",
    "parameters",
    "MACs",
    "device time",
    "removed",
    "parameters",
    "MACs",
    "latency",
)
COSTS_HEAD = ("without", "filters gone", "loss", "top1", "latency_ratio")


def parts_table(measured: Measured) -> str:
    """Return all parts, and what removing half of each set and all of each block saves."""
    return aligned(PARTS_HEAD, [part_cells(part, measured) for part in measured.parts], 2)


def part_cells(part: Part, measured: Measured) -> tuple[str, ...]:
    """Return a part's line of the table."""
    own = (
        name_of(part),
        part.ties,
        str(part.width) if part.kind == "set" else "",
        f"{part.parameters:,}",
        millions(part.macs),
        f"{100 * part.time_share(measured.table):.1f} %" if measured.table else "",
    )
    if part.problem:
        return (*own, "must stay", "", "", "")
    removals = measured.removals[part.name]
    half = removals[len(removals) // 2]
    return (
        *own,
        "half" if part.kind == "set" else "all",
        f"-{measured.cost.parameters - half.cost.parameters:,}",
        f"-{millions(measured.cost.macs - half.cost.macs)}",
        ratio_text(half, part, measured, interval=False),
    )


def costs_table(measured: Measured) -> str:
    """Return what each removal costs and saves, the part first that the network misses least."""
    rows = [cost_cells(part, removal, measured) for part, removals in ranked(measured) for removal in removals]
    unpruned = ("nothing", "", f"{measured.unpruned.loss:.3f}", f"{measured.unpruned.top1:.1f}", _floor(measured))
    return aligned(COSTS_HEAD, [unpruned, *rows], 1)


def cost_cells(part: Part, removal: Removal, measured: Measured) -> tuple[str, ...]:
    """Return a removal's line of the table."""
    return (
        name_of(part),
        f"{100 * removal.share:.0f} %" if part.kind == "set" else "block",
        f"{removal.effect.loss:.3f}",
        f"{removal.effect.top1:.1f}",
        ratio_text(removal, part, measured),
    )


def ratio_text(removal: Removal, part: Part, measured: Measured, *, interval: bool = True) -> str:
    """Return the ratio of a removal's latency, and how well it is known."""
    ratio = removal.cost.ratio
    unsure = "" if is_distinguishable(ratio, measured.floor) else "~"
    same = "" if removal.measured_on == part.name else "="
    bounds = f" [{ratio.low:.3f}, {ratio.high:.3f}]" if interval else ""
    return f"{unsure}{same}{ratio.ratio:.3f}{bounds}"


def _floor(measured: Measured) -> str:
    return f"1 ({100 * measured.floor:.1f} % noise)"


def name_of(part: Part) -> str:
    """Return what a part is called: a set, by its first layer and how many more there are."""
    more = len(part.weights) - 1
    return f"{part.name} and {more} more" if more > 0 else part.name


def millions(macs: int) -> str:
    """Return a number of multiply-accumulates."""
    return f"{macs / 1e6:.2f} M"


def how(measured: Measured) -> list[str]:
    """Return how it was measured: where less was done than could be, too."""
    alike = len(measured.parts) - len({part.alike for part in measured.parts})
    lines = [
        f"{measured.device.text}; each network ran at most {measured.seconds:.1f} s in turns with the unpruned one.",
        f"{measured.unpruned.images} validation images were judged, batch norm was estimated on "
        f"{measured.statistics_images} training images.",
    ]
    if alike:
        lines.append(
            f"{counted(alike, 'part')} of {len(measured.parts)} {'has' if alike == 1 else 'have'} layers of the same "
            f"shapes as another one, and were not measured again."
        )
    return lines


def must_stay(measured: Measured) -> Iterator[str]:
    """Yield a line for each part that must stay."""
    yield from (f"{name_of(part)} must stay: {part.problem}" for part in measured.parts if part.problem)


def proposal_lines(proposal: Proposal) -> Iterator[str]:
    """Yield a line for each group, and for what is left out."""
    for label, proposed in proposal.groups.items():
        yield f"{label}: {range_text(proposed.group)}; {proposed.why}"
    yield from (left_out_text(one) for one in proposal.left_out)


def range_text(group: Group) -> str:
    """Return what a group lets the search choose."""
    return ", ".join(f"{name} {one.shown}" for name, one in group.parameters().items() if not one.is_fixed)
