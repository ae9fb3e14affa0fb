"""README and docs/: tests that they name are there, links lead somewhere, commands and options are those there are.

Nothing is asked or trained: a command is parsed as its own command line parses it. tests/test_docs_run.py runs the
commands, and tests of their own docs/extending.md and docs/api.md.
"""

import re
import shlex
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from harvest.teachers.registry import find_teachers
from shared.options import list_options
from tests.docs_blocks import PAGES, ROOT, RUNNABLE, read_blocks

APPS = {"harvest": "harvest.cli", "distill": "distill.cli", "pipeline": "pipelines.cli"}
OWN_TEST = {"extending.md"}  # its teacher and its loss are installed there
BENCHMARKS = {"--gigabytes", "--memory"}


def list_commands() -> list[tuple[str, str]]:
    """Every command of the project in a code block, with its page."""
    return [
        (page.name, command.line)
        for page in PAGES
        if page.name not in OWN_TEST
        for block in read_blocks(page)
        for command in block.list_commands()
        if command.line.split()[0] in APPS
    ]


@cache
def find_commands(program: str) -> dict[str, Any]:
    commands: dict[str, Any] = typer.main.get_command(import_module(APPS[program]).app).commands  # type: ignore[attr-defined]
    return commands


@cache
def list_flags() -> frozenset[str]:
    """Every option of every command, and those of each teacher."""
    own = {
        name
        for program in APPS
        for command in find_commands(program).values()
        if program != "harvest" or command.name not in ("plan", "run", "import", "compare")
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    entries = [found for entry in find_teachers().entries.values() for found in (entry, entry.server) if found]
    teachers = {
        flag
        for entry in entries
        for one in list_options(entry.load()[1])
        for flag in (one.flag, f"--no-{one.flag[2:]}")
    }
    from harvest.choosing.config import CompareConfig
    from harvest.config import HarvestConfig
    from harvest.importing.config import ImportConfig

    harvest = {one.flag for config in (HarvestConfig, ImportConfig, CompareConfig) for one in list_options(config)}
    return frozenset({*own, *teachers, *harvest, "--probe", "--version", "--help"})


def make_anchor(heading: str) -> str:
    """The anchor of a heading as GitHub makes it."""
    plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
    return plain.strip().replace(" ", "-")


def test_the_tests_that_docs_name_exist() -> None:
    files = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    named = [
        (page.name, *reference.groups())
        for page in PAGES
        for reference in re.finditer(r"`([\w/]*test_\w+\.py)::(test_\w+)`", page.read_text())
    ]
    assert len(named) > 20
    missing = [name for name in named if f"def {name[2]}(" not in files.get(name[1], "")]
    assert not missing


def test_links_lead_to_files_and_headings_that_are_there() -> None:
    broken, links = [], 0
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if target.startswith(("http://", "https://", "mailto:")):
                continue
            links += 1
            name, _, anchor = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            headings = (
                re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
                if path.suffix == ".md" and path.exists()
                else []
            )
            if not path.exists() or (anchor and anchor not in map(make_anchor, headings)):
                broken.append(f"{page.name}: {target}")
    assert links > 30
    assert not broken


def test_every_page_is_listed_where_a_reader_looks() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    listed = (ROOT / "README.md").read_text().partition("## What to read next")[2]
    assert pages == set(re.findall(r"\]\(docs/(\w+\.md)\)", listed))
    assert pages <= set(re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text()))


def test_every_command_is_one_that_the_command_line_takes() -> None:
    commands = list_commands()
    assert len(commands) > 50
    wrong = []
    for page, line in commands:
        program, name, *arguments = shlex.split(line, comments=True)
        try:
            find_commands(program)[name].make_context(name, arguments)
        except Exception as error:  # click's own, of the copy that typer has
            if getattr(error, "exit_code", 2):  # --help ends with 0
                wrong.append(f"{page}: {line}: {getattr(error, 'message', 'see the output')}")
    assert not wrong, "\n".join(wrong)


def test_a_command_is_run_or_a_comment_before_its_block_says_why_not() -> None:
    """tests/test_docs_run.py runs what has no such comment, and cannot run other programs."""
    wrong, reasons = [], 0
    for page in PAGES:
        blocks = list(read_blocks(page))
        for block in blocks if page.name not in {*OWN_TEST, "api.md"} else ():
            left = [] if block.is_left_out() else [command.line for command in block.list_run()]
            wrong += [f"{page.name}:{block.number}: {line}" for line in left if line.split()[0] not in RUNNABLE]
        marks = [mark for block in blocks for mark in block.marks]
        wrong += [f"{page.name}: {text} stands before no block" for text in find_strays(page, marks)]
        files = [file for mark in marks for file in re.findall(r"tests/[\w/]+(?:\.py)?", mark["reason"])]
        wrong += [f"{page.name}: there is no {file}" for file in files if not (ROOT / file).exists()]
        reasons += len(marks)
    assert not wrong, "\n".join(wrong)
    assert reasons > 20


def find_strays(page: Path, marks: list[re.Match[str]]) -> set[str]:
    """The comments of a page that begin as a mark does, and are none of these."""
    return set(re.findall(r"<!-- not run.*", page.read_text())) - {mark[0] for mark in marks}


@pytest.mark.parametrize(
    ("line", "flag"),
    [("harvest run --teacher reader --tsak mnli", "--tsak"), ("distill run --shards data/mnli --epoch 2", "--epoch")],
)
def test_a_command_that_is_wrong_is_found(line: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, name, *arguments = line.split()
    with pytest.raises(Exception) as raised:  # click's own, or the end of the command
        find_commands(program)[name].make_context(name, arguments)
    assert flag in f"{getattr(raised.value, 'message', '')} {capsys.readouterr().err}"


def test_the_options_that_prose_names_are_there() -> None:
    unknown = [
        f"{page.name}: {span}"
        for page in PAGES
        for span in re.findall(r"`(--[a-z][^`]*)`", page.read_text())
        if page.name not in OWN_TEST and re.split(r"[\s=/]", span)[0] not in list_flags() | BENCHMARKS
    ]
    assert not unknown


def test_the_table_of_what_many_rows_take_is_what_its_script_prints() -> None:
    from benchmarks.scale import make_table

    assert make_table() in (ROOT / "docs" / "scale.md").read_text()
