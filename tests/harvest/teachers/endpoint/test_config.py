import json
from dataclasses import replace
from typing import Any

import pytest

from harvest.config import make_harvest_config
from harvest.teachers.endpoint import EndpointTeacher
from harvest.teachers.endpoint.config import EndpointConfig, normalise_url
from harvest.teachers.endpoint.secret import NO_SECRET, Secret, read_secret
from shared.errors import UsageError
from shared.secrets import REDACTED
from tests.harvest.teachers.endpoint.endpoint_runs import TASK, make_examples, make_teacher, run_all

CANARY = "sk-canary-0123456789abcdef"


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://API.OpenAI.com/v1/", "https://api.openai.com/v1"),
        ("https://api.openai.com:443/v1", "https://api.openai.com/v1"),
        ("http://localhost:8000/v1/chat/completions", "http://localhost:8000/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        (
            "https://x.azure.com/openai/v1?api-version=2025-01-01",
            "https://x.azure.com/openai/v1?api-version=2025-01-01",
        ),
        (" https://h/v1#part ", "https://h/v1"),
    ],
)
def test_equal_endpoints_have_equal_urls(url: str, normal: str) -> None:
    assert normalise_url(url) == normal == normalise_url(normal)


@pytest.mark.parametrize("url", ["ftp://h/v1", "localhost:8000", "h", "http://", "http://h:port/v1", ""])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        normalise_url(url)


@pytest.mark.parametrize(
    "url",
    [
        f"https://me:{CANARY}@h/v1",
        f"https://{CANARY}@h/v1",
        f"https://h/v1?api_key={CANARY}",
        "https://h/v1?x-signature=0123",
        f"https://h/{CANARY}/v1",
        f"https://h/v1?what={CANARY.replace('-', '%2d')}",
        "me:short-password@h/v1",
    ],
)
def test_a_key_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as refusal:
        EndpointTeacher(EndpointConfig((url,), "m"), TASK)
    assert CANARY not in str(refusal.value)
    assert "short-password" not in str(refusal.value)
    assert "--api-key-env" in str(refusal.value)


PLACES: dict[str, Any] = {
    "model": "CANARY",
    "body": {"metadata": [{"x": "as CANARY says"}]},
    "dialect": "CANARY",
    "question": "Is it good? CANARY",
    "label_words": "bad,CANARY",
    "name": "CANARY",
    "out": "data/CANARY",
    "api_key_env": "CANARY",
    "concurrency": "CANARY",
    "task": "CANARY.csv",
}


@pytest.mark.parametrize("secret", [CANARY, "plain0123words", "hf_" + "aB3" * 11])
@pytest.mark.parametrize("place", PLACES)
def test_a_key_in_another_place_is_refused_and_not_repeated(
    place: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_VARIABLE", secret)
    options = {"task": "rte", "teacher": "endpoint", "endpoint": "http://h/v1", "model": "m"}
    options |= {"api_key_env": "SOME_VARIABLE"} | {
        place: json.loads(json.dumps(PLACES[place]).replace("CANARY", secret))
    }
    if place == "api_key_env" and secret == "plain0123words":  # a name like any other: it is looked for, and not shown
        with pytest.raises(UsageError, match="which is not set") as refusal:
            read_secret(secret)
    else:
        with pytest.raises(UsageError, match="API key") as refusal:
            make_harvest_config(options)
    assert secret not in str(refusal.value)


def test_a_key_in_a_task_or_in_a_name_reaches_no_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_VARIABLE", "plain0123words")
    config = EndpointConfig(("http://h/v1",), "m", api_key_env="SOME_VARIABLE")
    for task, name in ((replace(TASK, question="plain0123words?"), "n"), (TASK, "plain0123words")):
        with pytest.raises(UsageError, match="API key") as refusal:
            EndpointTeacher(config, task, name=name)
        assert "plain0123words" not in str(refusal.value)


@pytest.mark.parametrize("proxy", ["http://me:pass-word-1@h:port", "me:pass-word-1@h:1", "http://me:pass-word-1@h:1"])
def test_a_password_of_a_proxy_is_not_repeated(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    try:
        (reply,) = run_all(make_teacher("http://elsewhere/v1", attempts=1), make_examples(1))
        said = str(reply.answer.error)
    except UsageError as error:
        said = str(error)
    assert said
    assert "pass-word-1" not in said


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"model": ""}, "--model"),
        ({"dialect": "klingon"}, "--dialect"),
        ({"scoring": "guess"}, "--scoring"),
        ({"scoring": "words", "dialect": "openai"}, "first tokens only, llama.cpp's server alone whole words"),
        (
            {"scoring": "words", "endpoint": ("https://api.openai.com/v1",)},
            "the dialect openai scores first tokens only",
        ),
        ({"scoring": "words", "draw": "fields"}, "asks in writing"),
        ({"concurrency": 0}, "concurrency is 0; it must be at least 1"),
        ({"max_cost": -1.0}, "max_cost is -1.0; it must be more than 0"),
        ({"max_cost": float("inf")}, "max_cost is inf; it must be a finite number"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"body": {"x": float("nan")}}, "--body cannot be written as JSON"),
        ({"body": {"x": "\ud800"}}, "--body cannot be written as JSON"),
        ({"rpm": float("nan")}, "rpm is nan"),
        ({"body": {"messages": []}}, "messages"),
        ({"body": {"stream": True}}, "stream"),
    ],
)
def test_values_that_cannot_be_meant_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        EndpointConfig(**{"endpoint": ("http://h/v1",), "model": "m", **options})  # type: ignore[arg-type]


def test_a_key_is_read_by_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", f" {CANARY}\n")
    assert read_secret("SOME_KEY").value == CANARY
    assert read_secret(None) is NO_SECRET


@pytest.mark.parametrize("value", [None, "", "  ", "kéy-with-accents", "two\nlines"])
def test_a_key_that_is_missing_or_cannot_be_sent_is_refused(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("SOME_KEY", value)
    with pytest.raises(UsageError, match="SOME_KEY") as refusal:
        read_secret("SOME_KEY")
    assert not value or not value.strip() or value not in str(refusal.value)


def test_a_secret_does_not_show() -> None:
    secret = Secret(CANARY, "SOME_KEY")
    assert CANARY not in repr(secret)
    assert CANARY not in f"{secret}"
    assert secret.clean(f"key {CANARY}!") == f"key {REDACTED}!"
    assert secret.clean_bytes(f"key {CANARY}!".encode()) == f"key {REDACTED}!".encode()


def test_a_dummy_key_of_a_local_server_leaves_text_alone() -> None:
    assert Secret("EMPTY").clean("an EMPTY box") == "an EMPTY box"
    assert NO_SECRET.clean_bytes(b"anything") == b"anything"
