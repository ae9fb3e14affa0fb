"""Exact scores of whole label words at llama.cpp's server: a few requests a row, each about many beginnings."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeAlias

from harvest.chat.dialects.following import (
    TEMPLATE_PATH,
    TOKENIZE_PATH,
    Prompt,
    read_chosen,
    read_ratios,
    read_template,
    write_chosen,
    write_ratios,
    write_template,
)
from harvest.chat.label_trie import LabelTrie, TrieWalk
from harvest.chat.pricing import guess_tokens
from harvest.chat.scoring import LOG_ZERO, Distribution, LabelWords, spell_word
from harvest.teachers.endpoint.client import Client
from shared.errors import TeacherError, UsageError

MOST_NUMBERS = 50_000  # of probabilities in one reply: about 5 MB

# Sends a body about so many prompts, and gives what came; None where nothing more is asked for this row.
Post: TypeAlias = Callable[[Any, int], Awaitable[Any]]


class WordScorer:
    """The tokens of the label words by the server's own tokenizer, fetched once, and walks down their tree."""

    def __init__(self, words: LabelWords, client: Client) -> None:
        self._words, self._client = words.words, client
        self._trie: LabelTrie | None = None
        self._lock = asyncio.Lock()

    async def score(self, prompt: str, post: Post) -> Distribution | None:
        """The label distribution behind a prompt; None where `post` gave none of what was asked.

        Raises ValueError for a reply that cannot be read, and UsageError for words that are the same tokens.
        """
        trie = await self._find_trie()
        walk = TrieWalk(trie)
        while nodes := walk.choose():
            for part in _share_out(trie, nodes):
                tokens = sorted({token for node in part for token in trie.list_tokens(node)})
                prompts = [_continue(prompt, trie.nodes[node].path) for node in part]
                chosen_body = await post(write_chosen(prompts, tokens), len(prompts))
                if chosen_body is None:
                    return None
                chosen, shares = read_chosen(chosen_body), None
                if len(tokens) > 1:
                    ratio_body = await post(write_ratios(prompts, tokens), len(prompts))
                    if ratio_body is None:
                        return None
                    shares = read_ratios(ratio_body)
                for at, node in enumerate(part):
                    token, logprob = chosen[at]
                    ratios = {token: 0.0} if shares is None else shares[at]
                    whole = logprob - ratios[token]  # of all named tokens together
                    walk.tell(node, [whole + ratios.get(child, LOG_ZERO) for child in trie.list_tokens(node)])
        return walk.distribute()

    async def _find_trie(self) -> LabelTrie:
        async with self._lock:
            if self._trie is None:
                spellings = [text for word in self._words for text in spell_word(word, capitals=False)]
                encoded = {text: await self._encode(text) for text in spellings}
                self._trie = LabelTrie(self._words, encoded.__getitem__)
        return self._trie

    async def _encode(self, text: str) -> Sequence[int]:
        reply = await self._client.fetch_json(TOKENIZE_PATH, {"content": text, "add_special": False})
        tokens = reply.get("tokens") if isinstance(reply, dict) else None
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise TeacherError("the server's /tokenize does not tell the ids of the label words' tokens")
        return tokens


async def check_routes(client: Client) -> None:
    """Raise UsageError where the server has not the routes by which words are scored; it is asked for nothing else."""
    try:
        read_template(await client.fetch_json(TEMPLATE_PATH, write_template([{"role": "user", "content": "?"}], {})))
    except ValueError:
        raise UsageError("the server has no /apply-template route, behind whose prompts words are scored") from None


def _continue(prompt: str, path: Sequence[int]) -> Prompt:
    return [prompt, *path]


def _share_out(trie: LabelTrie, nodes: Sequence[int]) -> Iterator[Sequence[int]]:
    """The nodes in parts of which one reply brings no more than MOST_NUMBERS probabilities."""
    tokens = len({token for node in nodes for token in trie.list_tokens(node)})
    size = max(1, MOST_NUMBERS // max(1, tokens))
    for start in range(0, len(nodes), size):
        yield nodes[start : start + size]


def guess_requests(words: LabelWords) -> int:
    """About how many requests a row takes: one for its prompt, and two for each step down the tree.

    Steps are the tokens of the longest word, and one more for another way of writing words.
    """
    return 1 + 2 * (1 + max(guess_tokens(word) for word in words.words))


def guess_prompts(words: LabelWords) -> int:
    """About how often a row's prompt is read: for each beginning of words that has something behind it."""
    return 1 + sum(guess_tokens(word) - 1 for word in words.words)
