"""The API key in every fault: it reaches the endpoint, and nothing else. No file, log, message, traceback or shard."""

import itertools
import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import run_harvest
from shared.errors import TeacherError
from tests.harvest.fault_server import ALL_FAULTS, FATAL, RESET_BEFORE, FaultServer
from tests.harvest.spellings import list_halves
from tests.harvest.teachers.endpoint.endpoint_runs import CANARY, check_no_file_shows
from tests.harvest.teachers.endpoint.test_crash import HARVEST, write_texts

ROWS = 120
WORDS = ("negative", "positive")
SECRET_PART = CANARY[: len(CANARY) // 2]  # half of it would be as bad as all of it


class EachFault(FaultServer):
    """Meets each first attempt with the next of all faults, in turn; and resets many connections."""

    def __init__(self) -> None:
        super().__init__({"reset before": 200})
        self._turns = itertools.cycle(fault for fault in ALL_FAULTS if fault not in RESET_BEFORE)

    def choose(self, key: str, attempt: int) -> str:
        return "ok" if attempt else next(self._turns)


def test_under_every_fault_no_file_or_log_shows_the_key(tmp_path: Path) -> None:
    verbose = "import logging\nlogging.basicConfig(level=logging.DEBUG)\n"
    with EachFault() as server, (tmp_path / "said").open("w") as said:
        arguments = [server.url, str(write_texts(tmp_path, ROWS)), str(tmp_path / "out"), '{"attempts": 1}']
        environment = {**os.environ, "CANARY_KEY": CANARY, "PYTHONASYNCIODEBUG": "1"}
        command = [sys.executable, "-c", verbose + HARVEST, *arguments]
        subprocess.run(command, env=environment, stdout=said, stderr=subprocess.STDOUT, check=True)
        assert set(ALL_FAULTS) <= set(server.count.outcomes)
        assert all(CANARY in asked.headers["authorization"] for asked in server.requests)
    assert f"{ROWS} 0 {ROWS}" in (tmp_path / "said").read_text()
    check_no_file_shows(CANARY, tmp_path)


@pytest.mark.parametrize("scoring", ["auto", "top_logprobs"])  # the first one meets the fault in the probe
@pytest.mark.parametrize("fault", FATAL)
def test_an_end_of_the_run_shows_no_key(
    fault: str,
    scoring: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARY)
    task = TaskChoice(
        str(write_texts(tmp_path, 30)), text_column="text", label_column="label", labels=WORDS, label_words=WORDS
    )
    with FaultServer({fault: 1000}) as server, caplog.at_level(logging.DEBUG):
        options = {"endpoint": server.url, "model": "m", "scoring": scoring, "api_key_env": "CANARY_KEY"}
        with pytest.raises(TeacherError, match=fault[:3]) as refusal:
            run_harvest(HarvestConfig(task, TeacherChoice("endpoint", options=options), out=tmp_path / "out"))
        assert all(CANARY in asked.headers["authorization"] for asked in server.requests)
        assert server.requests
    printed = capsys.readouterr()
    told = "".join(traceback.format_exception(refusal.value))
    for text in (told, printed.out, printed.err, caplog.text):
        assert SECRET_PART not in text
        assert not [half for half in list_halves(CANARY) if half in text.encode("utf-8", "replace")]
    check_no_file_shows(CANARY, tmp_path)
