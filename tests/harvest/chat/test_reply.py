import json
import math
import random
from typing import Any

import pyarrow as pa
import pytest

from harvest.chat.dialects import DIALECTS, Scoring
from harvest.chat.pricing import Usage
from harvest.chat.reply import Form, join_votes, parse
from harvest.chat.scoring import LOG_ZERO, LabelWords
from shared.example import Example
from shared.schema import Answer, Row, Status, row_schema, rows_to_batch
from tests.harvest.fault_server import make_reply, spread_logprobs

WORDS = LabelWords(["negative", "positive"])
FORM = Form(DIALECTS["openai"], Scoring.TOP_LOGPROBS, WORDS)
VOTES = Form(DIALECTS["openai"], Scoring.VOTES, WORDS)
TEXT = Form(DIALECTS["openai"], Scoring.TEXT, None, numeric=True)


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def say(text: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    choice = {"finish_reason": finish, "message": {"content": text, **message}}
    return {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def test_a_good_reply() -> None:
    raw = encode(make_reply("positive", spread_logprobs(0.7)))
    reading = parse(raw, FORM)
    answer = reading.answer
    assert answer.status is Status.OK
    assert answer.label_logprobs == pytest.approx((math.log(0.98 * 0.3), math.log(0.98 * 0.7)))
    assert answer.residual_mass == pytest.approx(0.02)
    assert (answer.reply, answer.finish_reason, answer.raw) == ("positive", "stop", raw)
    assert reading.usage == Usage(40, 1)


def test_a_distribution_is_complete_even_where_the_reply_was_cut_after_it() -> None:
    reply = make_reply("positive", spread_logprobs(0.7))
    reply["choices"][0]["finish_reason"] = "length"
    answer = parse(encode(reply), FORM).answer
    assert (answer.status, answer.finish_reason) == (Status.OK, "length")


@pytest.mark.parametrize(
    ("form", "body", "status", "error"),
    [
        (FORM, say("positive"), Status.UNPARSABLE, "no log-probabilities"),
        (VOTES, say("positive"), Status.OK, None),
        (VOTES, say("perhaps"), Status.UNPARSABLE, "gives no label"),
        (VOTES, say("The answ", "length"), Status.TRUNCATED, "--max-tokens"),
        (VOTES, say(None, refusal="I will not"), Status.REFUSED, "I will not"),
        (VOTES, say(None, "content_filter"), Status.REFUSED, "content_filter"),
        (TEXT, say("3.5"), Status.OK, None),
        (TEXT, say("about three"), Status.UNPARSABLE, "no number"),
        (TEXT, say("nan"), Status.UNPARSABLE, "no number"),
        (TEXT, say("3.", "length"), Status.TRUNCATED, "--max-tokens"),
        (TEXT, say("  "), Status.UNPARSABLE, "no text"),
        (TEXT, say(None), Status.UNPARSABLE, "no text"),
        (VOTES, {"choices": []}, Status.UNPARSABLE, "no choices"),
        (VOTES, {"error": {"message": "upstream"}}, Status.FAILED, "upstream"),
        (VOTES, {"choices": [{"error": {"message": "upstream", "code": 502}}]}, Status.FAILED, "upstream"),
        (VOTES, [1, 2], Status.UNPARSABLE, "no JSON object"),
        (VOTES, "text", Status.UNPARSABLE, "no JSON object"),
        (VOTES, None, Status.UNPARSABLE, "no JSON object"),
    ],
)
def test_what_becomes_of_other_replies(form: Form, body: object, status: Status, error: str | None) -> None:
    answer = parse(encode(body), form).answer
    assert answer.status is status
    assert (answer.error is None) if error is None else (error in (answer.error or ""))
    assert answer.raw == encode(body)


def think(thinking: str, word: str, probability: float = 0.9, **message: Any) -> dict[str, Any]:
    """A reply whose tokens are those of `thinking`, one a word, and then `word` with its alternatives."""
    body = make_reply(word, spread_logprobs(probability))
    choice = body["choices"][0]
    surely = [
        {"token": token, "logprob": 0.0, "top_logprobs": [{"token": token, "logprob": 0.0}]} for token in thinking
    ]
    choice["logprobs"]["content"] = [*surely, *(choice["logprobs"]["content"] if word else ())]
    choice["message"] = {"role": "assistant", "content": thinking + word, **message}
    return body


@pytest.mark.parametrize("thinking", ["<think>\npositive? yes\n</think>\n\n", "positive!</think>", "[THINK]x[/THINK]"])
def test_log_probabilities_are_those_of_the_answer_behind_the_thinking(thinking: str) -> None:
    body = think(thinking, "negative", 0.1)
    for choice in (body, {**body, "choices": [{**body["choices"][0]}]}):
        answer = parse(encode(choice), FORM).answer
        assert answer.status is Status.OK
        assert answer.label_logprobs == pytest.approx((math.log(0.98 * 0.9), math.log(0.98 * 0.1)))
    told = think(thinking, "negative", 0.1, content="negative", reasoning_content="positive? yes")
    assert parse(encode(told), FORM).answer.label_logprobs == answer.label_logprobs
    alone = make_reply("negative", spread_logprobs(0.1))  # the log-probabilities are of the answer alone
    alone["choices"][0]["message"]["reasoning"] = "positive? yes"
    assert parse(encode(alone), FORM).answer.label_logprobs == answer.label_logprobs


@pytest.mark.parametrize("form", [FORM, VOTES, TEXT, Form(DIALECTS["vllm"], Scoring.TOKEN_IDS, WORDS, ((1,), (2,)))])
def test_thinking_that_was_cut_gives_no_label_and_says_what_would_work(form: Form) -> None:
    cut = [
        think("<think>It is positive. The answer is positive", ""),
        think("", "", content=None, reasoning_content="It is positive"),
        think("", "", content="", reasoning="It is positive"),
        think(
            "", "", content=[{"type": "thinking", "thinking": "positive"}, {"type": "reasoning", "text": "positive"}]
        ),
        think("<think>positive</think>", ""),
    ]
    for body in cut:
        answer = parse(encode(body), form).answer
        assert (answer.status, answer.label_logprobs) == (Status.TRUNCATED, None)
        assert "thinking" in (answer.error or "")
        assert "enable_thinking" in (answer.error or "")


def test_a_reply_with_no_probability_on_any_label_is_not_ok() -> None:
    body = make_reply("Okay", {"Okay": math.log(0.9), "Let": math.log(0.1)})
    answer = parse(encode(body), FORM).answer
    assert (answer.status, answer.label_logprobs) == (Status.UNPARSABLE, None)
    assert "gives no label" in (answer.error or "")


@pytest.mark.parametrize("text", ["about three", "A story of a film.", "3.5"])
def test_free_text_is_ok_as_it_is(text: str) -> None:
    form = Form(DIALECTS["openai"], Scoring.TEXT, None, numeric=False)
    answer = parse(encode(say(text)), form).answer
    assert (answer.status, answer.reply, answer.error) == (Status.OK, text, None)


def say_tokens(*positions: tuple[dict[str, Any], list[dict[str, Any]]]) -> dict[str, Any]:
    reply = say("3.5")
    content = [{**said, "top_logprobs": top} for said, top in positions]
    reply["choices"][0]["logprobs"] = {"content": content}
    return reply


def make_token(token_id: Any, logprob: Any) -> dict[str, Any]:
    return {"token": f"t{token_id}", "id": token_id, "logprob": logprob}


def test_the_token_that_was_said_is_kept_though_it_is_none_of_the_most_probable() -> None:
    top = [make_token(5, -0.5), make_token(6, -1.5)]
    reply = say_tokens((make_token(9, -7.0), top), (make_token(5, -0.5), top))
    form = Form(DIALECTS["llamacpp"], Scoring.TEXT, None, numeric=True, keep_topk=True)
    answer = parse(encode(reply), form).answer
    assert answer.reply_ids == [9, 5]
    assert answer.reply_logprobs == [-7.0, -0.5]
    assert answer.topk_ids == [[5, 6], [5, 6]]
    rest = 1 - math.exp(-0.5) - math.exp(-1.5)
    assert answer.topk_tail == pytest.approx([math.log(rest)] * 2)
    (kept,) = into_a_shard(answer)["topk_tail"].to_pylist()
    assert kept == pytest.approx(answer.topk_tail, rel=2**-8)


def test_a_tail_is_computed_before_it_is_rounded() -> None:
    """Of numbers rounded to 16 bits the rest would be lost: it is smaller than their rounding."""
    top = [make_token(5, math.log(0.7)), make_token(6, math.log(0.3 - 1e-6))]
    form = Form(DIALECTS["llamacpp"], Scoring.TEXT, None, numeric=True, keep_topk=True)
    answer = parse(encode(say_tokens((make_token(5, math.log(0.7)), top))), form).answer
    assert answer.topk_tail == pytest.approx([math.log(1e-6)], rel=1e-4)
    full = [make_token(5, 0.0), make_token(6, -30.0)]
    answer = parse(encode(say_tokens((make_token(5, 0.0), full))), form).answer
    assert answer.topk_tail == [LOG_ZERO]


def test_positions_that_cannot_be_read_cost_no_answer_that_does_not_rest_on_them() -> None:
    """Reading a kept reply again asks for top-k tokens, whatever the run did: an ok row must stay ok."""
    reply = say("positive")
    reply["choices"][0]["logprobs"] = {"content": [{"text": "of another shape"}]}
    for keep_topk in (False, True):
        answer = parse(encode(reply), Form(DIALECTS["openai"], Scoring.VOTES, WORDS, keep_topk=keep_topk)).answer
        assert (answer.status, answer.reply, answer.topk_ids) == (Status.OK, "positive", None)
    assert parse(encode(reply), FORM).answer.status is Status.UNPARSABLE


def test_tokens_that_cannot_be_fit_a_shard_too() -> None:
    top = [make_token(5, 0.0), make_token(6, -3.4028235e38), make_token(7, -math.inf), make_token(8, -(10**400))]
    form = Form(DIALECTS["llamacpp"], Scoring.TEXT, None, numeric=True, keep_topk=True)
    answer = parse(encode(say_tokens((make_token(8, -(10**400)), top))), form).answer
    assert answer.reply_logprobs == [-9999.0]
    assert answer.topk_logprobs == [[0.0, -9999.0, -9999.0, -9999.0]]
    assert answer.topk_tail == [LOG_ZERO]
    into_a_shard(answer)


@pytest.mark.parametrize(
    "said", [make_token("x", -0.5), make_token(2**31, -0.5), make_token(True, -0.5), make_token(5, "x"), {"token": "a"}]
)
def test_tokens_that_cannot_be_kept_cost_no_answer(said: dict[str, Any]) -> None:
    answer = parse(encode(say_tokens((said, []))), TEXT).answer
    assert (answer.status, answer.reply_ids, answer.reply_logprobs) == (Status.OK, None, None)
    into_a_shard(answer)


def test_content_in_parts_is_joined() -> None:
    reply = say(None)
    reply["choices"][0]["message"]["content"] = [{"type": "text", "text": "posi"}, {"type": "text", "text": "tive"}]
    assert parse(encode(reply), VOTES).answer.reply == "positive"


def test_votes_in_one_reply_and_in_several() -> None:
    one = say("positive")
    one["choices"] += say("negative")["choices"] + say("positive")["choices"]
    together = parse(encode(one), VOTES)
    assert (together.choices, together.usage) == (3, Usage(3, 2))
    apart = parse(join_votes([encode(say(word)) for word in ("positive", "negative", "positive")]), VOTES)
    assert apart.choices == 3
    assert apart.usage == Usage(9, 6)
    for reading in (together, apart):
        assert [math.exp(v) for v in reading.answer.label_logprobs or ()] == pytest.approx([1 / 3, 2 / 3])


def test_a_broken_vote_does_not_spoil_the_others() -> None:
    reading = parse(join_votes([b'{"half', encode(say("positive"))]), VOTES)
    assert reading.answer.label_logprobs == (LOG_ZERO, 0.0)
    assert reading.usage is None  # what the broken one took is not known


def test_a_bill_of_the_endpoint_is_read() -> None:
    body = say("positive")
    body["usage"] = {
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "cost": 0.0125,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    assert parse(encode(body), VOTES).usage == Usage(10, 2, 4, 0.0125)


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": -1, "completion_tokens": 1}, {"prompt_tokens": 10**30, "completion_tokens": 1}, []],
)
def test_usage_that_cannot_be_is_none(usage: object) -> None:
    reading = parse(encode({**say("positive"), "usage": usage}), VOTES)
    assert reading.usage is None
    assert reading.answer.status is Status.OK


def test_token_ids_are_kept_where_asked_for() -> None:
    body = say("yes")
    entries = [{"token": "yes", "id": 7, "logprob": -0.5}, {"token": "no", "id": 9, "logprob": -1.5}]
    body["choices"][0]["logprobs"] = {"content": [{**entries[0], "top_logprobs": entries}]}
    form = Form(DIALECTS["llamacpp"], Scoring.TOP_LOGPROBS, LabelWords(["yes", "no"]), keep_topk=True)
    answer = parse(encode(body), form).answer
    assert (answer.topk_ids, answer.topk_logprobs) == ([[7, 9]], [[-0.5, -1.5]])


def into_a_shard(answer: Answer) -> pa.RecordBatch:
    return rows_to_batch([Row(Example("1", "text"), "0" * 64, 0, answer)], row_schema())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe\x00",
        b"{" * 100_000,
        b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"choices": [null]}',
        b'{"choices": {"0": 1}}',
        b'{"choices": [{"message": "text"}]}',
        b'{"choices": [{"message": {"content": "positive \\ud800"}, "finish_reason": "\\udfff"}], "usage": 3}',
        b'{"choices": [{"message": {"refusal": "\\ud800"}}]}',
        b'{"error": "\\ud800"}',
        b'["{}", "null", "[]"]',
        b"1e999",
    ],
)
def test_no_reply_raises_and_every_answer_fits_a_shard(raw: bytes) -> None:
    for form in (FORM, VOTES, TEXT):
        answer = parse(raw, form).answer
        assert answer.raw == raw
        assert answer.status is not Status.FAILED or "200" in (answer.error or "")
        into_a_shard(answer)


def test_random_damage_never_raises() -> None:
    source = random.Random(0)
    good = encode(make_reply("positive", spread_logprobs(0.7)))
    values: list[Any] = [None, "x", 3, -1, [], {}, True, 1e308, [[]], {"a": 1}]

    def damage(value: Any) -> Any:
        if source.random() < 0.04:
            return source.choice(values)
        if isinstance(value, dict):
            return {key: damage(inner) for key, inner in value.items() if source.random() > 0.02}
        if isinstance(value, list):
            return [damage(inner) for inner in value]
        return value

    seen = set()
    for i in range(1500):
        if i % 3:
            raw = encode(damage(json.loads(good)))
        else:
            flipped = bytearray(good)
            for _ in range(source.randrange(1, 5)):
                flipped[source.randrange(len(flipped))] = source.randrange(256)
            raw = bytes(flipped)
        for form in (FORM, VOTES, TEXT):
            answer = parse(raw, form).answer
            seen.add(answer.status)
            into_a_shard(answer)
            if answer.status is Status.OK and form is FORM:
                mass = sum(math.exp(v) for v in answer.label_logprobs or ()) + (answer.residual_mass or 0)
                assert mass == pytest.approx(1, abs=0.02)
    assert {Status.OK, Status.UNPARSABLE} <= seen
