"""From a reply's bytes to an answer: a pure function of the bytes and of what was asked.

No reply can make it raise: one that cannot be read becomes an unparsable row that keeps its bytes.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import orjson

from harvest.chat.dialects import COMPATIBLE, Dialect, Scoring
from harvest.chat.errors import read_error, shorten
from harvest.chat.pricing import Usage
from harvest.chat.scoring import (
    LOG_ZERO,
    Distribution,
    LabelWords,
    Position,
    score_label_set,
    score_positions,
    score_token_ids,
    score_votes,
    score_words,
)
from shared.answers.thinking import split_thinking
from shared.schema import Answer, Status

BROKEN = "answered 200 but "  # how the error of a reply begins that was billed and did not arrive whole
FIRST_TOKENS = "first_tokens"  # the field of a reply that brings those of Form itself
WORD_SCORES = "label_logprobs"  # the field of a choice that brings the scores of whole label words, one a label
LOWEST = -9999.0  # of a token that cannot be, as vLLM's server says it: JSON has no infinity, nor has float16 much room
MAX_TOKEN_COUNT = 2**31 - 1  # what the row's schema holds
_REFUSALS = frozenset({"content_filter", "safety", "refusal", "prohibited_content", "blocklist", "recitation"})
_CUTS = frozenset({"length", "max_tokens", "model_length"})
_BREAKS = frozenset({"insufficient_system_resource", "abort", "error"})  # an answer that its server gave up
_THINKING_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
_ANSWER_PARTS = frozenset({"text", "output_text", "refusal"})
# Less probability than this on all labels together, and the reply was about something else.
LEAST_MASS = 1e-3
_OFF = """switch its thinking off (vLLM, llama.cpp: --body '{"chat_template_kwargs": {"enable_thinking": false}}')"""
_MORE_TOKENS = f"raise --max-tokens, or {_OFF}"
_INSTEAD_OF_THINKING = f"{_OFF}, or take --scoring votes --max-tokens 4096"


@dataclass(frozen=True, slots=True)
class Form:
    """What a reply must bring. `words` is None for a task without labels; `numeric` where a number is asked for.

    `first_tokens` are those of Scoring.TOKEN_IDS; where there are none, they are taken from the reply's own field
    FIRST_TOKENS. `keep_topk` keeps the most probable tokens of each position, at most `topk` where it is given.
    """

    dialect: Dialect
    scoring: Scoring
    words: LabelWords | None = None
    first_tokens: Sequence[Sequence[int]] = ()
    numeric: bool = False
    keep_topk: bool = False
    topk: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A parsed reply: the answer, without its bill; the usage that the reply reports, if it does; and for the probe the
    number of its choices, its positions, and the probability on tokens that begin several label words. `model` is the
    one that answered, where the reply says it.
    """

    answer: Answer
    usage: Usage | None = None
    choices: int = 0
    positions: Sequence[Position] = ()
    ambiguous_mass: float = 0.0
    model: str | None = None


def parse(raw: bytes, form: Form) -> Reading:
    """Read one reply that was answered 200. Never raises; see the module."""
    usage: Usage | None = None
    try:
        body = _load(raw)
        if isinstance(body, list) and body and all(isinstance(part, str) for part in body):
            body = _merge_votes(body, form.dialect)
            usage = read_usage(body)
        else:
            body = _read_own(body, form.dialect)
            usage = read_usage(body, form.dialect)
        return _read_body(raw, body, usage, form)
    except Exception as error:
        return Reading(
            _fail(raw, Status.UNPARSABLE, f"the reply cannot be read: {type(error).__name__}: {error}"), usage
        )


def _load(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return json.loads(raw)  # forgives what servers do send: NaN, half a surrogate pair, a byte order mark


def join_votes(replies: Sequence[bytes]) -> bytes:
    """Several replies to the same question as one raw value, which `parse` reads as one reply with several choices."""
    return json.dumps([reply.decode("utf-8", "replace") for reply in replies], ensure_ascii=False).encode()


def _read_own(body: Any, dialect: Dialect) -> Any:
    """A body as chat completions have it."""
    return body if dialect.read_reply is None or not isinstance(body, dict) else dialect.read_reply(body)


def read_usage(body: Any, dialect: Dialect = COMPATIBLE) -> Usage | None:
    """The usage that a body of chat completions reports in `dialect`, None where it reports none that can be one."""
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return None
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    total = _count(usage.get("total_tokens"))
    if dialect.thinks_beside and total is not None:
        completion = max(completion, total - prompt)
    cached: Any = usage
    for name in dialect.cached_tokens:
        cached = cached.get(name) if isinstance(cached, dict) else None
    cost = usage.get("cost")
    if not isinstance(cost, int | float) or isinstance(cost, bool):
        cost = None
    elif not 0 <= cost < math.inf:
        cost = math.nan
    return Usage(prompt, completion, _count(cached) or 0, cost)


def _count(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKEN_COUNT:
        return value
    return None


def _merge_votes(bodies: Sequence[str], dialect: Dialect) -> Mapping[str, Any]:
    choices: list[Any] = []
    usages: list[Usage | None] = []
    merged: dict[str, Any] = {}
    for text in bodies:
        try:
            body = _read_own(json.loads(text), dialect)
        except ValueError:
            continue  # one broken vote: the others count
        merged = merged or body
        choices.extend(body.get("choices") or ())
        usages.append(read_usage(body, dialect))
    known = [usage for usage in usages if usage is not None]
    usage = {
        "prompt_tokens": sum(u.prompt_tokens for u in known),
        "completion_tokens": sum(u.completion_tokens for u in known),
        "prompt_tokens_details": {"cached_tokens": sum(u.cached_tokens for u in known)},
        "cost": math.fsum(u.cost_usd or 0.0 for u in known) if any(u.cost_usd is not None for u in known) else None,
    }
    return {**merged, "choices": choices, "usage": usage if len(known) == len(bodies) else None}


def _read_body(raw: bytes, body: Any, usage: Usage | None, form: Form) -> Reading:
    if not isinstance(body, dict):
        return Reading(_fail(raw, Status.UNPARSABLE, "the reply is no JSON object"))
    choices = body.get("choices")
    error = body if body.get("error") and not choices else choices[0] if choices and choices[0].get("error") else None
    if error is not None:
        text = read_error(json.dumps(error).encode())[1]
        return Reading(_fail(raw, Status.FAILED, f"answered 200 with an error: {text}"), usage)
    if not choices:
        return Reading(_fail(raw, Status.UNPARSABLE, "the reply holds no choices"), usage)
    choice = choices[0]
    message = choice.get("message") or {}
    finish = choice.get("finish_reason")
    finish = shorten(finish) if isinstance(finish, str) else ""
    reply = _read_text(message)
    positions = _read_positions(choice, form)
    refusal = message.get("refusal")
    if refusal or finish.lower() in _REFUSALS:
        why = shorten(str(refusal)) if refusal else f"finish_reason is {finish}"
        verdict = _Verdict(Status.REFUSED, f"the endpoint refused to answer: {why}")
    elif finish.lower() in _BREAKS and form.scoring not in _WITH_LOGPROBS:  # a label's were told by its beginning
        verdict = _Verdict(Status.FAILED, f"the endpoint gave the answer up: finish_reason is {finish}")
    else:
        if form.scoring is Scoring.TOKEN_IDS and not form.first_tokens:
            form = replace(form, first_tokens=body.get(FIRST_TOKENS) or ())
        verdict = _READERS[form.scoring](form, choices, positions, finish.lower() in _CUTS)
    distribution = verdict.distribution
    said = _read_said(positions)
    topk = _read_topk(positions, form.topk) if form.keep_topk else _NO_TOPK
    answer = Answer(
        status=verdict.status,
        reply=None if reply is None else _encodable(reply),
        finish_reason=finish or None,
        label_logprobs=None if distribution is None else distribution.label_logprobs,
        residual_mass=None if distribution is None else distribution.residual_mass,
        reply_ids=None if said is None else [token for token, _ in said],
        reply_logprobs=None if said is None else [logprob for _, logprob in said],
        topk_ids=topk.ids,
        topk_logprobs=topk.logprobs,
        topk_tail=topk.tail,
        raw=raw,
        error=verdict.error,
        prompt_tokens=None if usage is None else usage.prompt_tokens,
        completion_tokens=None if usage is None else usage.completion_tokens,
    )
    ambiguous = 0.0 if distribution is None else distribution.ambiguous_mass
    model = body.get("model")
    return Reading(answer, usage, len(choices), positions, ambiguous, model if isinstance(model, str) else None)


def _read_text(message: Mapping[str, Any]) -> str | None:
    content = message.get("content")
    if isinstance(content, list):  # parts, as some routes send them; those of thinking are none of the answer's
        parts = (part for part in content if isinstance(part, dict) and part.get("type", "text") in _ANSWER_PARTS)
        content = "".join(part.get("text") or "" for part in parts)
    return content if isinstance(content, str) else None


def _has_thought(message: Mapping[str, Any]) -> bool:
    """Whether a message brings thinking beside its answer: in a field of its own, or in parts."""
    for name in _THINKING_FIELDS:
        if (thought := message.get(name)) and isinstance(thought, (str, list)):
            return True
    content = message.get("content")
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type", "text") not in _ANSWER_PARTS for part in content
    )


def _is_cut_thinking(message: Mapping[str, Any]) -> bool:
    """Whether a message is thinking only: no answer follows it."""
    text = _read_text(message) or ""
    parts = split_thinking(text)
    return parts.is_cut or (not parts.answer.strip() and (_has_thought(message) or parts.before > 0))


def _find_answer(message: Mapping[str, Any], positions: Sequence[Position]) -> Sequence[Position] | None:
    """The positions from where the answer begins, all of them where nothing was thought; None where that is unknown."""
    said = "".join(position.said.text for position in positions)
    before = split_thinking(said).before
    if not before:
        text = (_read_text(message) or "").strip()
        if not _has_thought(message) or said.strip() == text:
            return positions
        if not text or not said.rstrip().endswith(text):
            return None
        before = len(said.rstrip()) - len(text)
    at = 0
    for number, position in enumerate(positions):
        if at >= before:
            return positions[number:]
        at += len(position.said.text)
    return ()


class _Verdict(NamedTuple):
    status: Status
    error: str | None = None
    distribution: Distribution | None = None


def _read_logprobs(form: Form, choices: Sequence[Any], positions: Sequence[Position], cut: bool) -> _Verdict:
    # The distribution is complete once the word has begun, so a reply that was cut after it is not truncated.
    assert form.words is not None
    message = choices[0].get("message") or {}
    if _is_cut_thinking(message):
        return _Verdict(Status.TRUNCATED, f"the reply was cut while the model was thinking; {_INSTEAD_OF_THINKING}")
    if not positions:
        return _Verdict(Status.UNPARSABLE, "no log-probabilities came back")
    found = positions
    if form.scoring is Scoring.TOP_LOGPROBS:
        answer = _find_answer(message, positions)
        if not answer:
            return _Verdict(
                Status.UNPARSABLE,
                f"the model thinks first, and no log-probabilities of its answer can be told apart; "
                f"{_INSTEAD_OF_THINKING}",
            )
        found = answer
    elif _has_thought(message):
        return _Verdict(
            Status.UNPARSABLE, f"the model thinks first: its first token is no answer; {_INSTEAD_OF_THINKING}"
        )
    if form.scoring is Scoring.TOKEN_IDS:
        return _require_mass(score_token_ids(form.first_tokens, found[0]))
    if not found[0].top:
        return _Verdict(Status.UNPARSABLE, "no alternatives came back, only the token that was said")
    return _require_mass(score_positions(form.words, found))


def _read_words(form: Form, choices: Sequence[Any], positions: Sequence[Position], cut: bool) -> _Verdict:
    assert form.words is not None
    message = choices[0].get("message") or {}
    if _is_cut_thinking(message) or _has_thought(message):
        return _Verdict(
            Status.UNPARSABLE, f"the model thinks first: its first tokens are no answer; {_INSTEAD_OF_THINKING}"
        )
    scores = choices[0].get(WORD_SCORES)
    if not isinstance(scores, list) or len(scores) != len(form.words):
        return _Verdict(Status.UNPARSABLE, "no scores of the label words came back")
    return _require_mass(score_words(scores))


def _require_mass(distribution: Distribution) -> _Verdict:
    """A distribution that has next to nothing on any label is no answer."""
    mass = 1.0 - distribution.residual_mass
    if mass + distribution.ambiguous_mass >= LEAST_MASS:
        return _Verdict(Status.OK, None, distribution)
    return _Verdict(Status.UNPARSABLE, "the answer gives no label: next to none of its probability is on a label word")


def _read_votes(form: Form, choices: Sequence[Any], positions: Sequence[Position], cut: bool) -> _Verdict:
    assert form.words is not None
    answers = [_read_text(choice.get("message") or {}) or "" for choice in choices]
    if all(_is_cut_thinking(choice.get("message") or {}) for choice in choices):
        return _Verdict(Status.TRUNCATED, f"the reply was cut while the model was thinking; {_MORE_TOKENS}")
    if all(form.words.match_answer(answer) is None for answer in answers):
        if cut:
            return _Verdict(Status.TRUNCATED, "the answer was cut before it named a label; raise --max-tokens")
        return _Verdict(Status.UNPARSABLE, "the answer gives no label, or several")
    return _Verdict(Status.OK, None, score_votes(form.words, answers))


def _read_label_set(form: Form, choices: Sequence[Any], positions: Sequence[Position], cut: bool) -> _Verdict:
    assert form.words is not None
    message = choices[0].get("message") or {}
    if _is_cut_thinking(message):
        return _Verdict(Status.TRUNCATED, f"the reply was cut while the model was thinking; {_MORE_TOKENS}")
    if cut:  # a word of it may be a part of another
        return _Verdict(Status.TRUNCATED, "the list of labels was cut at its length limit; raise --max-tokens")
    found = form.words.match_set(_read_text(message) or "")
    if found is None:
        return _Verdict(Status.UNPARSABLE, "the answer is no list of labels, or names others")
    return _Verdict(Status.OK, None, score_label_set(form.words, found))


def _read_plain(form: Form, choices: Sequence[Any], positions: Sequence[Position], cut: bool) -> _Verdict:
    message = choices[0].get("message") or {}
    if _is_cut_thinking(message):
        return _Verdict(Status.TRUNCATED, f"the reply was cut while the model was thinking; {_MORE_TOKENS}")
    text = split_thinking(_read_text(message) or "").answer
    if cut:
        return _Verdict(Status.TRUNCATED, "the answer was cut at its length limit; raise --max-tokens")
    if not text.strip():
        return _Verdict(Status.UNPARSABLE, "the reply holds no text")
    if form.numeric:
        try:
            number = float(text.strip().rstrip("."))
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            return _Verdict(Status.UNPARSABLE, "the answer is no number")
    return _Verdict(Status.OK)


_WITH_LOGPROBS = frozenset({Scoring.TOKEN_IDS, Scoring.TOP_LOGPROBS})
Reader = Callable[[Form, Sequence[Any], Sequence[Position], bool], _Verdict]
_READERS: Mapping[Scoring, Reader] = {
    Scoring.TOKEN_IDS: _read_logprobs,
    Scoring.WORDS: _read_words,
    Scoring.TOP_LOGPROBS: _read_logprobs,
    Scoring.CHOICE: _read_votes,  # a constrained answer is one vote
    Scoring.VOTES: _read_votes,
    Scoring.LABEL_SET: _read_label_set,
    Scoring.TEXT: _read_plain,
}


def _read_positions(choice: Mapping[str, Any], form: Form) -> list[Position]:
    """The positions of a reply. Where no status rests on them, those that cannot be read are none: the text stands."""
    try:
        return form.dialect.read_positions(choice)
    except Exception:
        if form.scoring in _WITH_LOGPROBS:
            raise
        return []


def _read_said(positions: Sequence[Position]) -> list[tuple[int, float]] | None:
    """Id and log-probability of every token that was said; None where those of one of them are not told."""
    if not positions or positions[0].reply_id is None:  # mostly the ids of none are told
        return None
    said = [(position.reply_id, position.said.logprob) for position in positions]
    if not all(_is_token(token, logprob) for token, logprob in said):
        return None
    return [(token or 0, max(logprob, LOWEST)) for token, logprob in said]


def _is_token(token_id: Any, logprob: Any) -> bool:
    """Whether these can be a token's id and log-probability, and be kept."""
    return (
        _count(token_id) is not None
        and isinstance(logprob, int | float)
        and logprob <= 0.01  # not so: NaN, and what is no logarithm of a probability
    )


@dataclass(frozen=True, slots=True)
class _TopK:
    """The most probable tokens of each position, and the natural log of the probability on all others."""

    ids: list[list[int]] | None = None
    logprobs: list[list[float]] | None = None
    tail: list[float] | None = None


_NO_TOPK = _TopK()


def _read_topk(positions: Sequence[Position], most: int | None) -> _TopK:
    tokens = [[token for token in position.top if _is_token(token.token_id, token.logprob)] for position in positions]
    if not any(tokens):
        return _NO_TOPK
    if most is not None:  # beside them lie the labels' tokens, however improbable they are
        tokens = [
            sorted(top, key=lambda token: (token.logprob, token.token_id or 0), reverse=True)[:most] for top in tokens
        ]
    return _TopK(
        [[token.token_id or 0 for token in top] for top in tokens],
        [[max(token.logprob, LOWEST) for token in top] for top in tokens],
        [log_rest([max(token.logprob, LOWEST) for token in top]) for top in tokens],
    )


def log_rest(logprobs: Sequence[float]) -> float:
    """The natural log of what the probabilities of `logprobs` lack to 1; LOG_ZERO where they lack nothing."""
    rest = 1.0 - math.fsum(map(math.exp, logprobs))
    return max(math.log(rest), LOG_ZERO) if rest > 0 else LOG_ZERO


def _fail(raw: bytes, status: Status, error: str) -> Answer:
    return Answer(status=status, raw=raw, error=shorten(error))


def _encodable(text: str) -> str:
    # JSON can spell half of a surrogate pair; no UTF-8, and so no shard, can hold it.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
