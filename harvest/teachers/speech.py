"""`speech`: ARMADA's audio teacher (arXiv:2603.10877). It speaks the text, and hears what was spoken.

    text -> SpeechT5 -> spectrogram -> HiFi-GAN -> waveform -> Wav2Vec2 -> mean over time -> embedding (768)

The paper names the two models and the 768; the speaker and the mean over time are ours. SpeechT5 keeps dropout while it
speaks, so each row is spoken alone, with random numbers from its own key: it depends on no other.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from harvest.chat.prompts import lay_out
from harvest.teachers.base import Estimate, Reply, Request, estimate_bytes
from harvest.teachers.batches import answer_in_batches
from harvest.teachers.chunks import split_into_chunks
from shared.errors import SourceError, require_extra
from shared.example import Example
from shared.frozen_models import FrozenModel, choose_inference_device
from shared.options import Option
from shared.schema import Answer, Status
from shared.tasks import Task

_UNKNOWN_SHARE = 0.5  # of letters that SpeechT5 does not know: from there on it would teach another text


@dataclass(frozen=True, slots=True)
class SpeechConfig:
    """The three models, each a hub id, a path or pkg://; and the voice."""

    model: Annotated[str, Option("Speaks: a SpeechT5.")] = "microsoft/speecht5_tts"
    vocoder: Annotated[str, Option("Makes sound of SpeechT5's spectrograms.")] = "microsoft/speecht5_hifigan"
    encoder: Annotated[str, Option("Hears: a Wav2Vec2.")] = "facebook/wav2vec2-base"
    speaker: Annotated[
        Path | None,
        Option("Whose voice: a .npy file with an x-vector, 512 numbers for SpeechT5's own. Unless given, zeros."),
    ] = None


class SpeechTeacher:
    """See the module. Keeps the protocol of harvest.teachers.base.Teacher."""

    remote = None

    def __init__(self, config: SpeechConfig, task: Task, name: str) -> None:
        require_extra("speech", "torch", "transformers", "sentencepiece")
        self.name = name
        self._sources = {part: FrozenModel(getattr(config, part)) for part in ("model", "vocoder", "encoder")}
        self._speaker = None if config.speaker is None else read_speaker(config.speaker)
        self._voice: _Voice | None = None

    def recipe(self) -> Mapping[str, Any]:
        """The models and the speaker; the task's question plays no part."""
        return {
            "teacher": "speech",
            **{part: source.fingerprint for part, source in self._sources.items()},
            "speaker": None if self._speaker is None else sha256(self._speaker.tobytes()).hexdigest(),
            "pooling": "mean over time of last_hidden_state",
            "seed": "the first 63 bits of the request's key",
        }

    def content(self, example: Example) -> Mapping[str, Any]:
        """The text that is spoken."""
        return {"text": lay_out(example)}

    def estimate(self, example: Example) -> Estimate:
        """Free, but for the bytes of the vector."""
        return Estimate(bytes=estimate_bytes(example, 2 * self._width))

    @cached_property
    def _width(self) -> int:
        """Numbers in a vector: the encoder's hidden size."""
        config = self._sources["encoder"].read_json("config.json") or {}
        if "hidden_size" not in config:
            raise SourceError("--encoder: its config.json names no hidden_size; give a Wav2Vec2 model")
        return int(config["hidden_size"])

    def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """One after the other: two rows of a batch would share their dropout."""
        return answer_in_batches(requests, 1, self._answer_batch)

    async def aclose(self) -> None:
        """Let go of the models."""
        self._voice = None

    def _answer_batch(self, requests: Sequence[Request]) -> list[Reply]:
        if self._voice is None:
            self._voice = _Voice(self._sources, self._speaker)
        (request,) = requests
        started, asked_at = time.perf_counter(), datetime.now(UTC)
        text = lay_out(request.example)
        vector, problem = None, None
        if (unknown := self._voice.count_unknown(text)) >= _UNKNOWN_SHARE:
            problem = f"SpeechT5 knows no letter for {unknown:.0%} of this text: it speaks English"
        else:
            vector = self._voice.hear(text, int(request.key[:16], 16) >> 1)
        answer = Answer(
            Status.FAILED if vector is None else Status.OK,
            embedding=vector,
            error=problem,
            latency_ms=(time.perf_counter() - started) * 1000,
            asked_at=asked_at,
            attempts=1,
        )
        return [Reply(request, answer)]


class _Voice:
    """The models, loaded."""

    def __init__(self, sources: Mapping[str, FrozenModel], speaker: np.ndarray[Any, Any] | None) -> None:
        import torch
        from transformers import (
            AutoFeatureExtractor,
            SpeechT5ForTextToSpeech,
            SpeechT5HifiGan,
            SpeechT5Tokenizer,
            Wav2Vec2Model,
        )

        device = choose_inference_device()
        self._tokenizer = sources["model"].load(SpeechT5Tokenizer)
        self._speech = sources["model"].load(SpeechT5ForTextToSpeech, dtype=torch.float32).to(device).eval()
        self._vocoder = sources["vocoder"].load(SpeechT5HifiGan, dtype=torch.float32).to(device).eval()
        self._extractor = sources["encoder"].load(AutoFeatureExtractor)
        self._encoder = sources["encoder"].load(Wav2Vec2Model, dtype=torch.float32).to(device).eval()
        spoken, heard = self._vocoder.config.sampling_rate, self._extractor.sampling_rate
        if spoken != heard:
            raise SourceError(f"the vocoder speaks at {spoken} Hz, and the encoder listens at {heard} Hz")
        width = self._speech.config.speaker_embedding_dim
        if speaker is not None and speaker.shape != (width,):
            raise SourceError(f"--speaker: its vector has the shape {speaker.shape}, and the model wants ({width},)")
        self._speaker = torch.zeros(1, width) if speaker is None else torch.from_numpy(speaker)[None]
        self._speaker = self._speaker.to(device)
        self._window = self._speech.config.max_text_positions - 1  # an end mark comes after the letters

    def count_unknown(self, text: str) -> float:
        """The share of letters that the model does not know, 0 to 1."""
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return float(ids.count(self._tokenizer.unk_token_id) / max(1, len(ids)))

    def hear(self, text: str, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The vector of a text, float32 of shape (d,); a long one is spoken in pieces, and pooled over all."""
        import torch

        states = []
        with torch.random.fork_rng(devices=None), torch.inference_mode():
            torch.manual_seed(seed)
            for piece in split_into_chunks(text, self._window, self._count_letters):
                ids = self._tokenizer(piece, return_tensors="pt").input_ids.to(self._speaker.device)
                wave = self._speech.generate_speech(ids, self._speaker, vocoder=self._vocoder)
                inputs = self._extractor(
                    wave.cpu().numpy(), sampling_rate=self._extractor.sampling_rate, return_tensors="pt"
                )
                states.append(self._encoder(inputs.input_values.to(self._speaker.device)).last_hidden_state[0])
            vector: np.ndarray[Any, np.dtype[np.float32]] = torch.cat(states).mean(0).cpu().numpy()
        return vector

    def _count_letters(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def read_speaker(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The x-vector in a .npy file, float32. Raises SourceError where there is none."""
    try:
        vector = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise SourceError(f"--speaker {path}: no vector can be read ({error}); give a .npy file") from error
    return np.ascontiguousarray(np.squeeze(vector), np.float32)
