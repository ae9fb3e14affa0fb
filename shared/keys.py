"""Makes request keys: a sha256 of everything that changes a teacher's answer, and of nothing that does not."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

# Part of every key. It counts the ways in which keys are made, not the schema of the rows: a new column bills nobody
# again.
KEY_VERSION = 1
# The entry of a recipe that says whose ids the ids of replies are. It tells what answers mean and changes none of them:
# no key depends on it, and a folder that lacks it takes it over.
TOKENIZER = "tokenizer"

# One encoder for all calls: json.dumps would build a new one each time, at twice the cost of a small request.
_encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal text. Raises ValueError on NaN."""
    return _encoder.encode(value)


class RequestKeys:
    """Makes the keys of one recipe's requests.

    The recipe (teacher, endpoint, model and revision, prompt, generation parameters, page layout, ...) is hashed once;
    a request adds its own content. Text that is drawn enters as text with the layout's fingerprint in the recipe, not
    as image bytes: drawing is a pure function of the two, so a key costs no rendering, and a new version of the PNG
    encoder does not bill anybody again. Pictures that come from the user's data enter by the sha256 of their bytes.
    """

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        asked = {name: value for name, value in recipe.items() if name != TOKENIZER}
        self._recipe = sha256(canonical_json({"schema_version": KEY_VERSION, "recipe": asked}).encode())

    def key(self, content: Mapping[str, Any], draw: int = 0) -> str:
        """The key, 64 hexadecimal digits, of the request that says `content`; `draw` numbers repeated samples of it."""
        digest = self._recipe.copy()
        digest.update(canonical_json({"content": content, "draw": draw}).encode())
        return digest.hexdigest()
