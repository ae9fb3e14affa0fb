"""The registry: what is refused before anything is asked, and what a name stands for."""

import json
import os
import re
import subprocess
import sys
from dataclasses import MISSING
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harvest.chat.prompts import Draw
from harvest.cli import app
from harvest.config import TeacherChoice
from harvest.teachers.registry import ENTRIES, TeacherEntry, find_teacher, prepare_teacher
from harvest.teachers.requirements import Requirements, find_missing, has_gpu
from harvest.teachers.vision_models import VISION_MODELS, VisionModel, find_vision_model
from shared.errors import TeacherError, UsageError
from shared.options import list_options, make_config
from shared.schema import Answer
from shared.tasks import TASKS

NO_HUB = "no network in this test"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment that hides the GPU, the hub and its cache."""
    hidden = {
        "CUDA_VISIBLE_DEVICES": "",
        "HIP_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(tmp_path / "empty"),
    }
    for name, value in hidden.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return {**os.environ, **hidden, "PYTHONPATH": str(Path(__file__).parents[3])}


def test_a_machine_without_gpu_and_hub_is_told_what_would_run(bare: dict[str, str], tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "sys.argv = 'harvest run --teacher llava --task mnli --limit 8'.split()\n"
        "from harvest.cli import main\n"
        "try:\n    main()\nfinally:\n    assert not {'torch', 'transformers', 'polars', 'vllm'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=bare, check=False)
    assert done.returncode == 1, done.stderr
    missing, works = done.stderr.split("What would run here")
    assert "AssertionError" not in works
    # Where vLLM is not installed transformers would do, and no GPU is needed.
    assert ("a GPU (15 GB" in missing) == (find_spec("vllm") is not None)
    assert "llava-hf/llava-1.5-7b-hf" in missing
    assert "HF_HUB_OFFLINE is set" in missing
    assert "--teacher llava --endpoint URL" in works
    assert "--teacher reader" in works
    assert "--teacher encoder --model FOLDER" in works
    assert "--teacher diffusion --model FOLDER" in works
    assert "--teacher qwen2.5-vl" not in works
    assert not (tmp_path / "data").exists()


def test_only_teachers_that_would_run_are_offered(monkeypatch: pytest.MonkeyPatch, bare: dict[str, str]) -> None:
    offered = partial(find_missing, find_hub_problem=lambda: NO_HUB)
    assert offered(Requirements("vision", ("json", "no_such_module")), {}) == [
        "the package no_such_module: pip install 'harvest-distill[vision]'"
    ]
    assert offered(Requirements(packages=("json",)), {}) == []
    with pytest.raises(TeacherError) as caught:
        prepare_teacher(TeacherChoice("reader", options={"encoder": "org/none"}))
    assert "org/none is no folder here" in str(caught.value)
    assert "--encoder names another" in str(caught.value)
    assert "--teacher endpoint --endpoint URL --model NAME" in str(caught.value)
    assert "--teacher reader" not in str(caught.value)


def test_a_model_is_looked_for_and_not_fetched(tmp_path: Path) -> None:
    requirements = Requirements(weights="model")
    asked = []

    def find_hub_problem() -> str:
        asked.append(1)
        return NO_HUB

    (tmp_path / "config.json").write_text("{}")
    assert find_missing(requirements, {"model": str(tmp_path)}, find_hub_problem) == []
    (folder,) = find_missing(requirements, {"model": str(tmp_path.parent)}, find_hub_problem)
    assert "a model is a folder that holds config.json" in folder
    assert not asked, "the hub was asked about a folder"
    (hub,) = find_missing(requirements, {"model": "org/name"}, find_hub_problem)
    assert NO_HUB in hub
    assert find_missing(requirements, {"model": "org/name"}, lambda: None) == []


def test_a_hidden_gpu_is_none(monkeypatch: pytest.MonkeyPatch, bare: dict[str, str]) -> None:
    assert not has_gpu()


@pytest.mark.parametrize("model", VISION_MODELS, ids=lambda model: model.name)
def test_with_an_endpoint_a_model_is_asked_there(model: VisionModel) -> None:
    name = model.name
    teacher = prepare_teacher(TeacherChoice(name, options={"endpoint": "http://127.0.0.1:9/v1"}))(TASKS["rte"])
    recipe = teacher.recipe()
    assert (teacher.name, recipe["teacher"], recipe["model"]) == (name, "endpoint", model.model)
    assert recipe["prompt"]["draw"] == Draw.FIELDS
    assert (recipe["layout"]["width"], recipe["layout"]["height"]) == model.size


def test_in_process_and_behind_a_server_the_same_is_asked() -> None:
    for model in VISION_MODELS:
        entry = find_teacher(model.name)
        assert entry.server is not None
        assert entry.defaults == entry.server.defaults
        assert model.page_tokens < model.context
        assert find_vision_model(f"{model.model}@main") is model
    assert find_vision_model("org/other") is None


def test_another_model_behind_the_endpoint_wins_over_the_table() -> None:
    choice = TeacherChoice("llava", options={"endpoint": "http://127.0.0.1:9/v1", "model": "mine", "size": [448, 448]})
    recipe = prepare_teacher(choice)(TASKS["rte"]).recipe()
    assert (recipe["model"], recipe["layout"]["width"]) == ("mine", 448)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_names_what_there_is(entry: TeacherEntry) -> None:
    """What it stands for are options that its teacher has, and columns that a row has."""
    factory, config_class = entry.load()
    assert callable(factory)
    listed = {one.name: one for one in list_options(config_class)}
    needed = {name for name, one in listed.items() if one.default is MISSING and name not in entry.defaults}
    asked = {**entry.defaults, **dict.fromkeys(needed, "http://h/v1")}
    make_config(config_class, asked, entry.name)
    assert needed == set(re.findall(r"--(\w+)", entry.requirements.given))
    assert set(entry.gives) <= {*Answer.__dataclass_fields__, "image", "clip"}
    assert entry.requirements.weights is None or entry.requirements.weights in listed


def test_names() -> None:
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    with pytest.raises(UsageError, match=r"did you mean llava-next\?"):
        find_teacher("llava_next")


def test_teachers_are_listed() -> None:
    done = CliRunner().invoke(app, ["teachers", "--json"])
    listed = json.loads(done.stdout)
    assert listed["reader"]["gives"] == ["embedding", "reply"]
    assert listed["reader"]["missing"] == []
    assert listed["llava"]["model"] == "llava-hf/llava-1.5-7b-hf"
    table = CliRunner().invoke(app, ["teachers"])
    assert table.exit_code == 0
    for entry in ENTRIES:
        assert entry.name in table.stdout
