import asyncio
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from harvest.chat.prompts import Draw
from harvest.teachers.base import Probe
from harvest.teachers.endpoint import EndpointTeacher
from harvest.teachers.endpoint.asker import ModelCheck
from shared.errors import TeacherError
from shared.example import Example
from shared.schema import Status
from tests.harvest.fault_server import Asked, FaultServer, make_reply, spread_logprobs
from tests.harvest.teachers.endpoint.endpoint_runs import TASK, make_examples, make_teacher, run_all

EXAMPLE = make_examples(1)[0]
VOCABULARY = {
    text: i
    for i, text in enumerate(["neg", "Neg", "NE", " neg", " Neg", " NE", "pos", "Pos", "PO", " pos", " Pos", " PO"])
}


def tokenize(body: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer that cuts after the longest beginning it knows."""
    text = body["prompt"]
    first = max((known for known in VOCABULARY if text.startswith(known)), key=len)
    return {"tokens": [VOCABULARY[first], 99]}


def score_ids(asked: Asked) -> dict[str, Any]:
    """The answer of vLLM to logprob_token_ids: the sampled token first, then the named ones by id."""
    reply = make_reply("negative", {})
    named = [
        {"token": f"token_id:{i}", "logprob": math.log(0.05 if i < 6 else 0.1)} for i in asked.body["logprob_token_ids"]
    ]
    entry = {**named[0], "top_logprobs": [named[0], *named]}
    reply["choices"][0]["logprobs"] = {"content": [entry]}
    return reply


def make_server(
    *,
    exact: bool = False,
    logprobs: bool = False,
    choice: bool = False,
    owner: str = "vllm",
    say: str = "It is positive.",
) -> FaultServer:
    """A server that has only what is named, and ignores the rest of what it is asked, as real ones do."""

    def answer(asked: Asked) -> dict[str, Any]:
        if exact and "logprob_token_ids" in asked.body:
            return score_ids(asked)
        constrained = any(field in asked.body for field in ("structured_outputs", "response_format", "grammar"))
        word = "positive" if choice and constrained else say
        reply = make_reply(word, spread_logprobs(0.7) if logprobs else {})
        if not logprobs:
            del reply["choices"][0]["logprobs"]
        return reply

    routes: dict[str, Any] = {"/v1/models": {"data": [{"id": "m", "owned_by": owner}]}}
    if exact:
        routes["/tokenize"] = tokenize
    return FaultServer(answer=answer, routes=routes)


def probe(teacher: EndpointTeacher, example: Example = EXAMPLE, noted: list[str] | None = None) -> Probe:
    return asyncio.run(teacher.probe(example, print if noted is None else noted.append))


@pytest.mark.parametrize(
    ("features", "mode"),
    [
        ({"exact": True, "logprobs": True, "choice": True}, "token_ids"),
        ({"logprobs": True, "choice": True}, "top_logprobs"),
        ({"choice": True}, "choice"),
        ({}, "votes"),
        ({"choice": True, "owner": "llamacpp"}, "choice"),
        ({"choice": True, "owner": "somebody"}, "choice"),
    ],
)
def test_the_best_that_the_endpoint_has_is_chosen(features: dict[str, Any], mode: str) -> None:
    with make_server(**features) as server:
        teacher = make_teacher(server, dialect="auto", scoring="auto")
        probed = probe(teacher)
        recipe = teacher.recipe()
        assert teacher.resolved
        assert recipe["scoring"]["mode"] == mode
        assert recipe["dialect"] == {"somebody": "compatible"}.get(*[features.get("owner", "vllm")] * 2)
        assert any(mode in notice for notice in probed.notices)
        assert json.loads(json.dumps(recipe)) == recipe


def test_what_was_tried_and_not_used_is_told() -> None:
    with make_server() as server:
        notices = probe(make_teacher(server, dialect="auto", scoring="auto")).notices
        assert any("/tokenize" in notice for notice in notices)
        assert any("no log-probabilities came back" in notice for notice in notices)
        assert any("the constraint was ignored: it answered 'It is positive.'" in notice for notice in notices)


@pytest.mark.parametrize(("shown", "tried"), [({}, True), ({"draw": Draw.FIELDS}, False), ({"keep_topk": 2}, False)])
def test_whole_words_are_not_tried_where_rows_have_pictures_or_want_replies(shown: dict[str, Any], tried: bool) -> None:
    with make_server(owner="llamacpp", choice=True) as server:
        said = ""
        try:
            said = " ".join(probe(make_teacher(server, dialect="auto", scoring="auto", **shown)).notices)
        except TeacherError as error:  # this server's pictures have no tokens
            said = str(error)
        assert ("/apply-template" in said) == tried


FREE = {"prompt_tokens": 0, "completion_tokens": 0}


def answer_within_limits(asked: Asked) -> dict[str, Any]:
    """An endpoint that gives at most five alternatives and wants the newer field, and says so."""
    if "max_tokens" in asked.body:
        text = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
        return {"error": {"message": text, "type": "invalid_request_error"}, "usage": FREE}
    if asked.body["top_logprobs"] > 5:
        return {"error": {"message": "top_logprobs must be less than or equal to 5"}, "usage": FREE}
    return {**make_reply("positive", spread_logprobs(0.7, 5)), "model": "another-model"}


def test_an_endpoint_is_served_within_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    routes: dict[str, Any] = {"/v1/models": {"data": []}}
    with FaultServer(answer=answer_within_limits, routes=routes) as server:
        teacher = make_teacher(server, dialect="auto", scoring="auto")
        answer = probe(teacher).answer
        assert answer.status is Status.OK
        assert teacher.recipe()["scoring"] == {"mode": "top_logprobs", "top_logprobs": 5}
        assert "max_completion_tokens" in teacher.recipe()["parameters"]
        assert len(run_all(teacher, make_examples(3))) == 3
        later = make_teacher(server, dialect="auto", scoring="auto")
        later.adopt(json.loads(json.dumps(teacher.recipe())))
        assert later.recipe() == teacher.recipe()
    assert capsys.readouterr().err.count("answers with the model 'another-model'") == 1


@pytest.mark.parametrize(
    ("asked", "answered", "is_other"),
    [
        ("gpt-4", "gpt-4", False),
        ("gpt-4", "gpt-4-0613", False),
        ("openai/gpt-4o", "gpt-4o-2024-08-06", False),
        ("gpt-4-turbo", "gpt-4-1106-preview", True),
        ("gemini-1.5-flash", "gemini-1.5-flash-002", False),
        ("claude-3-5-sonnet", "claude-3-5-sonnet@20241022", False),
        ("gpt-4", "gpt-4-1106-preview", False),
        ("gpt-4", "gpt-4o", True),
        ("gpt-4", "gpt-4.1", True),
        ("gpt-4", "gpt-4-32k", True),
        ("gpt-4", "gpt-4-turbo-2024-04-09", True),
        ("llama-3", "llama-3-405b", True),
        ("claude-sonnet-4", "claude-sonnet-4-5-20250929", True),
    ],
)
def test_a_model_is_another_one_unless_only_a_date_is_added(
    asked: str, answered: str, is_other: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    ModelCheck(asked).see(answered)
    assert ("answers with the model" in capsys.readouterr().err) == is_other


def test_the_reply_that_was_paid_for_is_an_answer_and_its_key_that_of_the_row() -> None:
    noted: list[str] = []
    with make_server(logprobs=True) as server:
        teacher = make_teacher(server, dialect="auto", scoring="top_logprobs")
        answer = probe(teacher, EXAMPLE, noted).answer
        (reply,) = run_all(teacher, [EXAMPLE])
        assert answer.status is Status.OK
        assert answer.label_logprobs == reply.answer.label_logprobs
        assert noted == [reply.request.key]
        assert [asked.key for asked in server.requests] == 2 * noted


def test_each_request_of_a_probe_is_noted_and_has_a_key_of_its_own() -> None:
    """A server that honours keys would answer two different requests of one key with one reply."""
    noted: list[str] = []
    with make_server(choice=True) as server:
        with pytest.raises(TeacherError, match="ignores the picture"):
            probe(make_teacher(server, dialect="auto", scoring="auto", draw=Draw.FIELDS), EXAMPLE, noted)
        assert len(noted) == len(set(noted)) > 2
        assert noted == [asked.key for asked in server.requests]


def test_exact_scores_are_summed_over_the_ways_of_writing_a_word() -> None:
    with make_server(exact=True) as server:
        teacher = make_teacher(server, dialect="auto", scoring="token_ids")
        assert not teacher.resolved
        probe(teacher)
        assert teacher.recipe()["scoring"]["first_tokens"] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
        (reply,) = run_all(teacher, [EXAMPLE])
        assert [math.exp(v) for v in reply.answer.label_logprobs or ()] == pytest.approx([0.3, 0.6])
        assert reply.answer.residual_mass == pytest.approx(0.1)
        adopted = make_teacher(server, dialect="auto", scoring="auto")
        adopted.adopt(json.loads(json.dumps(teacher.recipe())))
        assert adopted.recipe() == teacher.recipe()


def test_words_that_begin_with_one_token_are_refused_by_name_for_exact_scores() -> None:
    task = replace(TASK, label_words=("negligible", "negative"))
    with (
        make_server(exact=True) as server,
        pytest.raises(TeacherError, match="'negligible' and 'negative' begin with the same"),
    ):
        probe(make_teacher(server, task, dialect="vllm", scoring="token_ids"))


def test_words_whose_beginnings_cannot_be_told_apart_are_refused_by_name() -> None:
    task = replace(TASK, label_words=("negative", "neutral"))

    def answer(asked: Asked) -> dict[str, Any]:
        return make_reply("neutral", {"neutral": math.log(0.5), "ne": math.log(0.4)})

    with FaultServer(answer=answer) as server, pytest.raises(TeacherError, match="40% of the probability"):
        probe(make_teacher(server, task))


@pytest.mark.parametrize(
    ("scoring", "features", "lacks", "works"),
    [
        ("top_logprobs", {"choice": True}, "no log-probabilities came back", "--scoring choice or votes"),
        ("token_ids", {"logprobs": True}, "/tokenize", "--scoring top_logprobs or votes"),
        ("choice", {"logprobs": True}, "the constraint was ignored", "--scoring top_logprobs or votes"),
        ("top_logprobs", {"say": "I cannot."}, "no log-probabilities came back", "No other scoring was found to work"),
    ],
)
def test_what_is_lacking_is_named_and_what_would_work(
    scoring: str, features: dict[str, Any], lacks: str, works: str
) -> None:
    with make_server(**features) as server:
        with pytest.raises(TeacherError) as refusal:
            probe(make_teacher(server, dialect="vllm", scoring=scoring))
        assert lacks in str(refusal.value)
        assert works in str(refusal.value)


def test_a_refused_field_is_told_in_the_endpoints_words() -> None:
    with FaultServer({"400": 1000}) as server, pytest.raises(TeacherError, match="HTTP 400: fault 400"):
        probe(make_teacher(server))


def test_little_mass_on_the_labels_is_told() -> None:
    def answer(asked: Asked) -> dict[str, Any]:
        return make_reply("Based", {"Based": math.log(0.9), "positive": math.log(0.05)})

    with FaultServer(answer=answer) as server:
        notices = probe(make_teacher(server)).notices
        assert any("only 5.0% of the probability is on the label words" in n and "'Based'" in n for n in notices)


def answer_pictures(seen: Callable[[bool], int]) -> Callable[[Asked], dict[str, Any]]:
    def answer(asked: Asked) -> dict[str, Any]:
        pictured = isinstance(asked.body["messages"][0]["content"], list)
        return make_reply("positive", spread_logprobs(0.7), prompt_tokens=seen(pictured))

    return answer


@pytest.mark.parametrize("draw", [Draw.FIELDS, Draw.ALL])
def test_a_picture_that_is_ignored_is_noticed(draw: Draw) -> None:
    blind = FaultServer(answer=answer_pictures(lambda pictured: 30))
    with blind as server, pytest.raises(TeacherError, match="ignores the picture"):
        probe(make_teacher(server, draw=draw))
    with FaultServer(answer=answer_pictures(lambda pictured: 286 if pictured else 30)) as server:
        notices = probe(make_teacher(server, draw=draw)).notices
        assert "the picture takes 256 tokens" in notices
        assert all(asked.body["messages"][0]["content"] for asked in server.requests), "no message says nothing"


def test_missing_usage_is_told() -> None:
    with FaultServer({"no usage": 1000}) as server:
        assert any("no usage" in notice for notice in probe(make_teacher(server)).notices)
        notices = probe(make_teacher(server, draw=Draw.FIELDS)).notices
        assert any("whether the picture was read" in notice for notice in notices)


def test_a_budget_of_nothing_stops_the_probe() -> None:
    with FaultServer() as server:
        with pytest.raises(TeacherError, match="budget"):
            probe(make_teacher(server, max_cost=1e-9, price_in=1.0, price_out=1.0))
        assert not server.requests


def test_nothing_that_answers_there_is_told_at_once() -> None:
    with pytest.raises(TeacherError, match="nobody listens there"):
        probe(make_teacher("http://127.0.0.1:9/v1", dialect="auto", scoring="auto"))


def test_a_wrong_path_is_told() -> None:
    with FaultServer() as server, pytest.raises(TeacherError, match="no such model or path"):
        probe(make_teacher(server.url + "/wrong"))
