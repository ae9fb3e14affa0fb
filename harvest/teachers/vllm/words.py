"""Scores of whole label words by an engine that scores named tokens: each beginning of a word is a prompt of its own.

The engine finds what such prompts share in its cache of prefixes.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harvest.chat.label_trie import MOST_TOKENS, LabelTrie, TrieWalk
from harvest.chat.scoring import Distribution


class Beginning(NamedTuple):
    """What is asked of the engine: how probable `tokens` are behind a prompt and `path`. `number` names the request."""

    number: int
    path: Sequence[int]
    tokens: Sequence[int]


class PromptWalk:
    """One prompt's walk down the tree of label words, a request for each beginning that matters."""

    def __init__(self, trie: LabelTrie) -> None:
        self._trie, self._walk = trie, TrieWalk(trie)
        self._asked: dict[int, int] = {}  # the node of each request that is not answered yet
        self._found: dict[int, dict[int, float]] = {}  # of nodes that were asked for
        self._count = 0

    def ask(self) -> list[Beginning]:
        """What is to be asked next; nothing while answers are awaited, and nothing at the end."""
        if self._asked:
            return []
        for node, found in self._found.items():
            self._walk.tell(node, [found[token] for token in self._trie.list_tokens(node)])
        self._found = {node: {} for node in self._walk.choose()}
        beginnings = []
        for node in self._found:
            tokens = self._trie.list_tokens(node)
            for start in range(0, len(tokens), MOST_TOKENS):
                self._count += 1
                self._asked[self._count] = node
                some = tokens[start : start + MOST_TOKENS]
                beginnings.append(Beginning(self._count, self._trie.nodes[node].path, some))
        return beginnings

    def take(self, number: int, logprobs: Mapping[int, float]) -> None:
        """Take what came of a request: natural log-probabilities by token."""
        self._found[self._asked.pop(number)].update(logprobs)

    def distribute(self) -> Distribution:
        """The label distribution."""
        return self._walk.distribute()
