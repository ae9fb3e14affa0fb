"""The tasks whose answers can be written: each from files in the hub's layout, with its prompt, answer and score.

Every case is one row of a data set with all of its columns, what it becomes, the prompts that a student gets of it, and
a right and a wrong reply.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from shared.answers import find_rule, gold_text
from shared.errors import DataError, SourceError, UsageError
from shared.example import Example
from shared.tasks import TASKS, LoadedTask, find_task, load_task
from shared.tasks.sizes import KNOWN_ROWS
from shared.templates import find_template

HEAD = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
PAIRED = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
INDENT = " " * 16
ENDINGS = [", he waves.", " [title] He sits [step] down.", "he eats.", "it rains."]


@dataclass(frozen=True)
class Case:
    """A row as the data set has it, its file, the example, and what is written about it.

    `adapters` is what LLM-Adapters' prompt has as its instruction and `continuations` are lm-eval's context and texts.
    """

    row: Mapping[str, Any]
    file: str
    example: Example
    right: str
    wrong: str
    adapters: str | None = None
    completion: str | None = None
    continuations: tuple[str, tuple[str, ...]] | None = None
    rows: Mapping[str, Any] = field(default_factory=dict)


def exam(name: str, folder: str, stem: str) -> Case:
    choices = {"text": ["sun", "moon", "sea", "wind", "sand"], "label": ["A", "B", "C", "D", "E"]}
    row = {"id": "Q7", stem: "What shines?", "choices": choices, "answerKey": "B"}
    context = "What shines?" if name == "openbookqa" else "Question: What shines?\nAnswer:"
    return Case(
        row,
        f"{folder}/test-00000-of-00001.parquet",
        Example("Q7", "What shines?", choices=("sun", "moon", "sea", "wind", "sand"), label=1),
        right="The answer is B. moon",
        wrong="the correct answer is answer1",
        adapters=(
            "Please choose the correct answer to the question: What shines?\n\n"
            "Answer1: sun Answer2: moon Answer3: sea Answer4: wind Answer5: sand\n\n"
            "Answer format: answer1/answer2/answer3/answer4/answer5"
        ),
        completion="the correct answer is answer2",
        continuations=(context, (" sun", " moon", " sea", " wind", " sand")),
        rows={"choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}, "answerKey": "3"},
    )


def instruction(file: str, output: Any = "A fish.") -> Case:
    references = tuple(output) if isinstance(output, list) else None
    first = output[0] if isinstance(output, list) else output
    return Case(
        {"instruction": "What is a cod?", "input": "Be brief.", "output": output, "prompt": "unused"},
        file,
        Example("test-0", "What is a cod?", "Be brief.", target_text=first, references=references),
        right=first,
        wrong="A bird.",
        completion=first,
    )


CASES: dict[str, Case] = {
    "hellaswag": Case(
        {
            "ind": 4,
            "activity_label": "Waving",
            "ctx_a": "A man  [header] stands.",
            "ctx_b": "the Man",
            "ctx": "A man  [header] stands. the Man",
            "endings": ENDINGS,
            "source_id": "activitynet~v_x",
            "split": "val",
            "split_type": "indomain",
            "label": "1",
        },
        "Rowan/hellaswag/data/validation-00000-of-00001.parquet",
        Example("validation-0", "Waving: A man  [header] stands.", "the Man", tuple(ENDINGS), 1),
        right="the correct answer is ending2",
        wrong="the correct answer is ending4",
        adapters=(
            "Please choose the correct ending to complete the given sentence: "
            "Waving: A man  [header] stands. the Man\n\n"
            "Ending1: , he waves. Ending2:  [title] He sits [step] down. Ending3: he eats. Ending4: it rains.\n\n"
            "Answer format: ending1/ending2/ending3/ending4"
        ),
        completion="the correct answer is ending2",
        continuations=(
            "Waving: A man  stands. The man",
            (" , he waves.", "  He sits down.", " he eats.", " it rains."),
        ),
        rows={"ctx_b": "", "label": ""},
    ),
    "winogrande": Case(
        {"sentence": "The hat fit, the _ did not.", "option1": "shoe", "option2": "hat", "answer": "1"},
        "allenai/winogrande/winogrande_xl/validation-00000-of-00001.parquet",
        Example("validation-0", "The hat fit, the _ did not.", choices=("shoe", "hat"), label=0),
        right="option1",
        wrong="hat",
        adapters=(
            "Please choose the correct answer to fill in the blank to complete the given sentence: "
            "The hat fit, the _ did not.\n\nOption1: shoe Option2: hat Answer format: option1/option2"
        ),
        completion="the correct answer is option1",
        rows={"answer": ""},
    ),
    "arc_easy": exam("arc_easy", "allenai/ai2_arc/ARC-Easy", "question"),
    "arc_challenge": exam("arc_challenge", "allenai/ai2_arc/ARC-Challenge", "question"),
    "openbookqa": exam("openbookqa", "allenai/openbookqa/main", "question_stem"),
    "aqua": Case(
        {
            "question": "3 + 4 = ?",
            "options": ["A)21", "B)7", "C)7.5", "D) 1/2", "E)None of these"],
            "rationale": "3 + 4 = 7\nB",
            "correct": "B",
        },
        "deepmind/aqua_rat/raw/test-00000-of-00001.parquet",
        Example("test-0", "3 + 4 = ?", choices=("21", "7", "7.5", "1/2", "None of these"), label=1),
        right="Because 3 + 4 = 7, the answer is (B).",
        wrong="B is tempting, but the answer is (C).",
        adapters="3 + 4 = ? Answer Choices: (A) 21 (B) 7 (C) 7.5 (D) 1/2 (E) None of these",
        completion="The answer is (B).",
    ),
    "multiarith": Case(
        {"question": "He had 40 and lost 1. How many has he?", "final_ans": "39"},
        "ChilleD/MultiArith/data/test-00000-of-00001.parquet",
        Example("test-0", "He had 40 and lost 1. How many has he?", target_text="39"),
        right="40-1=39. The answer is 39.0.",
        wrong="39 or 40",
        adapters="He had 40 and lost 1. How many has he?",
        completion="39",
    ),
    "gsm8k": Case(
        {"question": "How many eggs?", "answer": "She has 1,000 <<500*2=1000>>eggs.\n#### 1,000"},
        "openai/gsm8k/main/test-00000-of-00001.parquet",
        Example("test-0", "How many eggs?", target_text="She has 1,000 <<500*2=1000>>eggs.\n#### 1,000"),
        right="500 * 2 = 1000. The answer is 1000 eggs, not 10.",
        wrong="#### 500",
        adapters="How many eggs?",
    ),
    "dolly": instruction("MiniLLM/dolly/valid.jsonl"),
    "self_inst": instruction("MiniLLM/self-inst/valid.jsonl"),
    "vicuna": instruction("MiniLLM/Vicuna/valid.jsonl"),
    "s_ni": instruction("MiniLLM/sinst/11_/valid.jsonl", ["A fish.", "[a fish of the sea]"]),
    "uni": instruction("MiniLLM/uinst/11_/valid.jsonl", ["A fish."]),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARVEST_DISTILL_HUB", str(tmp_path))
    return tmp_path / "datasets"


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=4))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_first(loaded: LoadedTask) -> Example:
    return next(loaded.examples(next(iter(loaded.splits))))


@pytest.mark.parametrize("name", CASES)
def test_every_task_from_the_hubs_layout(name: str, hub: Path) -> None:
    case = CASES[name]
    rows = [case.row, {**case.row, **case.rows}]
    if "id" in case.row:
        rows[1] = {**rows[1], "id": "Q8"}
    write(hub / case.file, rows)
    loaded = load_task(TASKS[name])
    assert sum(loaded.splits.values()) == 2
    assert read_first(loaded) == case.example
    assert "(from a mirror)" in loaded.source


@pytest.mark.parametrize("name", CASES)
def test_prompts_answers_and_scores(name: str) -> None:
    case, task = CASES[name], TASKS[name]
    gold = gold_text(case.example)
    assert gold is not None
    rule = find_rule(task.answer_rule or "exact")
    said = case.example
    for reply, right in ((case.right, True), (case.wrong, False), (gold, True), ("", False)):
        verdict = rule.is_right(
            reply,
            choices=said.choices,
            label=said.label,
            target_text=said.target_text,
            references=said.references,
        )
        assert verdict == right or (name == "aqua" and reply == gold), reply
    if case.adapters is not None:
        text = find_template("llm-adapters", name).render(case.example, task.question, scoring=True).text
        assert text is not None
        assert text.startswith(HEAD)
        assert f"\n\n{INDENT}### Instruction:\n{INDENT}{case.adapters}\n" in text
        assert text.endswith(f"\n{INDENT}### Response:\n{INDENT}")
    template = find_template("llm-adapters", name)
    if case.completion is not None:
        assert template.completion(case.example, gold) == case.completion
    # What a student learns to write is right by the task's own rule, whatever the template.
    for known in ("llm-adapters", "alpaca", "chat"):
        written = find_template(known, name).completion(case.example, gold)
        assert rule.is_right(
            written,
            choices=said.choices,
            label=said.label,
            target_text=said.target_text,
            references=said.references,
        ), (known, written)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.continuations])
def test_likelihoods_are_those_of_lm_eval(name: str) -> None:
    case = CASES[name]
    assert case.continuations is not None
    found = find_template("lm-eval", name).list_continuations(case.example, TASKS[name].question)
    assert {one.context.text for one in found} == {case.continuations[0]}
    assert tuple(one.text for one in found) == case.continuations[1]


def test_the_instruction_sets_have_alpacas_prompt() -> None:
    template = find_template("alpaca", "dolly")
    assert template.render(CASES["dolly"].example, TASKS["dolly"].question).text == (
        f"{PAIRED}\n\n### Instruction:\nWhat is a cod?\n\n### Input:\nBe brief.\n\n### Response:\n"
    )


def test_choices_of_a_chat_stand_below_the_question() -> None:
    (message,) = find_template("chat", "arc_easy").render(CASES["arc_easy"].example, "Which?").messages or ()
    assert message.content == "Which?\n\nWhat shines?\n\nA. sun\nB. moon\nC. sea\nD. wind\nE. sand"


class TestLayouts:
    def test_arc_has_three_to_five_choices_of_either_name(self, hub: Path) -> None:
        case = CASES["arc_easy"]
        write(
            hub / case.file,
            [case.row, {**case.row, **case.rows, "id": "Q8"}, {**case.row, "answerKey": "", "id": "Q9"}],
        )
        with pytest.raises(DataError, match=r"row 2: the label names none of the row's choices: ''"):
            load_task(TASKS["arc_easy"])
        write(hub / case.file, [case.row, {**case.row, **case.rows, "id": "Q8"}])
        second = list(load_task(TASKS["arc_easy"]).examples("test"))[1]
        assert (second.choices, second.label) == (("a", "b", "c"), 2)

    def test_hidden_labels_are_unlabelled_and_an_empty_second_part_is_none(self, hub: Path) -> None:
        for name in ("hellaswag", "winogrande"):
            case = CASES[name]
            write(hub / case.file, [case.row, {**case.row, **case.rows}])
            second = list(load_task(TASKS[name]).examples("validation"))[1]
            assert (second.label, second.text_pair) == (None, None)

    def test_the_branch_that_the_hub_converts_into(self, hub: Path) -> None:
        case = CASES["winogrande"]
        write(hub / "allenai/winogrande@refs%2Fconvert%2Fparquet/winogrande_xl/validation/0000.parquet", [case.row])
        loaded = load_task(TASKS["winogrande"])
        assert read_first(loaded) == case.example
        assert "taken in place of another source" in loaded.notes[0]

    def test_dollys_first_thousand_rows_validate(self, hub: Path) -> None:
        rows = [{"instruction": f"i{i}", "input": "", "output": f"o{i}"} for i in range(1_003)]
        write(hub / "MiniLLM/dolly/raw.jsonl", rows)
        write(hub / "MiniLLM/dolly/valid.jsonl", rows[:2])
        loaded = load_task(TASKS["dolly"])
        assert loaded.splits == {"train": 3, "validation": 1_000, "test": 2}
        assert [example.text for example in loaded.examples("train")] == ["i1000", "i1001", "i1002"]
        assert [example.sample_id for example in loaded.examples("train")] == ["train-1000", "train-1001", "train-1002"]
        assert [example.text for example in loaded.examples("validation")] == [f"i{i}" for i in range(1_000)]

    def test_unis_first_two_thousand_rows(self, hub: Path) -> None:
        write(hub / CASES["uni"].file, [CASES["uni"].row] * 2_010)
        assert load_task(TASKS["uni"]).splits == {"test": 2_000}

    def test_references_and_single_texts_in_one_file(self, hub: Path) -> None:
        outputs = ["[x] is text", ["a", "b"], "c", ["[d]"]]
        write(hub / CASES["s_ni"].file, [{"instruction": "i", "input": "", "output": output} for output in outputs])
        found = [(one.target_text, one.references) for one in load_task(TASKS["s_ni"]).examples("test")]
        assert found == [
            ("[x] is text", ("[x] is text",)),
            ("a", ("a", "b")),
            ("c", ("c",)),
            ("[d]", ("[d]",)),
        ]

    @pytest.mark.parametrize(
        ("name", "changes", "message"),
        [
            ("hellaswag", {"endings": "a, b"}, r"'endings' is not a list of choices"),
            ("hellaswag", {"endings": 3}, r"the column 'endings' does not hold lists of choices"),
            ("hellaswag", {"label": "4"}, r"names none of the row's choices, which are 0, 1, 2, 3: '4'"),
            ("hellaswag", {"endings": ["a"]}, "row 0: fewer than two choices"),
            ("hellaswag", {"endings": list(map(str, range(27)))}, "row 0: more than 26 choices"),
            ("winogrande", {"answer": "3"}, r"names none of the row's choices, which are 1, 2: '3'"),
            ("winogrande", {"sentence": ["a", "b"]}, r"the column 'sentence' holds List\(String\), not texts"),
            ("arc_easy", {"answerKey": "F"}, r"row 0: the label names none of the row's choices: 'F'"),
            ("aqua", {"correct": "7"}, r"row 0: the label names none of the row's choices: '7'"),
            ("multiarith", {"final_ans": None}, "no row has a text in the column 'final_ans'"),
        ],
    )
    def test_wrong_columns_are_refused_by_file_and_row(
        self, name: str, changes: dict[str, Any], message: str, hub: Path
    ) -> None:
        case = CASES[name]
        path = write(hub / case.file, [{**case.row, **changes}])
        with pytest.raises(DataError, match=message) as raised:
            load_task(TASKS[name])
        assert str(path) in str(raised.value) or "no row has" in message

    @pytest.mark.parametrize("name", CASES)
    def test_a_missing_column_is_named(self, name: str, hub: Path) -> None:
        case = CASES[name]
        column = TASKS[name].sources[0].label or TASKS[name].sources[0].target_text or ""
        write(hub / case.file, [{key: value for key, value in case.row.items() if key != column}])
        with pytest.raises(DataError, match=f"has no column '{column}'; it has: "):
            load_task(TASKS[name])


class TestTrainingSets:
    def test_commonsense(self, hub: Path) -> None:
        row = {"instruction": "Is it?\n\nAnswer format: true/false", "input": "", "answer": "true"}
        rows = [{**row, "output": "the correct answer is true"}] * 20
        write(hub / "zwhe99/commonsense_170k/data/train-00000-of-00001.parquet", rows)
        loaded = load_task(TASKS["commonsense_170k"])
        example = next(loaded.examples("train"))
        assert (example.text, example.target_text) == (row["instruction"], "the correct answer is true")
        text = find_template("llm-adapters", "commonsense_170k").render(example, loaded.task.question).text
        assert text is not None
        assert f"# noqa: E501\n\n{INDENT}### Instruction:\n{INDENT}Is it?\n\nAnswer format: true/false\n" in text
        rule = find_rule(str(loaded.task.answer_rule))
        assert rule.is_right("The correct answer is true.", target_text=example.target_text)
        assert not rule.is_right("the correct answer is false", target_text=example.target_text)

    def test_the_stand_in_is_a_sample_of_distinct_rows_that_does_not_move(self, hub: Path) -> None:
        texts = [f"question {i}" for i in range(9_000)]
        rows = [{"instruction": text, "output": "the correct answer is true"} for text in (*texts, *texts[:500])]
        path = hub / "zwhe99/commonsense_170k/data/train-00000-of-00001.parquet"

        write(path, rows[::-1])
        loaded = load_task(TASKS["commonsense_8k"])
        assert any("stand-in" in note for note in loaded.notes)
        assert {note.partition(": ")[0] for note in loaded.notes} >= {"500 rows left out", "1,000 rows left out"}
        found = [example.text for split in loaded.splits for example in loaded.examples(split)]
        lowest = sorted(texts, key=lambda text: blake2b(text.encode(), digest_size=8, person=b"sample").digest())
        assert sorted(found) == sorted(lowest[:8_000])

    @pytest.mark.parametrize("name", ["math_7k", "math_10k"])
    def test_mathematics_is_a_file_of_the_users(self, name: str, tmp_path: Path) -> None:
        row = {"instruction": "2 + 3?", "input": "", "output": "It is 5. The answer is 5.", "answer": "5"}
        path = write(tmp_path / "set.json", [row, {**row, "output": "The answer is (C).", "answer": "C"}] * 10)
        loaded = load_task(find_task(name, task_file=str(path)))
        assert sum(loaded.splits.values()) == 20
        found = {example.sample_id: example for split in loaded.splits for example in loaded.examples(split)}
        assert found["train-0"] == Example("train-0", "2 + 3?", target_text="It is 5. The answer is 5.")
        assert any("MultiArith" in note for note in loaded.notes) == (name == "math_10k")
        rule = find_rule(str(loaded.task.answer_rule))
        assert rule.is_right("5", target_text=row["output"])
        assert not rule.is_right("5", target_text="The answer is (C).")


class TestTaskFile:
    def test_singleeq(self, tmp_path: Path) -> None:
        row: dict[str, Any] = {
            "instruction": "9 into 63?",
            "input": "",
            "answer": [7.0],
            "output": "63 / 9 = 7. The answer is 7.",
        }
        path = write(tmp_path / "test.json", [row, {**row, "answer": [0.3333333333333333]}])
        loaded = load_task(find_task("SingleEq", task_file=str(path)))
        first, second = loaded.examples("test")
        assert first == Example("test-0", "9 into 63?", target_text="7.0", references=("7.0",))
        rule = find_rule(str(loaded.task.answer_rule))
        assert rule.is_right(row["output"], references=first.references)
        assert rule.is_right("about 1/3", references=second.references)
        assert find_template("llm-adapters", "singleeq").render(first, loaded.task.question).text == (
            f"{HEAD}  # noqa: E501\n\n{INDENT}### Instruction:\n{INDENT}9 into 63?\n{INDENT}\n"
            f"{INDENT}### Response:\n{INDENT}"
        )

    def test_without_it_the_message_says_where_the_file_is(self) -> None:
        with pytest.raises(SourceError, match=r"singleeq lies on no hub: download https://.*SingleEq/test\.json"):
            load_task(find_task("singleeq"))

    def test_any_known_task_may_be_read_from_a_file(self, tmp_path: Path) -> None:
        path = write(tmp_path / "mine.jsonl", [{"question": f"q{i}", "answer": f"#### {i}"} for i in range(40)])
        loaded = load_task(find_task("gsm8k", task_file=str(path), answer_rule="llm-adapters-number"))
        assert loaded.task.answer_rule == "llm-adapters-number"
        assert loaded.task.name == "gsm8k"
        assert set(loaded.splits) == {"train", "validation", "test"}

    def test_a_file_of_ones_own_is_not_read_from_another(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="a known task is read from"):
            find_task(str(tmp_path / "a.jsonl"), task_file="b.jsonl")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ('[{"instruction": "a"', "is not JSON"),
            ('[1, {"instruction": "a"}]', "row 0: a row is an object"),
            ("[]", "is empty"),
        ],
    )
    def test_a_file_that_is_no_array_of_objects(self, content: str, message: str, tmp_path: Path) -> None:
        path = tmp_path / "test.json"
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            load_task(find_task("singleeq", task_file=str(path)))


def test_known_rows_are_of_known_tasks_and_splits() -> None:
    for name, rows in KNOWN_ROWS.items():
        assert set(rows) <= set(TASKS[name].sources[0].splits)


def test_copa_by_its_choices(hub: Path) -> None:
    row = {"premise": "It rained.", "choice1": "It was wet.", "choice2": "It was dry.", "question": "effect"}
    for split in ("train", "validation"):
        write(hub / f"aps/super_glue/copa/{split}-00000-of-00001.parquet", [{**row, "idx": 0, "label": 0}])
    example = next(load_task(TASKS["copa_choice"]).examples("train"))
    assert example == Example("0", "It rained.", "effect", ("It was wet.", "It was dry."), 0)
    found = find_template("lm-eval", "copa_choice").list_continuations(example)
    assert found[0].context.text == "It rained therefore"
    assert [one.text for one in found] == ["  it was wet.", "  it was dry."]
