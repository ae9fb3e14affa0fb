"""Before a run: one real request, to see that what is needed comes back, and how it is asked for.

Servers ignore fields that they do not know and answer 200 all the same, so what a run relies on is checked in a reply.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from harvest.chat.dialects import DIALECTS, Dialect, Scoring, recognise_models
from harvest.chat.elicitation import Elicitation, adapt, find_written, is_scored
from harvest.chat.scoring import Alternative, LabelWords
from harvest.teachers.endpoint.asker import Asked
from harvest.teachers.endpoint.client import Client
from harvest.teachers.endpoint.config import AUTO, EndpointConfig, explain_no_words
from harvest.teachers.endpoint.elicitation import find_first_tokens
from harvest.teachers.endpoint.servers import MODELS_PATH
from harvest.teachers.endpoint.words import check_routes
from shared.errors import TeacherError, UsageError
from shared.schema import Status

# More mass than this on tokens that begin several label words, and the distribution is not worth its price.
MAX_AMBIGUOUS_MASS = 0.1
# Less than this on all label words together, and the user should look at the prompt.
LITTLE_MASS = 0.5
# How often a question is put another way, as the refusal before it says: one for each of what adapt mends.
ADAPTATIONS = 2

# Asks about the probe's example in a given way: with the pictures, or (False) with what is written alone.
Ask = Callable[[Elicitation, bool], Awaitable[Asked | None]]


@dataclass(frozen=True, slots=True)
class Finding:
    """The elicitation that works, what to tell the user, and the reply that was paid for."""

    elicitation: Elicitation
    notices: tuple[str, ...]
    asked: Asked


async def find_elicitation(
    client: Client,
    config: EndpointConfig,
    words: LabelWords | None,
    known: Elicitation | None,
    ask: Ask,
    *,
    may_be_cut: bool = False,
    shows: bool = False,
    in_writing: bool = True,
) -> Finding:
    """The elicitation that `config` asks for, or the best that works where it leaves the choice.

    `may_be_cut` is for free text: an answer that reached its length limit shows all the same that asking works. `shows`
    is whether the example has pictures, drawn ones or its own; `in_writing` whether no row has any.
    Raises TeacherError that names what the endpoint lacks, and what would work instead.
    """
    if known is not None:
        candidates: Sequence[Scoring] = (known.scoring,)
        dialect = known.dialect
    else:
        dialect = await find_dialect(client, config)
        candidates = _list_candidates(dialect, config, words, in_writing)
    problems: list[str] = []
    for scoring in candidates:
        try:
            elicitation = known or await _prepare(client, config, words, dialect, scoring)
            asked = await ask(elicitation, True)
            problem = find_problem(elicitation, words, asked, may_be_cut=may_be_cut)
            for _ in range(ADAPTATIONS):
                adapted = None if problem is None else adapt(elicitation.dialect, problem)
                if adapted is None:
                    break
                dialect, elicitation = adapted, replace(elicitation, dialect=adapted)
                asked = await ask(elicitation, True)
                problem = find_problem(elicitation, words, asked, may_be_cut=may_be_cut)
        except UsageError as error:
            problems.append(f"{scoring}: {error}")
            continue
        if client.unconnected is not None:
            raise TeacherError(client.unconnected)
        if problem is None:
            assert asked is not None
            notices = [*(f"{p}; not used" for p in problems), *_notice(elicitation, asked)]
            if shows:
                notices += await _check_picture(ask, elicitation, asked)
            return Finding(elicitation, tuple(notices), asked)
        problems.append(f"{scoring}: {problem}")
    working = []
    if known is not None or config.scoring != AUTO:
        others = [one for one in _list_scorings(dialect, config, in_writing) if one not in candidates]
        working = await _try_others(client, config, words, dialect, others, ask)
    if shows:
        problems[-1] += ". It was sent a picture; text alone is asked with --draw none and --no-pictures"
    advice = f"what works there: --scoring {' or '.join(working)}" if working else "no other scoring was found to work"
    raise TeacherError(
        f"the endpoint does not give what was asked for (model {config.model} at {', '.join(config.endpoint)}): "
        f"{'; '.join(problems)}. {advice[0].upper()}{advice[1:]}"
    )


async def find_dialect(client: Client, config: EndpointConfig) -> Dialect:
    """The dialect that `config` names, or that the host's name or the server's list of models gives away."""
    if config.dialect != AUTO:
        return DIALECTS[config.dialect]
    return config.host or recognise_models(await client.fetch_json(MODELS_PATH))


def _list_candidates(
    dialect: Dialect, config: EndpointConfig, words: LabelWords | None, in_writing: bool
) -> Sequence[Scoring]:
    """The scorings to be tried, in their order."""
    if (written := find_written(words)) is not None:
        return (written,)
    return _list_scorings(dialect, config, in_writing) if config.scoring == AUTO else (Scoring(config.scoring),)


def _list_scorings(dialect: Dialect, config: EndpointConfig, in_writing: bool) -> Sequence[Scoring]:
    """The scorings of `dialect` that fit what is asked, best first: whole words go with no picture and no reply."""
    has_words = in_writing and not config.keep_topk
    return tuple(one for one in dialect.scorings if has_words or one is not Scoring.WORDS)


async def _prepare(
    client: Client, config: EndpointConfig, words: LabelWords | None, dialect: Dialect, scoring: Scoring
) -> Elicitation:
    if scoring is Scoring.WORDS and not dialect.scores_words:
        raise UsageError(explain_no_words(dialect))
    if scoring is Scoring.WORDS:
        await check_routes(client)
    if scoring is not Scoring.TOKEN_IDS:
        return Elicitation(dialect, scoring)
    assert words is not None
    if dialect.ask_token_ids is None:
        raise UsageError(f"the dialect {dialect.name} has no field for exact scores of named tokens")
    return Elicitation(dialect, scoring, await find_first_tokens(client, config.model, words.words))


async def _try_others(
    client: Client,
    config: EndpointConfig,
    words: LabelWords | None,
    dialect: Dialect,
    others: Sequence[Scoring],
    ask: Ask,
) -> list[str]:
    """Those of `others` that work; asked only when the run cannot go on, so that the message can name them."""
    working: list[str] = []
    for scoring in others if is_scored(words) else ():
        try:
            elicitation = await _prepare(client, config, words, dialect, scoring)
            if find_problem(elicitation, words, await ask(elicitation, True)) is None:
                working.append(str(scoring))
        except (UsageError, TeacherError):
            continue
    return working


def find_problem(
    elicitation: Elicitation, words: LabelWords | None, asked: Asked | None, *, may_be_cut: bool = False
) -> str | None:
    """Why a probe's answer shows that `elicitation` does not work, None where it does."""
    if asked is None:
        return "the budget does not allow one request"
    answer, reading = asked.answer, asked.reading
    works = (Status.OK, Status.TRUNCATED) if may_be_cut else (Status.OK,)
    if reading is None or answer.status not in works:
        return answer.error or f"the answer is {answer.status}"
    if elicitation.scoring is Scoring.CHOICE and words is not None and not words.is_exact(answer.reply or ""):
        return f"the constraint was ignored: it answered {answer.reply!r}"
    if reading.ambiguous_mass > MAX_AMBIGUOUS_MASS:
        return (
            f"{reading.ambiguous_mass:.0%} of the probability is on tokens that begin several label words; "
            "other --label-words would help"
        )
    return None


async def _check_picture(ask: Ask, elicitation: Elicitation, asked: Asked) -> list[str]:
    """Compare the prompt's tokens with those of its words alone. Raises TeacherError where they are the same."""
    try:
        alone = await ask(elicitation, False)
    except TeacherError as error:  # the first reply is paid for, and kept: the run's next request says it again
        return [f"whether the picture was read could not be found out: {error}"]
    without = None if alone is None else alone.answer.prompt_tokens
    with_picture = asked.answer.prompt_tokens
    if without is None or with_picture is None:
        return ["whether the picture was read cannot be seen: the endpoint reports no usage"]
    if with_picture <= without:
        raise TeacherError(
            f"the endpoint ignores the picture: the prompt has {with_picture} tokens with it and {without} "
            "without it; this model cannot see, or its server was started without vision. Text works: --draw none, and "
            "--no-pictures where the rows have pictures of their own"
        )
    return [f"the picture takes {with_picture - without} tokens"]


def _notice(elicitation: Elicitation, asked: Asked) -> list[str]:
    answer, reading = asked.answer, asked.reading
    assert reading is not None
    notices = (
        []
        if answer.label_logprobs is None
        else [f"label distributions by {elicitation.scoring} ({elicitation.dialect.name})"]
    )
    if answer.residual_mass is not None and answer.residual_mass > 1 - LITTLE_MASS:
        top = reading.positions[0].top if reading.positions else ()
        begins = _show(top) if top else repr(answer.reply)
        notices.append(
            f"only {1 - answer.residual_mass:.1%} of the probability is on the label words"
            + (f"; the answer begins {begins}" if top or answer.reply is not None else "")
        )
    if answer.status is Status.TRUNCATED:
        notices.append("the first answer was cut at its length limit; --max-tokens raises it")
    if reading.usage is None:
        notices.append("the endpoint reports no usage: costs are upper bounds")
    return notices


def _show(top: Sequence[Alternative]) -> str:
    best = sorted(top, key=lambda token: -token.logprob)[:3]
    return ", ".join(repr(token.text) for token in best)
