"""The words of all labels as one tree of tokens, and the walk that finds each word's probability.

The probability that an answer begins with a word is the product of its tokens' probabilities, each given those before
it. Words that begin alike share the work for what they share. An engine is asked for the tokens that follow a node, and
only for nodes that can still change a label's score.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, TypeAlias

from harvest.chat.dialects import Scoring
from harvest.chat.scoring import Distribution, LabelWords, make_distribution, separate_first_tokens, spell_word
from shared.errors import UsageError
from shared.options import Option

# Spellings that hold no more of a label's probability than this share are not followed to their end, each of them.
NEGLIGIBLE = 1e-5
ROOT = 0

# First tokens that are scored together: vLLM takes no more (vllm.sampling_params.MAX_LOGPROB_TOKEN_IDS).
MOST_TOKENS = 128

Encode: TypeAlias = Callable[[str], Sequence[int]]


class LabelScoring(StrEnum):
    """How label words are scored exactly."""

    TOKEN_IDS = str(Scoring.TOKEN_IDS)  # by their first tokens
    WORDS = str(Scoring.WORDS)  # to their end


ScoringOption: TypeAlias = Annotated[
    LabelScoring | None,
    Option(
        "How label words are scored: token_ids (their first tokens) or words (the whole words). Unless given, "
        "token_ids where the words' first tokens differ and are few, else words."
    ),
]


def encode_spellings(words: Sequence[str], encode: Encode, *, capitals: bool) -> dict[str, tuple[int, ...]]:
    """The tokens of each way of writing each word (spell_word). Raises UsageError where one has none."""
    encoded = {}
    for word in words:
        for text in spell_word(word, capitals=capitals):
            encoded[text] = tuple(int(token) for token in encode(text))
            if not encoded[text]:
                raise UsageError(f"the model's tokenizer has no token for {text!r}; give other words: --label-words")
    return encoded


def find_first_tokens(words: Sequence[str], encode: Encode) -> tuple[tuple[int, ...], ...]:
    """The first tokens by which the words are told apart. Raises UsageError, naming them, where two begin alike."""
    encoded = encode_spellings(words, encode, capitals=True)
    return separate_first_tokens(words, {text: ids[0] for text, ids in encoded.items()})


@dataclass(frozen=True, slots=True)
class Node:
    """A beginning of one or more words: `path` are its tokens, `parent` is the node before the last of them.

    `children` are nodes by their place in the tree, one for each token that may follow. `ends` is the label whose word
    it completes, and `after` that of the last word completed before it; `labels` are all that it completes or begins.
    """

    path: tuple[int, ...]
    parent: int
    children: tuple[int, ...]
    ends: int | None
    after: int | None
    labels: frozenset[int]


class LabelTrie:
    """The tree of all ways of writing the words, but in capitals: those are many tokens, and hold next to nothing.

    Raises UsageError where two words are the same tokens.
    """

    def __init__(self, words: Sequence[str], encode: Encode) -> None:
        encoded = encode_spellings(words, encode, capitals=False)
        self.count = len(words)
        places: dict[tuple[int, ...], int] = {(): ROOT}
        children: list[list[int]] = [[]]
        ends: dict[int, int] = {}
        for label, word in enumerate(words):
            for ids in dict.fromkeys(encoded[text] for text in spell_word(word, capitals=False)):
                for length in range(1, len(ids) + 1):
                    if ids[:length] not in places:
                        places[ids[:length]] = len(children)
                        children[places[ids[: length - 1]]].append(len(children))
                        children.append([])
                other = ends.setdefault(places[ids], label)
                if other != label:
                    raise UsageError(
                        f"the label words {words[other]!r} and {word!r} are the same tokens to this model; give other "
                        "words with --label-words"
                    )
        below: list[set[int]] = [set() for _ in children]
        for path, place in places.items():
            if place in ends:
                for length in range(len(path) + 1):
                    below[places[path[:length]]].add(ends[place])
        self.nodes = tuple(
            Node(
                path,
                places[path[:-1]],
                tuple(children[place]),
                ends.get(place),
                next((ends[places[path[:n]]] for n in range(len(path) - 1, 0, -1) if places[path[:n]] in ends), None),
                frozenset(below[place]),
            )
            for path, place in places.items()
        )

    def list_tokens(self, node: int) -> list[int]:
        """The tokens that may follow a node, in the order of its children."""
        return [self.nodes[child].path[-1] for child in self.nodes[node].children]


class TrieWalk:
    """One prompt's walk down the tree: ask for the nodes that `choose` names, `tell` what came, until it names none."""

    def __init__(self, trie: LabelTrie) -> None:
        self._trie = trie
        self._logprobs = {ROOT: 0.0}
        self._open = {ROOT}  # reached, with children that are not
        self._mass = [0.0] * trie.count

    def choose(self) -> list[int]:
        """The nodes whose following tokens are wanted next, the most probable first; none at the end.

        Of each label the most probable open one: what is found there may make the others negligible.
        """
        best: dict[int, int] = {}
        for node in sorted(self._open):
            for label in self._trie.nodes[node].labels:
                if label not in best or self._logprobs[node] > self._logprobs[best[label]]:
                    best[label] = node
        chosen = {
            node for label, node in best.items() if math.exp(self._logprobs[node]) > NEGLIGIBLE * self._mass[label]
        }
        return sorted(chosen, key=lambda node: (-self._logprobs[node], node))

    def tell(self, node: int, logprobs: Sequence[float]) -> None:
        """Take the natural log-probabilities of the tokens that may follow `node`, in the order of its children."""
        self._open.discard(node)
        before = self._logprobs[node]
        for child, logprob in zip(self._trie.nodes[node].children, logprobs, strict=True):
            self._logprobs[child] = before + min(float(logprob), 0.0)
            self._count(child)
            if self._trie.nodes[child].children:
                self._open.add(child)

    def _count(self, place: int) -> None:
        """Add a node's probability to its label; what goes on to a longer word does not count for the shorter."""
        node, probability = self._trie.nodes[place], math.exp(self._logprobs[place])
        if node.ends is not None:
            self._mass[node.ends] += probability
            if node.after is not None:
                self._mass[node.after] -= probability

    def distribute(self) -> Distribution:
        """The label distribution by what was told."""
        return make_distribution([max(value, 0.0) for value in self._mass])  # of rounding it may be less


class LabelScorer:
    """How the labels of a task are scored: `words` are None for a task that has none.

    `scoring` is what the user chose, None for first tokens where they tell the words apart and are few, and else whole
    words. Where an answer lists several words, none is scored: raises UsageError where the user chose a scoring.
    """

    def __init__(self, words: LabelWords | None, scoring: LabelScoring | None, encode: Encode) -> None:
        self._words = None if words is None or words.several else words.words
        self._lists = words is not None and words.several
        if self._lists and scoring is not None:
            raise UsageError(
                f"--scoring {scoring}: a row has several labels, and the teacher lists them; the labels are not scored"
            )
        self._chosen, self._encode = scoring, encode

    @cached_property
    def scoring(self) -> Scoring:
        """What is scored. Loads the tokenizer."""
        if self._words is None:
            return Scoring.LABEL_SET if self._lists else Scoring.TEXT
        if self._chosen is not None:
            return Scoring(str(self._chosen))
        try:
            found = find_first_tokens(self._words, self._encode)
        except UsageError:
            return Scoring.WORDS
        return Scoring.TOKEN_IDS if sum(map(len, found)) <= MOST_TOKENS else Scoring.WORDS

    @property
    def words(self) -> Sequence[str]:
        """The words that are scored."""
        return self._words or ()

    @cached_property
    def first_tokens(self) -> tuple[tuple[int, ...], ...]:
        """The first tokens of each label's word, where they are what is scored.

        Raises UsageError, naming the words, where two begin alike.
        """
        if self._words is None or self.scoring is not Scoring.TOKEN_IDS:
            return ()
        try:
            found = find_first_tokens(self._words, self._encode)
        except UsageError as error:
            raise UsageError(f"{error}: --scoring words scores them to their end") from None
        if sum(map(len, found)) > MOST_TOKENS:
            raise UsageError(
                f"{len(self._words)} label words have more than {MOST_TOKENS} first tokens, which are not scored "
                "together: --scoring words scores them to their end"
            )
        return found

    @cached_property
    def trie(self) -> LabelTrie | None:
        """The tokens of all words, where whole words are scored. Raises UsageError where two are the same tokens."""
        is_scored = self._words is not None and self.scoring is Scoring.WORDS
        return LabelTrie(self._words or (), self._encode) if is_scored else None

    @cached_property
    def longest(self) -> int:
        """How many tokens of an answer are scored at most: those of the longest word, or one."""
        return 1 if self.trie is None else max(len(node.path) for node in self.trie.nodes)

    def describe(self) -> Mapping[str, Any]:
        """What a recipe says of it. Raises UsageError for words that cannot be told apart so."""
        _ = self.trie, self.first_tokens  # either raises
        return {"mode": str(self.scoring)}
