"""The library: docs/api.md as doctests, names that load nothing until they are used, and a loop that runs already."""

import asyncio
import doctest
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import distill
import harvest
from distill.cli import describe_score
from shared.errors import UsageError
from tests.distill.conftest import tiny_student as tiny_student
from tests.harvest.fault_server import Asked, FaultServer, make_reply, spread_logprobs

ROOT = Path(__file__).parents[1]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """An endpoint, and a file to ask it about in the working directory."""
    monkeypatch.chdir(tmp_path)
    rows = [f"a {('dull', 'warm')[i % 2]} film number {i},{('bad', 'good')[i % 2]}" for i in range(40)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    with FaultServer(answer=_answer) as server:
        yield server


def _answer(asked: Asked) -> dict[str, object]:
    good = "warm" in json.dumps(asked.body)
    logprobs = spread_logprobs(0.9 if good else 0.1)
    named = {"good": logprobs.pop("positive"), "bad": logprobs.pop("negative"), **logprobs}
    return make_reply(("bad", "good")[good], named)


@pytest.mark.parametrize(
    "end",
    [pytest.param("## Compare", id="all but the comparison"), pytest.param("## The names", marks=pytest.mark.real)],
)
def test_the_page_runs_as_it_stands(end: str, server: FaultServer, tiny_student: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_student, tmp_path / "google/bert_uncased_L-2_H-128_A-2")
    page = ROOT / "docs/api.md"
    test = doctest.DocTestParser().get_doctest(
        page.read_text().partition(end)[0], {"URL": server.url}, page.name, str(page), 0
    )
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=said.append)
    assert not said, "".join(said)
    assert runner.tries > 20


@pytest.mark.parametrize("package", ["harvest", "distill"])
def test_a_name_is_what_type_checkers_take_it_for(package: str) -> None:
    source = (ROOT / package / "__init__.py").read_text().partition("else:")[0]
    library = importlib.import_module(package)
    promised = [line.split()[1::2] for line in source.splitlines() if line.startswith("    from ")]
    assert sorted(name for _, name, _ in (line for line in promised)) == sorted(library.__all__)
    for module, name, _ in promised:
        assert getattr(library, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = library.nothing


def test_importing_loads_nothing_and_harvesting_no_torch() -> None:
    script = (
        "import sys, harvest, distill\n"
        "assert not {'shared', 'numpy', 'pyarrow', 'torch'} & set(sys.modules)\n"
        "from harvest import run_harvest, stream_rows\n"
        "from distill import make_distill_config\n"
        "assert not {'torch', 'transformers', 'vllm'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_a_harvest_in_a_thread_that_runs_a_loop_as_a_notebooks_does(server: FaultServer) -> None:
    options = {"endpoint": server.url, "model": "m", "scoring": "top_logprobs"}
    task = harvest.TaskChoice("reviews.csv", text_column="text", label_column="label")
    config = harvest.HarvestConfig(task, harvest.TeacherChoice("endpoint", options=options))

    async def cell() -> harvest.Report:
        return harvest.run_harvest(config)

    assert asyncio.run(cell()).asked == 40


def test_an_interrupt_in_a_notebook_lets_what_is_in_flight_arrive(server: FaultServer) -> None:
    asked: list[Asked] = []
    with FaultServer(answer=partial(_answer_and_interrupt, asked), latency=0.01) as interrupting:
        options = {"endpoint": interrupting.url, "model": "m", "scoring": "top_logprobs", "concurrency": 2}
        config = harvest.HarvestConfig(
            harvest.TaskChoice("reviews.csv"), harvest.TeacherChoice("endpoint", options=options)
        )
        before = signal.getsignal(signal.SIGINT)
        try:
            with pytest.raises(KeyboardInterrupt):
                asyncio.run(_run_as_a_cell(config))
        finally:
            signal.signal(signal.SIGINT, before)
        kept = sum(1 for _ in harvest.stream_rows("data/reviews"))
        assert 10 <= kept < 40
        assert kept == len(asked)
        assert harvest.run_harvest(config).asked == 40 - kept


async def _run_as_a_cell(config: harvest.HarvestConfig) -> harvest.Report:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a notebook; asyncio.run has set its own
    return harvest.run_harvest(config)


def _answer_and_interrupt(asked: list[Asked], request: Asked) -> dict[str, object]:
    asked.append(request)
    if len(asked) == 10:
        os.kill(os.getpid(), signal.SIGINT)
    return _answer(request)


def test_a_name_that_is_taken_registers_no_teacher() -> None:
    entry = harvest.TeacherEntry(name="reader", summary="", teacher="mine:Mine", config="MineConfig", gives=())
    with pytest.raises(harvest.Error, match="there is a teacher reader already"):
        harvest.register_teacher(entry)


@pytest.mark.parametrize(
    ("asked", "message"), [({"split": "dev"}, "no split 'dev'"), ({"columns": ["x"]}, "no column")]
)
def test_rows_that_there_are_not_are_refused(asked: dict[str, object], message: str, server: FaultServer) -> None:
    options = {"endpoint": server.url, "model": "m", "scoring": "top_logprobs"}
    task = harvest.TaskChoice("reviews.csv", text_column="text", label_column="label")
    harvest.run_harvest(harvest.HarvestConfig(task, harvest.TeacherChoice("endpoint", options=options)))
    with pytest.raises(harvest.Error, match=message):
        list(harvest.stream_tables("data/reviews", **asked))  # type: ignore[arg-type]


def test_a_file_without_labels_becomes_a_student(
    server: FaultServer, tiny_student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"a {('dull', 'warm')[i % 2]} film number {i}" for i in range(40)]
    Path("bare.csv").write_text("\n".join(["review", *texts]) + "\n")
    options = {"endpoint": server.url, "model": "m", "scoring": "top_logprobs"}
    task = harvest.TaskChoice("bare.csv", labels=("good", "bad"))
    harvest.run_harvest(harvest.HarvestConfig(task, harvest.TeacherChoice("endpoint", options=options)))
    config = distill.make_distill_config(shards="data/bare", student=str(tiny_student), epochs=1)
    folder, metrics = distill.run_distillation(config)
    assert (metrics["labels_from"], metrics["rows"]["labelled"]) == ("teacher", metrics["rows"]["train"])
    assert "labels of the teacher's own: accuracy" in capsys.readouterr().err
    assert "agreement with it, not with the truth" in (folder / "README.md").read_text()
    again = distill.evaluate_run(folder)
    assert (again["labels_from"], again["score"]) == ("teacher", metrics["dev_best"])
    assert "this is agreement with the teacher" in describe_score(again)
    variants: list[dict[str, Any]] = [{"undistilled": True}, {"control": "self-training"}]
    for variant in variants:
        config = distill.make_distill_config(shards="data/bare", student=str(tiny_student), **variant)
        with pytest.raises(UsageError, match=r"should know nothing of the teacher .* would learn from them"):
            distill.run_distillation(config)
    with pytest.raises(UsageError, match="is not a finished run"):
        distill.load_student("nowhere")
