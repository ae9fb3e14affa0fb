"""What a user says about who speaks and who hears."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from shared.errors import UsageError
from shared.options import Option, check_options

PIPER_SUFFIX = ".onnx"


class SpeechVector(StrEnum):
    """What of the heard is the teacher's vector h_t."""

    STATES = "states"  # the listener's last hidden states, their mean over time
    WORDS = "words"  # the words that it heard, encoded by a sentence encoder


@dataclass(frozen=True, slots=True)
class SpeechConfig:
    """The models, each a hub id, a path or pkg://. The defaults are ARMADA's. Raises UsageError for what cannot be."""

    model: Annotated[
        str,
        Option("Speaks: a SpeechT5, or a voice of Piper, an .onnx file beside which lies its .onnx.json."),
    ] = "microsoft/speecht5_tts"
    vocoder: Annotated[
        str | None,
        Option("Makes sound of SpeechT5's spectrograms. Unless given, microsoft/speecht5_hifigan."),
    ] = None
    encoder: Annotated[
        str,
        Option("Hears: a Wav2Vec2, or a Whisper in CTranslate2's form: Systran/faster-whisper-tiny.en, say."),
    ] = "facebook/wav2vec2-base"
    speaker: Annotated[
        Path | None,
        Option("Whose voice: a .npy file with an x-vector, 512 numbers for SpeechT5's own. Unless given, zeros."),
    ] = None
    vector: Annotated[
        SpeechVector,
        Option(
            "What of the heard is the vector. states: the listener's hidden states; words: a sentence encoder's vector "
            "of the words that a Whisper heard."
        ),
    ] = SpeechVector.STATES
    text_encoder: Annotated[
        str | None,
        Option("The sentence encoder of --vector words. Unless given, the one of the teacher reader, MPNet."),
    ] = None
    keep_audio: Annotated[bool, Option("Keep what was spoken beside the shards: audio/, a WAV file a row.")] = False

    def __post_init__(self) -> None:
        check_options(self)
        if self.speaks_piper and (given := [f"--{name}" for name in ("vocoder", "speaker") if getattr(self, name)]):
            raise UsageError(f"{' and '.join(given)} are of SpeechT5, and {self.model} is a voice of Piper")
        if self.text_encoder is not None and self.vector is not SpeechVector.WORDS:
            raise UsageError("--text-encoder encodes the words that were heard: give --vector words too")

    @property
    def speaks_piper(self) -> bool:
        """Whether the model that speaks is a voice of Piper."""
        return self.model.endswith(PIPER_SUFFIX)
