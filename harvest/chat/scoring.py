"""From what a teacher says to a distribution over the labels of a task.

A label's log-probability is the natural log of the probability that the teacher's answer begins with its word. Nothing
is renormalised: what is on no label, or cannot be told apart, is the residual mass.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shared.answers.thinking import split_thinking
from shared.errors import UsageError

# The log-probability of a label that was not seen: its exponential is 0 in float32 and nothing that uses it turns NaN.
LOG_ZERO = -100.0
MOST_LOGPROB = 0.01  # servers round, and a probability may be a little more than 1
# A shorter beginning of a word ("n" of "negative") begins too many other words to be counted for it.
LEAST_BEGINNING = 2
# What may stand before the word: white space, quotes, mark-up.
_OPENING = " \t\r\n\"'`*_([“‘「"
_CLOSING = _OPENING + ".,:;!)]>”’」。"
# What stands between the labels of a list, what may stand before each of them, and what joins the last two.
_SEPARATOR = re.compile(r"[,;\n]")
_BULLET = re.compile(r"^(?:[-•*–]|\d+[.)])\s+")
_AND = re.compile(r"\s+(?:and|&)\s+")
_LONGEST_HEADING = 6  # words
_FENCED_LIST = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
_FENCED = re.compile(r"\s*```(?:json)?\s*(\{.*\})\s*```\s*", re.DOTALL)
# What ends the clause that a label word makes at an answer's beginning: "yes, because ...", "positive (clearly)".
_CLAUSE_END = re.compile(r"\s*(?:$|[.,;:!)\n(\]}]|[-–—]\s|\s(?:because|since|as|for)\b)")
# What follows the label words "a" and "i" (letters of options) where they are English: "A good film", "I think".
_ENGLISH = ("a", "i")
_GOES_ON = re.compile(r"\s+(?!(?:is|because|since|as|for)\b)[^\W\d_]")
_QUESTION = re.compile(r"[^.!\n]*\?")
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
# A sentence with one of these names a label otherwise than by giving it.
_HEDGE = re.compile(
    r"\?|n['’]t\b|\b(?:not|never|neither|nor|cannot|without|hardly|barely|between|if|unless|whether|would|could|might|may|"
    r"should|perhaps|possibly|either|or|rather|instead|than|versus|vs|but|although|though|opposite|unlike|far from|"
    r"no longer|some|others|seems|asked|labels?\s+are|options?\s+are|choose|contrary)\b"
)
# What stands before the word in a sentence that gives it, looked for in so many characters: it costs their square.
_STATED_WITHIN = 300
_STATES = re.compile(
    r"(?:(?:\b(?:is|it['’]s|answer|label|class|category|sentiment|as|say|therefore|so|hence|thus)\b|[:=→]|->)"
    r"(?:\s+(?:a|an|the|clearly|strongly|very|mostly|overall|definitely|thus|therefore|label|class|answer|of|type))*"
    r"[\s\"'`*_([“‘「:=,{\\]*(?:boxed\{|text\{)?)$|^[\s\"'`*_([“‘「#>-]*$"
)


class Alternative(NamedTuple):
    """A token the teacher could have said at one position, with its natural log-probability."""

    text: str
    logprob: float
    token_id: int | None = None


class Position(NamedTuple):
    """One position of a reply: the token that was said, and the most probable ones (it may be among them or not).

    `said_id` is the said token's id where a reply tells it, but not those of the others: `said` is then without, so
    that it equals its like among them.
    """

    said: Alternative
    top: Sequence[Alternative]
    said_id: int | None = None

    @property
    def reply_id(self) -> int | None:
        """The id of the token that was said, None where the reply does not tell it."""
        return self.said_id if self.said.token_id is None else self.said.token_id


@dataclass(frozen=True, slots=True)
class Distribution:
    """Natural log-probabilities, one a label, and the probability on no label: together 1.

    `ambiguous_mass`, a part of the residual, lies on tokens that begin more than one label word.
    """

    label_logprobs: tuple[float, ...]
    residual_mass: float
    ambiguous_mass: float = 0.0


class LabelWords:
    """The words a teacher answers with, one a label, and how a beginning of a reply is matched to them.

    With `several` an answer lists any number of them.

    Case, and white space, quotes or mark-up before the word, make no difference. One word may begin another ("1" and
    "10"): then a beginning that fits both tells nothing until more is said. Raises UsageError, naming the words, where
    one is empty or two are equal, or one could not be told apart in a list.
    """

    def __init__(self, words: Sequence[str], *, several: bool = False) -> None:
        self.words, self.several = tuple(words), several
        self._folded = tuple(_fold(word).strip() for word in words)
        self._cache: dict[str, int | None] = {}
        for i, word in enumerate(self._folded):
            if not word:
                raise UsageError(f"label word {i} is empty; give each label a word with --label-words")
            for j, other in enumerate(self._folded):
                if i < j and other == word:
                    raise UsageError(
                        f"the label words {self.words[i]!r} and {self.words[j]!r} cannot be told apart; give other "
                        "words with --label-words"
                    )
            if several and _SEPARATOR.search(word):
                raise UsageError(
                    f"the label word {self.words[i]!r} has a comma, a semicolon or a line break, which separate the "
                    "labels of an answer; give other words with --label-words"
                )

    def __len__(self) -> int:
        return len(self.words)

    def match_beginning(self, text: str) -> int | None:
        """The label whose word `text` begins or completes; -1 where it is too short to tell, None where it is none."""
        # Few tokens make up nearly all alternatives, so almost every look-up is a hit; the bound keeps memory flat.
        try:
            return self._cache[text]
        except KeyError:
            found = self._match_beginning(_fold(text).lstrip(_OPENING))
            if len(self._cache) < 10_000:
                self._cache[text] = found
            return found

    def _match_beginning(self, text: str) -> int | None:
        open_labels = [i for i, word in enumerate(self._folded) if word.startswith(text)]
        if len(open_labels) == 1 and (len(text) >= LEAST_BEGINNING or text == self._folded[open_labels[0]]):
            return open_labels[0]
        if open_labels:
            return -1
        whole = [
            i
            for i, word in enumerate(self._folded)
            if text.startswith(word) and not text[len(word) : len(word) + 1].isalnum()
        ]
        return max(whole, key=lambda i: len(self._folded[i]), default=None)

    def match_answer(self, text: str) -> int | None:
        """The label that a whole answer gives, None where it gives none or several.

        Understood: the word alone (with quotes, full stop, mark-up), the word first with a clause's end behind it, JSON
        {"label": word}, or a statement like "the answer is W", "label: W". A word that is only mentioned ("not W",
        "between W and V", "if it were W") gives nothing, nor does thinking.
        """
        plain = _strip(_read_label(split_thinking(text).answer))
        if not plain:
            return None
        if plain in self._folded:
            return self._folded.index(plain)
        first = self._match_first(plain)
        if first is not None:
            return first
        given = {label for sentence in _SENTENCE_END.split(plain) for label in self._find_given(sentence)}
        return given.pop() if len(given) == 1 else None

    def _match_first(self, plain: str) -> int | None:
        """The label whose word an answer begins with, where a clause ends behind it."""
        found = self._match_beginning(plain)
        if found is None or found < 0 or not plain.startswith(self._folded[found]):
            return None
        rest = plain[len(self._folded[found]) :].lstrip("\"'`*_)]”’」")
        if _CLAUSE_END.match(rest) and not _QUESTION.match(rest):
            return found
        return None

    def _find_given(self, sentence: str) -> set[int]:
        """The labels that a sentence states; none where it hedges, denies or asks."""
        named: dict[int, list[re.Match[str]]] = {}
        rest = sentence
        for i in sorted(range(len(self._folded)), key=lambda i: -len(self._folded[i])):
            pattern = rf"(?<![\w-]){re.escape(self._folded[i])}(?![\w-])"
            if matches := list(re.finditer(pattern, rest)):
                named[i] = matches
                rest = re.sub(pattern, lambda match: "\0" * len(match[0]), rest)
        if len(named) != 1 or _HEDGE.search(rest):
            return set()
        ((label, matches),) = named.items()
        if self._folded[label] in _ENGLISH and _GOES_ON.match(rest, matches[-1].end()):
            return set()
        before = rest[: matches[-1].start()]
        return {label} if _STATES.search(before, max(0, len(before) - _STATED_WITHIN)) else set()

    def match_set(self, text: str) -> frozenset[int] | None:
        """The labels that a whole answer lists; None where it holds anything else.

        Understood: words with commas, semicolons, line breaks or an "and" between them, quotes, bullets and numbers
        around them, a heading with a colon before them, JSON (a list, or {"labels": [...]}), and "none" for no label.
        """
        plain = split_thinking(text).answer.strip()
        if fenced := _FENCED_LIST.fullmatch(plain):
            plain = fenced[1]
        parts = _read_list(plain)
        if parts is None:
            parts = _SEPARATOR.split(_fold(plain))
        found = self._match_parts(parts)
        heading, colon, rest = _fold(plain).partition(":")
        if found is None and colon and len(heading.split()) <= _LONGEST_HEADING:
            found = self._match_parts(_SEPARATOR.split(rest))
        return found

    def _match_parts(self, parts: Sequence[str]) -> frozenset[int] | None:
        said = [_BULLET.sub("", _fold(part).strip()) for part in parts]
        named = [part for part in said if _strip(part)]
        found = [self._match_part(part) for part in named]
        if found and None not in found:
            return frozenset(label for labels in found for label in labels or ())
        return frozenset() if [*map(_strip, named)] == ["none"] or not parts else None

    def _match_part(self, part: str) -> list[int] | None:
        """The labels between two separators: one, or several that an "and" joins."""
        for own in (part, part.strip(_OPENING), _strip(part).removeprefix("and ")):
            if (label := self._find_listed(own)) is not None:
                return [label]
        labels = [self._find_listed(word) for word in _AND.split(_strip(part).removeprefix("and "))]
        return None if None in labels else [label for label in labels if label is not None]

    def _find_listed(self, text: str) -> int | None:
        """The label whose word `text` is, but for mark-up around either: a word may end with a bracket of its own."""
        if text in self._folded:
            return self._folded.index(text)
        same = [label for label, word in enumerate(self._folded) if _strip(word) == _strip(text)]
        return same[0] if len(same) == 1 else None

    def find_word(self, text: str) -> int | None:
        """The label whose word `text` is, with nothing but white space and mark-up around it; None where it is none."""
        plain = _strip(_fold(text))
        return self._folded.index(plain) if plain in self._folded else None

    def is_exact(self, text: str) -> bool:
        """Whether an answer is one of the words and nothing else, as a constraint leaves it (or as {"label": word})."""
        return _read_label(split_thinking(text).answer) in self._folded


def _read_label(text: str) -> str:
    """An answer in one case and without white space around it; the label of {"label": word}, in a fence or not."""
    if fenced := _FENCED.fullmatch(text):
        text = fenced[1]
    if text.lstrip().startswith("{"):
        try:
            text = str(json.loads(text)["label"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
    return _fold(text).strip()


def _read_list(text: str) -> list[str] | None:
    """The texts of a JSON list, or of {"labels": [...]}; None of any other text."""
    if not text.startswith(("[", "{")):
        return None
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(read, dict) and len(read) == 1:
        read = next(iter(read.values()))
    return read if isinstance(read, list) and all(isinstance(one, str) for one in read) else None


def _strip(text: str) -> str:
    """The text without the quotes, mark-up and punctuation around it."""
    return text.lstrip(_OPENING).rstrip(_CLOSING)


def _fold(text: str) -> str:
    # U+2581 and U+0120 are how SentencePiece and byte-level BPE write a space, where a server shows raw tokens.
    return text.replace("\u2581", " ").replace("\u0120", " ").casefold()


def score_positions(words: LabelWords, positions: Sequence[Position]) -> Distribution:
    """The label distribution from the top tokens of a reply's first positions.

    A token is counted for the label whose word it begins (or completes). Where it begins the words of several labels,
    or only opens them (white space, a quote), and was the one said, its mass is divided by the tokens of the next
    position, and so on; where it was not said, nobody knows how, and it is ambiguous. Raises ValueError on a
    log-probability that is none.
    """
    mass = [0.0] * len(words)
    ambiguous = 0.0
    before, path = "", 1.0  # what was said at the positions so far, and its probability
    match = words.match_beginning
    for said, top, _ in positions:
        said_text, said_logprob, said_id = said
        for text, logprob, token_id in top:
            if text == said_text and token_id == said_id:
                continue
            if type(logprob) is not float or not logprob <= MOST_LOGPROB:
                _check(logprob)  # also where it is on no label: a reply with a NaN in it is not to be trusted
            label = match(before + text)
            if label is None:
                continue
            if label >= 0:
                mass[label] += path * math.exp(logprob)
            else:
                ambiguous += path * math.exp(logprob)
        before, path = before + said_text, path * _exp(said_logprob)
        label = words.match_beginning(before)
        if label is None:
            break
        if label >= 0:
            mass[label] += path
            break
    else:  # the reply ended: with a word that begins another one, or before its word was clear
        ended = words.find_word(before)
        if ended is None:
            ambiguous += path
        else:
            mass[ended] += path
    return make_distribution(mass, ambiguous)


def spell_word(word: str, *, capitals: bool = True) -> list[str]:
    """How an answer may begin with a word: as it is, capitalised or in capitals, at the start or after a space."""
    spellings = dict.fromkeys((word, word.capitalize(), *([word.upper()] if capitals else [])))
    return [text for spelling in spellings for text in (spelling, f" {spelling}")]


def separate_first_tokens(words: Sequence[str], first_tokens: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
    """The ids of the tokens that begin an answer with each word and with no other.

    `first_tokens` holds the first token of each spelling of each word (spell_word). Raises UsageError, naming the
    words, where two of them begin with the same token.
    """
    found: list[dict[int, str]] = []
    for word in words:
        firsts: dict[int, str] = {}
        for text in spell_word(word):
            firsts.setdefault(first_tokens[text], text)
        found.append(firsts)
    kept = []
    for i, firsts in enumerate(found):
        others = {token: words[j] for j, tokens in enumerate(found) if j != i for token in tokens}
        for token, text in firsts.items():
            if text == words[i] and token in others:
                raise UsageError(f"the label words {text!r} and {others[token]!r} begin with the same token ({token})")
        # A token that begins a further way of writing two words (a lone space, say) tells nothing: left out.
        kept.append(tuple(sorted(token for token in firsts if token not in others)))
    return tuple(kept)


def score_token_ids(first_tokens: Sequence[Sequence[int]], position: Position) -> Distribution:
    """The label distribution from exact scores of named tokens: `first_tokens` holds the token ids of each label.

    Raises ValueError where the score of one of them is missing.
    """
    scores = {token.token_id: token.logprob for token in (position.said, *position.top) if token.token_id is not None}
    missing = [token for tokens in first_tokens for token in tokens if token not in scores]
    if missing:
        raise ValueError(f"no score came back for the label tokens {missing}")
    return make_distribution([sum(_exp(scores[token]) for token in tokens) for tokens in first_tokens])


def score_votes(words: LabelWords, answers: Sequence[str]) -> Distribution:
    """The label distribution as the share of votes: `answers` are samples of the same request."""
    votes = Counter(words.match_answer(answer) for answer in answers)
    return make_distribution([votes[label] / len(answers) for label in range(len(words))])


def score_label_set(words: LabelWords, found: Collection[int]) -> Distribution:
    """The labels of a list as probabilities, each its label's own: 1 for those that it holds, 0 for the others."""
    return Distribution(tuple(0.0 if label in found else LOG_ZERO for label in range(len(words))), 0.0)


def score_words(logprobs: Sequence[float]) -> Distribution:
    """The label distribution of scores of whole words, one a label. Raises ValueError where one of them is none."""
    return make_distribution([_exp(logprob) for logprob in logprobs])


def make_distribution(mass: Sequence[float], ambiguous: float = 0.0) -> Distribution:
    """The label distribution of each label's probability, and what lies on beginnings of several of their words.

    Raises ValueError where they are more than 1 together.
    """
    total = math.fsum(mass)
    if total + ambiguous > 1.01:
        raise ValueError(f"the log-probabilities that came back add up to {total + ambiguous:.3f}, more than 1")
    logprobs = tuple(min(max(math.log(p), LOG_ZERO), 0.0) if p > 0 else LOG_ZERO for p in mass)
    return Distribution(logprobs, max(1.0 - total, 0.0), ambiguous)


def _exp(logprob: float) -> float:
    _check(logprob)
    return math.exp(logprob)


def _check(logprob: float) -> None:
    if not (isinstance(logprob, (int, float)) and logprob <= MOST_LOGPROB):
        raise ValueError(f"{logprob!r} is no log-probability")
