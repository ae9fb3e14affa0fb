"""Who speaks: SpeechT5 with its vocoder, or a voice of Piper. Weights are loaded by `load`, in no other method."""

import json
import re
import unicodedata
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from harvest.teachers.chunks import split_into_chunks
from harvest.teachers.speech.config import PIPER_SUFFIX, SpeechConfig
from harvest.teachers.speech.sounds import Sound
from shared.errors import SourceError, require_extra
from shared.frozen_models import FrozenModel, choose_inference_device
from shared.sources import fingerprint_file, resolve_file

_VOCODER = "microsoft/speecht5_hifigan"
_UNKNOWN_SHARE = 0.5  # of letters that a speaker does not know: from there on it would teach another text
# Piper draws random numbers for a sound's timbre and for its rhythm, with no seed a row: none of either.
_MOST_LETTERS = 600  # of a sentence for Piper, about 40 seconds: its memory grows with the square
_NOISE_SCALE = 0.0


class Speaker(Protocol):
    """What the teacher needs of a model that speaks."""

    @property
    def side_by_side(self) -> bool:
        """Whether several threads may speak at once, a thread each."""

    @property
    def rate(self) -> int:
        """Samples a second. Known once it is loaded."""

    def describe(self) -> Mapping[str, Any]:
        """All that decides what is spoken, as JSON."""

    def load(self) -> None:
        """Load the weights. Raises SourceError where that fails."""

    def find_problem(self, text: str) -> str | None:
        """Why the text cannot be spoken; None where it can."""

    def speak(self, text: str, seed: int) -> list[Sound]:
        """The sound of a text, in pieces; none where there is nothing to say."""

    def close(self) -> None:
        """Let go of the weights."""


def make_speaker(config: SpeechConfig) -> Speaker:
    """The speaker that the model of `config` is. Raises SourceError where one of its files cannot be read."""
    return PiperSpeaker(config.model) if config.speaks_piper else SpeechT5Speaker(config)


class SpeechT5Speaker:
    """SpeechT5 and HiFi-GAN, at 16 kHz.

    SpeechT5 keeps dropout while it speaks, so a text is spoken with random numbers of its own seed.
    """

    side_by_side = False  # two texts would share torch's random numbers

    def __init__(self, config: SpeechConfig) -> None:
        require_extra("speech", "torch", "transformers", "sentencepiece")
        self._model, self._vocoder = FrozenModel(config.model), FrozenModel(config.vocoder or _VOCODER)
        self._voice = None if config.speaker is None else read_speaker(config.speaker)
        self._speech: Any = None
        self._to_sound: Any = None
        self.rate = 0

    def describe(self) -> Mapping[str, Any]:
        """The two models, whose voice it is, and the seed."""
        return {
            "model": self._model.fingerprint,
            "vocoder": self._vocoder.fingerprint,
            "speaker": None if self._voice is None else sha256(self._voice.tobytes()).hexdigest(),
            "seed": "the first 63 bits of the request's key",
        }

    def load(self) -> None:
        """Load both models. Raises SourceError where that fails, or the voice is not the model's."""
        import torch
        from transformers import SpeechT5ForTextToSpeech, SpeechT5HifiGan, SpeechT5Tokenizer

        device = choose_inference_device()
        self._tokenizer = self._model.load(SpeechT5Tokenizer)
        self._speech = self._model.load(SpeechT5ForTextToSpeech, dtype=torch.float32).to(device).eval()
        self._to_sound = self._vocoder.load(SpeechT5HifiGan, dtype=torch.float32).to(device).eval()
        self.rate = self._to_sound.config.sampling_rate
        width = self._speech.config.speaker_embedding_dim
        if self._voice is not None and self._voice.shape != (width,):
            shape = self._voice.shape
            raise SourceError(f"--speaker: its vector has the shape {shape}, and the model wants ({width},)")
        vector = torch.zeros(1, width) if self._voice is None else torch.from_numpy(self._voice)[None]
        self._vector = vector.to(device)
        self._window = self._speech.config.max_text_positions - 1  # an end mark comes after the letters

    def find_problem(self, text: str) -> str | None:
        """Refuse a text of letters that the model does not know."""
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        unknown = ids.count(self._tokenizer.unk_token_id) / max(1, len(ids))
        if unknown < _UNKNOWN_SHARE:
            return None
        return f"SpeechT5 knows no letter for {unknown:.0%} of this text: it speaks English"

    def speak(self, text: str, seed: int) -> list[Sound]:
        """Speak a text; one that is longer than the model's window in several pieces."""
        import torch

        sounds = []
        with torch.random.fork_rng(devices=None), torch.inference_mode():
            torch.manual_seed(seed)
            for piece in split_into_chunks(text, self._window, self._count_letters):
                ids = self._tokenizer(piece, return_tensors="pt").input_ids.to(self._vector.device)
                sounds.append(self._speech.generate_speech(ids, self._vector, vocoder=self._to_sound).cpu().numpy())
        return sounds

    def close(self) -> None:
        """Let go of both models."""
        self._speech = self._to_sound = None

    def _count_letters(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])


class PiperSpeaker:
    """A voice of Piper (https://github.com/OHF-Voice/piper1-gpl): VITS over the phonemes of espeak-ng, by onnxruntime.

    It speaks without random numbers, so that a text sounds the same in every run; the first of a voice's speakers.
    """

    side_by_side = True

    def __init__(self, source: str) -> None:
        require_extra("listener", "piper", "onnxruntime")
        path = resolve_file(source)
        if isinstance(path, str):
            raise SourceError(f"--model {source}: a voice of Piper is a file here; python -m piper.download_voices")
        self._path, self._settings = path, path.with_suffix(f"{PIPER_SUFFIX}.json")
        if not self._settings.is_file():
            raise SourceError(f"--model {source}: beside a voice of Piper lies {self._settings.name}, and it does not")
        try:
            self._config: Mapping[str, Any] = json.loads(self._settings.read_bytes())
            self.rate = int(self._config["audio"]["sample_rate"])
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{self._settings} is no voice of Piper: {error!r}; fetch it again") from None
        self._voice: Any = None

    def describe(self) -> Mapping[str, Any]:
        """The voice, and that nothing in it is random."""
        return {
            "model": fingerprint_file(self._path),
            "voice": fingerprint_file(self._settings),
            "noise_scale": _NOISE_SCALE,
        }

    def load(self) -> None:
        """Open the voice, one thread to a text."""
        from onnxruntime import InferenceSession, SessionOptions
        from piper import PiperVoice, SynthesisConfig
        from piper.config import PiperConfig

        options = SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            session = InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])
            self._voice = PiperVoice(session, PiperConfig.from_dict(dict(self._config)))
        except Exception as error:  # onnxruntime's own kinds, and a KeyError for a config that is cut short
            reason = " ".join(str(error).split())
            raise SourceError(f"{self._path} cannot be loaded as a voice of Piper: {reason}") from error
        self._synthesis = SynthesisConfig(noise_scale=_NOISE_SCALE, noise_w_scale=_NOISE_SCALE)

    def find_problem(self, text: str) -> str | None:
        """Refuse a text that an English voice would spell ("chinese letter"), for want of its script."""
        letters = [letter for letter in text if letter.isalpha()]
        foreign = sum(not unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
        if not str(self._config.get("espeak", {}).get("voice", "")).startswith("en") or not letters:
            return None
        share = foreign / len(letters)
        return (
            f"{share:.0%} of this text's letters are not Latin, and the voice speaks English" if share >= 0.5 else None
        )

    def speak(self, text: str, seed: int) -> list[Sound]:
        """Speak a text, a piece a sentence. The seed plays no part."""
        plain = re.sub(r"\[(?=\[)", "[ ", _break_long_sentences(text))  # Piper would take [[...]] for phonemes
        return [chunk.audio_float_array for chunk in self._voice.synthesize(plain, self._synthesis)]

    def close(self) -> None:
        """Let go of the voice."""
        self._voice = None


def _break_long_sentences(text: str) -> str:
    """Put a line's end, where Piper ends a sentence, into sentences that would take it much memory at once."""
    sentences = re.split(r"(?<=[.!?])\s+|\n+", text)
    if max(map(len, sentences)) <= _MOST_LETTERS:
        return text
    return "\n".join(part for sentence in sentences for part in split_into_chunks(sentence, _MOST_LETTERS, len))


def read_speaker(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The x-vector in a .npy file, float32. Raises SourceError where there is none."""
    try:
        vector = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise SourceError(f"--speaker {path}: no vector can be read ({error}); give a .npy file") from error
    return np.ascontiguousarray(np.squeeze(vector), np.float32)
