"""Tokenizers of models: by name, as a recipe says whose ids the ids of replies are, and what they make of prompts."""

from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256
from typing import Any

from shared.errors import DataError, SourceError, require_extra
from shared.fingerprints import fingerprint_tokenizer
from shared.frozen_models import FrozenModel
from shared.templates import Rendered

_MARK = "\N{SNOWMAN}"  # stands for an answer where the end of a turn is looked for
_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


def hash_tokenizer(model: FrozenModel) -> str:
    """The sha256, in hexadecimal, of the files that turn text into token ids: whose ids `topk_ids` are.

    Raises DataError where the model has none.
    """
    digest = sha256()
    found = False
    for name in _FILES:
        content = model.read_bytes(name)
        if content is not None:
            found = True
            digest.update(b"%s\0%d\0" % (name.encode(), len(content)) + content)
    if not found:
        raise DataError(f"{model.resolved.source} has no tokenizer files: {', '.join(_FILES[:3])}, ...")
    return digest.hexdigest()


class PromptTokenizer:
    """The tokenizer that `source` names: prompts and texts as token ids, each encoded on its own. Loads when needed.

    `source` is as shared.sources.resolve_model takes it.
    """

    def __init__(self, source: str) -> None:
        self._source, self._files = source, FrozenModel(source)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer itself. Raises SourceError where there is none."""
        require_extra("distill", "transformers")
        from transformers import AutoTokenizer

        return self._files.load(AutoTokenizer)

    @cached_property
    def description(self) -> Mapping[str, Any]:
        """The entry "tokenizer" of a recipe: the name that was given, and the fingerprint of the vocabulary."""
        return {"name": self._source, "sha256": fingerprint_tokenizer(self.tokenizer.get_vocab())}

    @cached_property
    def start(self) -> int:
        """The token before a text that continues nothing: the first of a text, or where there is none the last."""
        tokenizer = self.tokenizer
        found = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        if found is None:
            raise SourceError(f"the tokenizer of {self._source} has no token that begins or ends a text")
        return int(found)

    @cached_property
    def end_of_text(self) -> int:
        """The token that ends a text."""
        if self.tokenizer.eos_token_id is None:
            raise SourceError(f"the tokenizer of {self._source} has no token that ends a text: give --no-score-end")
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def end_of_turn(self) -> int:
        """The token by which the chat template ends an answer; the end of a text where it writes none."""
        said = self._spell([{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}], False)
        after = said.rpartition(_MARK)[2]
        ids = self.tokenizer(after, add_special_tokens=False).input_ids if after else []
        return int(ids[0]) if ids and ids[0] in self.tokenizer.all_special_ids else self.end_of_text

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end a text; none where the tokenizer names none."""
        found = self.tokenizer.eos_token_id
        return frozenset() if found is None else frozenset([int(found)])

    def encode(self, text: str) -> list[int]:
        """The token ids of `text` alone: nothing is put before or after it."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def encode_prompt(self, prompt: Rendered) -> list[int]:
        """The token ids of a prompt: messages in the tokenizer's chat template, which writes its own special tokens.

        Raises SourceError for messages where the tokenizer has no chat template.
        """
        if prompt.messages is None:
            return self.encode(prompt.text or "") or [self.start]
        if not self.tokenizer.chat_template:
            raise SourceError(
                f"{self._source} has no chat template: give --template alpaca, lm-eval or a file of your own"
            )
        return self.encode(self._spell(prompt.describe(), True))

    def _spell(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
        )
