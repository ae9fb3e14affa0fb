"""The tests that docs/ name as what holds a promise are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_tests_that_docs_name_exist() -> None:
    files = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    named = [
        (page.name, *reference.groups())
        for page in (ROOT / "docs").glob("*.md")
        for reference in re.finditer(r"`([\w/]*test_\w+\.py)::(test_\w+)`", page.read_text())
    ]
    assert len(named) > 20
    missing = [name for name in named if f"def {name[2]}(" not in files.get(name[1], "")]
    assert not missing
