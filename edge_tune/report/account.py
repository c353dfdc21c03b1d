"""The sections on how it went: what stopping early saved and cost, where the time went, every trial, how it was run."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape

from edge_tune.records.audit import accounts
from edge_tune.records.endings import GATE, ending_text
from edge_tune.records.remaining import remaining_line, shares_by_layer
from edge_tune.report import bars
from edge_tune.report.blocks import Block, Html, Note, Plot, Table, Text
from edge_tune.report.data import StudyData, number
from edge_tune.report.timeline import IDLE, seconds_by_node, stages_of
from edge_tune.wording import counted


def stops(study: StudyData) -> list[Block]:
    """Return what each rule that ends trials early has saved, and what that cost as far as trials were audited."""
    if not study.scorer.is_ready:
        return [Note("Left out: the baselines that the target compares with have not come to an end.")]
    found = accounts(study.target, study.baselines, study.trials, study.settings.retraining.epochs)
    if not found:
        return [Note("Left out: no rule has ended a trial.")]
    spent = sum(record.epochs_trained for record in study.trials if record.same_as is None)
    saved = sum(account.epochs_saved for account in found)
    cost = f"The search spent {counted(spent, 'epoch')} of retraining. These rules saved {saved:,} more."
    exact = "<small>none is needed: it is exact</small>"
    rows = [
        [
            escape(ending_text(account.rule)),
            f"{account.ended}",
            f"{account.epochs_saved:,}",
            f"{account.continued}",
            exact if account.rule == GATE else f"{account.audited}",
            f"{account.won}" if account.audited else "",
            escape(account.false_rejects),
        ]
        for account in found
    ]
    head = [
        "trials",
        "how many",
        "epochs saved",
        "continued later",
        "audited besides",
        "of these would have won",
        "false rejects",
    ]
    caption = (
        "Of the trials that a rule has paused, those that were continued later are counted apart. An audited trial is "
        "one that the rule would have ended, and that was drawn to be trained all the same. It would have won if it "
        "was the best so far, or on the front, when it ended. In brackets, the 95 % interval (Wilson) of the share of "
        "the rule's trials that would have."
    )
    return [Text([cost]), Table("What stopping early saved and cost", caption, head, rows)]


def time(study: StudyData) -> list[Block]:
    """Return where the time went, by stage and node."""
    nodes = seconds_by_node(study.records, [session.started_at for session in study.sessions])
    stages = stages_of(nodes)
    if not stages:
        return [Note("Left out: no record says when and where its trial ran.")]
    total = {stage: sum(times.get(stage, 0.0) for times in nodes.values()) for stage in stages}
    whole = sum(total.values())
    longest = sorted(total, key=lambda stage: -total[stage])[:3]
    return [
        Text(
            ["Most of the time: " + ", ".join(f"{stage} {100 * total[stage] / whole:.0f} %" for stage in longest) + "."]
        ),
        Plot(
            bars.time_by_stage(nodes, stages),
            "time",
            "Time by stage and node",
            "Summed over the trials and baselines of each node. Queue is waiting for the device; other is what a trial "
            f"spent between its stages; {IDLE} is time in which the node ran no trial while the study did. Trials "
            "that run beside each other count each.",
        ),
        _time_table(nodes, stages),
    ]


def _time_table(nodes: Mapping[str, Mapping[str, float]], stages: Sequence[str]) -> Table:
    rows = []
    for node, times in nodes.items():
        whole = sum(times.values())
        shares = (f"{times.get(s, 0.0):,.0f}<small>{100 * times.get(s, 0.0) / whole:.1f} %</small>" for s in stages)
        rows.append([escape(node), *shares])
    return Table(
        "Seconds by stage and node", "Below each, its share of the node's time.", ["node", *map(escape, stages)], rows
    )


def layers(study: StudyData) -> list[Block]:
    """Return the time of each layer of the chosen network beside that of the unpruned one."""
    if study.chosen is None or study.unpruned is None:
        return [Note("Left out: it takes the unpruned and a chosen network.")]
    ratio = number(study.chosen.metrics.get("latency_ratio"))
    unpruned = shares_by_layer(study.unpruned, 1.0)
    chosen = shares_by_layer(study.chosen, ratio)
    if not unpruned or not chosen:
        return [Note("Left out: the device does not say how long each layer takes.")]
    fixed = remaining_line(study.chosen, study.verdict.untouched) if study.verdict else None
    return [
        *([Text([fixed])] if fixed else []),
        Plot(
            bars.layer_times(unpruned, chosen, study.chosen.name),
            "layers",
            f"Time of each layer, {study.chosen.name} over unpruned",
            "In percent of the unpruned network's latency: the grey bars sum to 100, the blue ones to 100 times the "
            "latency_ratio, since the two were not measured at the same moment. What a runtime does for a layer, "
            "such as reordering its input, counts as the layer's. Where the blue bar is as long as the grey one, the "
            "layer lost no time.",
        ),
    ]


def trials(study: StudyData, place: int) -> list[Block]:
    """Return the table of all trials, which the page's script fills."""
    if not study.trials:
        return [Note("Left out: no trial has come to an end.")]
    return [
        Html(
            f'<div class="trials" data-study="{place}"><p class="none">The table of trials needs JavaScript.</p></div>'
        ),
        Html(
            '<p class="note">Click a heading to sort, a name for the trial\'s card. As files: <code>python -m '
            "edge_tune.report RESULTS --csv FILE</code>, or <code>--parquet FILE</code>.</p>"
        ),
    ]


def run(study: StudyData) -> list[Block]:
    """Return what it takes to run the study again."""
    first, identity = study.sessions[0], study.run.identity or {}
    facts: list[tuple[str, object]] = [("Results", study.folder)]
    facts += [("Experiment file", first.experiment_file), ("Seed", study.run.seed)]
    facts += [("Device", first.device.text), ("Measured by", first.device.runtime_text)]
    facts += [("Weights and images", identity.get("weights and images"))]
    for place, session in enumerate(study.sessions):
        name = "Command" if len(study.sessions) == 1 else f"Command, session {place + 1}"
        facts += [(name, session.command), ("Started", _when(session.started_at))]
        facts.append(("Commit", session.commit))
        facts.append(("Host", session.host))
        facts.append(("Versions", ", ".join(f"{name} {version}" for name, version in session.versions.items())))
    entries = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(fact))}</dd>" for name, fact in facts if fact not in (None, "")
    )
    blocks: list[Block] = [Html(f"<dl>{entries}</dl>")]
    if study.source:
        blocks.append(
            Html(f"<details><summary>The experiment file</summary><pre>{escape(study.source)}</pre></details>")
        )
    else:
        blocks.append(Note("The results hold no copy of the experiment file."))
    return blocks


def _when(started: str) -> str:
    try:
        return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M:%S %Z")
    except ValueError:
        return ""
