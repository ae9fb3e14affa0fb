"""The process that holds the engine: `python -m harvest.teachers.vllm.process FD`, FD a socket to `harvest`.

A process of its own, in a session of its own: an interrupt at the keyboard does not reach the engine before its
answers have arrived; the work on pictures and prompts here shares no interpreter lock with drawing and writing there;
and when `harvest` dies, however it does, the socket ends, and all processes of the engine end with it.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

from harvest.chat.label_trie import Encode, LabelTrie, find_first_tokens
from harvest.chat.written import SaidToken, write_chat_completion
from harvest.pictures import open_rgb
from harvest.teachers.local_config import DEFAULT_TOPK
from harvest.teachers.vllm.messages import Failure, Pixels, Question, Ready, Result, Settings
from harvest.teachers.vllm.scores import read_scores
from harvest.teachers.vllm.words import PromptWalk
from shared.errors import UsageError

SHUTDOWN_SECONDS = 15.0  # after that, what is left of the engine is killed
LOOK_SECONDS = 1.0  # how often it is looked whether the engine lives
WAITING = 64  # questions that wait, prepared, beside those that the engine runs at a time
# Every picture is another one, so a cache of them would only cost memory.
DEFAULTS = {"mm_processor_cache_gb": 0}


def main() -> None:
    """Serve the socket until it ends."""
    connection = Connection(int(sys.argv[1]))
    settings: Settings = connection.recv()
    questions: SimpleQueue[Question | None] = SimpleQueue()
    Thread(target=_take_questions, args=(connection, questions), daemon=True).start()
    engine = None
    try:
        first_tokens: tuple[tuple[int, ...], ...] = ()
        trie = None
        if settings.label_words:  # words that cannot be told apart are refused before the weights are loaded
            if settings.whole_words:
                trie = LabelTrie(settings.label_words, load_encode(settings))
            else:
                first_tokens = find_first_tokens(settings.label_words, load_encode(settings))
        engine = VllmEngine(settings, first_tokens, trie)
        connection.send(engine.ready)
        engine.run(questions, connection)
    except UsageError as error:
        connection.send(Failure(str(error), usage=True))
    except BrokenPipeError:
        pass  # `harvest` is gone
    except Exception as error:
        traceback.print_exc()
        connection.send(Failure(f"{type(error).__name__}: {error}"))
    finally:
        if engine is not None:
            engine.close()


def _take_questions(connection: Connection, questions: "SimpleQueue[Question | None]") -> None:
    """Take questions as they come, and see to it that nothing of the engine outlives `harvest`."""
    try:
        while True:
            questions.put(connection.recv())
    except (EOFError, OSError):
        questions.put(None)
    time.sleep(SHUTDOWN_SECONDS)
    os.killpg(0, signal.SIGKILL)  # loading, or hanging: this process leads a group of its own


def load_encode(settings: Settings) -> Encode:
    """What gives the tokens of a label word, by the model's tokenizer; before its weights are loaded."""
    from vllm.tokenizers import get_tokenizer

    options = {
        name: settings.engine[name] for name in ("tokenizer_mode", "trust_remote_code") if name in settings.engine
    }
    name = settings.engine.get("tokenizer", settings.model)
    tokenizer = get_tokenizer(name, revision=settings.revision, **options)
    return partial(tokenizer.encode, add_special_tokens=False)


class _Running(NamedTuple):
    """A question in the engine: its prompt, how many tokens are scored, and what its passes have brought, by index.

    `walk` scores its label words, None where their first tokens are enough.
    """

    prompt: Any
    scored: int
    outputs: dict[int, Any]
    walk: PromptWalk | None


class VllmEngine:
    """vLLM with one model. Questions go in while others are computed; results come out in any order."""

    def __init__(self, settings: Settings, first_tokens: tuple[tuple[int, ...], ...], trie: LabelTrie | None) -> None:
        import vllm
        from vllm.renderers import ChatParams
        from vllm.v1.engine.exceptions import EngineDeadError

        self._llm = vllm.LLM(settings.model, **_choose_options(settings))
        self._engine = self._llm.llm_engine
        self._dead = EngineDeadError
        self._label_tokens = [token for tokens in first_tokens for token in tokens]
        self._trie = trie
        self._passes, self._topk = self._choose_passes(settings), settings.topk
        # As the chat route of vLLM's server prepares a question: the template writes all special tokens.
        self._chat = ChatParams(chat_template_kwargs={"add_generation_prompt": True})
        self._tokens = self._llm.renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
        self._running: dict[int, _Running] = {}  # by the question's number
        at_a_time = self._engine.vllm_config.scheduler_config.max_num_seqs
        self._room = at_a_time + min(at_a_time, WAITING)
        self.ready = Ready(vllm.__version__, self._room, first_tokens)
        Thread(target=self._watch, daemon=True).start()

    def _choose_passes(self, settings: Settings) -> list[Any]:
        """The parameters of the passes over one prompt: the last gives the reply, the first the labels' scores.

        The engine gives scores of named tokens, or of the most probable ones. Where both are wanted, a second pass over
        the prompt, which the engine's cache holds by then, costs little.
        """
        from vllm import PoolingParams, SamplingParams

        if settings.vector is not None:
            return [PoolingParams(task="embed", use_activation=False)]
        if settings.scores_given:  # the engine says at least one token, which nobody reads
            return [SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=settings.topk, detokenize=False)]
        # The model's own generation parameters stand where nothing else is said, as they do on vLLM's server.
        common = {**self._llm.model_config.get_diff_sampling_param(), "temperature": settings.temperature}
        if settings.top_p is not None:
            common["top_p"] = settings.top_p
        reply = {**common, "max_tokens": settings.max_tokens}
        scores: dict[str, Any] = {"logprob_token_ids": self._label_tokens} if self._label_tokens else {}
        if settings.topk is None:
            passes = [{**reply, **(scores or {"logprobs": 0})}]  # 0: of the tokens that are said
        else:
            passes = [{**reply, "logprobs": settings.topk}]
            if scores:
                passes.insert(0, {**common, "max_tokens": 1, **scores})
        if self._trie is not None:  # of each request its own tokens are scored
            passes.insert(0, {**common, "max_tokens": 1, "detokenize": False})
        return [SamplingParams(**parameters) for parameters in passes]

    def run(self, questions: "SimpleQueue[Question | None]", connection: Connection) -> None:
        """Answer questions until there are none to come."""
        while True:
            # Preparing goes before stepping, which may wait: the engine always has questions to go on with.
            arrived = self._take_questions(questions, self._room - len(self._running))
            if arrived is None:
                return
            for index in range(len(self._passes)):
                for question in arrived:
                    self._add(question, index, connection)
                # Requests of two kinds in one batch would each be given the log-probabilities of the one kind only
                # (seen with vLLM 0.32), so where there are several passes one is over before the next begins.
                self._step(connection)
                while len(self._passes) > 1 and self._engine.has_unfinished_requests():
                    self._step(connection)

    def _watch(self) -> None:
        """End the waiting for outputs where the engine's own process has died: vLLM notes that, and waits on."""
        core = self._engine.engine_core
        while not core.resources.engine_dead:
            time.sleep(LOOK_SECONDS)
        core.outputs_queue.put_nowait(self._dead())

    def _take_questions(self, questions: "SimpleQueue[Question | None]", most: int) -> list[Question] | None:
        """Those that have arrived; waits for one where the engine has nothing to do. None where none will come."""
        taken: list[Question] = []
        while len(taken) < most:
            try:
                question = questions.get(block=not taken and not self._running)
            except Empty:
                break
            if question is None:
                return None
            taken.append(question)
        return taken

    def _step(self, connection: Connection) -> None:
        if not self._engine.has_unfinished_requests():
            return
        results = [result for output in self._engine.step() if (result := self._take(output)) is not None]
        if results:
            connection.send(results)

    def close(self) -> None:
        """End the engine's processes."""
        self._engine.engine_core.shutdown()

    def _add(self, question: Question, index: int, connection: Connection) -> None:
        """Give the engine pass `index` of a question. A question that it refuses has its result."""
        if index and question.number not in self._running:
            return
        try:
            if not index:
                walk = None if self._trie is None else PromptWalk(self._trie)
                prompt = self._make_prompt(question)
                self._running[question.number] = _Running(prompt, question.scored, {}, walk)
            running = self._running[question.number]
            if running.walk is not None and not index:
                self._ask_beginnings(question.number, running)
                return
            parameters = self._passes[index].clone()
            if question.seed is not None:
                parameters.seed = question.seed
            self._engine.add_request(f"{question.number}-{index}-0", running.prompt, parameters)
        except self._dead:
            raise
        except Exception as error:  # a prompt that is longer than the model takes, say
            connection.send([self._refuse(question.number, error)])

    def _refuse(self, number: int, error: Exception) -> Result:
        """The result of a question that the engine does not take; what it still computes of it is not looked at."""
        self._running.pop(number, None)
        return Result(number, problem=" ".join(str(error).split()))

    def _ask_beginnings(self, number: int, running: _Running) -> None:
        """Give the engine what the walk of a question asks next."""
        assert running.walk is not None
        for beginning in running.walk.ask():
            parameters = self._passes[0].clone()
            parameters.logprob_token_ids = list(beginning.tokens)
            tokens = [*running.prompt["prompt_token_ids"], *beginning.path]
            prompt = {**running.prompt, "prompt_token_ids": tokens}
            self._engine.add_request(f"{number}-0-{beginning.number}", prompt, parameters)

    def _make_prompt(self, question: Question) -> Any:
        """The prompt as the engine takes it. Raises vLLM's own errors where the model does not take it."""
        if question.tokens:
            (prompt,) = self._llm.renderer.render_cmpl([{"prompt_token_ids": list(question.tokens)}])
            return prompt
        content: Any = question.written or "."  # as the endpoint teacher asks
        if question.pictures:
            parts: list[Any] = [{"type": "image_pil", "image_pil": _open(picture)} for picture in question.pictures]
            content = [*parts, {"type": "text", "text": question.written}] if question.written else parts
        conversation = [{"role": "user", "content": content}]
        _, (prompt,) = self._llm.renderer.render_chat([conversation], self._chat, self._tokens)
        return prompt

    def _take(self, output: Any) -> Result | None:
        """The result of a question whose last pass this is."""
        if not output.finished:
            return None
        # vLLM may put something of its own behind
        number, index, part = map(int, output.request_id.split("-")[:3])
        if number not in self._running:
            return None
        running = self._running[number]
        outputs = running.outputs
        if running.walk is not None and not index:
            (logprobs,) = output.outputs[0].logprobs
            running.walk.take(part, {token: float(one.logprob) for token, one in logprobs.items()})
            try:
                self._ask_beginnings(number, running)
            except self._dead:
                raise
            except Exception as error:  # a prompt that has room for a word's beginning, and not for its end
                return self._refuse(number, error)
            return None
        outputs[index] = output
        if len(outputs) + (running.walk is not None) < len(self._passes):
            return None
        del self._running[number]
        last = outputs[len(self._passes) - 1]
        first = outputs.get(0, last)
        prompt_tokens = len(last.prompt_token_ids)
        if hasattr(last.outputs, "data"):
            return Result(number, vector=last.outputs.data.float().numpy(), prompt_tokens=prompt_tokens)
        if running.scored:
            scores = read_scores(last.prompt_token_ids, last.prompt_logprobs, running.scored, self._topk or 0)
            return Result(number, scores=scores, prompt_tokens=prompt_tokens)
        words = None if running.walk is None else running.walk.distribute().label_logprobs
        reply = write_reply(first, last, self.ready.first_tokens, self._topk, words)
        return Result(number, reply=reply, prompt_tokens=prompt_tokens)


def _choose_options(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {"revision": settings.revision, "tokenizer_revision": settings.revision, **DEFAULTS}
    if settings.vector is not None:
        from vllm.config import PoolerConfig

        options |= {
            "runner": "pooling",
            "convert": "embed",
            "pooler_config": PoolerConfig(pooling_type=settings.vector),
        }
    if (settings.topk or 0) > DEFAULT_TOPK:
        options["max_logprobs"] = settings.topk
    return options | dict(settings.engine)


def _open(picture: Pixels | bytes) -> Any:
    from PIL import Image

    return open_rgb(picture) if isinstance(picture, bytes) else Image.fromarray(picture).convert("RGB")


def write_reply(
    scored: Any,
    said: Any,
    first_tokens: Sequence[Sequence[int]],
    topk: int | None,
    word_scores: Sequence[float] | None = None,
) -> bytes:
    """What vLLM's server would have answered (harvest.chat.written).

    `scored` is the output of the pass that scores `first_tokens`, those of each label, and `said` that of the pass that
    gives the reply; they may be the same. The most probable tokens are there where `topk` of them were asked for.
    `word_scores` are those of whole label words.
    """
    label_tokens = [token for tokens in first_tokens for token in tokens]
    (completion,) = said.outputs
    tokens = []
    for index, (token, logprobs) in enumerate(zip(completion.token_ids, completion.logprobs or (), strict=False)):
        top = {} if topk is None else dict(logprobs)
        if index == 0:
            top |= {label: scored.outputs[0].logprobs[0][label] for label in label_tokens}
        shown = {each: float(one.logprob) for each, one in top.items()}
        tokens.append(SaidToken(token, float(logprobs[token].logprob), shown))
    return write_chat_completion(
        completion.text,
        completion.finish_reason,
        tokens,
        len(said.prompt_token_ids),
        said_tokens=len(completion.token_ids),
        first_tokens=first_tokens,
        word_scores=word_scores,
    )


if __name__ == "__main__":
    main()
