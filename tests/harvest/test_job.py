"""A harvest as a library runs it: in any thread, and with a teacher that ends with it."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harvest.asking.interrupt import Interrupt
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import plan_harvest, run_harvest
from shared.errors import UsageError
from shared.shards import verify_shards
from shared.sources import MINILM
from tests.harvest.children import list_children
from tests.harvest.fault_server import FaultServer


@pytest.fixture
def films(tmp_path: Path) -> TaskChoice:
    path = tmp_path / "films.jsonl"
    rows = [{"review": f"film number {i}", "verdict": ("negative", "positive")[i % 2]} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TaskChoice(str(path), text_column="review", label_column="verdict", label_words=("negative", "positive"))


def test_a_harvest_runs_in_another_thread_and_its_teacher_ends(films: TaskChoice, tmp_path: Path) -> None:
    config = HarvestConfig(films, TeacherChoice("reader", options={"encoder": MINILM}), out=tmp_path / "out")
    before = list_children()
    with ThreadPoolExecutor(1) as pool:
        report = pool.submit(run_harvest, config).result()
    assert (report.asked, report.failed) == (20, 0)
    assert verify_shards(tmp_path / "out").ok
    assert list_children() == before  # what rendered has ended


def test_a_run_that_is_interrupted_and_an_endpoint_in_another_thread(films: TaskChoice, tmp_path: Path) -> None:
    with FaultServer() as server:
        options = {"endpoint": server.url, "model": "m", "dialect": "openai", "scoring": "text"}
        config = HarvestConfig(films, TeacherChoice("endpoint", options=options), out=tmp_path / "out")
        interrupt = Interrupt()
        interrupt.request()
        with ThreadPoolExecutor(1) as pool:
            with pytest.raises(UsageError, match="--scoring text does not fit"):
                pool.submit(run_harvest, config).result()
            options["scoring"] = "choice"
            with pytest.raises(KeyboardInterrupt):
                pool.submit(run_harvest, config, interrupt=interrupt).result()
            assert not server.requests
            assert pool.submit(run_harvest, config).result().asked == 20
            assert pool.submit(plan_harvest, config).result().to_ask == 0
