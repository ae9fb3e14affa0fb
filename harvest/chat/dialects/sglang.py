"""SGLang's server. Source: docs.sglang.ai, "OpenAI APIs" and "Structured Outputs", and its protocol.

Output is held to a grammar by `ebnf`. Errors are flat: {"object": "error", "message", "type", "code"}.
"""

from collections.abc import Sequence

from harvest.chat.dialects.base import Dialect, Json, write_grammar


def _ask_choice(words: Sequence[str]) -> Json:
    return {"ebnf": write_grammar(words)}


SGLANG = Dialect("sglang", owners=("sglang",), example="http://localhost:30000/v1", ask_choice=_ask_choice)
