"""The teacher `listener` with its real parts: a voice of Piper speaks, and Whisper tiny.en hears."""

import asyncio
import json
import os
import subprocess
import sys
import time
import wave
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from harvest.looking.reparse import reparse
from harvest.teachers.base import Reply, Request
from harvest.teachers.registry import find_teacher
from harvest.teachers.speech import SpeechConfig, SpeechTeacher, SpeechVector
from shared.example import Example
from shared.schema import Status
from shared.sentences import SentenceEncoder
from shared.shards import count_unsealed, load_manifest, verify_shards
from shared.sources import MINILM, PIPER_JOE, WHISPER_TINY, resolve_file, resolve_model
from shared.tasks import TASKS

pytestmark = pytest.mark.real

SHORT = ["a film of great charm", "the plot is thin", "nobody gives back two hours"]
LONG = (
    "The story begins in a small town by the sea, where two brothers repair old boats for a living. "
    "One of them dreams of the city, and the other has never left the harbour in all his life. "
    "When a stranger arrives with a map, both of them must choose between the work that they know and a journey. "
    "The journey takes them past islands where nobody has lived for a hundred years. "
    "It is a slow film, and a beautiful one, with a camera that waits until the light is right. "
    "In the end nobody finds the treasure, and everybody goes home."
)
SILENT, FOREIGN = "...", "映画はとても良かった"
WIDTH = 384  # of tiny.en's states


def ask(texts: Sequence[str], **options: Any) -> list[Reply]:
    config = SpeechConfig(**{**find_teacher("listener").defaults, **options})
    teacher = SpeechTeacher(config, TASKS["rte"], "listener")

    async def stream() -> AsyncIterator[Request]:
        for text in texts:
            yield Request(sha256(text.encode()).hexdigest(), Example(text, text))

    async def collect() -> list[Reply]:
        replies = [reply async for reply in teacher.answer(stream())]
        await teacher.aclose()
        return replies

    found = {reply.request.example.text: reply for reply in asyncio.run(collect())}
    return [found[text] for text in texts]


@pytest.fixture(scope="module")
def together() -> dict[str, Reply]:
    """Every text, asked in one stream."""
    texts = [*SHORT, LONG, SILENT, FOREIGN]
    return dict(zip(texts, ask(texts, keep_audio=True), strict=True))


def speak_as_piper(text: str) -> np.ndarray[Any, Any]:
    """What Piper's own command would speak without noise, as 16-bit samples."""
    from piper import PiperVoice, SynthesisConfig

    voice = PiperVoice.load(resolve_file(PIPER_JOE))
    spoken = voice.synthesize(text, SynthesisConfig(noise_scale=0, noise_w_scale=0))
    return np.concatenate([chunk.audio_int16_array for chunk in spoken])


def test_a_row_is_what_piper_speaks_and_whisper_hears(together: dict[str, Reply], tmp_path: Path) -> None:
    from ctranslate2 import StorageView
    from ctranslate2.models import Whisper
    from scipy.signal import resample_poly
    from tokenizers import Tokenizer
    from transformers import WhisperFeatureExtractor

    text = SHORT[0]
    said = speak_as_piper(text)
    path = tmp_path / "said.wav"
    path.write_bytes(together[text].audio or b"")
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (22_050, 1, 2)
        kept = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    np.testing.assert_allclose(kept, said, atol=1)

    sound = resample_poly(said / 32767, 320, 441).astype(np.float32)
    inputs = WhisperFeatureExtractor()(sound, sampling_rate=16_000, return_tensors="np").input_features
    model = Whisper(resolve_model(WHISPER_TINY).location, compute_type="float32")
    states = np.asarray(model.encode(StorageView.from_array(inputs)))[0]
    assert states.shape == (1500, WIDTH)
    expected = states[: -(-len(sound) // 320)].mean(0)
    answer = together[text].answer
    np.testing.assert_allclose(
        get_vector(together[text]), expected, atol=2e-3
    )  # the samples were rounded to 16 bits here
    prompt = ["<|startoftranscript|>", "<|notimestamps|>"]
    (written,) = model.generate(StorageView.from_array(inputs), [prompt], beam_size=1)
    tokenizer = Tokenizer.from_file(f"{resolve_model(WHISPER_TINY).location}/tokenizer.json")
    assert answer.reply == tokenizer.decode(written.sequences_ids[0]).strip() == "A film of great charm."


def test_a_row_does_not_depend_on_its_company(together: dict[str, Reply]) -> None:
    (alone,) = ask(SHORT[1:2])
    np.testing.assert_allclose(get_vector(alone), get_vector(together[SHORT[1]]), atol=1e-3)
    assert (alone.answer.reply, alone.audio) == (together[SHORT[1]].answer.reply, None)


def test_a_text_of_more_than_a_window_is_heard_to_its_end(together: dict[str, Reply]) -> None:
    answer = together[LONG].answer
    windows = json.loads(answer.raw or b"")
    assert len(windows) == 2, "it is longer than one window of Whisper"
    assert "small town by the sea" in windows[0]
    assert windows[1].endswith("everybody goes home.")
    assert answer.reply == " ".join(windows)
    assert get_vector(together[LONG]).shape == (WIDTH,)


def test_what_cannot_be_spoken_is_a_failed_row(together: dict[str, Reply]) -> None:
    for text, problem in ((SILENT, "nothing in this text that can be spoken"), (FOREIGN, "the voice speaks English")):
        answer = together[text].answer
        assert answer.status is Status.FAILED
        assert problem in (answer.error or "")


def test_the_words_can_be_the_vector() -> None:
    (one,) = ask(SHORT[1:2], vector=SpeechVector.WORDS, text_encoder=MINILM)
    encoder = SentenceEncoder(MINILM)
    np.testing.assert_allclose(get_vector(one), encoder.encode([one.answer.reply or ""])[0], atol=1e-5)


def test_a_killed_harvest_goes_on_and_its_raw_is_read_again(tmp_path: Path) -> None:
    path, out = tmp_path / "films.jsonl", tmp_path / "out"
    texts = [f"{text} {number}" for text in SHORT[:2] for number in ("one", "two", "three")]
    path.write_text("".join(json.dumps({"text": text, "label": text[0]}) + "\n" for text in texts))
    command = [sys.executable, "-m", "harvest.cli", "run", "--teacher", "listener", "--json", "--split", "train"]
    command += ["--task", str(path), "--text-column", "text", "--label-column", "label", "--out", str(out)]
    folder = out / "teacher=listener"
    # On one core a batch has four rows: there is a moment at which some rows are kept.
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not count_kept(folder):
            time.sleep(0.05)
        process.kill()
        process.wait()
        kept = count_kept(folder)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        os.sched_setaffinity(0, cores)
    report = json.loads(done.stdout)
    assert 0 < kept < report["rows"]
    assert (report["kept"], report["asked"], report["failed"]) == (kept, report["rows"] - kept, 0)
    rows = pl.read_parquet(f"{folder}/**/*.parquet")
    assert rows["sample_id"].n_unique() == rows.height == report["rows"]
    assert set(rows["status"]) == {"ok"}
    assert verify_shards(out).ok
    again = reparse(folder)
    assert (again.reread, again.changed) == (report["rows"], 0)


def get_vector(reply: Reply) -> np.ndarray[Any, Any]:
    assert reply.answer.embedding is not None
    return reply.answer.embedding


def count_kept(folder: Path) -> int:
    return sum(count_unsealed(folder, load_manifest(folder)).values()) if (folder / "manifest.json").exists() else 0
