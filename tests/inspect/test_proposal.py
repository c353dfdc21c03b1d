"""Groups from what parts cost and save, by numbers made up so that they can be checked by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log

import pytest

import edge_tune as et
from edge_tune.inspect.measuring import Cost, Measured, Removal, ranked
from edge_tune.inspect.parts import SHARES, Part
from edge_tune.inspect.proposal import Proposal, propose
from edge_tune.records.entries import DeviceEntry, Effect, LayerEntry, Ratio

CLASSES = 10
KNOWS = log(CLASSES) - 1.0
"""With an unpruned loss of 1 nat."""

FASTER = (0.98, 0.96, 0.94)


def part(name: str, role: str, place: int = 16, problem: str | None = None) -> Part:
    is_block = role == "block"
    weights = () if is_block else (f"{name}.weight",)
    kind = "block" if is_block else "set"
    return Part(kind, name, weights, role, place, 32, "", (name,), 100, 1000, name, problem)  # type: ignore[arg-type]


def removals(one: Part, lost: Sequence[float], ratios: Sequence[float]) -> list[Removal]:
    """Return what removals do of which these shares of what the network knows are lost."""
    return [
        Removal(share, Effect(50.0, 1.0 + KNOWS * loss, 100), Cost(1, 1, Ratio(ratio, ratio, ratio)), one.name)
        for share, loss, ratio in zip(one.shares, lost, ratios, strict=True)
    ]


def measured(parts: Mapping[Part, tuple[Sequence[float], Sequence[float]]], *stay: Part) -> Measured:
    return Measured(
        parts=[*parts, *stay],
        removals={one.name: removals(one, *figures) for one, figures in parts.items()},
        unpruned=Effect(90.0, 1.0, 100),
        cost=Cost(1000, 10000, Ratio(1.0, 0.99, 1.01)),
        table=[],
        device=DeviceEntry(),
        statistics_images=100,
        seconds=1.0,
    )


def proposed(parts: Mapping[Part, tuple[Sequence[float], Sequence[float]]], *stay: Part) -> Proposal:
    return propose(measured(parts, *stay), CLASSES)


def ends(proposal: Proposal) -> dict[str, tuple[tuple[str, ...], float]]:
    return {
        label: (tuple(one.group.weights), one.group.sparsity.limits[1])  # type: ignore[index]
        for label, one in proposal.groups.items()
        if isinstance(one.group, et.PrunerGroup)
    }


def test_a_range_ends_where_the_losses_of_its_sets_add_up_to_what_the_network_knows() -> None:
    found = proposed(
        {
            part("a", "inner", 32): ((0.1, 0.2, 0.4), FASTER),
            part("b", "inner", 32): ((0.0, 0.1, 0.2), FASTER),  # together 0.6 at three quarters: further was not tried
            part("c", "inner", 16): ((0.5, 1.5, 2.0), FASTER),  # 1 at 0.375
            part("d", "inner", 8): ((0.0, 0.1, 0.2), FASTER),
        }
    )
    assert ends(found) == {
        "inner_32": (("a.weight", "b.weight"), 0.75),
        "inner_16": (("c.weight",), 0.35),
        "inner_8": (("d.weight",), 0.9),
    }
    assert found.left_out == []
    assert found.groups["inner_32"].gain.won == pytest.approx(2 * 0.06)
    assert "without half of one, 10.0 % to 20.0 % of what the network knows is lost" in found.groups["inner_32"].why


def test_what_is_too_sensitive_saves_nothing_or_must_stay_is_left_out_with_the_reason() -> None:
    found = proposed(
        {
            part("fine", "inner"): ((0.0, 0.1, 0.2), FASTER),
            part("fragile", "stream"): ((3.0, 3.0, 3.0), FASTER),  # 0.6 at 0.05, 1.2 at 0.1
            part("idle", "linear", 0): ((0.0, 0.0, 0.0), (1.0, 0.999, 0.995)),
        },
        part("fc", "linear", 0, problem="it makes the network's output."),
    )
    assert list(found.groups) == ["inner_16"]
    assert [(one.names, one.why.partition(":")[0]) for one in found.left_out] == [
        (("fc",), "it makes the network's output."),
        (("idle",), "saves nothing"),
        (("fragile",), "too sensitive"),
    ]
    assert "without 0.25 of one, 300.0 % of what" in found.left_out[2].why


def test_sets_of_other_sensitivity_make_another_group_while_there_is_room() -> None:
    alike = {part(name, "inner"): ((0.01, 0.02, 0.03), FASTER) for name in "abc"}
    fragile = {part("d", "inner"): ((0.2, 0.5, 1.5), FASTER)}
    found = ends(proposed({**alike, **fragile}))
    assert found == {
        "inner_16_1": (("a.weight", "b.weight", "c.weight"), 0.9),
        "inner_16_2": (("d.weight",), 0.6),  # 1 at 0.625
    }
    many = {
        part(f"{role}{place}", role, place): ((0.01, 0.02, 0.03), FASTER)
        for role in ("inner", "stream")
        for place in (2, 4, 8, 32)
    }
    blocks = {part(f"block{place}", "block", place): ((0.1,), (0.9,)) for place in (2, 4)}
    groups = proposed({**many, **alike, **fragile, **blocks}).groups
    assert len(groups) == 9  # the nine runs of sets are joined to seven, and none of them is cut


def test_blocks_of_a_stage_make_a_group_in_the_order_of_their_losses() -> None:
    found = proposed(
        {
            part("s.0", "block"): ((0.7,), (0.9,)),
            part("s.1", "block"): ((0.1,), (0.9,)),
            part("s.4", "block"): ((-0.1,), (0.9,)),
            part("s.2", "block"): ((1.2,), (0.9,)),
            part("s.3", "block"): ((0.3,), (0.9,)),
            part("t.0", "block", 8): ((0.1,), (0.995,)),
        }
    )
    # 0.1 + 0.3 + 0.7 is more than the network knows, so that one must stay
    assert {label: one.group for label, one in found.groups.items()} == {
        "blocks_32x16": et.BlockGroup(
            ["s.0", "s.1", "s.4", "s.3"], keep=et.Integer(1, 4), order=["s.4", "s.1", "s.3", "s.0"]
        )
    }
    assert found.groups["blocks_32x16"].gain.won == pytest.approx(0.3)
    assert [one.names for one in found.left_out] == [("s.2",), ("t.0",)]


def test_what_noise_may_hide_is_kept_and_said_to_be_so() -> None:
    found = measured({part("a", "inner"): ((0.0, 0.1, 0.2), (1.01, 1.0, 1.0))})
    noisy = [replace(one, cost=replace(one.cost, ratio=Ratio(1.0, 0.95, 1.05))) for one in found.removals["a"]]
    proposal = propose(replace(found, removals={"a": noisy}), CLASSES)
    assert list(proposal.groups) == ["inner_16"]
    assert "and nothing that noise does not hide, at most 5.0 %, of the latency." in proposal.groups["inner_16"].why
    assert list(propose(found, CLASSES).groups) == []


def test_no_more_time_is_won_than_the_layers_take() -> None:
    a, b = part("a", "inner"), part("b", "inner")
    found = measured({one: ((0.0, 0.1, 0.5), (0.5, 0.4, 0.3)) for one in (a, b)})  # much noise
    table = [LayerEntry(name, "Convolution", "jit", 1.0, share) for name, share in {"a": 0.1, "b": 0.2}.items()]
    (group,) = propose(replace(found, table=table), CLASSES).groups.values()
    assert group.gain.won == pytest.approx(0.75 * 0.3)


def test_parts_are_ranked_by_loss() -> None:
    a, b = part("a", "inner"), part("b", "inner")
    order = ranked(measured({a: ((0.0, 0.3, 0.4), FASTER), b: ((0.1, 0.2, 0.9), FASTER)}))
    assert [one.name for one, _ in order] == ["b", "a"]
    assert len(SHARES) == len(FASTER)
