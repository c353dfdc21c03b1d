"""What MkDocs is told of this repository: where its pages are, what of them is generated, and what must not be missing.

Pages keep the places that they have in the repository, so that a link which leads somewhere there does so here.
A warning ends the build, which is strict.
"""

import argparse
import dataclasses
import importlib
import inspect
import logging
import re
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from pkgutil import resolve_name

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbformat import NotebookNode

import edge_tune
from edge_tune.__main__ import COMMANDS, PROGRAM
from edge_tune.benchmark.__main__ import COMMANDS as OF_BENCHMARK
from edge_tune.metrics import MEANINGS

ROOT = Path(__file__).parents[1]
GUIDES, REFERENCE, PROJECT = (
    ("docs/*.md", "docs/*.ipynb"),
    ("docs/reference/*.md",),
    ("CONTRIBUTING.md", "CHANGELOG.md"),
)
LINKED = ("docs/*.png", "experiments/*.py", "cluster*.yaml")
"""Files that pages show or link to."""

INDEX = ROOT / "docs/reference/index.md"
LISTED = re.compile(r"^- \[.*\]\((\w+\.md)\)", re.MULTILINE)
"""The pages of the reference, in the order that its first page has them in."""

DIRECTIVE = re.compile(r"^::: (\S+)", re.MULTILINE)
"""Where mkdocstrings puts what a docstring says."""

warn = logging.getLogger("mkdocs.hooks").warning


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Order the pages."""
    config.nav = [
        {"EdgeTune": "README.md"},
        {"Reference": [f"docs/reference/{page}" for page in ("index.md", *LISTED.findall(INDEX.read_text()))]},
        {"Guides": [_page(name) for name in _names(*GUIDES)]},
        {"Project": [*PROJECT]},
    ]
    for problem in (*_undocumented_names(), *_undocumented_options()):
        warn(problem)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace what lies in the folder of the documentation by what the repository holds, under the names it has there.

    A notebook is there as it is, for links to it, and as a page.
    """
    for file in [file for file in files if Path(file.abs_src_path or "").is_relative_to(config.docs_dir)]:
        files.remove(file)
    for name in _names("README.md", *PROJECT, *GUIDES, *REFERENCE, *LINKED):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
        if name.endswith(".ipynb"):
            files.append(File.generated(config, _page(name), content=_notebook(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is generated, where a comment names it; lead links from a notebook to its page."""
    for name, generate in GENERATED.items():
        markdown = markdown.replace(f"<!-- {name} -->", generate() if f"<!-- {name} -->" in markdown else "")
    return markdown.replace(".ipynb)", ".md)")


def _names(*patterns: str) -> list[str]:
    """Return the files that these patterns fit, pattern by pattern."""
    return [str(file.relative_to(ROOT)) for pattern in patterns for file in sorted(ROOT.glob(pattern))]


def _page(name: str) -> str:
    return str(Path(name).with_suffix(".md"))


def _undocumented_names() -> Iterator[str]:
    """Yield what an experiment file or a script may use of edge_tune, and the reference lacks."""
    shown = {name for page in _names(*REFERENCE) for name in DIRECTIVE.findall((ROOT / page).read_text())}
    for name in edge_tune.__all__:
        found = getattr(edge_tune, name)
        if not {f"edge_tune.{name}", f"{found.__module__}.{name}"} & shown:
            yield f"edge_tune.{name} is in no page of docs/reference: write '::: edge_tune.{name}' into one."
    for path in shown:
        found = resolve_name(path)
        described = re.findall(
            r"^ +([a-z]\w*): ", (inspect.getdoc(found) or "").partition("Attributes:")[2], re.MULTILINE
        )
        for field in dataclasses.fields(found) if dataclasses.is_dataclass(found) else ():
            if field.name not in described:
                yield f"{path}.{field.name} has no description: write one under 'Attributes:' in the docstring."


def _undocumented_options() -> Iterator[str]:
    for parser in _parsers():
        for action in parser._actions:
            if not action.help:
                yield f"{parser.prog}: {_called(action)} has no help: write one in its parser."


def _parsers() -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of each command."""
    for name, (module, _) in COMMANDS.items():
        yield importlib.import_module(module)._parser(f"{PROGRAM} {name}")
        for word, main in OF_BENCHMARK.items() if name == "benchmark" else ():
            yield inspect.getmodule(main)._parser(f"{PROGRAM} {name} {word}")


def _called(action: argparse.Action) -> str:
    """Return an option, or an argument, as one writes it."""
    value = action.metavar or "|".join(action.choices or [action.dest])
    words = [", ".join(action.option_strings), "" if action.nargs == 0 else str(value)]
    return " ".join([*filter(None, words), *(["..."] if action.nargs == "+" else [])])


def _commands() -> str:
    """Return a section for each command: what it does, and a table of its options."""
    sections = []
    for parser in _parsers():
        described = {action: parser._get_formatter()._expand_help(action) for action in parser._actions if action.help}
        rows = [f"| `{_called(action)}` | {_cell(text)} |" for action, text in described.items()]
        sections.append(
            "\n".join([f"## {parser.prog}\n", f"{parser.description}\n", "| option | |", "|---|---|", *rows])
        )
    return "\n\n".join(sections)


def _metrics() -> str:
    rows = [f"| `{name}` | {_cell(meaning)} |" for name, meaning in MEANINGS.items()]
    return "\n".join(["| metric | what it is, and its unit |", "|---|---|", *rows])


def _cell(text: str) -> str:
    """Return text as a cell of a table holds it."""
    return escape(text, quote=False).replace("|", "\\|").replace("*", "\\*")


GENERATED: dict[str, Callable[[], str]] = {"commands": _commands, "metrics": _metrics}
"""What stands in a page as a comment of this name -> what makes it."""


def _notebook(file: Path) -> str:
    """Return a notebook as a page: its text, its code, and what came out of that when it was run."""
    parts = []
    for cell in nbformat.read(file, as_version=4).cells:
        parts.append(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
        parts += [_output(output) for output in cell.get("outputs", ())]
    return "\n\n".join(parts)


def _output(output: NotebookNode) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "text/html" in data:
        return f"<div>\n{data['text/html']}\n</div>"
    text = data.get("text/plain", output.get("text", ""))
    return f"```text\n{text.rstrip()}\n```"
