"""Who hears: Wav2Vec2, which gives hidden states, or Whisper, which gives words as well.

Weights are loaded by `load`, in no other method. A text's vector is the mean of the listener's last hidden states over
the time in which something was said.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import numpy as np

from harvest.teachers.speech.sounds import Sound, resample, split_into_windows
from shared.cores import count_cores
from shared.errors import SourceError, require_extra
from shared.frozen_models import FrozenModel, choose_inference_device

# Whisper hears 30 seconds at a time (arXiv:2212.04356, section 2.2), and silence fills them. It is given fewer: of 27
# seconds of speech it was seen to lose the last word.
_SPOKEN_SECONDS = 24
_SAMPLES_A_STATE = 320  # of its encoder: 160 a frame of the spectrogram, two frames a state
_WHISPER_RATE = 16_000
_WHISPER_BATCH = 4  # windows at a time: of the largest model the states of one are 8 MB, and what makes them more
_MOST_TOKENS = 224  # of a window: half of the decoder's positions, which is what Whisper itself allows
_WHISPER_DTYPE = "float32"


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of one text: the vector, float32 of shape (d,), and the words of each window, if it hears any."""

    vector: np.ndarray[Any, np.dtype[np.float32]]
    words: tuple[str, ...] | None = None


class Listener(Protocol):
    """What the teacher needs of a model that hears."""

    @property
    def width(self) -> int:
        """Numbers in a vector, good for estimates. Reads the model's files."""

    @property
    def hears_words(self) -> bool:
        """Whether it says what it heard."""

    def describe(self) -> Mapping[str, Any]:
        """All that decides what is heard, as JSON."""

    def load(self) -> None:
        """Load the weights. Raises SourceError where that fails."""

    def hear(self, spoken: Sequence[Sequence[Sound]], rate: int) -> list[Heard]:
        """What is heard of each text, spoken in one or more pieces of `rate` samples a second."""

    def close(self) -> None:
        """Let go of the weights."""


def make_listener(source: str) -> Listener:
    """The listener that the model `source` is. Raises SourceError for a model that is none."""
    model = FrozenModel(source)
    config = model.read_json("config.json") or {}
    if config.get("model_type") == "whisper":
        raise SourceError(
            f"--encoder {source} is a Whisper of transformers, and one in CTranslate2's form is needed, such as "
            "Systran/faster-whisper-tiny.en; ct2-transformers-converter --copy_files tokenizer.json makes one"
        )
    if "suppress_ids" in config:  # what CTranslate2 writes there, and nobody else
        return WhisperListener(model)
    if "hidden_size" not in config:
        raise SourceError(f"--encoder {source}: its config.json names no hidden_size; give a Wav2Vec2 or a Whisper")
    return Wav2Vec2Listener(model, config["hidden_size"])


class Wav2Vec2Listener:
    """Wav2Vec2 (arXiv:2006.11477). Hears one piece after the other."""

    hears_words = False

    def __init__(self, model: FrozenModel, width: int) -> None:
        require_extra("speech", "torch", "transformers")
        self._source, self.width = model, int(width)
        self._model: Any = None

    def describe(self) -> Mapping[str, Any]:
        """The model, and how its states become a vector."""
        return {"encoder": self._source.fingerprint, "pooling": "mean over time of last_hidden_state"}

    def load(self) -> None:
        """Load the model. Raises SourceError where that fails."""
        import torch
        from transformers import AutoFeatureExtractor, Wav2Vec2Model

        self._extractor = self._source.load(AutoFeatureExtractor)
        model = self._source.load(Wav2Vec2Model, dtype=torch.float32)
        self._model = model.to(choose_inference_device()).eval()

    def hear(self, spoken: Sequence[Sequence[Sound]], rate: int) -> list[Heard]:
        """The mean of its states over all pieces of a text."""
        import torch

        heard, wanted = [], self._extractor.sampling_rate
        for pieces in spoken:
            states = []
            for piece in pieces:
                sound = resample(piece, rate, wanted)
                inputs = self._extractor(sound, sampling_rate=wanted, return_tensors="pt").input_values
                with torch.inference_mode():
                    states.append(self._model(inputs.to(self._model.device)).last_hidden_state[0])
            heard.append(Heard(torch.cat(states).mean(0).cpu().numpy()))
        return heard

    def close(self) -> None:
        """Let go of the model."""
        self._model = None


class WhisperListener:
    """Whisper (arXiv:2212.04356) by CTranslate2: a thread a core, several of which may call `hear` at once.

    It writes the most probable token at each position (no beam, no random numbers), without timestamps; a model of
    several languages is told that it hears English.
    """

    hears_words = True

    def __init__(self, model: FrozenModel) -> None:
        require_extra("listener", "ctranslate2", "transformers", "tokenizers", "scipy")
        self._source = model
        self._model: Any = None

    @property
    def width(self) -> int:
        """Numbers in a vector, about: CTranslate2 writes it into no file but that of the weights."""
        return self._source.width

    def describe(self) -> Mapping[str, Any]:
        """The model, its window, and how states become a vector and words."""
        return {
            "encoder": self._source.fingerprint,
            "pooling": "mean over the encoder's last states, but for the silence behind what was spoken",
            "window_seconds": _SPOKEN_SECONDS,
            "decoding": "greedy",
            "dtype": _WHISPER_DTYPE,
        }

    def load(self) -> None:
        """Load the model. Raises SourceError where that fails."""
        import ctranslate2
        from tokenizers import Tokenizer
        from transformers import WhisperFeatureExtractor

        folder = self._source.folder
        try:
            self._model = ctranslate2.models.Whisper(
                str(folder),
                device=choose_inference_device(),
                compute_type=_WHISPER_DTYPE,
                inter_threads=count_cores(),
                intra_threads=1,
            )
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # CTranslate2 and tokenizers raise plain ones
            reason = " ".join(str(error).split())
            raise SourceError(f"{folder} cannot be loaded as a Whisper of CTranslate2: {reason}") from error
        self._extractor = WhisperFeatureExtractor(feature_size=self._model.n_mels)
        language = ("<|en|>", "<|transcribe|>") if self._model.is_multilingual else ()
        self._prompt = ["<|startoftranscript|>", *language, "<|notimestamps|>"]

    def hear(self, spoken: Sequence[Sequence[Sound]], rate: int) -> list[Heard]:
        """The states of what was said, window by window, and its words."""
        windows: list[Sound] = []
        owners: list[int] = []
        for number, pieces in enumerate(spoken):
            sounds = [resample(piece, rate, _WHISPER_RATE) for piece in pieces]
            windows += split_into_windows(sounds, _WHISPER_RATE, _SPOKEN_SECONDS)
            owners += [number] * (len(windows) - len(owners))
        sums, words = [np.zeros(0)] * len(spoken), [list[str]() for _ in spoken]
        counts = np.zeros(len(spoken))
        for start in range(0, len(windows), _WHISPER_BATCH):
            batch = windows[start : start + _WHISPER_BATCH]
            for offset, (states, said) in enumerate(self._hear_windows(batch)):
                owner = owners[start + offset]
                sums[owner] = states.sum(0) + (sums[owner] if counts[owner] else 0)
                counts[owner] += len(states)
                words[owner].append(said)
        return [
            Heard((total / count).astype(np.float32), tuple(said))
            for total, count, said in zip(sums, counts, words, strict=True)
        ]

    def _hear_windows(self, windows: Sequence[Sound]) -> list[tuple[np.ndarray[Any, np.dtype[np.float64]], str]]:
        """Of each window the states of what was said, shape (n, d), and its words."""
        from ctranslate2 import StorageView

        inputs = self._extractor(list(windows), sampling_rate=_WHISPER_RATE, return_tensors="np").input_features
        encoded = self._model.encode(StorageView.from_array(np.ascontiguousarray(inputs)), to_cpu=True)
        states = np.asarray(encoded, np.float64)
        written = self._model.generate(encoded, [self._prompt] * len(windows), beam_size=1, max_length=_MOST_TOKENS)
        return [
            (each[: max(1, ceil(len(window) / _SAMPLES_A_STATE))], self._tokenizer.decode(one.sequences_ids[0]).strip())
            for window, each, one in zip(windows, states, written, strict=True)
        ]

    def close(self) -> None:
        """Let go of the model."""
        self._model = None


def write_words(words: Sequence[str]) -> bytes:
    """Write the words of a text's windows as a row's `raw`, a JSON list of strings."""
    return json.dumps(words, ensure_ascii=False).encode()


def join_words(raw: bytes) -> str:
    """The words that a row's `raw` holds."""
    return " ".join(filter(None, json.loads(raw)))
