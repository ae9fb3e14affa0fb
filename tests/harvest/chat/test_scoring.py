import json
import math

import pytest

from harvest.chat.scoring import (
    LOG_ZERO,
    Alternative,
    LabelWords,
    Position,
    score_positions,
    score_token_ids,
    score_votes,
)
from shared.errors import UsageError

YES_NO = LabelWords(["yes", "no"])
NLI = LabelWords(["entailment", "neutral", "contradiction"])


def position(said: str, **probabilities: float) -> Position:
    return from_table(said, probabilities)


def from_table(said: str, probabilities: dict[str, float]) -> Position:
    top = [Alternative(text, math.log(p)) for text, p in probabilities.items()]
    return Position(Alternative(said, math.log(probabilities[said])), top)


def masses(distribution: object) -> list[float]:
    return [math.exp(value) for value in distribution.label_logprobs]  # type: ignore[attr-defined]


def test_variants_of_a_word_are_summed_and_nothing_is_renormalised() -> None:
    table = {"yes": 0.3, " Yes": 0.2, "\u2581YES": 0.1, "no": 0.25, "maybe": 0.1}
    distribution = score_positions(YES_NO, [from_table("yes", table)])
    assert masses(distribution) == pytest.approx([0.6, 0.25])
    assert distribution.residual_mass == pytest.approx(0.15)
    assert sum(masses(distribution)) + distribution.residual_mass == pytest.approx(1)


def test_the_first_token_of_a_longer_word_counts_for_it() -> None:
    table = {"ent": 0.5, " contr": 0.2, "neutral": 0.2, "e": 0.05}
    distribution = score_positions(NLI, [from_table("ent", table)])
    assert masses(distribution) == pytest.approx([0.5, 0.2, 0.2])
    assert distribution.ambiguous_mass == pytest.approx(0.05)  # one letter begins too many other words
    assert distribution.residual_mass == pytest.approx(0.1)


def test_a_said_token_is_counted_once_and_also_where_it_is_not_among_the_top() -> None:
    # vLLM lists the sampled token first even where it is not among the most probable.
    said = Alternative("no", math.log(0.1))
    top = [Alternative("yes", math.log(0.8))]
    assert masses(score_positions(YES_NO, [Position(said, top)])) == pytest.approx([0.8, 0.1])
    assert masses(score_positions(YES_NO, [Position(said, [said, *top])])) == pytest.approx([0.8, 0.1])


def test_shared_beginnings_are_divided_by_the_next_position() -> None:
    words = LabelWords(["negative", "neutral"])
    positions = [from_table("ne", {"ne": 0.9, "Pos": 0.1}), from_table("gative", {"gative": 0.75, "utral": 0.25})]
    distribution = score_positions(words, positions)
    assert masses(distribution) == pytest.approx([0.675, 0.225])
    assert distribution.ambiguous_mass == 0


def test_a_shared_beginning_that_was_not_said_is_ambiguous_and_stays_in_the_residual() -> None:
    words = LabelWords(["negative", "neutral"])
    distribution = score_positions(words, [from_table("neg", {"neg": 0.5, "ne": 0.4})])
    assert masses(distribution) == pytest.approx([0.5, 0], abs=1e-9)
    assert distribution.ambiguous_mass == pytest.approx(0.4)
    assert distribution.residual_mass == pytest.approx(0.5)


@pytest.mark.parametrize("opening", ["\n", " ", '"', "**", "\u2581"])
def test_what_stands_before_the_word_is_walked_through(opening: str) -> None:
    positions = [from_table(opening, {opening: 0.8, "yes": 0.1}), from_table("no", {"no": 0.5, "yes": 0.25})]
    assert masses(score_positions(YES_NO, positions)) == pytest.approx([0.1 + 0.8 * 0.25, 0.4])


def test_a_reply_that_ends_before_its_word_is_ambiguous() -> None:
    distribution = score_positions(YES_NO, [from_table("\n", {"\n": 0.9, "yes": 0.1})])
    assert distribution.ambiguous_mass == pytest.approx(0.9)


def test_a_longer_word_that_only_begins_like_a_label_does_not_count() -> None:
    distribution = score_positions(YES_NO, [from_table("nothing", {"nothing": 0.6, "no.": 0.2, "yesterday": 0.1})])
    assert masses(distribution) == pytest.approx([0, 0.2], abs=1e-9)


def test_a_label_that_was_not_seen_has_a_floor_that_is_no_infinity() -> None:
    distribution = score_positions(YES_NO, [from_table("yes", {"yes": 1.0})])
    assert distribution.label_logprobs == (0.0, LOG_ZERO)
    assert math.exp(LOG_ZERO) < 1e-40


def test_masked_tokens_of_vllm_are_zero() -> None:
    said = Alternative("yes", 0.0)
    distribution = score_positions(YES_NO, [Position(said, [said, Alternative("no", -9999.0)])])
    assert distribution.label_logprobs == (0.0, LOG_ZERO)


@pytest.mark.parametrize("value", [math.nan, 0.5, None, "high", math.inf])
def test_what_is_no_log_probability_is_refused(value: object) -> None:
    said = Alternative("yes", value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no log-probability"):
        score_positions(YES_NO, [Position(said, [])])


def test_masses_above_one_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 1"):
        score_positions(YES_NO, [from_table("yes", {"yes": 0.9, " yes": 0.9})])


@pytest.mark.parametrize("words", [["yes", "yes"], ["Yes", "YES "], ["a", ""]])
def test_words_that_cannot_be_told_apart_are_refused_by_name(words: list[str]) -> None:
    with pytest.raises(UsageError) as refusal:
        LabelWords(words)
    assert words[0] in str(refusal.value) or "empty" in str(refusal.value)


def test_exact_scores_of_named_tokens() -> None:
    said = Alternative("token_id:5", math.log(0.5), 5)
    top = [Alternative(f"token_id:{i}", math.log(p), i) for i, p in ((5, 0.5), (7, 0.125), (9, 0.25))]
    distribution = score_token_ids([[5, 7], [9]], Position(said, top))
    assert masses(distribution) == pytest.approx([0.625, 0.25])
    assert distribution.residual_mass == pytest.approx(0.125)
    with pytest.raises(ValueError, match=r"\[11\]"):
        score_token_ids([[5], [11]], Position(said, top))


def test_votes_are_shares_and_unreadable_ones_are_residual() -> None:
    distribution = score_votes(YES_NO, ["yes", "Yes.", "no", "I cannot say"])
    assert masses(distribution) == pytest.approx([0.5, 0.25])
    assert distribution.residual_mass == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("yes", 0),
        (" No.\n", 1),
        ("**Yes**", 0),
        ('"no"', 1),
        ("Yes, because it says so, and no other reason.", 0),
        ("The answer is no.", 1),
        (json.dumps({"label": "No"}), 1),
        ("yes or no", None),
        ('```json\n{"label": "yes"}\n```', 0),
        ("**Answer:** no", 1),
        ("The text is long.\n\nYes.", 0),
        ("<think>It may be no. No, it is no.</think>\n\nYes", 0),
        ("It is no, I think</think>yes", 0),
        ("<think>The answer is yes. Or is it", None),
        ("[THINK]no[/THINK]The answer is: **yes**.", 0),
        ("It could be yes or no", None),
        ("nothing", None),
        ("", None),
        ('{"label": 3}', None),
        ('{"label": ', None),
        ("ye", None),
    ],
)
def test_answers_in_words(text: str, label: int | None) -> None:
    assert YES_NO.match_answer(text) == label


SENTIMENT = LabelWords(["negative", "positive"])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Positive.", 1),
        ("positive - the cast is great", 1),
        ("Positive, not negative.", 1),
        ("The sentiment of this text is clearly positive.", 1),
        ("The answer is \\boxed{negative}", 0),
        ("Some may find it dull. Still, the label is: positive", 1),
        ("I would classify this as positive", None),  # as would "it would be positive, if ..."
        ("not positive", None),
        ("The review is not positive.", None),
        ("It isn't positive", None),
        ("between positive and negative", None),
        ("positive or negative?", None),
        ("Positive or negative, that is hard to say", None),
        ("if it were positive, it would praise the cast", None),
        ("Positive would be too much", None),
        ("positive? hardly", None),
        ("I cannot say that it is positive", None),
        ("The word positive stands in it", None),
        ("It is positive. No: it is negative.", None),
        ("It seems neither good nor positive", None),
        ("Classify as positive or negative", None),
        ("non-positive", None),
        ("more positive than expected", None),
    ],
)
def test_a_label_that_is_mentioned_is_not_given(text: str, label: int | None) -> None:
    assert SENTIMENT.match_answer(text) == label


@pytest.mark.parametrize("run", [":", "=", ": ", "is "])
def test_a_long_row_of_what_may_stand_before_a_word_holds_nobody_up(run: str) -> None:
    assert SENTIMENT.match_answer(f"x {run * 200_000} y positive") is None


def test_words_of_which_one_begins_another() -> None:
    words = LabelWords([str(number) for number in range(1, 11)])
    assert [words.match_answer(text) for text in ("1", "10", "1.", "10, surely", "It is 1.", "11")] == [
        0,
        9,
        0,
        9,
        0,
        None,
    ]
    assert words.match_beginning("1") == -1
    assert words.match_beginning("7") == 6
    one = Alternative("1", math.log(0.9))
    seven = Alternative("7", math.log(0.1))
    end, zero = Alternative("", math.log(0.25)), Alternative("0", math.log(0.75))
    ended = score_positions(words, [Position(one, [one, seven])])
    assert ended.label_logprobs[0] == pytest.approx(math.log(0.9))
    assert ended.label_logprobs[6] == pytest.approx(math.log(0.1))
    went_on = score_positions(words, [Position(one, [one, seven]), Position(zero, [zero, end])])
    assert went_on.label_logprobs[9] == pytest.approx(math.log(0.9 * 0.75))
    intents = LabelWords(["card", "card payment declined", "card payment", "cash, or cheque"])
    assert [intents.match_answer(word) for word in intents.words] == [0, 1, 2, 3]
    assert intents.match_answer("Card payment.") == 2
    with pytest.raises(UsageError, match="cannot be told apart"):
        LabelWords(["Yes", "yes"])


def test_an_article_is_no_letter_of_an_option() -> None:
    letters = LabelWords("ABCDEFGHI")
    given = ("A", "a.", "A) bad", "The answer is A because it says so.", "A is right.", "The answer is: B", "I")
    assert [letters.match_answer(text) for text in given] == [0, 0, 0, 0, 0, 1, 8]
    assert [letters.match_answer(text) for text in ("A good film.", "This is a mixed review.", "I am sure.")] == [
        None
    ] * 3


def test_an_exact_answer_is_the_word_and_nothing_else() -> None:
    assert YES_NO.is_exact("Yes ")
    assert YES_NO.is_exact('{"label": "no"}')
    assert not YES_NO.is_exact("Yes.")


def test_words_of_other_scripts() -> None:
    words = LabelWords(["да", "нет", "いいえ"])
    assert words.match_beginning(" Да") == 0
    assert words.match_beginning("いい") == 2
    assert words.match_answer("Нет。") == 1
