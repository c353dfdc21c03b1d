from dataclasses import replace

from edge_tune.display import console
from edge_tune.display.card import study_card
from edge_tune.records.entries import Run
from edge_tune.records.verdict import Verdict
from tests.test_console import BEST, UNPRUNED

FILE = {
    "identity": {
        "model": "resnet56_cifar",
        "dataset": {"type": "Data", "name": "digits"},
        "target": {"type": "Minimise", "metric": "latency_ms"},
        "retraining": {"epochs": 3},
        "pruner_groups": {
            "layer_1": {"structure": "filters", "weights": ["a", "b"], "sparsity": {"low": 0.0, "high": 0.99}},
            "layer_2": {"structure": ["filters", "channels"], "weights": ["c"], "sparsity": {"values": [0.0, 0.5]}},
        },
    },
    "search": {"method": "hyperopt", "trials": 6},
    "parameters": {
        "layer_1.sparsity": {"type": "Uniform", "low": 0.0, "high": 0.99},
        "layer_2.structure": {"type": "Choice", "values": ["filters", "channels"]},
        "layer_1.structure": {"type": "Choice", "values": ["filters"]},
        "retraining.lr": {"type": "LogUniform", "low": 0.01, "high": 0.2},
        "of.a.later.version": {"type": "Ordinal"},
    },
    "seed": 4,
    "sessions": [
        {},
        {
            "started_at": "2026-11-22T10:00:00+00:00",
            "command": "python -m edge_tune.run x.py --resume",
            "commit": None,
            "versions": {"python": "3.11.7", "torch": "2.14.1"},
            "device": {"device": "CPU", "device_name": "AMD EPYC"},
        },
    ],
}


RUN = Run.from_entry(FILE)


def test_study_card_says_what_came_of_what_and_how_to_do_it_again() -> None:
    verdict = Verdict(
        rows=[UNPRUNED, BEST],
        chosen=7,
        better_in_both={"unpruned": []},
        endings={"finished": 6, "hopeless": 0, "asha": 0, "time_limit": 0, "failed": 0},
    )
    card = study_card("study-1", RUN, verdict).splitlines()
    assert card[:3] == [
        "# study-1",
        "",
        "resnet56_cifar on digits: minimise latency_ms, 6 trials (hyperopt), 3 epochs of retraining.",
    ]
    assert card[4:7] == ["| network | unpruned | best: trial_0007 |", "|---|---|---|", "| val_top1 | 90.00 | 90.00 |"]
    assert "| latency_ratio | 1 (1.5 % noise) | 0.750 [0.744, 0.757] |" in card
    assert "- Trials: 6 finished, 0 stopped as hopeless, 0 stopped by ASHA, 0 failed." in card
    assert "| layer_1 | 2 weights |" in card
    rows = card[card.index("| searched | range |") + 2 :][:3]
    assert rows == [
        "| layer_1.sparsity | 0 to 0.99 |",
        "| layer_2.structure | one of filters, channels |",
        "| retraining.lr | 0.01 to 0.2, each factor as likely |",
    ]
    assert card[-6:] == [
        "- Device: AMD EPYC (CPU)",
        "- Command: `python -m edge_tune.run x.py --resume`",
        "- Input: RGB in 0..1, normalised by mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225)",
        "- Seed: 4; session 2, begun 2026-11-22T10:00:00+00:00",
        "- Commit: none",
        "- Versions: python 3.11.7, torch 2.14.1",
    ]


def test_study_card_of_a_simulation_says_so_first() -> None:
    assert study_card("study-1", replace(RUN, simulated=True), None).splitlines()[2] == console.SIMULATED


def test_study_card_of_a_study_that_runs_has_no_verdict() -> None:
    card = study_card("study-1", RUN, None)
    assert "This study has not come to its end." in card
    assert "val_top1" not in card
