"""The command, without a network, with JSON, with wrong options."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import MISSING
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from typer.testing import CliRunner

from distill.cli import app
from distill.config import DataConfig, DistillConfig, make_distill_config
from shared.options import list_options

COMMAND = [sys.executable, "-c", "from distill.cli import main; main()"]
ROOT = Path(__file__).parents[2]


def distill(*arguments: str, cwd: Path, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*before, *COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, env=environment, timeout=120
    )


def no_network() -> tuple[str, ...]:
    for command in (("unshare", "-n"), ("unshare", "-rn")):
        if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    pytest.skip("unshare cannot make a network namespace here")


@pytest.mark.real
def test_run_and_eval_without_a_network(toy: Path, tiny_student: Path, tmp_path: Path) -> None:
    done = distill(
        *("run", "--shards", f"{toy}/", "--student", str(tiny_student), "--epochs", "1", "--json"),
        cwd=tmp_path,
        before=no_network(),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["run"] == "runs/toy-distilled-s0"
    assert result["dev_best"] == json.loads((tmp_path / "runs/toy-distilled-s0/metrics.json").read_text())["dev_best"]
    scored = distill("eval", "runs/toy-distilled-s0", "--json", cwd=tmp_path, before=no_network())
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["score"] == result["dev_best"]


def test_undistilled_is_a_word(toy: Path, tiny_student: Path, tmp_path: Path) -> None:
    arguments = ["--student", str(tiny_student), "--epochs", "1", "--undistilled", "--out", str(tmp_path / "runs")]
    done = CliRunner().invoke(app, ["run", "--shards", str(toy), *arguments, "--quiet"])
    assert done.exit_code == 0, done.output
    result, again, use = done.stdout.splitlines()
    assert "toy-undistilled-s0: accuracy dev" in result
    assert done.stderr == ""
    words = shlex.split(again.removeprefix("score it again: distill "))
    assert CliRunner().invoke(app, words).stdout.startswith(f"{words[1]}: accuracy ")
    assert f"{words[1]}/student" in use
    config = json.loads((tmp_path / "runs/toy-undistilled-s0/metrics.json").read_text())["config"]
    assert (config["loss"], config["alpha"], config["gamma"]) == (["none"], 0.0, 0.0)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--shards", "nowhere"], 1, "nowhere holds no teacher's answers"),
        (["run", "--shards", "x", "--alpha", "2"], 2, "alpha is 2.0"),
        (["run", "--shards", "x", "--loss", "kl"], 2, "loss is 'kl'; it can be"),
        (["run", "--shards", "x", "--tracker", "mlflow"], 2, "there is no tracker 'mlflow'"),
        (["run", "--shards", "x", "--checkpoint-steps", "0"], 2, "--checkpoint-steps"),
        (["run"], 2, "--shards"),
        (["eval", "nowhere"], 2, "is not a finished run"),
    ],
)
def test_wrong_use(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert not done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_student_that_does_not_exist_is_named(toy: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["run", "--shards", str(toy), "--student", "./none", "--out", str(tmp_path / "runs")]
    )
    assert done.exit_code == 1
    assert "there is no model at ./none" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_tracker_by_name(toy: Path, tiny_student: Path, tmp_path: Path) -> None:
    arguments = ["--student", str(tiny_student), "--epochs", "1", "--out", str(tmp_path / "runs"), "--shards", str(toy)]
    done = CliRunner().invoke(app, ["run", *arguments, "--tracker", "tensorboard"])
    assert done.exit_code == 0, done.output
    assert list(tmp_path.glob("runs/toy-distilled-s0/trackers/toy-distilled-s0/events.*"))


def test_vectors_of_the_command_are_those_of_the_run(toy: Path, tiny_student: Path, tmp_path: Path) -> None:
    arguments = ["run", "--shards", str(toy), "--student", str(tiny_student), "--epochs", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*arguments, "--vectors", "embedding"])
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "toy-distilled-s0/metrics.json").read_text())
    assert metrics["config"]["vectors"] == ["embedding"]
    *_, last = (line for line in done.stderr.splitlines() if line.startswith("toy-distilled-s0: "))
    assert last.endswith(f"epoch 1/1, best dev {metrics['dev_best']:.4f} (epoch 1)"), "with the last score"
    done = CliRunner().invoke(app, [*arguments, "--vectors", "embedding", "--vectors", "label_logprobs"])
    assert done.exit_code == 1
    assert "has no label_logprobs: its teacher gave none" in done.output.replace("\n", "")
    done = CliRunner().invoke(app, [*arguments, "--vectors", "pictures"])
    assert done.exit_code == 2
    assert "it can be embedding, label_logprobs, reply" in done.output.replace("\n", "")


@pytest.mark.parametrize("files", [["__init__.py"], ["__init__.py", "console.py"]])
def test_a_users_own_shared_folder_is_named_and_not_a_traceback(tmp_path: Path, files: list[str]) -> None:
    (tmp_path / "shared").mkdir()
    for file in files:
        (tmp_path / "shared" / file).touch()
    command = [sys.executable, "-m", "distill.cli", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"{tmp_path / 'shared'} was found in place of harvest-distill's own package" in done.stderr
    assert "--no-python distill" in done.stderr


def test_every_option_of_the_config_is_a_flag_whose_default_is_the_configs() -> None:
    shown = " ".join(CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "300"}).output.split())
    parameters = {
        parameter.name: parameter for parameter in cast(Any, typer.main.get_command(app)).commands["run"].params
    }
    for option in list_options(DistillConfig):
        assert option.option.help, f"{option.name} has no help text"
        assert parameters[option.name].default is None, "the command holds no default of its own"
        assert option.flag in parameters[option.name].opts
        assert option.flag in shown
    required = [option.name for option in list_options(DistillConfig) if option.default is MISSING]
    assert make_distill_config(shards="x") == DistillConfig(data=DataConfig(shards=(Path("x"),)))
    assert required == [parameter.name for parameter in parameters.values() if parameter.required]
