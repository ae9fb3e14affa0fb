"""`speech`: it speaks the text, and hears what was spoken.

    text -> SpeechT5 -> spectrogram -> HiFi-GAN -> sound -> Wav2Vec2 -> mean over time -> embedding (768)
    text -> Piper -> sound -> Whisper -> mean over time -> embedding;  the words it heard -> reply

The first line is ARMADA's audio teacher (arXiv:2603.10877): the paper names the two models and the 768; the voice and
the mean over time are ours. The second is the teacher `listener`, of parts that packages carry. What was heard can be
the vector, too, by a sentence encoder (--vector words), as with the teacher `reader`.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

from harvest.chat.prompts import lay_out
from harvest.teachers.base import Estimate, Reply, Request, Reread, estimate_bytes
from harvest.teachers.batches import answer_in_batches
from harvest.teachers.speech.config import SpeechConfig, SpeechVector
from harvest.teachers.speech.listeners import Heard, Listener, join_words, make_listener, write_words
from harvest.teachers.speech.sounds import Sound, write_wav
from harvest.teachers.speech.speakers import make_speaker
from shared.cores import CorePool, count_cores
from shared.errors import UsageError
from shared.example import Example
from shared.frozen_models import choose_inference_device
from shared.schema import Answer, Status
from shared.sentences import SentenceEncoder
from shared.sources import MPNET
from shared.tasks import Task

_LETTER_BYTES = 3000  # of sound, for estimates: about 15 letters a second, 16 bits a sample, 22,050 samples a second
_ROWS_A_CORE = 4  # of a speaker that several threads may use; any other speaks one row at a time


class SpeechTeacher:
    """See the module. Keeps the protocol of harvest.teachers.base.Teacher."""

    remote = None

    def __init__(self, config: SpeechConfig, task: Task, name: str) -> None:
        self.name = name
        self._config = config
        self._speaker = make_speaker(config)
        wants_words = config.vector is SpeechVector.WORDS
        self._text_encoder = SentenceEncoder(config.text_encoder or MPNET) if wants_words else None
        self._cores: CorePool | None = None
        self._is_loaded = False

    @staticmethod
    def make_reread(recipe: Mapping[str, Any]) -> Reread | None:
        """What reads the words of a row's windows again; None where no words were heard. Its vector stays."""
        return reread if "decoding" in recipe else None

    @cached_property
    def _listener(self) -> Listener:
        """Who hears: its files say what it is. Raises UsageError where its words are wished for, and it has none."""
        listener = make_listener(self._config.encoder)
        if self._text_encoder is not None and not listener.hears_words:
            raise UsageError(f"--vector words: {self._config.encoder} hears no words; --encoder may name a Whisper")
        return listener

    def recipe(self) -> Mapping[str, Any]:
        """Who speaks, who hears, and what encodes the words; the task's question plays no part."""
        encoder = {} if self._text_encoder is None else {"text_encoder": self._text_encoder.fingerprint()}
        return {"teacher": "speech", **self._speaker.describe(), **self._listener.describe(), **encoder}

    def content(self, example: Example) -> Mapping[str, Any]:
        """The text that is spoken."""
        return {"text": lay_out(example)}

    def estimate(self, example: Example) -> Estimate:
        """Free, but for the bytes of the vector, of the words and, where it is kept, of the sound."""
        width = self._listener.width if self._text_encoder is None else self._text_encoder.width
        words = len(example.text) / 2 if self._listener.hears_words else 0
        sound = _LETTER_BYTES * len(lay_out(example)) if self._config.keep_audio else 0
        return Estimate(bytes=estimate_bytes(example, words + 2 * width + sound))

    def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Speak and hear, rows side by side where the speaker allows it."""
        size = _ROWS_A_CORE * count_cores() if self._speaker.side_by_side else 1
        return answer_in_batches(requests, size, self._answer_batch)

    async def aclose(self) -> None:
        """Let go of the models."""
        if self._cores is not None:
            self._cores.close()
        self._cores, self._is_loaded = None, False
        self._speaker.close()
        self._listener.close()
        if self._text_encoder is not None:
            self._text_encoder.close()

    def _answer_batch(self, requests: Sequence[Request]) -> list[Reply]:
        if not self._is_loaded:
            self._load()
        started, asked_at = time.perf_counter(), datetime.now(UTC)
        if self._cores is None:
            replies = self._answer_run(requests)
        else:
            replies = self._cores.map(self._answer_run, requests)
        latency_ms = (time.perf_counter() - started) * 1000 / len(requests)
        return [
            replace(reply, answer=replace(reply.answer, latency_ms=latency_ms, asked_at=asked_at, attempts=1))
            for reply in replies
        ]

    def _load(self) -> None:
        self._speaker.load()
        self._listener.load()
        if self._text_encoder is not None:
            self._text_encoder.load()
        if self._speaker.side_by_side:
            self._cores = CorePool(1 if choose_inference_device() == "cuda" else None)
        self._is_loaded = True

    def _answer_run(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer requests one after the other; one that cannot be spoken does not stop the others."""
        spoken: dict[str, list[Sound]] = {}
        problems: dict[str, str] = {}
        for request in requests:
            text = lay_out(request.example)
            problem = self._speaker.find_problem(text)
            sounds = [] if problem else self._speaker.speak(text, int(request.key[:16], 16) >> 1)
            if sounds:
                spoken[request.key] = sounds
            else:
                problems[request.key] = problem or "there is nothing in this text that can be spoken"
        heard = dict(zip(spoken, self._listener.hear([*spoken.values()], self._speaker.rate), strict=True))
        answers = dict(zip(heard, self._make_answers([*heard.values()]), strict=True))
        return [
            Reply(request, Answer(Status.FAILED, error=problems[request.key]))
            if request.key in problems
            else Reply(request, answers[request.key], audio=self._write_audio(spoken[request.key]))
            for request in requests
        ]

    def _make_answers(self, heard: Sequence[Heard]) -> list[Answer]:
        raws = [None if one.words is None else write_words(one.words) for one in heard]
        replies = [None if raw is None else join_words(raw) for raw in raws]
        vectors: Sequence[np.ndarray[Any, Any]] = [one.vector for one in heard]
        if self._text_encoder is not None and heard:
            vectors = [*self._text_encoder.encode([reply or "" for reply in replies])]
        return [
            Answer(Status.OK, reply=reply, embedding=vector, raw=raw)
            for reply, vector, raw in zip(replies, vectors, raws, strict=True)
        ]

    def _write_audio(self, sounds: Sequence[Sound]) -> bytes | None:
        return write_wav(np.concatenate(sounds), self._speaker.rate) if self._config.keep_audio else None


def reread(raw: bytes) -> Mapping[str, Any]:
    """The words of a row's windows, by column."""
    return {"status": Status.OK, "reply": join_words(raw)}
