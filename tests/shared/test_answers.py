"""shared.answers: what replies state, and whether it is right; with the traps of LLM-Adapters' own rules."""

import random
from collections.abc import Sequence

import pytest

from shared.answers import RULES, find_rule, gold_text, has_gold
from shared.errors import UsageError
from shared.example import Example

ANIMALS = ("a cat", "a dog", "a large dog", "a fish")


def judge(rule: str, reply: str, right: str) -> bool:
    return find_rule(rule).is_right(reply, target_text=right)


@pytest.mark.parametrize(
    ("reply", "stated"),
    [
        ("42", "42"),
        ("The answer is 42.", "42"),
        ("So she has 3 + 4 = 7 apples left.", "7"),
        ("It takes 3-5 days.", "5"),  # theirs: -5
        ("10-3=7", "7"),
        ("The answer is 1/2.", "0.5"),  # theirs: 2
        ("The answer is 2 1/2 hours", "2.5"),
        ("The answer is -4", "-4"),
        ("It fell to −4", "-4"),
        ("#### 1,234", "1234"),
        ("first 18 <<9*2=18>> eggs\n#### 18", "18"),
        ("The answer is $5.50. That is 2 dollars less than 7.50", "5.5"),
        ("The answer is 7 * 25 = 175. There were 3 of them.", "175"),
        (r"Hence \boxed{12} of the 40", "12"),
        ("1,234,567 people", "1234567"),
        (".25 of it", "0.25"),
        ("Answer: **8**", "8"),
        ("1/0", None),
        ("none of them", None),
        ("", None),
    ],
)
def test_numbers(reply: str, stated: str | None) -> None:
    assert find_rule("number").extract(reply, None) == stated


def test_numbers_within_a_thousandth_are_the_same() -> None:
    assert judge("number", "about 0.3333", "1/3")
    assert not judge("number", "about 0.331", "1/3")
    assert judge("number", "The answer is 1,000.0005", "1000")


def test_a_number_is_read_from_any_way_of_writing_it() -> None:
    random.seed(0)
    for _ in range(500):
        number = round(random.uniform(-99_999, 99_999), random.choice((0, 1, 3)))
        written = random.choice((f"{number}", f"{number:,}", f"{number:+,}" if number > 0 else f"{number:,}"))
        before, after = random.choice((("The answer is ", "."), ("#### ", ""), ("It was 3 of 7. Answer: ", " m")))
        assert judge("number", before + written + after, str(number)), before + written + after


@pytest.mark.parametrize(
    ("reply", "stated"),
    [
        ("The answer is (C).", "C"),
        ("The answer is C", "C"),
        ("Because 3 + 4 = 7, the answer is (D).", "D"),  # theirs: B
        ("A train leaves at 9. The answer is (E).", "E"),  # theirs: A
        ("First (A) seemed right. The answer is (B).", "B"),
        ("C) 252", "C"),
        ("(B) 13 and 14", "B"),
        ("D", "D"),
        ("Answer: **E**", "E"),
        (r"\boxed{A}", "A"),
        ("Because of that", None),
        ("the answer is a cat", None),
        ("A train leaves", None),
        ("The answer is I think 4", None),
        ("The answer is (I)", "I"),
        ("the answer is (J).", "J"),
    ],
)
def test_letters(reply: str, stated: str | None) -> None:
    assert find_rule("letter").extract(reply, None) == stated


@pytest.mark.parametrize(
    ("reply", "stated"),
    [
        ("a dog", "a dog"),
        (" A DOG. ", "a dog"),
        ("The answer is a large dog.", "a large dog"),
        ("It must be a large dog, for it barks", "a large dog"),
        ("the correct answer is answer4", "a fish"),
        ("answer1/answer2/answer3/answer4: answer2", "a dog"),
        ("Option 3", "a large dog"),
        ("B", "a dog"),
        ("D. a fish", "a fish"),
        ("The answer is (A)", "a cat"),
        ("3", "a large dog"),
        ("a cat or a fish", None),
        ("answer1 or answer2", None),
        ("answer7", None),
        ("a catfish", None),
        ("", None),
    ],
)
def test_choices(reply: str, stated: str | None) -> None:
    assert find_rule("choice").extract(reply, ANIMALS) == stated


def test_a_choice_that_is_a_number_is_meant_before_its_place() -> None:
    rule = find_rule("choice")
    assert rule.extract("2", ("4", "2", "1")) == "2"
    assert rule.extract("The answer is 1.", ("4", "2", "1")) == "1"


@pytest.mark.parametrize("name", ["choice", "letter", "llm-adapters-choice", "llm-adapters-letter", "exact"])
def test_every_way_of_naming_the_right_choice_is_right_and_of_another_is_wrong(name: str) -> None:
    ways = {
        "choice": "The answer is {letter}. {text}",
        "letter": "The answer is ({letter}).",
        "llm-adapters-choice": "the correct answer is answer{number}",
        "llm-adapters-letter": "({letter})",
        "exact": "{text}",
    }
    for named in range(len(ANIMALS)):
        reply = ways[name].format(letter="ABCD"[named], number=named + 1, text=ANIMALS[named])
        for label in range(len(ANIMALS)):
            assert find_rule(name).is_right(reply, choices=ANIMALS, label=label) == (named == label), reply


def test_llm_adapters_rules_keep_their_faults() -> None:
    def find(rule: str, reply: str) -> str | None:
        return find_rule(f"llm-adapters-{rule}").extract(reply, None)

    assert find("number", "It takes 3-5 days") == "-5.0"
    assert find("number", "1/2") == "2.0"
    assert find("number", "1,234") == "1234.0"
    assert find("letter", "Because it rained, the answer is (C).") == "B"
    assert find("choice", "not answer1 but answer2") == "answer1"
    assert find("choice", "it is true") == "true"
    assert [find(rule, "") for rule in ("number", "letter", "choice")] == [None] * 3
    assert judge("llm-adapters-number", "The answer is 7.", "#### 7")


def test_number_or_letter_goes_by_what_the_right_text_states() -> None:
    assert judge("number-or-letter", "I think the answer is (C).", "252 = 252. The answer is (C).")
    assert not judge("number-or-letter", "The answer is 252.", "The answer is (C).")
    assert judge("number-or-letter", "The answer is 252.", "The answer is 252.")


def test_any_of_several_right_texts_is_right() -> None:
    rule = find_rule("exact")
    assert rule.is_right("two  words", target_text="one", references=("one", "two words"))
    assert not rule.is_right("Two words", target_text="one", references=("one", "two words"))


def test_two_choices_of_the_same_text_are_both_right() -> None:
    assert find_rule("letter").is_right("(B)", choices=("7", "7", "9"), label=0)


@pytest.mark.parametrize("name", RULES)
def test_a_row_without_a_right_answer_cannot_be_judged(name: str) -> None:
    assert not has_gold(Example("a", "text"))
    with pytest.raises(ValueError, match="no right answer"):
        find_rule(name).is_right("7")


@pytest.mark.parametrize("name", RULES)
def test_no_reply_makes_a_rule_fail(name: str) -> None:
    random.seed(1)
    pieces = (
        "answer",
        "is",
        "(A)",
        "3",
        "-",
        "/",
        "####",
        r"\boxed{",
        "}",
        "answer9",
        ".",
        "=",
        "\n",
        "é",
        "1e400",
        " ",
    )
    choices: tuple[Sequence[str] | None, ...] = (None, ANIMALS, ("",), ("1", "1"))
    for _ in range(500):
        reply = "".join(random.choices(pieces, k=random.randrange(8)))
        for given in choices:
            stated = find_rule(name).extract(reply, given)
            assert stated is None or given is None or stated in given


def test_the_right_answer_as_text() -> None:
    assert gold_text(Example("a", "t", choices=ANIMALS, label=1)) == "a dog"
    assert gold_text(Example("a", "t", target_text="x", references=("x", "y"))) == "x"
    assert gold_text(Example("a", "t", choices=ANIMALS)) is None


def test_an_unknown_rule() -> None:
    with pytest.raises(UsageError, match=r"no answer rule 'numbr'; there are: choice, letter"):
        find_rule("numbr")


@pytest.mark.parametrize(
    ("reply", "stated"), [("Straße, weiß: a dog", "a dog"), ("İİİ a Dog or a dog, so a Dog.", "a Dog"), ("aaa", "aaa")]
)
def test_an_answer_is_located_where_it_stands(reply: str, stated: str) -> None:
    place = find_rule("choice").locate(reply, [stated, "a fish"])
    assert place == reply.rindex(stated)
