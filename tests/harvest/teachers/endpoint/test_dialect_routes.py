"""Each dialect at a server that takes, gives and refuses what the provider's description says, and nothing else."""

import asyncio
import logging
import math
from typing import Any

import pytest

from harvest.chat.dialects import DIALECTS, Scoring
from harvest.chat.reply import Form, parse
from harvest.chat.scoring import LabelWords
from harvest.teachers.base import Reply
from harvest.teachers.endpoint import EndpointTeacher
from shared.errors import TeacherError
from shared.example import Example
from shared.schema import Status
from shared.tasks import Task
from tests.harvest.dialect_servers import CONTENT, KEY, LONG, NEGATIVE, POSITIVE, PROVIDERS, SPENT, Provider
from tests.harvest.fault_server import WORDS, FaultServer
from tests.harvest.spellings import list_halves
from tests.harvest.teachers.endpoint.endpoint_runs import TASK, make_teacher, run_all

WRITTEN = Task("say", "generation", (), question="Say it again.")
DISTRIBUTIONS = {"top_logprobs": [NEGATIVE, POSITIVE], "choice": [0.0, 1.0], "votes": [0.0, 1.0]}
FINE = Example("0", "a fine film")


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_asks_reads_and_is_refused_as_its_provider_says(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CANARY_KEY", KEY)
    provider = PROVIDERS[name]
    options = {"dialect": name, "api_key_env": "CANARY_KEY", "votes": 3, "price_in": 1.0, "price_out": 2.0}
    with provider.serve() as server, caplog.at_level(logging.DEBUG):
        url = provider.make_url(server)
        teacher = make_teacher(url, TASK, scoring="auto", **options)
        asyncio.run(teacher.probe(FINE, print))
        replies = check_answers(name, provider, teacher)
        said = check_spent(provider, teacher)
        check_fields(provider, url, server, options)
    printed = capsys.readouterr()
    assert "answers with the model" not in printed.err
    for text in (said, printed.out, printed.err, caplog.text, *(repr(reply.answer) for reply in replies)):
        assert not [half for half in list_halves(KEY) if half in text.encode("utf-8", "replace")]


def check_answers(name: str, provider: Provider, teacher: EndpointTeacher) -> list[Reply]:
    """An answer has its labels and its bill, and a refused one says why."""
    refused = [Example(text, text) for text in (CONTENT, LONG) if text in provider.refusals]
    replies = run_all(teacher, [FINE, *refused])
    answers = {reply.request.example.text: reply.answer for reply in replies}
    answer = answers.pop(FINE.text)
    assert teacher.recipe()["scoring"]["mode"] == provider.mode
    assert answer.status is Status.OK
    told = [math.exp(value) for value in answer.label_logprobs or ()]
    assert told == pytest.approx(DISTRIBUTIONS[provider.mode], abs=1e-6)
    counted, requests = provider.counted, 3 if provider.mode == "votes" and not provider.several else 1
    assert answer.cost_usd == pytest.approx(requests * (counted.prompt_tokens + 2 * counted.completion_tokens) / 1e6)
    if requests == 1:
        assert parse(answer.raw or b"", Form(DIALECTS[name], Scoring.TEXT)).usage == counted
    for text, failed in answers.items():
        assert failed.status is (Status.REFUSED if text == CONTENT else Status.FAILED)
        assert text != LONG or "longer than the model's context" in (failed.error or "")
    return replies


def check_spent(provider: Provider, teacher: EndpointTeacher) -> str:
    """A quota that is used up ends the run at once; what it says."""
    if SPENT not in provider.refusals:
        return ""
    with pytest.raises(TeacherError, match="used up") as refusal:
        run_all(teacher, [Example(SPENT, SPENT)])
    return str(refusal.value)


def check_fields(provider: Provider, url: str, server: FaultServer, options: dict[str, Any]) -> None:
    """Several answers, and a seed for what is sampled, are asked for where there is a field for them."""
    server.requests.clear()
    (voted,) = run_all(make_teacher(url, scoring="votes", **options), [FINE])
    assert voted.answer.status is Status.OK
    assert [asked.body.get("n") for asked in server.requests] == ([3] if provider.several else [None] * 3)
    (written,) = run_all(make_teacher(url, WRITTEN, scoring="auto", temperature=0.7, **options), [FINE])
    assert written.answer.status is Status.OK
    sent = server.requests[-1].body
    seeds = {"seed": sent.get("seed"), "random_seed": sent.get("random_seed")}
    seeds["options.seed"] = sent.get("options", {}).get("seed")
    assert {field for field, seed in seeds.items() if seed is not None} == {provider.seed} - {None}


def test_the_form_of_a_reply_that_was_given_up_or_refused() -> None:
    """What an answer of 200 says in words of its own: it was given up, it was cut, or it is a refusal."""
    words = LabelWords(WORDS)
    body = b'{"choices": [{"message": {"content": "posi"}, "finish_reason": "%s"}]}'
    for finish, status in ((b"insufficient_system_resource", Status.FAILED), (b"model_length", Status.TRUNCATED)):
        assert parse(body % finish, Form(DIALECTS["deepseek"], Scoring.VOTES, words)).answer.status is status
    form = Form(DIALECTS["responses"], Scoring.VOTES, words)
    refusal = b'{"status": "completed", "output": [{"content": [{"type": "refusal", "refusal": "I will not"}]}]}'
    assert parse(refusal, form).answer.status is Status.REFUSED
    cut = b'{"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": []}'
    assert parse(cut, form).answer.status is Status.TRUNCATED
    broken = b'{"status": "failed", "error": {"code": "server_error", "message": "sorry"}, "output": []}'
    assert parse(broken, form).answer.status is Status.FAILED
    for own in ("responses", "ollama-chat"):
        for raw in (b"[]", b'{"output": 3}', b'{"message": 1}', b'{"output": [1]}', b"{"):
            assert parse(raw, Form(DIALECTS[own], Scoring.VOTES, words)).answer.status is Status.UNPARSABLE
