"""ROUGE-L is that of rouge_score."""

import random

import pytest
from rouge_score.rouge_scorer import RougeScorer

from distill.scoring.rouge import has_words, rouge_l

TEXTS = [
    "",
    "...",
    "Cats are running.",
    "The cat ran, and the other cats' runner was tired; it's 3 o'clock.",
    "naïve Café déjà-vu",
    "答えは四です",
    "The answer is 42",
    "THE ANSWER IS forty-two\n\n(42)",
    "a b c d e f g",
    "g f e d c b a",
]


def test_it_is_rouge_scores_to_1e_9() -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    draw = random.Random(0)
    words = ["the", "a", "cat", "cats", "running", "runner", "ran", "quickly", "flies", "fly", "studies", "1", "22"]
    long = [" ".join(draw.choices(words, k=draw.randint(1, 60))) for _ in range(20)]
    for reply in (*TEXTS, *long):
        for references in ([text] for text in (*TEXTS, *long)):
            assert rouge_l(reply, references) == pytest.approx(
                scorer.score(references[0], reply)["rougeL"].fmeasure, abs=1e-9
            )
        best = scorer.score_multi([*TEXTS, *long[:5]], reply)["rougeL"].fmeasure
        assert rouge_l(reply, [*TEXTS, *long[:5]]) == pytest.approx(best, abs=1e-9)


def test_a_text_in_another_script_has_no_words() -> None:
    assert rouge_l("答えは四です", ["答えは四です"]) == 0
    assert not has_words("答えは四です")
    assert has_words("答えは4です")
