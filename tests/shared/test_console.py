"""Progress and messages where there is no terminal, and exit codes."""

import json
import os
import signal
import time

import pytest
import typer
from typer.testing import CliRunner

from shared import console
from shared.errors import DataError, MissingExtraError, StoppedError, UsageError, require_extra
from shared.signals import ENDING


def test_progress_is_plain_lines_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "PLAIN_LINE_SECONDS", 0.0)
    with console.track("asking", 10) as tracker:
        tracker.advance(4, "2 failed")
        tracker.advance(6)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0].startswith("asking: 4/10 in 0 s, 0 s left")
    assert err.splitlines()[0].endswith("2 failed")
    assert err.splitlines()[-1] == "asking: 10/10 in 0 s"


def test_json_is_one_object_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("[red]not markup[/]")
    console.print_json({"rows": 1})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"rows": 1}
    assert err == "[red]not markup[/]\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("row 3"), 1),
        (UsageError("no such option"), 2),
        (StoppedError("its checkpoint is kept"), 75),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_a_message_and_an_exit_code(error: BaseException, code: int) -> None:
    app = typer.Typer()

    @app.command()
    @console.command
    def fail(word: str = "x") -> None:
        raise error

    result = CliRunner().invoke(app, [])
    assert result.exit_code == code
    assert "Traceback" not in result.output


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


def test_a_missing_extra_is_named_with_the_way_to_get_it() -> None:
    require_extra("distill", "json", "sys")
    with pytest.raises(MissingExtraError, match=r"needs no_such_module, .* pip install 'harvest-distill\[vllm\]'"):
        require_extra("vllm", "json", "no_such_module")
