"""What may import what, and what a command may load before it works."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "shared": {"shared"},
    "harvest": {"harvest", "shared"},
    "distill": {"distill", "shared"},
    "pipelines": {"pipelines", "harvest", "distill", "shared"},
}
HTTP_CLIENTS = {"httpx", "aiohttp", "requests", "urllib3", "openai", "httpx_aiohttp"}


def list_imports(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            modules.add(str(node.module))
    return modules


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        ours = {module.split(".")[0] for module in list_imports(path)} & MAY_IMPORT.keys()
        assert ours <= MAY_IMPORT[package], path


def test_nothing_imports_a_command_line() -> None:
    for package in MAY_IMPORT:
        for path in (ROOT / package).rglob("*.py"):
            assert not {module for module in list_imports(path) if module.endswith(".cli")}, path


def test_the_second_stage_knows_no_http_client() -> None:
    for path in (ROOT / "distill").rglob("*.py"):
        assert not {module.split(".")[0] for module in list_imports(path)} & HTTP_CLIENTS, path


@pytest.mark.parametrize("command", ["harvest", "distill", "pipelines"])
def test_help_loads_nothing_heavy(command: str) -> None:
    script = (
        "import sys\n"
        f"sys.argv = ['{command}', '--help']\n"
        f"from {command}.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'transformers', 'polars', 'pyarrow', 'numpy', 'PIL', 'onnxruntime'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "Usage" in done.stdout
    assert done.stderr.strip() == "heavy: []"


def test_the_command_for_an_endpoint_needs_no_torch(tmp_path: Path) -> None:
    """Planning a harvest against an HTTP endpoint loads neither torch nor transformers."""
    (tmp_path / "texts.csv").write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20)))
    script = (
        "import sys\n"
        "sys.argv = 'harvest plan --teacher endpoint --endpoint http://127.0.0.1:9/v1 --model m --task texts.csv '\\\n"
        "    '--text-column text --label-column label --json'.split()\n"
        "from harvest.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert '"to_ask": 20' in done.stdout
