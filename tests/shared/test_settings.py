"""Options from a file and from the environment, and what a shell completes: of the real commands."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

CONFIG = "teacher: endpoint\nendpoint: http://h/v1\nmodel: file\ntask: reviews.csv\nlimit: {train: 3}\njson: true\n"


@pytest.fixture
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text("text,label\n" + "".join(f"film {i},{i % 2}\n" for i in range(40)))
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, line: str) -> int:
    words = line.split()
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        import_module({"harvest": "harvest.cli", "distill": "distill.cli"}[words[0]]).main()
    return int(str(ended.value.code))


def test_a_flag_wins_over_its_variable_and_that_over_the_file(
    reviews: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def plan(flags: str) -> dict[str, Any]:
        assert call(monkeypatch, f"harvest plan {flags}") == 0
        planned: dict[str, Any] = json.loads(capsys.readouterr().out)
        return planned

    planned = plan("--config config.yaml --name n")
    assert (planned["teacher"], planned["splits"]["train"]) == ("n", 3)
    monkeypatch.setenv("HARVEST_CONFIG", "config.yaml")
    monkeypatch.setenv("HARVEST_LIMIT", "train=4 test=1")
    monkeypatch.setenv("HARVEST_NAME", "variable")
    planned = plan("--split train --split test")
    assert (planned["teacher"], planned["splits"]) == ("variable", {"train": 4, "test": 1})
    assert plan("--limit 2 --split train --name flag")["splits"] == {"train": 2}
    monkeypatch.setenv("HARVEST_MAXCOST", "1")
    assert call(monkeypatch, "harvest plan --teacher endpoint --endpoint http://h/v1 --model m --task reviews.csv") == 0
    assert "did you mean HARVEST_MAX_COST?" in capsys.readouterr().err, "a cap that is misspelt is no cap"
    monkeypatch.delenv("HARVEST_MAXCOST")
    assert call(monkeypatch, "harvest plan -q") == 0
    assert capsys.readouterr().err == ""


def test_a_file_gives_what_must_be_given_and_the_flags_of_the_command_itself(
    reviews: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run.yaml").write_text("shards: nowhere\nlora_rank: 8\ntracker: tensorbord\n")
    assert call(monkeypatch, "distill run --config run.yaml") == 2
    assert "did you mean tensorboard?" in capsys.readouterr().err
    assert call(monkeypatch, "distill run --config run.yaml --tracker tensorboard") == 1
    assert "nowhere holds no teacher's answers" in capsys.readouterr().err
    monkeypatch.setenv("DISTILL_LORA", "0")
    assert call(monkeypatch, "distill run --config run.yaml") == 2
    assert "--lora is 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("harvest run --teacher rea", ["reader"]),
        ("harvest plan --task rotten", ["rotten_tomatoes", "rotten_tomatoes_text"]),
        ("harvest run --teacher reader --encod", ["--encoder"]),
        ("harvest run --teacher nobody --tas", ["--task", "--task-file"]),
        ("distill run --loss co", ["cosine", "contrastive"]),
        ("distill run --preset armada-", ["armada-code"]),
    ],
)
def test_a_shell_completes(
    line: str, completed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = line.split()
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv(f"_{words[0].upper()}_COMPLETE", "complete_bash")
    with pytest.raises(SystemExit) as ended:
        typer.main.get_command(import_module(f"{words[0]}.cli").app)(args=[], prog_name=words[0])
    out, err = capsys.readouterr()
    assert ended.value.code == 0
    assert set(completed) <= set(out.split())
    assert all(name.startswith(words[-1]) for name in out.split())
    assert err == ""


def test_completing_imports_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", "distill run --loss ")
    monkeypatch.setenv("COMP_CWORD", "3")
    monkeypatch.setenv("_DISTILL_COMPLETE", "complete_bash")
    script = (
        "import sys, atexit\n"
        "atexit.register(lambda: print({'torch', 'transformers'} & set(sys.modules), file=sys.stderr))\n"
        "sys.argv = ['distill']\n"
        "from distill.cli import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "contrastive" in done.stdout.split()
    assert done.stderr == "set()\n"
