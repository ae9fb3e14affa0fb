"""The commands of README and docs/ in their order, page by page, with small stand-ins for what a reader would have.

A page's own files are a few rows; a provider's address becomes an endpoint on loopback, and the hub one on loopback.
What is not run here says so before its block, with the reason.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

import distill.cli
import harvest.cli
from shared.shards import TeacherFolder
from tests.docs_blocks import PAGES, Block, Command, read_blocks
from tests.harvest.fault_server import Asked, FaultServer, make_reply
from tests.shared.loopback_hub import LoopbackHub
from tests.shared.loopback_hub import loopback_hub as loopback_hub
from tests.shared.shards.shard_rows import make_manifest, make_rows

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning"),  # huggingface_hub's, of its client
]
APPS = {"harvest": harvest.cli.app, "distill": distill.cli.app}
OWN_TEST = {"api.md", "extending.md"}  # tests/test_api.py and tests/test_extending.py run them
RUN = [
    page
    for page in PAGES
    if page.name not in OWN_TEST
    and any((block.list_run() or block.is_python) and not block.is_left_out() for block in read_blocks(page))
]
KEY = "a-key-for-loopback-only"
WORDS = ("good", "bad", "yes", "no", "maybe")
PRICES = ("--price-in", "0.15", "--price-out", "0.6")  # of a host that no list of prices knows
KEPT = {  # harvests that a page takes for there
    "sharing.md": ("reviews", "reader"),
    "looking.md": ("rotten_tomatoes", "reader"),
    "shards.md": ("rotten_tomatoes", "reader"),
    "tasks.md": ("reviews", "llava"),
}


def answer(asked: Asked) -> dict[str, Any]:
    body = json.dumps(asked.body)
    said = WORDS[len(body) % 2] if "film" in body else "yes"
    logprobs = {word: math.log(0.8 if word == said else 0.04) for word in WORDS}
    return {**make_reply(said, logprobs, 140 if "image_url" in body else 40), "model": asked.body["model"]}


def write_stand_ins(page: Path) -> None:
    """Write the files that the page's commands name to the working folder."""
    rows = [
        {"text": f"a {('dull', 'warm')[i % 2]} film number {i}", "label": ("bad", "good")[i % 2]} for i in range(24)
    ]
    reviews = pl.DataFrame(rows)
    if page.name == "tasks.md":  # as its reviews.yaml says
        reviews = reviews.select(title="text", body="text", stars="label")
    reviews.write_csv("reviews.csv")
    pairs = [{"premise": f"It rains, {i}.", "hypothesis": "It is wet.", "label": i % 3, "idx": i} for i in range(12)]
    mnli = Path("hub/datasets/nyu-mll/glue/mnli")
    mnli.mkdir(parents=True)
    for split in ("train", "validation_matched"):
        pl.DataFrame(pairs).write_parquet(mnli / f"{split}-00000-of-00001.parquet")
    if page.name in KEPT:
        task, teacher = KEPT[page.name]
        labels = ("bad", "good")
        with TeacherFolder.open(Path("data") / task, make_manifest(teacher, task=task, labels=labels)) as folder:
            for split, first in (("train", 0), ("validation", 20), ("test", 30)):
                folder.append(split, make_rows(*range(first, first + 10)))
            folder.seal()


def adapt(command: Command, server: FaultServer) -> list[str]:
    """The words of a command, with the endpoint on loopback in the place of any other, and a user of its hub."""
    words = [re.sub(r"\bOWNER\b", "me", word) for word in command.words]
    if "--endpoint" in words:
        words[words.index("--endpoint") + 1] = server.url
        words += PRICES
    return words


def run(block: Block, server: FaultServer, names: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    """Run a block: Python as it stands, of a shell its commands; the file that `# NAME` begins is written."""
    if block.is_python:
        shell = {command.line for command in block.list_commands()}
        text = "\n".join(line for line in block.lines if line.strip() not in shell)
        exec(compile(text, f"{block.page.name}:{block.number}", "exec"), names)
    elif block.list_run() and (name := re.fullmatch(r"# (\w+\.yaml)", block.lines[0])):
        Path(name[1]).write_text("\n".join(block.lines).partition("\n\n")[0])
    for command in block.list_run():
        program, *arguments = adapt(command, server)
        if program == "export":
            command = Command(dict(one.split("=", 1) for one in arguments), "")
        for variable, value in command.settings.items():
            if variable != "HF_TOKEN":  # the loopback hub's own stands
                patch.setenv(variable, value.replace("...", KEY))
        if program in APPS:
            done = CliRunner().invoke(APPS[program], arguments)
            assert done.exit_code == 0, f"{block.page.name}:{block.number}: {command.line}\n{done.output}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MY_KEY", KEY)
    with FaultServer(answer=answer) as server:
        yield server


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(
    page: Path, server: FaultServer, loopback_hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stand_ins(page)
    if page.name != "sharing.md":
        monkeypatch.setenv("HARVEST_DISTILL_HUB", "hub")
    names: dict[str, Any] = {}
    for block in read_blocks(page):
        if not block.is_left_out():
            run(block, server, names, monkeypatch)
