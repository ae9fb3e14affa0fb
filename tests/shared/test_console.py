"""Progress and messages where there is no terminal, and exit codes."""

import errno
import json
import lzma
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pytest
import typer
from rich.table import Table
from typer.testing import CliRunner

from shared import console
from shared.errors import DataError, MissingExtraError, StoppedError, UsageError, require_extra
from shared.printed_tables import print_table
from shared.signals import ENDING

HOSTILE = "\x1b]0;title\x07 \x1b[2J \x9b31m \u202eabc \x00 \udcff \r fine"


def test_progress_is_plain_lines_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "PLAIN_LINE_SECONDS", 0.0)
    with console.track("asking", 10) as tracker:
        tracker.advance(1)
        tracker.advance(4, "2 failed")
        tracker.advance(5)
    out, err = capsys.readouterr()
    assert out == ""
    first, second, *_ = err.splitlines()
    assert first == "asking: 1/10 in 0 s"  # what it took until then may have been the loading of a model
    assert second.startswith("asking: 5/10 in 0 s, 0 s left")
    assert second.endswith("2 failed")
    assert err.splitlines()[-1] == "asking: 10/10 in 0 s"


def test_json_is_one_object_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("[red]not markup[/]")
    console.print_json({"rows": 1})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"rows": 1}
    assert err == "[red]not markup[/]\n"


@pytest.mark.parametrize("told", ENDING)
def test_a_signal_to_end_interrupts_a_command(told: signal.Signals) -> None:
    app = typer.Typer()

    @app.command()
    @console.command
    def work(word: str = "x") -> None:
        os.kill(os.getpid(), told)
        time.sleep(10)

    before = signal.getsignal(told)
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 130
    assert "the same command goes on" in result.output
    assert signal.getsignal(told) == before


@pytest.mark.parametrize("stage", ["harvest", "distill", "pipelines"])
def test_a_command_says_its_version(stage: str) -> None:
    result = CliRunner().invoke(import_module(f"{stage}.cli").app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"harvest-distill {version('harvest-distill')}\n")


def test_a_missing_extra_is_named_with_the_way_to_get_it() -> None:
    require_extra("distill", "json", "sys")
    with pytest.raises(MissingExtraError, match=r"needs no_such_module, .* pip install 'harvest-distill\[vllm\]'"):
        require_extra("vllm", "json", "no_such_module")


def test_nothing_that_steers_a_terminal_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("a", HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE, "b")
    print_table(table)
    console.results.print(HOSTILE, markup=False)
    console.say(HOSTILE)
    console.fail(DataError(HOSTILE))
    with console.track(HOSTILE, 2) as tracker:
        tracker.advance(2, HOSTILE)
    printed = "".join(capsys.readouterr())
    assert [c for c in printed if not (c.isprintable() or c in "\n\t")] == []
    assert printed.count("\\x1b[2J") == 8
    assert printed.count("fine") == 8


@pytest.mark.parametrize("columns", [None, "30", "120"])
def test_a_table_is_whole_and_no_wider_than_there_is_room(
    columns: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    wide = Table(*("a heading of some words" for _ in range(8)), title="data/films/teacher=endpoint")
    wide.add_row(*(f"a cell of some more words {number}" for number in range(8)))
    narrow = Table("variant", "against plain fine-tuning", title="films")
    narrow.add_row("distilled", "+0.012")
    print_table(wide)
    print_table(narrow)
    printed = capsys.readouterr().out
    words = " ".join(printed.split())
    assert all(f"heading of some words: a cell of some more words {number}" in words for number in range(1, 8))
    assert "data/films/teacher=endpoint" in printed
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= int(columns or 80)
    (row,) = (line for line in printed.splitlines() if "distilled" in line)
    assert row.split() == ["distilled", "+0.012"], "a row is a line, where its columns have room"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("row 3"), 1, "row 3"),
        (UsageError("no such option"), 2, "no such option"),
        (StoppedError("its checkpoint is kept"), 75, "its checkpoint is kept"),
        (KeyboardInterrupt(), 130, "the same command goes on"),
        (OSError(28, "No space left on device", "runs/x"), 1, "runs/x: No space left on device"),
        (OSError(errno.ENFILE, "Too many open files in system"), 1, "ulimit -n"),
        (lzma.LZMAError("Corrupt input data"), 1, "an archive cannot be read"),
        (PermissionError(13, "Permission denied", "out"), 1, "mend its permissions"),
        (pa.ArrowInvalid("not a Parquet file"), 1, "a Parquet or Arrow file"),
        (RecursionError("maximum depth"), 2, "nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 1, "save the file as UTF-8"),
        (MemoryError(), 1, "memory ran out"),
        (BrokenPipeError(), 1, "ended before the command did"),
        (KeyError("x"), 1, "this is a defect of harvest-distill"),
    ],
)
def test_any_exception_becomes_a_message_and_an_exit_code(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    app = typer.Typer()

    @app.command()
    @console.command
    def fail(word: str = "x") -> None:
        raise error

    result = CliRunner().invoke(app, [])
    assert result.exit_code == code
    assert said in " ".join(result.output.split())
    assert "Traceback" not in result.output
    kept = list(tmp_path.glob("harvest-distill-*.txt"))
    assert len(kept) == isinstance(error, KeyError), "a defect's traceback is in a file to be sent along"
    assert all("Traceback" in path.read_text() for path in kept)


def test_what_costs_nothing_shows_no_dollars() -> None:
    shown = [console.show_cost(cost) for cost in (None, 0.0, 0.00002, 0.01234)]
    assert shown == ["unknown dollars", "no cost", "less than $0.0001", "$0.0123"]


def test_where_nothing_can_be_printed_any_more_what_is_done_goes_on() -> None:
    with suppress(OSError), Path("/dev/full").open("w") as full:  # closed, it would still write the line
        log = console.SafeConsole(file=full)
        log.print("a line of a log on a disk that is full")
        log.print("another")
    assert isinstance(log.broken, OSError)
    assert log.broken.errno == errno.ENOSPC


def test_a_key_is_hidden_in_what_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_API_KEY", "0123456789-plain-words")
    said = "0123456789-plain-words, sk-canary-0123456789abcdef, http://me:word@h/"
    console.fail(DataError(said))
    console.say(said)
    assert capsys.readouterr().err.count("[redacted]") == 6


RUN = "import typer\nfrom shared import console\napp = typer.Typer()\n"
BODIES = {
    "ascii": "console.results.print('caf\\u00e9 \\u4e2d', markup=False)",
    "closed": "import time; time.sleep(.3); [console.results.print('x' * 1000) for _ in range(1000)]",
    "usage": "raise typer.BadParameter('\\x1b[2J sk-canary-0123456789abcdef')",
}


@pytest.mark.parametrize(("body", "code"), [("ascii", 0), ("closed", 1), ("usage", 2)])
def test_a_command_ends_well_whatever_reads_it(body: str, code: int, tmp_path: Path) -> None:
    script = f"{RUN}@app.command()\n@console.command\ndef run() -> None:\n    {BODIES[body]}\nconsole.run_app(app)\n"
    with (tmp_path / "said").open("wb") as said:
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=environment) as process:
            assert process.stdout is not None
            if body == "closed":
                process.stdout.close()
            out = b"" if body == "closed" else process.stdout.read()
            assert process.wait() == code
    err = (tmp_path / "said").read_bytes()
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err
    assert b"\x1b[2J" not in err
    assert b"canary" not in err
    assert body != "ascii" or out == b"caf\\xe9 \\u4e2d\n"
    assert body != "closed" or b"ended before the command did" in err
