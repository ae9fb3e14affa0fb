"""The code blocks of README and docs/: which lines are commands, and which say in a comment that they are not run here.

<!-- not run: a GPU -->                      before a block: none of its lines
<!-- not run (pip, harvest run): a GPU -->   only the lines that begin so
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
RUNNABLE = ("harvest", "distill", "export")  # by tests/test_docs_run.py
PROGRAMS = (*RUNNABLE, "pipeline", "make", "pip", "python", "duckdb", "lm_eval")
MARK = re.compile(r"<!-- not run(?: \((?P<beginnings>[^)]+)\))?: (?P<reason>\S.*) -->")
_COMMAND = re.compile(rf"(?P<settings>(?:[A-Z_]+=\S+\s+)*)(?:\S*/)?(?P<line>(?:{'|'.join(PROGRAMS)})\s+\S.*)")
_IMPORT = re.compile(r"(?:from \w[\w.]* )?import \w")


@dataclass(frozen=True, slots=True)
class Command:
    """A line of a block: what it sets in the environment, and its words, comments left out."""

    settings: dict[str, str]
    line: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line, comments=True)


@dataclass(frozen=True, slots=True)
class Block:
    """A code block, its indentation and the backslashes at line ends gone, with the marks before it."""

    page: Path
    number: int
    lines: tuple[str, ...]
    marks: tuple[re.Match[str], ...]

    @property
    def is_python(self) -> bool:
        return any(_IMPORT.match(line) for line in self.lines)

    def list_commands(self) -> list[Command]:
        matches = [match for line in self.lines if (match := _COMMAND.fullmatch(line.strip()))]
        return [
            Command(dict(one.split("=", 1) for one in match["settings"].split()), match["line"]) for match in matches
        ]

    def is_left_out(self, line: str = "") -> bool:
        """Whether a mark says that a line is not run; of no line, whether the whole block is not."""
        plain = " ".join(line.split())
        return any(
            mark["beginnings"] is None or (line and plain.startswith(tuple(re.split(r",\s*", mark["beginnings"]))))
            for mark in self.marks
        )

    def list_run(self) -> list[Command]:
        """The commands that no mark leaves out."""
        return [command for command in self.list_commands() if not self.is_left_out(command.line)]


def read_blocks(page: Path) -> Iterator[Block]:
    """The code blocks of a page, fenced or indented."""
    lines = page.read_text().replace("\\\n", " ").splitlines()
    at = 0
    marks: list[re.Match[str]] = []
    while at < len(lines):
        start = at
        if lines[at].lstrip().startswith("```"):
            at = next(end for end in range(at + 1, len(lines)) if lines[end].lstrip().startswith("```")) + 1
            block = lines[start + 1 : at - 1]
        elif lines[at].startswith("    ") and not lines[at - 1].strip():
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            block = lines[start:at]
        else:
            mark = MARK.fullmatch(lines[at].strip())
            marks = [*marks, mark] if mark else marks if not lines[at].strip() else []
            at += 1
            continue
        indent = min((len(line) - len(line.lstrip()) for line in block if line.strip()), default=0)
        yield Block(page, start + 1, tuple(line[indent:] for line in block), tuple(marks))
        marks = []
