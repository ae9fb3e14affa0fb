"""A batch of prompts to answers: one pass over each prompt gives the labels' scores, the vector and the first token."""

from collections.abc import Sequence
from dataclasses import replace

from harvest.chat.elicitation import limit_local_tokens
from harvest.chat.label_trie import LabelScorer
from harvest.chat.reply import Form, parse
from harvest.chat.written import write_chat_completion
from harvest.teachers.base import make_seed
from harvest.teachers.tokenizers import PromptTokenizer
from harvest.teachers.transformers.config import TransformersConfig
from harvest.teachers.transformers.labels import score_tokens, score_words
from harvest.teachers.transformers.model import LocalModel, Prefill
from harvest.teachers.transformers.prompts import Prompts, Ready
from harvest.teachers.transformers.saying import Said, Sampling, say
from shared.schema import Answer, Status

_OWN_SAMPLING = ("top_k", "min_p", "repetition_penalty")


def find_length_problem(tokens: int, context: int, scored: int) -> str | None:
    """Why a prompt of so many tokens cannot be answered, of which `scored` are looked at; None where it can."""
    if tokens + scored <= context:
        return None
    words = f" of {scored} tokens, the longest label word's," if scored > 1 else ""
    return f"the prompt has {tokens} tokens, and the model takes {context}, its answer{words} included"


class Asker:
    """Asks `model` about batches of prompts, as `config` says."""

    def __init__(
        self,
        config: TransformersConfig,
        model: LocalModel,
        prompts: Prompts,
        tokenizer: PromptTokenizer,
        labels: LabelScorer,
        form: Form,
    ) -> None:
        self._config, self._model, self._prompts, self._tokenizer = config, model, prompts, tokenizer
        self._labels, self._form = labels, form

    def ask(self, batch: Sequence[Ready]) -> list[Answer]:
        """The answers to a batch, without their bill; of prompts that are too long, why there is none."""
        import torch

        inputs = self._prompts.make_inputs(batch)
        lengths = inputs["attention_mask"].sum(1).tolist()
        scored = self._labels.longest
        problems = [find_length_problem(length, self._model.context, scored) for length in lengths]
        if any(problems):  # with pages the length is known only now
            rest = [one for one, problem in zip(batch, problems, strict=True) if problem is None]
            found = iter(self.ask(rest) if rest else ())
            return [Answer(Status.FAILED, error=problem) if problem else next(found) for problem in problems]
        config = self._config
        with self._model.watch_memory(len(batch)), torch.inference_mode():
            prefill = self._model.prefill(inputs, config.vector, config.layer)
            raws = self._answer(batch, prefill)
        vectors = [None] * len(batch) if prefill.vectors is None else list(prefill.vectors.cpu().numpy())
        return [
            replace(parse(raw, self._form).answer, embedding=vector) for raw, vector in zip(raws, vectors, strict=True)
        ]

    def _answer(self, batch: Sequence[Ready], prefill: Prefill) -> list[bytes]:
        """The raw replies to prompts: what was said, and the scores of the label words."""
        labels, trie = self._labels, self._labels.trie
        first = score_tokens(prefill, [token for tokens in labels.first_tokens for token in tokens])
        words = None if trie is None else score_words(self._model, prefill, trie)
        raws = []
        for row, one in enumerate(self._say(batch, prefill)):
            prompt = prefill.inputs["input_ids"][row].tolist()
            beginning = replace(one.tokens[0], top={**one.tokens[0].top, **first[row]})
            raw = write_chat_completion(
                self._prompts.decode(prompt, one.text_ids),
                one.finish_reason,
                [beginning, *one.tokens[1:]],
                int(prefill.lengths[row]),
                first_tokens=labels.first_tokens,
                word_scores=None if words is None else words[row].label_logprobs,
            )
            raws.append(raw)
        return raws

    def _say(self, batch: Sequence[Ready], prefill: Prefill) -> list[Said]:
        config, generation, most = self._config, self._model.generation, self._model.context
        own = {name: generation[name] for name in _OWN_SAMPLING if generation.get(name) is not None}
        top_p = generation.get("top_p") if config.top_p is None else config.top_p
        longest = config.max_tokens or limit_local_tokens(self._labels.scoring)
        return say(
            self._model,
            prefill,
            Sampling(config.temperature, top_p, **own),
            [min(longest, most - length) for length in prefill.lengths.tolist()],
            ends=self._model.ends | self._tokenizer.ends,
            seeds=[make_seed(one.request.key) for one in batch],
            topk=config.topk,
        )
