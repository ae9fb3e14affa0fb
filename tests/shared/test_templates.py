"""shared.templates: the prompts of the templates that are known, letter by letter, and a user's own."""

from importlib.util import find_spec
from pathlib import Path
from random import Random
from runpy import run_path
from typing import Any

import pytest
import yaml
from jinja2 import Template as JinjaTemplate

from shared.errors import DataError, UsageError
from shared.example import Example, Message
from shared.templates import TEMPLATES, find_template

PLAIN = Example("r0", "Name a fish.", target_text="Cod.")
WITH_INPUT = Example("r1", "Translate.", "Guten Tag", target_text="Good day")
CHOICE = Example("r2", "Where do fish live?", choices=("trees", "water", "sand"), label=1)


class TestAlpaca:
    def test_without_and_with_an_input(self) -> None:
        template = find_template("alpaca")
        assert template.render(PLAIN).text == (
            "Below is an instruction that describes a task. Write a response that appropriately completes the request."
            "\n\n### Instruction:\nName a fish.\n\n### Response:\n"
        )
        assert template.render(WITH_INPUT).text == (
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request.\n\n"
            "### Instruction:\nTranslate.\n\n### Input:\nGuten Tag\n\n### Response:\n"
        )
        assert template.completion(PLAIN, "Cod.") == "Cod."

    def test_a_question_is_the_instruction_and_the_row_its_input(self) -> None:
        template = find_template("alpaca")
        text = template.render(CHOICE, "Which is right?").text
        assert text is not None
        assert text.endswith(
            "### Instruction:\nWhich is right?\n\n### Input:\nWhere do fish live?\n\n"
            "A. trees\nB. water\nC. sand\n\n### Response:\n"
        )
        assert template.completion(CHOICE, "water") == "B. water"
        assert template.completion(CHOICE, "It is B, for they swim.") == "It is B, for they swim."


class TestLlmAdapters:
    HEAD = "Below is an instruction that describes a task. Write a response that appropriately completes the request. "
    INDENT = " " * 16

    def test_the_prompt_that_is_learnt(self) -> None:
        expected = (
            f"{self.HEAD} # noqa: E501\n\n{self.INDENT}### Instruction:\n{self.INDENT}Name a fish.\n{self.INDENT}\n"
            f"{self.INDENT}### Response:\n{self.INDENT}"
        )
        for task in ("multiarith", "commonsense_170k", ""):
            assert find_template("llm-adapters", task).render(PLAIN).text == expected
        assert find_template("llm-adapters", "multiarith").render(PLAIN, scoring=True).text == expected

    def test_the_prompt_that_is_scored(self) -> None:
        assert find_template("llm-adapters", "commonsense_170k").render(PLAIN, scoring=True).text == (
            f"{self.HEAD}\n\n{self.INDENT}### Instruction:\n{self.INDENT}Name a fish.\n\n"
            f"{self.INDENT}### Response:\n{self.INDENT}"
        )

    def test_the_instruction_of_a_choice(self) -> None:
        template = find_template("llm-adapters", "arc_easy")
        text = template.render(CHOICE, "Not used?").text
        assert text is not None
        assert (
            f"{self.INDENT}Please choose the correct answer to the question: Where do fish live?\n\n"
            "Answer1: trees Answer2: water Answer3: sand\n\nAnswer format: answer1/answer2/answer3\n" in text
        )
        assert template.completion(CHOICE, "water") == "the correct answer is answer2"
        assert template.completion(CHOICE, "answer2, I think") == "answer2, I think"

    def test_winogrande_has_the_answer_format_in_the_same_line(self) -> None:
        row = Example("r", "The _ fit.", choices=("hat", "shoe"), label=0)
        text = find_template("llm-adapters", "winogrande").render(row, scoring=True).text
        assert text is not None
        assert "given sentence: The _ fit.\n\nOption1: hat Option2: shoe Answer format: option1/option2\n\n" in text


def test_chat_keeps_a_conversation_as_it_is() -> None:
    template = find_template("chat")
    assert template.render(WITH_INPUT).messages == (Message("user", "Translate.\n\nGuten Tag"),)
    talk = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Go"))
    assert template.render(Example("r", "all of it", messages=talk)).messages == talk
    assert find_template("alpaca").render(Example("r", "all of it", messages=talk)).messages is None


class TestContinuations:
    def test_the_choices_follow_one_context(self) -> None:
        found = find_template("lm-eval", "arc_easy").list_continuations(CHOICE)
        assert {one.context.text for one in found} == {"Question: Where do fish live?\nAnswer:"}
        assert [(one.text, one.characters) for one in found] == [(" trees", 5), (" water", 5), (" sand", 4)]

    def test_winogrande_has_the_choice_in_its_context(self) -> None:
        row = Example("r", "The hat and the shoe: the _ fit _ well. ", choices=("hat", "shoe"), label=0)
        template = find_template("lm-eval", "winogrande")
        assert [(one.context.text, one.text) for one in template.list_continuations(row)] == [
            ("The hat and the shoe: the hat", " fit _ well."),
            ("The hat and the shoe: the shoe", " fit _ well."),
        ]
        assert template.render(row).text == "The hat and the shoe: the"
        assert template.completion(row, "hat") == " hat fit _ well. "

    def test_a_row_without_choices(self) -> None:
        with pytest.raises(ValueError, match="r0 has no choices"):
            find_template("lm-eval").list_continuations(PLAIN)

    def test_other_templates_score_choices_too(self) -> None:
        found = find_template("chat").list_continuations(CHOICE, "Which?")
        assert [one.text for one in found] == ["A. trees", "B. water", "C. sand"]
        assert found[0].context.messages == (
            Message("user", "Which?\n\nWhere do fish live?\n\nA. trees\nB. water\nC. sand"),
        )


class TestOwn:
    def write(self, folder: Path, text: str) -> str:
        (folder / "mine.yaml").write_text(text)
        return str(folder / "mine.yaml")

    def test_a_file(self, tmp_path: Path) -> None:
        path = self.write(
            tmp_path,
            'prompt: "USER: {{ instruction }}\\n{{ input }}\\nASSISTANT:"\nresponse: " {{ answer | upper }}"\n'
            'tasks: {arc_easy: {instruction: "Choose: {{ text }}", input: "{{ choices | join(\' or \') }}"}}',
        )
        template = find_template(path)
        assert template.name == "mine"
        assert template.render(WITH_INPUT).text == "USER: Translate.\nGuten Tag\nASSISTANT:"
        assert template.completion(PLAIN, "Cod") == " COD"
        special = find_template(path, "arc_easy")
        assert special.render(CHOICE).text == "USER: Choose: Where do fish live?\ntrees or water or sand\nASSISTANT:"
        assert special.describe() != template.describe()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("prompt: '{{ text'", r"mine\.yaml, prompt, line 1: unexpected end"),
            ("prmpt: a", "a key 'prmpt', which there is not; did you mean prompt"),
            ("system: a", "has no prompt"),
            ("- a", "is not a mapping"),
            ("prompt: 3", "prompt is 3, not a str"),
            ("prompt: a\ntasks: {x: {promt: b}}", "tasks, x has a key 'promt'"),
            ("prompt: [", "cannot be read"),
        ],
    )
    def test_a_file_that_is_no_template(self, content: str, message: str, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=message):
            find_template(self.write(tmp_path, content))

    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            ("{{ txt }}", "the template mine does not fit the row r0: 'txt' is undefined"),
            ("{{ text_pair.upper() }}", "does not fit the row r0"),
            ("{{ ().__class__.__bases__ }}", "does not fit the row r0"),
        ],
    )
    def test_a_text_that_does_not_fit_the_row(self, prompt: str, message: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=message):
            find_template(self.write(tmp_path, f'prompt: "{prompt}"')).render(PLAIN)

    def test_an_unknown_name(self) -> None:
        with pytest.raises(UsageError, match=r"no template 'alpacca'; did you mean alpaca\? there are: llm-ad"):
            find_template("alpacca")


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_fits_every_kind_of_row(name: str) -> None:
    row: Any
    for row in (PLAIN, WITH_INPUT, CHOICE):
        rendered = TEMPLATES[name].render(row, "What?")
        assert (rendered.text is None) != (rendered.messages is None)
        assert "cod" in TEMPLATES[name].completion(row, "a cod")


class TestAgainstLmEval:
    """Contexts and continuations of random rows, as the task files of the installed lm-eval make them."""

    PIECES = ("Then he", "the Man", "[title]", " [title]", "[step] on", "  ", " ", "wAves", ".", "é", "[", "]")

    @pytest.fixture
    def folder(self) -> Path:
        found = find_spec("lm_eval")
        if found is None or not found.submodule_search_locations:
            pytest.skip("lm-eval is not installed")
        return Path(found.submodule_search_locations[0]) / "tasks"

    def draw(self, random: Random) -> str:
        return "".join(random.choices(self.PIECES, k=random.randrange(1, 9))) + "x"

    def test_hellaswag(self, folder: Path) -> None:
        preprocess = self.load(folder / "hellaswag/utils.py")["preprocess"]
        random = Random(0)
        template = find_template("lm-eval", "hellaswag")
        for _ in range(300):
            label, first, second = (self.draw(random) for _ in range(3))
            second = random.choice((second, ""))
            endings = tuple(self.draw(random) for _ in range(4))
            context = preprocess(f"{label}: {first} {second.capitalize()}")
            found = template.list_continuations(Example("r", f"{label}: {first}", second or None, endings))
            assert [one.context.text for one in found] == [context] * 4
            assert [one.text for one in found] == [f" {preprocess(ending)}" for ending in endings]
            assert [one.characters for one in found] == [len(preprocess(ending)) for ending in endings]

    def test_winogrande(self, folder: Path) -> None:
        theirs = self.load(folder / "winogrande/preprocess_winogrande.py")
        random = Random(1)
        template = find_template("lm-eval", "winogrande")
        for _ in range(100):
            document = {"sentence": f"{self.draw(random)} _ {self.draw(random)} ", "option1": "A b", "option2": "c"}
            found = template.list_continuations(Example("r", document["sentence"], choices=("A b", "c")))
            assert [one.context.text for one in found] == theirs["doc_to_choice"](document)
            assert [one.text for one in found] == [f" {theirs['doc_to_target'](document)}"] * 2

    def test_copa(self, folder: Path) -> None:
        theirs = self.load(folder / "super_glue/copa/utils.py")
        for question in ("cause", "effect"):
            document = {
                "premise": "It Rained. ",
                "question": question,
                "choice1": "It was.",
                "choice2": "He saw.",
                "label": 0,
            }
            row = Example("r", "It Rained. ", question, ("It was.", "He saw."), 0)
            found = find_template("lm-eval", "copa_choice").list_continuations(row)
            assert found[0].context.text == theirs["doc_to_text"](document)
            assert [one.text for one in found] == [f" {choice}" for choice in theirs["doc_to_choice"](document)]

    @pytest.mark.parametrize(
        ("file", "task"),
        [("arc/arc_easy", "arc_easy"), ("openbookqa/openbookqa", "openbookqa"), ("gsm8k/gsm8k", "gsm8k")],
    )
    def test_the_texts_of_task_files(self, file: str, task: str, folder: Path) -> None:
        asked = yaml.safe_load((folder / f"{file}.yaml").read_text())["doc_to_text"]
        source = f"{{{{ {asked} }}}}" if asked == "question_stem" else asked
        expected = JinjaTemplate(source).render(question="What is it?", question_stem="What is it?")
        assert find_template("lm-eval", task).render(Example("r", "What is it?")).text == expected

    @staticmethod
    def load(path: Path) -> dict[str, Any]:
        return run_path(str(path))
