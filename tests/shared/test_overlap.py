"""shared.overlap: counts against a count by hand, and against a plain restatement on random texts."""

import random

import pytest

from shared.overlap import measure_overlap


def test_whole_texts_whatever_their_case_and_punctuation() -> None:
    found = measure_overlap(["A cat sat.", "a dog", "", "..."], ["a CAT  sat!", "", "!"])
    assert (found.rows, found.exact, found.shared) == (4, 1, 0)
    assert found.exact_share == 0.25


def test_runs_of_words() -> None:
    train = ["one two three four five six seven eight nine ten"]
    inside = "so: three four five six, seven eight nine TEN and no more"
    across = "four five six seven eight nine"  # six words of it, none in a run of eight
    found = measure_overlap([inside, across, "ten one two three four five six seven eight"], train)
    assert (found.exact, found.shared) == (0, 2)
    # The first has 5 runs of which 1 is known, the last 2 of which 1 is.
    assert found.covered == pytest.approx((1 / 5 + 1 / 2) / 2)


def test_a_run_does_not_reach_into_the_next_text() -> None:
    halves = ["one two three four", "five six seven eight"]
    whole = ["one two three four five six seven eight"]
    assert measure_overlap(whole, halves).shared == 0
    assert measure_overlap(halves, whole).shared == 0
    assert measure_overlap(whole, whole).shared == 1


@pytest.mark.parametrize("words", [1, 2, 3, 8])
def test_as_a_plain_restatement_says(words: int) -> None:
    random.seed(words)
    texts = [" ".join(random.choices("abcd", k=random.randrange(12))) for _ in range(200)]
    test, train = texts[:80], texts[80:]

    def runs(text: str) -> list[tuple[str, ...]]:
        split = text.split()
        return [tuple(split[i : i + words]) for i in range(len(split) - words + 1)]

    known = {run for text in train for run in runs(text)}
    shares = [sum(run in known for run in runs(text)) / len(runs(text)) for text in test if runs(text)]
    found = measure_overlap(test, train, words)
    assert found.exact == sum(text in train and text != "" for text in test)
    assert found.shared == sum(any(run in known for run in runs(text)) for text in test)
    assert found.covered == pytest.approx(sum(shares) / len(shares))


def test_nothing_to_compare() -> None:
    assert measure_overlap([], ["a"]).exact_share == 0
    assert measure_overlap(["a b c d e f g h i"], []).shared_share == 0
    assert "of 1 test rows 0 (0.0%)" in measure_overlap(["a"], []).describe()
