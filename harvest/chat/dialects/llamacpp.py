"""llama.cpp's server. Source: github.com/ggml-org/llama.cpp, tools/server/README.md.

Any number of log-probabilities, each with its token `id`; output constrained by a GBNF grammar; one answer a request.
"""

import json
from collections.abc import Sequence

from harvest.chat.dialects.base import Dialect, Json


def _ask_choice(words: Sequence[str]) -> Json:
    # A JSON string is a GBNF literal: the same quotes and escapes.
    return {"grammar": "root ::= " + " | ".join(json.dumps(word, ensure_ascii=False) for word in words)}


LLAMACPP = Dialect("llamacpp", top_logprobs=50, several=False, seeds=True, ask_choice=_ask_choice)
