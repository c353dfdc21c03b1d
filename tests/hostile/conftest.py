"""Counts the hostile inputs that were tried, by kind: a kind is a module of this folder, an input one test."""

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many inputs of each kind were tried and how many of them fell short."""
    tried: Counter[str] = Counter()
    short: Counter[str] = Counter()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            module = report.nodeid.partition("::")[0]
            if "hostile/" in module:
                kind = module.rpartition("/test_")[2].removesuffix(".py")
                tried[kind] += 1
                short[kind] += outcome != "passed"
    if tried:
        terminalreporter.section("hostile inputs")
        terminalreporter.write_line(f"{'kind':<24}{'tried':>8}{'fell short':>12}")
        for kind in sorted(tried):
            terminalreporter.write_line(f"{kind:<24}{tried[kind]:>8}{short[kind]:>12}")
        terminalreporter.write_line(f"{'all':<24}{tried.total():>8}{short.total():>12}")
