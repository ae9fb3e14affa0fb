"""The names that were meant."""

import pytest

from shared.suggestions import find_near, hint, suggest

NAMES = ("reader", "endpoint", "qwen2.5-vl")


@pytest.mark.parametrize(("given", "near"), [("redaer", "reader"), ("Reader", "reader"), ("qwen", "qwen2.5-vl")])
def test_a_near_name_is_found_by_spelling_and_by_how_it_begins(given: str, near: str) -> None:
    assert find_near(given, NAMES) == [near]
    assert hint(given, NAMES) == f"did you mean {near}? "


@pytest.mark.parametrize("given", ["", "zzz"])
def test_what_is_near_to_nothing_is_told_all_names(given: str) -> None:
    assert suggest(given, NAMES) == "it has: reader, endpoint, qwen2.5-vl"


def test_names_are_spelled_as_the_user_writes_them() -> None:
    assert suggest("epoch", ["epochs"], "--{}".format, "there are") == "did you mean --epochs? there are --epochs"
    assert suggest("x", []) == "it has: none"
