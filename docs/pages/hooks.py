"""Adds to the pages of docs/ what they link to outside of it: the README as the first page, recipes, the change log.

mkdocs calls these functions (https://www.mkdocs.org/user-guide/configuration/#hooks).
"""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
OUTSIDE = ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE")


def on_files(files: Files, config: Any) -> Files:
    """Add the files that lie outside of docs/."""
    added = {"index.md": ROOT / "README.md", **{name: ROOT / name for name in OUTSIDE}}
    added |= {f"pipelines/{path.name}": path for path in (ROOT / "pipelines").glob("*.yaml")}
    for name, path in added.items():
        files.append(File.generated(config, name, content=_move_links(path.read_text())))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let a page's links lead to where those files are among the pages."""
    return _move_links(markdown)


def _move_links(text: str) -> str:
    return text.replace("](docs/", "](").replace("](../README.md", "](index.md").replace("](../", "](")
