"""What stage 2 may import: shared, and no way to a teacher."""

import ast
import subprocess
import sys
from pathlib import Path

import distill

PACKAGE = Path(distill.__file__).parent
FORBIDDEN = {"harvest", "pipelines", "httpx", "aiohttp", "requests", "urllib", "urllib3", "socket", "http"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names.add((node.module or "").split(".")[0])
    return names


def test_no_module_imports_stage_1_or_an_http_client() -> None:
    modules = sorted(PACKAGE.rglob("*.py"))
    assert len(modules) > 15
    assert {str(path): imported(path) & FORBIDDEN for path in modules if imported(path) & FORBIDDEN} == {}


def test_nothing_but_cli_is_a_cli() -> None:
    users = [path.name for path in PACKAGE.rglob("*.py") if "typer" in imported(path)]
    assert users == ["cli.py"]


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_all_modules_together_leave_stage_1_alone() -> None:
    names = [".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts) for p in PACKAGE.rglob("*.py")]
    code = f"import sys, importlib\nfor n in {names!r}: importlib.import_module(n)\nprint('harvest' in sys.modules)"
    assert run_python(code).strip() == "False"


def test_help_needs_no_torch() -> None:
    code = "import sys, distill.cli\nprint(sorted({'torch', 'transformers', 'httpx', 'pyarrow'} & set(sys.modules)))"
    assert run_python(code).strip() == "[]"
