"""The command line: one page on what studies found, and their trials as tables.

python -m edge_tune.report RESULTS... [--output report.html]
"""

import argparse
import json
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_tune import command
from edge_tune.arguments import given_path, given_text
from edge_tune.command import say
from edge_tune.errors import ExperimentError
from edge_tune.files import write_atomically, writing
from edge_tune.objective_text import EXAMPLE, parse
from edge_tune.records import tables
from edge_tune.records.results import OWN, Record, Results
from edge_tune.report.data import StudyData
from edge_tune.report.page import write_report
from edge_tune.report.sections import damage
from edge_tune.report.verdict import sentences

WRITABLE = "must be a file that can be written"


def main(arguments: Sequence[str] | None = None, program: str = "python -m edge_tune.report") -> int:
    """Run the command and return its exit code: 0 written, 2 bad input."""
    return command.run(lambda words: _run(_parser(program).parse_args(words)), arguments)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Write what studies found as one HTML file that needs nothing else. Runs nothing.",
    )
    parser.add_argument("results", nargs="+", type=given_path, metavar="RESULTS", help="results folder of a study")
    parser.add_argument(
        "--output",
        type=given_path,
        metavar="FILE",
        help="the page (default: report.html in the results folder; of several studies, in this one; with "
        "--objective, report_by_objective.html, which leaves the study's own report)",
    )
    parser.add_argument(
        "--objective", type=given_text, metavar="TEXT", help=f'choose by this instead of the target, as in "{EXAMPLE}"'
    )
    parser.add_argument("--json", action="store_true", help="print a summary of each study as JSON")
    parser.add_argument("--csv", type=given_path, metavar="FILE", help="write every trial as CSV")
    parser.add_argument("--parquet", type=given_path, metavar="FILE", help="write every trial as Parquet")
    return parser


def _run(given: argparse.Namespace) -> int:
    several = len(given.results) > 1
    if several and (given.csv or given.parquet):
        raise ExperimentError(
            f"--csv and --parquet: a table must be of one study, but got {len(given.results)}; give one folder."
        )
    objective = None if given.objective is None else parse(given.objective)
    page = "report_by_objective.html" if objective else "report.html"
    output = given.output or (Path(page) if several else given.results[0] / page)
    ExperimentError.raise_if(
        f"{file}: must not be written over, since it is a file of the study in {owner}; choose another file."
        for file in (output, given.csv, given.parquet)
        if file and (owner := _owner(file))
    )
    ExperimentError.raise_if(
        f"{file}: must be a file to write or to replace, but is a device or a pipe; name another file."
        for file in (output, given.csv, given.parquet)
        if file and _is_special(file)
    )
    ExperimentError.raise_if(
        f"{file}: {WRITABLE}, but got No such file or directory: {file.parent} is not there."
        for file in (given.output, given.csv, given.parquet)
        if file and not os.path.isdir(file.parent)  # noqa: PTH112 - Path.is_dir fails where a name is too long
    )
    with writing(output, WRITABLE):
        studies = write_report(given.results, output, objective)
    says = sys.stderr if given.json else sys.stdout  # the JSON alone is for whoever reads the output
    for study in studies:
        if several:
            say(f"{study.label}:", says)
        say("\n".join((*sentences(study), *damage(study))), says)
    say(f"Report: {output}", says)
    for file, convert in ((given.csv, tables.to_csv), (given.parquet, tables.to_parquet)):
        if file:
            with writing(file, WRITABLE):
                write_atomically(file, convert(_all_records(studies[0])))
            say(f"Table: {file}", says)
    if given.json:
        summaries = [
            {"simulated": s.simulated, **tables.summary(_all_records(s), s.target, s.chosen, s.verdict, s.ranking)}
            for s in studies
        ]
        say(json.dumps(summaries if several else summaries[0], indent=2))
    return 0


def _all_records(study: StudyData) -> list[Record]:
    """Return the baselines and every trial, those included that took a record over."""
    return [*study.baselines, *sorted((*study.trials, *study.dropped), key=lambda record: record.trial)]


def _owner(file: Path) -> Path | None:
    """Return the folder of the study that a file belongs to, or would; the report itself is anybody's to replace."""
    place = Path(os.path.realpath(file.parent), file.name)  # Path.resolve fails where links lead in a circle
    for folder in place.parents:
        if place.relative_to(folder).parts[0] in OWN and Results(folder).exists():
            return folder
    return None


def _is_special(file: Path) -> bool:
    """Tell whether a file must not be replaced: a device, a pipe, or a link that stands for one, as /dev/stdout."""
    try:
        if file.is_symlink() and os.path.realpath(file.parent) == "/dev":
            return True
        mode = file.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


if __name__ == "__main__":
    sys.exit(main())
