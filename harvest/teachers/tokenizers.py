"""Tokenizers by name, as a recipe says whose ids the ids of replies are."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from shared.errors import require_extra
from shared.fingerprints import fingerprint_tokenizer
from shared.frozen_models import FrozenModel


@cache
def describe_tokenizer(source: str) -> Mapping[str, Any]:
    """The entry "tokenizer" of a recipe: the name that was given, and the fingerprint of the vocabulary.

    `source` is as shared.sources.resolve_model takes it. Raises SourceError where it names no tokenizer.
    """
    require_extra("distill", "transformers")
    from transformers import AutoTokenizer

    tokenizer = FrozenModel(source).load(AutoTokenizer)
    return {"name": source, "sha256": fingerprint_tokenizer(tokenizer.get_vocab())}
