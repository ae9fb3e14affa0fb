"""The order of the rooms: what may import what, how long a function may be, what a command may load before it works."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("shared", "harvest", "distill", "pipelines")

# A module imports the packages named here, of these four.
MAY_IMPORT = {
    "shared": {"shared"},
    "harvest": {"harvest", "shared"},
    "distill": {"distill", "shared"},
    "pipelines": {"pipelines", "harvest", "distill", "shared"},
}
# A room of a stage imports itself and the rooms before it. A module may stand elsewhere than the folder it lies in: a
# loss knows tensors and its own options, and stands before the config that lists them; the objective knows outputs.
ROOMS = {
    "harvest": (
        "startup",
        "chat",
        "pictures",
        "rendering",
        "teachers",
        "asking",
        "looking",
        "sharing",
        "config",
        "flags",
        "job",
        "importing",
        "choosing",
        "cli",
    ),
    "distill": (
        *("startup", "controls", "presets", "decoding", "phi", "losses", "config", "compute", "data", "models"),
        "losses.objective",
        *("scoring", "training", "methods", "runs"),
        *("run", "compare", "cli"),
    ),
}
HTTP_CLIENTS = (
    "aiohttp",
    "http",
    "httpx",
    "httpx_aiohttp",
    "openai",
    "requests",
    "socket",
    "urllib.request",
    "urllib3",
)
MODEL_LIBRARIES = ("diffusers", "onnxruntime", "torch", "transformers", "vllm")
ENGINES = ("harvest.teachers.endpoint", "harvest.teachers.vllm")
# Besides: the first imports none of the second, but for the third.
NEVER: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("harvest.chat", (*HTTP_CLIENTS, *MODEL_LIBRARIES), ()),
    ("harvest.rendering", (*HTTP_CLIENTS, *MODEL_LIBRARIES), ()),
    ("harvest.asking", ("harvest.teachers",), ("harvest.teachers.base",)),
    ("harvest.looking", ("harvest.teachers.endpoint",), ()),
    ("harvest.teachers.endpoint", ("harvest.teachers.vllm", "harvest.teachers.diffusion"), ()),
    ("harvest.teachers.vllm", ("harvest.teachers.endpoint", "harvest.teachers.diffusion"), ()),
    ("harvest.teachers.painting", ("harvest.teachers.diffusion", "harvest.teachers.video"), ()),
    ("harvest.teachers.diffusion", (*ENGINES, "harvest.teachers.video"), ()),
    ("harvest.teachers.video", (*ENGINES, "harvest.teachers.diffusion"), ()),
    ("harvest.teachers.transformers", ("harvest.teachers.endpoint", "harvest.teachers.vllm"), ()),
    ("distill", HTTP_CLIENTS, ()),
    ("distill.config", ("distill.losses",), ("distill.losses.registry",)),
    ("distill.training", ("distill.models", "distill.losses"), ()),
)
# Only a method brings these together.
MEETING = ("distill.data", "distill.models", "distill.losses")

HEAVY = {"torch", "transformers", "polars", "pyarrow", "numpy", "PIL", "onnxruntime", "httpx"}

LONGEST_FUNCTION = 60
LONGEST_RUN = 150  # lines of distill/run.py


def is_inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def is_inside_any(module: str, packages: tuple[str, ...]) -> bool:
    return any(is_inside(module, package) for package in packages)


def list_files(root: Path) -> Iterator[tuple[str, Path]]:
    """The modules of the four packages in `root`, by their dotted names."""
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@cache
def read_imports(source: str) -> frozenset[tuple[str, str]]:
    """Each import, wherever it stands, under TYPE_CHECKING too: the module, and the name taken from it or ""."""
    found: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {("." * node.level + (node.module or ""), alias.name) for alias in node.names}
    return frozenset(found)


def list_imports(root: Path) -> dict[str, set[str]]:
    """The modules that each module imports."""
    files = dict(list_files(root))
    return {
        module: {
            f"{source}.{name}" if f"{source}.{name}" in files else source
            for source, name in read_imports(path.read_text())
        }
        for module, path in files.items()
    }


def find_room(module: str) -> str:
    """The room of a stage's module; "" for the stage itself."""
    stage, _, inside = module.partition(".")
    own = [room for room in ROOMS.get(stage, ()) if is_inside(inside, room)]
    return max(own, key=len, default=inside.partition(".")[0])


def judge_import(module: str, imported: str) -> str | None:
    """Why `module` may not import `imported`, if it may not."""
    stage = module.partition(".")[0]
    other = imported.partition(".")[0]
    if imported.startswith("."):
        return "is relative"
    if imported.endswith(".cli"):
        return "is a command line"
    if other in PACKAGES and other not in MAY_IMPORT[stage]:
        return f"belongs to {other}"
    for importer, forbidden, allowed in NEVER:
        if is_inside(module, importer) and is_inside_any(imported, forbidden) and not is_inside_any(imported, allowed):
            return f"{importer} may not know"
    if other != stage or stage not in ROOMS or not find_room(module):
        return None
    if not find_room(imported):
        return "stands over all rooms"
    order = ROOMS[stage]
    if find_room(imported) not in order:
        return "stands in no room"
    if order.index(find_room(imported)) > order.index(find_room(module)):
        return "stands in a later room"
    return None


def find_wrong_imports(root: Path) -> list[str]:
    """The imports of the four packages in `root` that the order of the rooms forbids."""
    wrong = []
    for module, imports in list_imports(root).items():
        stage, room = module.partition(".")[0], find_room(module)
        if stage in ROOMS and room and room not in ROOMS[stage]:
            wrong.append(f"{module} stands in no room")
            continue
        reasons = [(imported, judge_import(module, imported)) for imported in sorted(imports)]
        wrong += [f"{module} imports {imported}, which {reason}" for imported, reason in reasons if reason]
        meet = all(any(is_inside(imported, room) for imported in imports) for room in MEETING)
        if meet and not is_inside(module, "distill.methods"):
            wrong.append(f"{module} brings {', '.join(MEETING)} together, which only a method may")
    return wrong


def find_long_functions(root: Path) -> list[str]:
    return [
        f"{module}.{node.name} has {length} lines"
        for module, path in list_files(root)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    ]


@pytest.fixture(scope="module")
def shared_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the four packages; a test leaves it as it was."""
    folder = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def copy(shared_copy: Path, tmp_path: Path) -> Path:
    """A copy of the four packages of a test's own."""
    return shutil.copytree(shared_copy, tmp_path / "copy")


def test_a_room_imports_only_rooms_before_it() -> None:
    wrong = find_wrong_imports(ROOT)
    assert not wrong, "\n".join(wrong)


# One for each rule: a module, and what it may not import.
PLANTED = (
    ("shared/planted.py", "from harvest.job import run_harvest"),
    ("shared/planted.py", "import distill"),
    ("harvest/job.py", "from distill.config import planted"),
    ("distill/run.py", "import harvest.planted"),
    ("harvest/looking/planted.py", "from pipelines import runner"),
    ("harvest/job.py", "from harvest import cli"),
    ("pipelines/planted.py", "import distill.cli"),
    ("harvest/config.py", "from .teachers import base"),
    ("harvest/asking/planted.py", "import harvest.config"),
    ("distill/losses/planted.py", "from distill.config import planted"),
    ("distill/config.py", "from distill.losses import geometry"),
    ("distill/scoring/planted.py", "from distill.training.step import planted"),
    ("harvest/chat/planted.py", "from harvest.rendering import page"),
    ("harvest/chat/planted.py", "from harvest.teachers.base import Request"),
    ("harvest/chat/planted.py", "import httpx"),
    ("harvest/rendering/planted.py", "from harvest.teachers import base"),
    ("harvest/rendering/planted.py", "from torch import Tensor"),
    ("harvest/teachers/planted.py", "from harvest.asking.engine import Engine"),
    ("harvest/teachers/planted.py", "from harvest import run_harvest"),
    ("harvest/teachers/vllm/planted.py", "from harvest.teachers.endpoint.probe import probe"),
    ("harvest/asking/planted.py", "from harvest.teachers.registry import TEACHERS"),
    ("harvest/asking/planted.py", "from harvest.teachers import endpoint"),
    ("harvest/asking/planted.py", "from harvest.looking import status"),
    ("harvest/looking/planted.py", "import harvest.teachers.endpoint.probe"),
    ("distill/config.py", "import distill.data.planted"),
    ("distill/compute/planted.py", "from distill.data.split import Split"),
    ("distill/data/planted.py", "from urllib.request import urlopen"),
    ("distill/losses/planted.py", "from distill.scoring.metrics import METRICS"),
    ("distill/training/planted.py", "from distill.models import classifier"),
    ("distill/training/planted.py", "import distill.losses.task"),
    ("distill/training/planted.py", "import distill.methods.armada"),
    ("distill/scoring/planted.py", "from distill.compare.statistics import resample"),
    ("distill/run.py", "import distill.compare.planted"),
)
WAYS = {
    "at the top": "{}\n",
    "in a function": "def planted() -> None:\n    {}\n",
    "for types": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    {}\n",
}


@pytest.mark.parametrize(("path", "line"), PLANTED)
def test_a_planted_wrong_import_is_found(shared_copy: Path, path: str, line: str) -> None:
    before = find_wrong_imports(shared_copy)
    planted = shared_copy / path
    sound = planted.read_text() if planted.exists() else None
    try:
        for way in WAYS.values():
            planted.write_text(f"{sound or ''}\n\n{way.format(line)}")
            (found,) = set(find_wrong_imports(shared_copy)) - set(before)
            assert found.startswith(path.removesuffix(".py").replace("/", "."))
    finally:
        planted.unlink() if sound is None else planted.write_text(sound)


def test_a_module_outside_the_rooms_is_found(copy: Path) -> None:
    before = find_wrong_imports(copy)
    (copy / "distill" / "helpers.py").write_text("import distill.more_helpers\n")
    assert set(find_wrong_imports(copy)) - set(before) == {"distill.helpers stands in no room"}


def test_data_models_and_losses_meet_in_a_method_only(copy: Path) -> None:
    before = find_wrong_imports(copy)
    rooms = ("distill.data.split", "distill.models.aligner", "distill.losses.task")
    for path in ("distill/methods/planted.py", "distill/runs/planted.py"):
        (copy / path).write_text("".join(f"import {module}\n" for module in rooms))
    (found,) = set(find_wrong_imports(copy)) - set(before)
    assert found.startswith("distill.runs.planted brings")


def test_typer_is_for_command_lines() -> None:
    users = {
        module
        for module, imports in list_imports(ROOT).items()
        if any(is_inside(imported, "typer") for imported in imports) and not module.endswith((".cli", ".flags"))
    }
    assert users <= {"shared.console", "shared.options", "shared.settings"}


def test_functions_are_short() -> None:
    long = find_long_functions(ROOT)
    assert not long, "\n".join(long)


def test_a_long_function_is_found(copy: Path) -> None:
    before = find_long_functions(copy)
    (copy / "shared" / "long.py").write_text(
        "def fit():\n" + "    pass\n" * 59 + "async def exceed():\n" + "    pass\n" * 60
    )
    assert set(find_long_functions(copy)) - set(before) == {"shared.long.exceed has 61 lines"}


def test_a_run_reads_from_top_to_bottom() -> None:
    assert len((ROOT / "distill" / "run.py").read_text().splitlines()) < LONGEST_RUN


@pytest.mark.parametrize("command", ["harvest", "distill", "pipelines"])
def test_help_loads_nothing_heavy(command: str) -> None:
    script = (
        "import sys\n"
        f"sys.argv = ['{command}', '--help']\n"
        f"from {command}.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('heavy:', sorted({HEAVY} & set(sys.modules)), file=sys.stderr)\n"
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
