"""Speaker and listener: what does not fit together is refused, and sound is cut where it is quiet. No weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harvest.teachers.speech import SpeechConfig, SpeechTeacher, SpeechVector
from harvest.teachers.speech.sounds import split_into_windows
from shared.errors import SourceError, UsageError
from shared.example import Example
from shared.tasks import TASKS

RATE = 1000


def make_tone(seconds: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.sin(np.arange(int(seconds * RATE), dtype=np.float32))


def test_sentences_share_windows_and_a_long_one_is_cut_in_its_pause() -> None:
    sentences = [make_tone(4), make_tone(5), make_tone(2)]
    joined = split_into_windows(sentences, RATE, 10)
    assert [len(window) for window in joined] == [9000, 2000]
    np.testing.assert_array_equal(np.concatenate(joined), np.concatenate(sentences))
    long = np.concatenate([make_tone(7.5), np.zeros(400, np.float32), make_tone(9)])
    first, *rest = split_into_windows([long], RATE, 10)
    assert 7500 < len(first) < 7900, "it was cut within a word"
    assert max(map(len, rest)) <= 10_000
    np.testing.assert_array_equal(np.concatenate([first, *rest]), long)
    assert [len(window) for window in split_into_windows([], RATE, 10)] == [0]


def test_what_does_not_fit_together_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    voice, bare = tmp_path / "joe.onnx", tmp_path / "bare.onnx"
    for path in (voice, bare):
        path.write_bytes(b"")
    Path(f"{voice}.json").write_text(json.dumps({"audio": {"sample_rate": 22_050}}))
    make_model(tmp_path / "transformers", {"model_type": "whisper", "d_model": 384})
    make_model(tmp_path / "wav2vec2", {"model_type": "wav2vec2", "hidden_size": 24})
    make_model(tmp_path / "empty", {})
    refused: list[tuple[str, dict[str, Any]]] = [
        ("--vocoder and --speaker are of SpeechT5", {"vocoder": "org/name", "speaker": voice}),
        ("give --vector words too", {"text_encoder": "org/name"}),
        (r"beside a voice of Piper lies bare\.onnx\.json", {"model": str(bare)}),
        (r"there is no file .*none\.onnx", {"model": str(tmp_path / "none.onnx")}),
        ("is a Whisper of transformers", {"encoder": str(tmp_path / "transformers")}),
        ("hears no words", {"encoder": str(tmp_path / "wav2vec2"), "vector": SpeechVector.WORDS}),
        ("names no hidden_size", {"encoder": str(tmp_path / "empty")}),
    ]
    for message, options in refused:
        with pytest.raises((UsageError, SourceError), match=message):
            SpeechTeacher(SpeechConfig(**{"model": str(voice), **options}), TASKS["rte"], "x").recipe()
    Path(f"{voice}.json").write_text("{")
    with pytest.raises(SourceError, match="is no voice of Piper"):
        SpeechTeacher(SpeechConfig(model=str(voice)), TASKS["rte"], "x")


def test_sound_that_is_kept_counts_in_what_a_plan_says_of_the_disk(tmp_path: Path) -> None:
    voice = tmp_path / "joe.onnx"
    voice.write_bytes(b"")
    Path(f"{voice}.json").write_text(json.dumps({"audio": {"sample_rate": 22_050}}))
    make_model(tmp_path / "wav2vec2", {"model_type": "wav2vec2", "hidden_size": 24})
    made: dict[str, Any] = {"model": str(voice), "encoder": str(tmp_path / "wav2vec2")}
    row = Example("1", "a text that is spoken in three seconds or so")
    bare, kept = (
        SpeechTeacher(SpeechConfig(**made, keep_audio=keeps), TASKS["rte"], "x").estimate(row).bytes
        for keeps in (False, True)
    )
    assert 100_000 < kept - bare < 200_000


def make_model(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
