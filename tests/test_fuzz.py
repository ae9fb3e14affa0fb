"""Commands with inputs that nobody meant: whatever they are given, they end with a message and a code of their own."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from distill.cli import app as distill_app
from harvest.cli import app as harvest_app
from pipelines.cli import app as pipeline_app
from shared.shards import TeacherFolder
from tests.shared.shards.shard_rows import make_manifest, make_rows

APPS = {"harvest": harvest_app, "distill": distill_app, "pipeline": pipeline_app}
ESCAPES = "\x1b]0;title\x07\x1b[2J\u202e"
# The same examples in every run: a change is not refused for what it did not touch. Without `derandomize`, others.
FEW = settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=1500)

FILES: dict[str, bytes] = {
    "empty.csv": b"",
    "cut.csv": b'text,label\n"a,1\n',
    "fine.csv": b"text,label\na,1\nb,0\nc,1\n",
    "bytes.csv": bytes(range(256)),
    "bytes.parquet": b"PAR1" + bytes(range(256)) + b"PAR1",
    "deep.json": b"[" * 100_000,
    "deep.jsonl": b'{"text": ' + b"[" * 5000 + b"]" * 5000 + b"}\n",
    "nan.jsonl": b'{"text": NaN, "label": Infinity}\n',
    "list.yaml": b"- a\n- b\n",
    "deep.yaml": b"[" * 3000,
    "tag.yaml": b"!!python/object/apply:os.system [true]\n",
    "cut.yaml": b"harvest: {task: [\n",
    "other.yaml": b"harvest: 3\ncompare: [1]\n",
    "wrong.yaml": b"harvest: {task: fine.csv, teacher: endpoint, endpoint: 5, model: {}}\ncompare: {student: 3}\n",
    "utf16.yaml": "harvest: {}".encode("utf-16"),
    "bomb.csv.gz": b"\x1f\x8b\x08\x00not a gzip",
    f"{ESCAPES}.csv": b"text,label\na\n",
    "[bold]/[/x].csv": b"text\na\n",
    "run/metrics.json": b'{"config": 3, "shards": []}',
    "student/config.json": b'{"model_type": "bert", "vocab_size": "many"}',
    "nested/config.json": b"[" * 50_000,
}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, of files and folders that are not what they seem."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    hostile = make_manifest(task=f"t{ESCAPES}", labels=(f"a{ESCAPES}", "[/b]"), source=f"s{ESCAPES}")
    with TeacherFolder.open(folder / "data" / "films", hostile) as writer:
        writer.append("train", make_rows(0, 1, reply=f"[/]{ESCAPES}", error=f"e{ESCAPES}", raw=b"\x1b[2J"))
        writer.seal()
        writer.append("train", make_rows(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_HUB_OFFLINE", "1")  # nobody waits for a hub that does not answer
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):  # nor for a store
            patch.setenv(name, "loopback")
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        yield folder


PLACES = st.sampled_from([*FILES, ".", "data", "data/films", "data/films/teacher=tiny", "run", "student", "nested"])
PLACES |= st.sampled_from(
    ["none", "/dev/null", "loop", "", "\0", "a" * 5000, "~nobody/x", "hf://x", "pkg://x", "s3://b/c"]
)
PLACES |= st.text(max_size=20)
NUMBERS = st.sampled_from(["0", "-1", "1e9", "nan", "1/0", "x", "9" * 30]) | st.text(max_size=5)


def make_commands() -> st.SearchStrategy[list[str]]:
    """Lists of arguments, the program's name first; none asks, downloads or trains for long."""
    one = PLACES.map(lambda place: [place])
    tables = st.tuples(PLACES, PLACES, PLACES).map(
        lambda p: ["--task", p[0], "--text-column", p[1], "--label-column", p[2]]
    )
    asked = st.tuples(tables, PLACES, NUMBERS).map(
        lambda t: ["--teacher", "endpoint", "--endpoint", t[1], "--model", "m", *t[0], "--limit", t[2]]
    )
    bodies = st.sampled_from(["{", "[]", '{"a": NaN}', "[" * 9000, '{"a": ' * 3000]) | st.text(max_size=9)
    built = bodies.map(
        lambda b: [
            "--teacher",
            "endpoint",
            "--endpoint",
            "http://h/v1",
            "--model",
            "m",
            "--task",
            "fine.csv",
            "--body",
            b,
        ]
    )
    shown = st.tuples(one, NUMBERS, PLACES).map(lambda t: [*t[0], "--rows", t[1], "--split", t[2]])
    trained = st.tuples(PLACES, PLACES, NUMBERS).map(
        lambda t: ["--shards", t[0], "--student", t[1], "--epochs", t[2], "--out", "runs"]
    )
    choices = {
        "harvest status": one,
        "harvest verify": one,
        "harvest reparse": one,
        "harvest show": one | shown,
        "harvest view": one,
        "harvest plan": asked | built,
        "harvest nonsense": one,
        "distill run": trained,
        "distill eval": one,
        "distill export": st.tuples(PLACES, st.just("fine.csv/x")).map(list),
        "distill compare": one,
        "pipeline run": one.map(lambda a: [*a, "--plan"]),
    }
    begun = [st.tuples(st.just(command.split()), arguments) for command, arguments in choices.items()]
    return st.one_of(begun).map(lambda parts: [*parts[0], *parts[1]])


def check_ends_well(arguments: list[str]) -> None:
    """Run a command in this process; fail unless it ends with a code of DESIGN's and with words that can be printed."""
    program, *rest = arguments
    result = CliRunner().invoke(APPS[program], rest)
    assert result.exception is None or isinstance(result.exception, SystemExit), (arguments, repr(result.exception))
    assert result.exit_code in (0, 1, 2), arguments
    assert "Traceback" not in result.output, arguments
    assert "defect of harvest-distill" not in result.output, (arguments, result.output)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", result.output), (arguments, result.output)


@FEW
@given(make_commands())
def test_a_command_ends_with_a_message_whatever_it_is_given(arguments: list[str]) -> None:
    check_ends_well(arguments)


@pytest.mark.real
@MANY
@given(make_commands())
def test_many_commands_end_with_a_message_whatever_they_are_given(arguments: list[str]) -> None:
    check_ends_well(arguments)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@FEW
@given(st.data())
def test_a_manifest_with_a_field_of_any_kind_is_read_or_refused(data: st.DataObject) -> None:
    path = Path("data/films/teacher=tiny/manifest.json")
    content = path.read_text()
    changed: dict[str, Any] = json.loads(content)
    place: Any = data.draw(st.sampled_from([changed, changed["shards"][0], changed["superseded"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    try:
        path.write_text(json.dumps(changed))
        for command in ("status", "verify", "show"):
            check_ends_well(["harvest", command, "data/films"])
    finally:
        path.write_text(content)
