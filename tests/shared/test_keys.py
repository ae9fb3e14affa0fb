"""Request keys: what changes an answer changes the key, and nothing else does."""

import hashlib
import json
from typing import Any

import pytest

from shared.keys import RequestKeys, canonical_json

RECIPE = {"teacher": "t", "model": "m", "temperature": 0.0}


def test_a_key_is_the_sha256_of_recipe_and_request() -> None:
    """The same in every version of the schema: a key that changed would have everything asked, and billed, again."""
    recipe = json.dumps({"recipe": RECIPE, "schema_version": 1}, sort_keys=True, separators=(",", ":"))
    request = '{"content":{"text":"naïve 文"},"draw":2}'
    expected = hashlib.sha256((recipe + request).encode()).hexdigest()
    assert RequestKeys(RECIPE).key({"text": "naïve 文"}, draw=2) == expected


def test_the_order_of_keys_does_not_matter() -> None:
    turned = dict(reversed(RECIPE.items()))
    assert RequestKeys(RECIPE).key({"a": 1, "b": 2}) == RequestKeys(turned).key({"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("recipe", "content", "draw"),
    [
        ({**RECIPE, "model": "n"}, {"text": "x"}, 0),
        ({**RECIPE, "temperature": 1.0}, {"text": "x"}, 0),
        (RECIPE, {"text": "x "}, 0),
        (RECIPE, {"texts": "x"}, 0),
        (RECIPE, {"text": "x"}, 1),
    ],
)
def test_whatever_changes_the_answer_changes_the_key(
    recipe: dict[str, Any], content: dict[str, Any], draw: int
) -> None:
    assert RequestKeys(recipe).key(content, draw) != RequestKeys(RECIPE).key({"text": "x"})


def test_a_number_that_json_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json({"temperature": float("nan")})


def test_the_tokenizer_of_the_replies_changes_no_key() -> None:
    named = {**RECIPE, "tokenizer": {"name": "t", "sha256": "0" * 64}}
    assert RequestKeys(named).key({"text": "x"}) == RequestKeys(RECIPE).key({"text": "x"})
