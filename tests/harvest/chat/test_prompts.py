"""What is drawn and what is written, in each mode, and that a recipe says enough to draw it again."""

import json
from dataclasses import replace

import pytest

from harvest.chat.prompts import Draw, Prompt, build_prompt, describe_prompt, find_drawn, lay_out, use_letters
from harvest.rendering import Layout
from shared.errors import UsageError
from shared.example import Example
from shared.tasks import TASKS

QUESTION = "Does the first imply the second?"
PAIR = Example("1", "A man sleeps.", text_pair="Nobody is awake.")
TASK = replace(TASKS["rte"], question=QUESTION)


@pytest.mark.parametrize(
    ("draw", "prompt"),
    [
        (Draw.FIELDS, Prompt("A man sleeps.\n\nNobody is awake.", QUESTION)),
        (Draw.ALL, Prompt(f"{QUESTION}\n\nA man sleeps.\n\nNobody is awake.", "")),
        (Draw.NONE, Prompt(None, f"{QUESTION}\n\nA man sleeps.\n\nNobody is awake.")),
    ],
)
def test_each_part_of_a_prompt_is_drawn_or_written(draw: Draw, prompt: Prompt) -> None:
    assert build_prompt(QUESTION, PAIR, draw) == prompt


def test_letters_stand_for_label_words_that_begin_alike() -> None:
    task = replace(TASK, labels=("a", "b"), label_words=("card lost", "card new"))
    asked = use_letters(task)
    assert asked.question == f"{QUESTION}\n\nA. card lost\nB. card new\n\nAnswer with the letter only: A or B."
    assert describe_prompt(asked, Draw.NONE)["label_words"] == ["A", "B"]
    many = replace(task, label_words=tuple(map(str, range(27))))
    with pytest.raises(UsageError, match="27 labels, and there are 26 letters"):
        use_letters(many)
    with pytest.raises(UsageError, match="are no labels"):
        use_letters(replace(task, kind="regression"))


def test_one_field_stands_alone() -> None:
    assert lay_out(Example("1", "One.")) == "One."


def test_choices_are_listed_unless_the_second_text_holds_them() -> None:
    assert lay_out(Example("1", "Who?", choices=("Ann", "Bob"))) == "Who?\n\nA. Ann\nB. Bob"
    assert lay_out(Example("1", "It fell.", "effect", ("It hit.", "It rose."))) == (
        "It fell.\n\neffect\n\nA. It hit.\nB. It rose."
    )
    assert lay_out(Example("1", "Who?", "1: Ann 2: Bob", ("Ann", "Bob"))) == "Who?\n\n1: Ann 2: Bob"


def test_a_text_that_asks_itself_stands_alone() -> None:
    assert build_prompt("", Example("1", "Name a fish."), Draw.NONE) == Prompt(None, "Name a fish.")
    assert build_prompt("", Example("1", "Name a fish."), Draw.ALL) == Prompt("Name a fish.", "")


@pytest.mark.parametrize("draw", Draw)
def test_a_recipe_that_was_written_and_read_says_what_was_drawn(draw: Draw) -> None:
    layout = None if draw is Draw.NONE else Layout().fingerprint()
    recipe = json.loads(json.dumps({"prompt": describe_prompt(TASK, draw), "layout": layout}))
    assert find_drawn(recipe, PAIR) == build_prompt(QUESTION, PAIR, draw).drawn


def test_a_teacher_without_words_sees_the_fields() -> None:
    assert find_drawn({"layout": Layout().fingerprint()}, PAIR) == lay_out(PAIR)
    assert find_drawn({"teacher": "scripted"}, PAIR) is None


def test_all_that_changes_a_prompt_is_described() -> None:
    described = {
        json.dumps(describe_prompt(task, draw))
        for task in (TASK, replace(TASK, question="?"), replace(TASK, label_words=("a", "b")))
        for draw in Draw
    }
    assert len(described) == 9
