"""A template: the Jinja texts that make a row's prompt, and what is to be written for an answer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import StrictUndefined, TemplateError
from jinja2 import Template as JinjaTemplate
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.errors import DataError
from shared.example import Example, Message

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _replace_regex(text: str, pattern: str, replacement: str = "") -> str:
    return re.sub(pattern, replacement, text)


# Sandboxed: a template may be a file from elsewhere.
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
_ENVIRONMENT.filters["regex_replace"] = _replace_regex


@lru_cache(maxsize=256)
def compile_text(source: str) -> JinjaTemplate:
    """Compile a Jinja text. Raises jinja2.TemplateSyntaxError."""
    return _ENVIRONMENT.from_string(source)


class Rendered(NamedTuple):
    """A prompt: a text that is encoded as it stands, or messages for a tokenizer's chat template; exactly one is set.

    The messages end before the answer's.
    """

    text: str | None
    messages: tuple[Message, ...] | None

    def describe(self) -> Any:
        """All of it as JSON: the text, or a list of the messages."""
        return self.text if self.messages is None else [message._asdict() for message in self.messages]


class Continuation(NamedTuple):
    """A choice as it is scored by likelihood: log p(text | context). `characters` is what acc_norm divides by."""

    context: Rendered
    text: str
    characters: int


@dataclass(frozen=True, slots=True)
class Template:
    """The Jinja texts of a prompt and of what is to be written.

    Every text may use `question` (the task's, "" for none), `text`, `text_pair`, `choices` and `messages` of the row,
    each None where the row has none, and `listed`, its choices with letters, one a line. `instruction` and `input` are
    such texts, and the prompt is made of them: unless given, the question, and below it the row's texts and its choices
    with letters; without a question the row's text is the instruction. Filters are Jinja's and
    regex_replace(pattern, replacement).

    `prompt` is the prompt, and `scoring_prompt` the one that the student is scored on, where it is another. `response`
    is what is to be written; it may use `answer`, and where that is one of the choices its `number` from 1 and its
    `letter` (else None). With `chat` the prompt is a user's message, after `system`, and a row's own messages are taken
    as they are. `choice_prompt` and `choice_response` are for tasks that put a choice into the context, as WinoGrande
    in lm-eval; they may use `choice` and default to the prompt and the response. `tasks` has other texts for some
    tasks, by name.
    """

    name: str
    prompt: str
    instruction: str = "{{ question or text }}"
    input: str = "{{ (text if question, text_pair, listed) | select | join('\n\n') }}"
    response: str = "{{ answer }}"
    scoring_prompt: str | None = None
    choice_prompt: str | None = None
    choice_response: str | None = None
    chat: bool = False
    system: str | None = None
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def for_task(self, task: str) -> "Template":
        """Put the texts that it has for that task in the place of its own."""
        return replace(self, **self.tasks.get(task, {}), tasks={})

    def describe(self) -> dict[str, Any]:
        """All that changes a prompt or a completion, as JSON: for a recipe."""
        return {name: value for name in _TEXTS if (value := getattr(self, name)) not in (None, False, "")}

    def render(self, example: Example, question: str = "", *, scoring: bool = False) -> Rendered:
        """Make the prompt of a row: the one that a student learns from, or with `scoring` is scored on.

        Raises DataError where a text of the template does not fit the row.
        """
        source = self.scoring_prompt if scoring and self.scoring_prompt is not None else self.prompt
        return self._wrap(example, self._fill(source, example, question))

    def completion(self, example: Example, answer: str, question: str = "") -> str:
        """Make what is to be written for an answer. Raises as render."""
        return self._fill(self.response, example, question, **_name_answer(example, answer))

    def list_continuations(self, example: Example, question: str = "") -> tuple[Continuation, ...]:
        """Make a context and a continuation for each of the row's choices. Raises as render; ValueError: no choices."""
        if not example.choices:
            raise ValueError(f"the row {example.sample_id} has no choices")
        shared_context = None if self.choice_prompt is not None else self.render(example, question, scoring=True)
        made = []
        for number, choice in enumerate(example.choices, 1):
            named = {"choice": choice, "answer": choice, "number": number, "letter": _letter(number)}
            context = shared_context or self._wrap(
                example, self._fill(self.choice_prompt or "", example, question, **named)
            )
            text = self._fill(self.choice_response or self.response, example, question, **named)
            made.append(Continuation(context, text, len(text.removeprefix(" "))))
        return tuple(made)

    def _wrap(self, example: Example, prompt: str) -> Rendered:
        if not self.chat:
            return Rendered(prompt, None)
        first = () if self.system is None else (Message("system", self.system),)
        if example.messages is None:
            return Rendered(None, (*first, Message("user", prompt)))
        own = any(message.role == "system" for message in example.messages)
        return Rendered(None, (*(() if own else first), *example.messages))

    def _fill(self, source: str, example: Example, question: str, **more: Any) -> str:
        variables = {**_list_variables(example, question), **more}
        try:
            for name in ("instruction", "input"):
                variables[name] = compile_text(getattr(self, name)).render(variables)
            return compile_text(source).render(variables)
        except (TemplateError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise DataError(
                f"the template {self.name} does not fit the row {example.sample_id}: {error} (in {source[:60]!r})"
            ) from error


_TEXTS = tuple(one.name for one in fields(Template) if one.name not in ("name", "tasks"))


def _list_variables(example: Example, question: str) -> dict[str, Any]:
    """What every text of a template may use."""
    listed = "\n".join(f"{_letter(number)}. {choice}" for number, choice in enumerate(example.choices or (), 1))
    return {
        "question": question,
        "text": example.text,
        "text_pair": example.text_pair,
        "choices": example.choices,
        "messages": example.messages,
        "listed": listed,
    }


def _letter(number: int) -> str:
    return _LETTERS[number - 1] if number <= len(_LETTERS) else str(number)


def _name_answer(example: Example, answer: str) -> dict[str, Any]:
    """The answer, and which of the choices it is."""
    choices = example.choices or ()
    if example.label is not None and example.label < len(choices) and choices[example.label] == answer:
        number = example.label + 1
    elif answer in choices:
        number = choices.index(answer) + 1
    else:
        return {"answer": answer, "choice": answer, "number": None, "letter": None}
    return {"answer": answer, "choice": answer, "number": number, "letter": _letter(number)}
