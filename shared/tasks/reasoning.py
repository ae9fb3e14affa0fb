"""The eight reasoning tasks of ARMADA (arXiv:2603.10877), GSM8K, and the sets that students of them are trained on.

Columns and labels are those of the data sets' cards on the hub: Rowan/hellaswag, allenai/winogrande, allenai/ai2_arc,
allenai/openbookqa, deepmind/aqua_rat, ChilleD/MultiArith, openai/gsm8k and zwhe99/commonsense_170k. SingleEq and the
sets of mathematics are files of LLM-Adapters (arXiv:2304.01933), which the user gives.
"""

from dataclasses import replace

from shared.tasks.task import Source, Task

_HUB = "hf://datasets"
_CONVERTED = "@refs%2Fconvert%2Fparquet"  # the branch in which the hub keeps Parquet of data sets that have none
_ADAPTERS = "https://github.com/AGI-Edgerunners/LLM-Adapters"
_THREE = ("train", "validation", "test")
_CHOICE_TOKENS, _NUMBER_TOKENS = 32, 256  # what LLM-Adapters lets a student write
_WHICH = "Answer with the letter and the text of the right choice."


def _find_splits(repo: str, folder: str, names: tuple[str, ...]) -> dict[str, str]:
    return {name: f"{_HUB}/{repo}/{folder}/{name}-*.parquet" for name in names}


def _also_converted(source: Source, repo: str, config: str) -> tuple[Source, Source]:
    """The source, and the same rows where the hub converted them to Parquet."""
    splits = {name: f"{_HUB}/{repo}{_CONVERTED}/{config}/{name}/*.parquet" for name in source.splits}
    return source, replace(source, splits=splits)


def _exam(name: str, repo: str, folder: str, text: str) -> Task:
    """A task of questions with three to five named choices."""
    source = Source(
        splits=_find_splits(repo, folder, _THREE),
        text=text,
        choices_column="choices",
        label="answerKey",
        id="id",
        drop_empty=True,
    )
    return Task(
        name=name,
        kind="choice",
        question=f"Which choice answers the question? {_WHICH}",
        answer_rule="choice",
        max_reply_tokens=_CHOICE_TOKENS,
        sources=(source,),
    )


def _instructions(name: str, source: Source, rule: str, tokens: int) -> Task:
    """A set that students are trained on: instructions that hold all, and what is to be written."""
    return Task(
        name=name, kind="generation", answer_rule=rule, max_reply_tokens=tokens, metric="accuracy", sources=(source,)
    )


_HELLASWAG = Source(
    splits=_find_splits("Rowan/hellaswag", "data", ("train", "validation")),
    text="{activity_label}: {ctx_a}",
    text_pair="{ctx_b}",
    optional=("ctx_b",),
    choices_column="endings",
    label="label",
    label_values=("0", "1", "2", "3"),
    unlabelled=("",),
    drop_empty=True,
)
_WINOGRANDE = Source(
    splits=_find_splits("allenai/winogrande", "winogrande_xl", ("train", "validation")),
    text="{sentence}",
    choices=("option1", "option2"),
    label="answer",
    label_values=("1", "2"),
    unlabelled=("",),
    drop_empty=True,
)
_AQUA = Source(
    splits=_find_splits("deepmind/aqua_rat", "raw", _THREE),
    text="{question}",
    choices_column="options",
    choice_prefix="([A-E])[)]",
    label="correct",
    drop_empty=True,
)
_MULTIARITH = Source(
    splits=_find_splits("ChilleD/MultiArith", "data", ("train", "test")),
    text="{question}",
    target_text="final_ans",
    drop_empty=True,
)
_SINGLEEQ = Source(
    splits={"test": ""},
    own_file=f"{_ADAPTERS}/blob/main/dataset/SingleEq/test.json",
    text="{instruction}",
    target_text="answer",
    drop_empty=True,
)
_GSM8K = Source(
    splits=_find_splits("openai/gsm8k", "main", ("train", "test")),
    text="{question}",
    target_text="answer",
    drop_empty=True,
)
_COMMONSENSE = Source(
    splits={"train": f"{_HUB}/zwhe99/commonsense_170k/data/train-*.parquet"},
    text="{instruction}",
    target_text="output",
    drop_empty=True,
)
_MATH = Source(
    splits={"train": ""},
    text="{instruction}",
    text_pair="{input}",
    optional=("input",),
    target_text="output",
    drop_empty=True,
)
_MATH_FILES = f"{_ADAPTERS}/blob/main/ft-training_set"


def _numbers(name: str, sources: tuple[Source, ...]) -> Task:
    """A task of word problems whose answer is a number."""
    return Task(
        name=name,
        kind="generation",
        question="Solve the problem step by step. End with: The answer is NUMBER.",
        answer_rule="number",
        max_reply_tokens=_NUMBER_TOKENS,
        sources=sources,
    )


REASONING = (
    Task(
        name="hellaswag",
        kind="choice",
        question=f"Which ending continues the text? {_WHICH}",
        answer_rule="choice",
        max_reply_tokens=_CHOICE_TOKENS,
        sources=_also_converted(_HELLASWAG, "Rowan/hellaswag", "default"),
    ),
    Task(
        name="winogrande",
        kind="choice",
        question=f"Which choice belongs in the blank (_) of the sentence? {_WHICH}",
        answer_rule="choice",
        max_reply_tokens=_CHOICE_TOKENS,
        sources=_also_converted(_WINOGRANDE, "allenai/winogrande", "winogrande_xl"),
    ),
    _exam("arc_easy", "allenai/ai2_arc", "ARC-Easy", "{question}"),
    _exam("arc_challenge", "allenai/ai2_arc", "ARC-Challenge", "{question}"),
    _exam("openbookqa", "allenai/openbookqa", "main", "{question_stem}"),
    Task(
        name="aqua",
        kind="choice",
        question="Solve the problem step by step. End with the letter of the right choice: The answer is (LETTER).",
        answer_rule="letter",
        max_reply_tokens=_NUMBER_TOKENS,
        sources=(_AQUA,),
    ),
    _numbers("multiarith", _also_converted(_MULTIARITH, "ChilleD/MultiArith", "default")),
    _numbers("singleeq", (_SINGLEEQ,)),
    _numbers("gsm8k", (_GSM8K,)),
    replace(
        _instructions("commonsense_170k", _COMMONSENSE, "choice", _CHOICE_TOKENS),
        sources=_also_converted(_COMMONSENSE, "zwhe99/commonsense_170k", "default"),
    ),
    replace(
        _instructions("commonsense_8k", _COMMONSENSE, "choice", _CHOICE_TOKENS),
        sources=_also_converted(
            replace(
                _COMMONSENSE,
                drop_repeats=True,
                sample=8_000,
                note="a stand-in: nobody published the Commonsense8K of the paper; these are 8,000 distinct "
                "instructions of commonsense_170k, chosen by hash",
            ),
            "zwhe99/commonsense_170k",
            "default",
        ),
    ),
    _instructions(
        "math_7k",
        replace(_MATH, own_file=f"{_MATH_FILES}/math_7k.json"),
        "number-or-letter",
        _NUMBER_TOKENS,
    ),
    _instructions(
        "math_10k",
        replace(
            _MATH,
            own_file=f"{_MATH_FILES}/math_10k.json",
            note="its authors say that it holds problems of the test sets of MultiArith and SingleEq: scores there are "
            "not those of unseen problems; math_7k does not hold them",
        ),
        "number-or-letter",
        _NUMBER_TOKENS,
    ),
)
