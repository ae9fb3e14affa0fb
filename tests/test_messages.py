"""What is said about frequent mistakes at the keyboard, and the page that shows it.

`python -m tests.test_messages` writes docs/messages.md again from the table below.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from shared.console import run_app
from shared.schema import Status
from shared.shards.folder import TeacherFolder
from shared.shards.manifest import Manifest
from tests.distill.conftest import tiny_student as tiny_student
from tests.distill.distill_rows import make_rows, with_answer
from tests.harvest.fault_server import FaultServer

PAGE = Path(__file__).parents[1] / "docs" / "messages.md"
APPS = {"harvest": "harvest.cli", "distill": "distill.cli", "pipeline": "pipelines.cli"}
KEY = "sk-0123456789abcdefghijklmnop"


@dataclass(frozen=True)
class Mistake:
    """A mistake, the command line that makes it, what must be said, and the exit code."""

    what: str
    line: str
    said: str
    code: int = 2


READER = "harvest run --teacher reader --task"
ASK = "harvest run --teacher endpoint --model m --task reviews.csv --endpoint"
TRAIN = "distill run --shards data/toy"
COMPARE = "distill compare --shards data/toy"
RECIPE = "pipeline run"

MISTAKES = (
    Mistake("a command", "harvest rnu", "harvest has no command rnu; did you mean run?"),
    Mistake("an option of all", f"{READER} reviews.csv --limt 3", "has no option --limt (did you mean --limit?)"),
    Mistake("an option of another teacher", f"{READER} reviews.csv --rpm 3", "no option --rpm; endpoint has one"),
    Mistake("an option that is missing", "harvest run --teacher reader", "harvest run needs --task"),
    Mistake("no value", "harvest show data/toy --rows", "--rows needs a value behind it"),
    Mistake("a word for a number", "harvest show data/toy --rows few", "harvest show: --rows: give a whole number"),
    Mistake("the teacher", f"{READER.replace('reader', 'redaer')} reviews.csv", "did you mean reader?"),
    Mistake(
        "a provider as teacher",
        f"{READER.replace('reader', 'openai')} reviews.csv",
        "an API is asked with --teacher endpoint --endpoint URL --model NAME",
    ),
    Mistake("the task", f"{READER} rotten_tomatos", "did you mean rotten_tomatoes or rotten_tomatoes_text?"),
    Mistake("the path of a file", f"{READER} review.csv", "there is no file review.csv (looked in", 1),
    Mistake("no column named", f"{READER} three.csv", "it has: a, b, c. The option is --text-column"),
    Mistake(
        "the text's column",
        f"{READER} films.csv --text-column texts --label-column stars",
        "films.csv has no column 'texts'; did you mean text? it has: text, stars",
        1,
    ),
    Mistake(
        "the label's column",
        f"{READER} films.csv --text-column text --label-column star",
        "films.csv has no column 'star'; did you mean stars? it has: text, stars",
        1,
    ),
    Mistake(
        "a label",
        f"{READER} reviews.csv --labels good,bda",
        "reviews.csv, row 1: the label is not one of good, bda: 'bad'",
        1,
    ),
    Mistake(
        "lists of labels",
        f"{READER} genres.csv --text-column text --label-column genres",
        "the column 'genres' holds lists",
        1,
    ),
    Mistake(
        "a scoring of listed labels",
        f"{ASK} http://h/v1 --scoring votes".replace("reviews.csv", "genres.csv --label-column genres --multilabel"),
        "--scoring votes does not fit the multilabel task genres",
    ),
    Mistake("label words", f"{READER} reviews.csv --label-words good", "label words must be two or more"),
    Mistake("a split", f"{READER} reviews.csv --split tset", "did you mean test? it has: train, validation, test"),
    Mistake("a limit", f"{READER} reviews.csv --limit some", "give a number of rows, or split=number: train=2000"),
    Mistake("a status", f"{READER} reviews.csv --retry refusd", "did you mean refused?"),
    Mistake("a share", f"{READER} reviews.csv --worker 3", "give K/N, the Kth of N workers: 3/8"),
    Mistake("a file for a folder", f"{READER} reviews.csv --out films.csv", "give another path: there is a file", 1),
    Mistake(
        "a model that is not here, offline",
        "harvest run --teacher encoder --model org/nothing --task reviews.csv",
        "Where there is a network, run: hf download org/nothing",
        1,
    ),
    Mistake(
        "the path of a model",
        "harvest run --teacher encoder --model ./nothing --task reviews.csv",
        "there is no model at ./nothing: no such path; give a folder that holds config.json",
        1,
    ),
    Mistake("a URL without http", f"{ASK} localhost:8000", "a base URL looks like https://api.openai.com/v1"),
    Mistake("a port", f"{ASK} http://127.0.0.1:99999/v1", "a port or an address in it is malformed"),
    Mistake("a closed port", f"{ASK} http://127.0.0.1:9/v1", "nobody listens there: is the server running", 1),
    Mistake("a path of the URL", f"{ASK} {{well}}/chat", "HTTP 404", 1),
    Mistake("no key", f"{ASK} https://api.openai.com/v1", "run: export OPENAI_API_KEY=..."),
    Mistake("the key itself", f"{ASK} http://h/v1 --api-key-env {KEY}", "Put the key into an environment variable"),
    Mistake(
        "a key that is refused",
        f"{ASK} {{refused}} {{known}}",
        "no key was sent, for none is known for that host: --api-key-env",
        1,
    ),
    Mistake("a model that is not there", f"{ASK} {{absent}} {{known}} --name b", "HTTP 404", 1),
    Mistake("too many requests", f"{ASK} {{busy}} {{known}} --name c --patience 0.1", "HTTP 429", 1),
    Mistake("the scoring", f"{ASK} http://h/v1 --scoring vote", "did you mean votes?"),
    Mistake("the dialect", f"{ASK} http://h/v1 --dialect opnai", "did you mean openai?"),
    Mistake("a cap without a price", f"{ASK} http://h/v1 --max-cost 1", "give --price-in and --price-out"),
    Mistake("a folder of shards", "harvest status nowhere", "nowhere holds no teacher's answers", 1),
    Mistake("a split of shards", "harvest show data/toy --split trian", "did you mean train?"),
    Mistake(
        "a teacher of shards", "harvest show data/toy --teacher x", "holds no answers of teacher 'x'; it has: t", 1
    ),
    Mistake("a key of a config", "harvest run --config config.yaml", "run has no option limt; did you mean limit?"),
    Mistake("no config", "distill run --config no.yaml", "there is no config no.yaml"),
    Mistake("no shards", "distill run", "distill run needs --shards"),
    Mistake("the wrong folder", "distill run --shards data", "data holds no teacher's answers", 1),
    Mistake("another teacher", f"{TRAIN} --teacher u", "data/toy holds no answers of teacher 'u'; it has: t", 1),
    Mistake("an option", f"{TRAIN} --epoch 2", "distill run has no option --epoch; did you mean --epochs?"),
    Mistake("a number out of its bounds", f"{TRAIN} --epochs 0", "--epochs is 0; it must be at least 1"),
    Mistake("the loss", f"{TRAIN} --loss cosin", "did you mean cosine?"),
    Mistake("the control", f"{TRAIN} --control shufled", "did you mean shuffled-teacher?"),
    Mistake("the preset", f"{TRAIN} --preset armda", "did you mean armada?"),
    Mistake("what is learnt", f"{TRAIN} --learn rply", "did you mean reply?"),
    Mistake("the decoding", f"{TRAIN} --decoding gredy", "did you mean greedy?"),
    Mistake("memory", f"{TRAIN} --buffer-bytes lots", "give bytes: 512MB, 2GB, 1GiB"),
    Mistake("the device", f"{TRAIN} --device cudda", "give auto, cpu, cuda or cuda:0"),
    Mistake("a tracker", f"{TRAIN} --tracker tensorbord", "did you mean tensorboard?"),
    Mistake("the student", f"{TRAIN} --student org/nothing", "run: hf download org/nothing", 1),
    Mistake("the student's path", f"{TRAIN} --student ./nothing", "there is no model at ./nothing", 1),
    Mistake("the run's name", f"{TRAIN} --name a/b", "use letters, digits and . _ + - only"),
    Mistake("no run", "distill eval runs/b", "is not a finished run"),
    Mistake("where cells are trained", f"{COMPARE} --on slurm", "cells are trained on ray, or on ray://HOST:10001"),
    Mistake("a cluster", f"{COMPARE} --on ray://127.0.0.1:9", "no Ray cluster can be reached there", 1),
    Mistake("what a cell has", f"{COMPARE} --on ray --per-cell gpu=1", "per_cell gpu=1: did you mean gpus?"),
    Mistake("the GPUs of a cell", f"{COMPARE} --on ray --per-cell gpus=2", "computes on one GPU at most"),
    Mistake("no cluster for it", f"{COMPARE} --per-cell gpus=1", "give --on ray, too. On this machine --workers"),
    Mistake("no plan", "distill compare plan.yaml", "there is no plan plan.yaml"),
    Mistake("no recipe", f"{RECIPE} no.yaml", "there is no recipe no.yaml"),
    Mistake("a file that is none", f"{RECIPE} reviews.csv", "reviews.csv is not a recipe: it has no keys"),
    Mistake("a key of a recipe", f"{RECIPE} key.yaml", "key.yaml has no key harvst; did you mean harvest?"),
    Mistake("an option of its harvest", f"{RECIPE} harvest.yaml", "reader has no option limt (did you mean limit?)"),
    Mistake("an option of its students", f"{RECIPE} student.yaml", "has no option epoch; did you mean epochs?"),
    Mistake("an assignment", f"{RECIPE} good.yaml --set epochs", "--set epochs: give NAME=VALUE"),
)

GOOD = "name: x\nharvest: {task: reviews.csv, teacher: reader}\ncompare: {seeds: [0, 1]}\n"
FILES = {
    "reviews.csv": "text,label\n" + "good film,good\nbad film,bad\n" * 10,
    "films.csv": "text,stars\ngood film,good\nbad film,bad\n",
    "genres.csv": "text,genres\ngood film,\"['drama', 'war']\"\nbad film,['war']\n",
    "three.csv": "a,b,c\ngood film,good,x\nbad film,bad,y\n",
    "good.yaml": GOOD,
    "config.yaml": "teacher: reader\ntask: reviews.csv\nlimt: 3\n",
    "key.yaml": GOOD.replace("harvest", "harvst"),
    "harvest.yaml": GOOD.replace("reader}", "reader, limt: 3}"),
    "student.yaml": GOOD.replace("1]}", "1], common: {epoch: 1}}"),
}
REFUSALS = {"refused": "401", "absent": "404", "busy": "429"}
KNOWN = "--dialect openai --scoring top_logprobs"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files, recipes and a teacher's answers."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    manifest = Manifest(
        task="toy",
        teacher="t",
        kind="classification",
        labels=("bad", "good"),
        metric="accuracy",
        recipe={"teacher": "t"},
        source="made by the test",
    )
    with TeacherFolder.open(folder / "data" / "toy", manifest) as opened:
        opened.append("train", make_rows(30))
        opened.append("validation", [with_answer(r, status=Status.UNASKED, embedding=None) for r in make_rows(9, 1)])
    return folder


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    """Endpoints: one that answers, and one for each refusal."""
    with ExitStack() as stack:
        refusing = {name: FaultServer({status: 1000}, seed=0) for name, status in REFUSALS.items()}
        servers = {"well": FaultServer(seed=0), **refusing}
        yield {name: stack.enter_context(server).url for name, server in servers.items()}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what)
def test_a_mistake_is_told_in_words(
    mistake: Mistake,
    place: Path,
    urls: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    words = mistake.line.format(**urls, known=KNOWN).split()
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        run_app(import_module(APPS[words[0]]).app)
    out, err = capsys.readouterr()
    said = " ".join((out + err).split())
    assert mistake.said in said
    assert ended.value.code == mistake.code
    for internal in ("Traceback", "[Errno", "Value error", "Error:", "defect of harvest-distill", KEY):
        assert internal not in said


def make_page() -> str:
    """Write the table of mistakes as docs/messages.md."""
    shown = dict.fromkeys(("well", *REFUSALS), "URL") | {"known": KNOWN}
    lines = [" ".join(one.line.format(**shown).split()).replace(KEY, "sk-...") for one in MISTAKES]
    rows = [f"| {one.what} | `{line}` | {one.said} | {one.code} |" for one, line in zip(MISTAKES, lines, strict=True)]
    return "\n".join(
        [
            "# What is said about mistakes",
            "",
            "What a command says about frequent mistakes, in part, and its exit code. The page is made from the table",
            "in `tests/test_messages.py::test_a_mistake_is_told_in_words`, which makes each of them.",
            "",
            "| what is wrong | typed | said | exit code |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def test_the_page_shows_the_table() -> None:
    assert PAGE.read_text() == make_page(), "write it again: python -m tests.test_messages"


if __name__ == "__main__":
    PAGE.write_text(make_page())
