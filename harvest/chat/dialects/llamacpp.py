"""llama.cpp's server. Source: github.com/ggml-org/llama.cpp, tools/server/README.md.

Any number of log-probabilities, each with its token `id`; output constrained by a GBNF grammar; one answer a request.
"""

from collections.abc import Sequence

from harvest.chat.dialects.base import Dialect, Json, Scoring, write_grammar


def _ask_choice(words: Sequence[str]) -> Json:
    return {"grammar": write_grammar(words)}


LLAMACPP = Dialect(
    "llamacpp",
    owners=("llamacpp",),
    example="http://localhost:8080/v1",
    scorings=(Scoring.TOP_LOGPROBS, Scoring.WORDS, Scoring.CHOICE, Scoring.VOTES),
    scores_words=True,
    top_logprobs=50,
    several=False,
    seed_field="seed",
    ask_choice=_ask_choice,
)
