"""The speech teacher with tiny real models: SpeechT5, HiFi-GAN and Wav2Vec2, and a tokenizer trained on the spot."""

import asyncio
import json
import warnings
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import run_harvest
from harvest.teachers.base import Reply, Request
from harvest.teachers.speech import SpeechConfig, SpeechTeacher
from shared.errors import SourceError
from shared.example import Example
from shared.schema import Answer, Status
from shared.shards import verify_shards
from shared.tasks import TASKS

pytestmark = pytest.mark.real

TEXTS = ["a film of great charm", "two hours that nobody gives back", "the plot is thin"]
WIDTH = 24  # of Wav2Vec2's states
SPEAKER = 16


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of the three models, by option."""
    home = tmp_path_factory.mktemp("speech")
    torch.manual_seed(2)
    make_speaker(home / "model")
    make_vocoder(home / "vocoder")
    make_listener(home / "encoder")
    return {name: str(home / name) for name in ("model", "vocoder", "encoder")}


def make_speaker(folder: Path) -> None:
    import sentencepiece
    from transformers import SpeechT5Config, SpeechT5ForTextToSpeech, SpeechT5Tokenizer

    folder.mkdir()
    (folder / "texts.txt").write_text("\n".join(TEXTS * 10))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of SWIG, at import
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "texts.txt"),
            model_prefix=str(folder / "spm_char"),
            model_type="char",
            vocab_size=26,
            hard_vocab_limit=False,
            pad_id=1,
            bos_id=0,
            eos_id=2,
            unk_id=3,
            minloglevel=2,
        )
    tokenizer = SpeechT5Tokenizer(str(folder / "spm_char.model"))
    tokenizer.save_pretrained(folder)
    config = SpeechT5Config(
        vocab_size=len(tokenizer),
        hidden_size=24,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        num_mel_bins=20,
        speech_decoder_prenet_units=16,
        speech_decoder_postnet_units=16,
        speaker_embedding_dim=SPEAKER,
        max_text_positions=40,
    )
    model = SpeechT5ForTextToSpeech(config)
    model.speech_decoder_postnet.prob_out.bias.data.fill_(-4.0)  # a random one would stop at once
    model.save_pretrained(folder)


def make_vocoder(folder: Path) -> None:
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    config = SpeechT5HifiGanConfig(
        model_in_dim=20,
        upsample_initial_channel=16,
        upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
    )
    SpeechT5HifiGan(config).save_pretrained(folder)


def make_listener(folder: Path) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16, 16),
        conv_kernel=(10, 3),
        conv_stride=(5, 2),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)


def answer(models: dict[str, Any], texts: Sequence[str], **options: Any) -> list[Answer]:
    teacher = SpeechTeacher(SpeechConfig(**models, **options), TASKS["rte"], "speech")

    async def stream() -> AsyncIterator[Request]:
        for text in texts:
            yield Request(sha256(text.encode()).hexdigest(), Example(text, text))

    async def collect() -> list[Reply]:
        return [reply async for reply in teacher.answer(stream())]

    replies = {reply.request.example.text: reply.answer for reply in asyncio.run(collect())}
    return [replies[text] for text in texts]


def get_vector(one: Answer) -> np.ndarray:
    assert one.embedding is not None
    return one.embedding


def test_a_row_depends_on_its_text_and_key_alone(models: dict[str, str]) -> None:
    forwards = answer(models, TEXTS)
    backwards = answer(models, TEXTS[::-1])[::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert one.status is Status.OK
        np.testing.assert_array_equal(get_vector(one), get_vector(other))
        assert get_vector(one).shape == (WIDTH,)
    assert np.abs(get_vector(forwards[0]) - get_vector(forwards[1])).max() > 1e-4


def test_the_vector_is_what_wav2vec2_hears(models: dict[str, str]) -> None:
    from transformers import SpeechT5ForTextToSpeech, SpeechT5HifiGan, SpeechT5Tokenizer, Wav2Vec2Model

    speech = SpeechT5ForTextToSpeech.from_pretrained(models["model"]).eval()
    vocoder = SpeechT5HifiGan.from_pretrained(models["vocoder"]).eval()
    listener = Wav2Vec2Model.from_pretrained(models["encoder"]).eval()
    ids = SpeechT5Tokenizer.from_pretrained(models["model"])(TEXTS[2], return_tensors="pt").input_ids
    torch.manual_seed(int(sha256(TEXTS[2].encode()).hexdigest()[:16], 16) >> 1)
    with torch.no_grad():
        wave = speech.generate_speech(ids, torch.zeros(1, SPEAKER), vocoder=vocoder)
        normal = (wave - wave.mean()) / torch.sqrt(wave.var(unbiased=False) + 1e-7)
        expected = listener(normal[None]).last_hidden_state[0].mean(0).numpy()
    (ours,) = answer(models, TEXTS[2:])
    np.testing.assert_allclose(get_vector(ours), expected, atol=1e-4)


def test_a_long_text_is_spoken_to_its_end(models: dict[str, str]) -> None:
    long = " ".join(TEXTS)
    whole, more = answer(models, [long, f"{long} again"])
    assert (whole.status, more.status) == (Status.OK, Status.OK)
    assert len(long) > 40, "it fits the model's window"
    assert np.abs(get_vector(whole) - get_vector(more)).max() > 1e-5


def test_letters_that_the_model_lacks_are_named(models: dict[str, str]) -> None:
    (one,) = answer(models, ["映画はとても良かった"])
    assert one.status is Status.FAILED
    assert "SpeechT5 knows no letter for" in (one.error or "")


def test_a_voice(models: dict[str, str], tmp_path: Path) -> None:
    np.save(tmp_path / "voice.npy", np.linspace(-1, 1, SPEAKER))
    np.save(tmp_path / "wrong.npy", np.zeros(3))
    (plain,) = answer(models, TEXTS[:1])
    (voiced,) = answer(models, TEXTS[:1], speaker=tmp_path / "voice.npy")
    assert np.abs(get_vector(plain) - get_vector(voiced)).max() > 1e-5
    with pytest.raises(SourceError, match=r"the shape \(3,\), and the model wants \(16,\)"):
        answer(models, TEXTS[:1], speaker=tmp_path / "wrong.npy")
    with pytest.raises(SourceError, match=r"give a \.npy file"):
        answer(models, TEXTS[:1], speaker=tmp_path / "none.npy")


def test_a_harvest(models: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": text[0]}) + "\n" for text in TEXTS))
    choice = HarvestConfig(
        TaskChoice(str(path), text_column="text", label_column="label"),
        TeacherChoice("speech", options=models),
        out=tmp_path / "out",
    )
    report = run_harvest(choice)
    assert (report.asked, report.failed) == (3, 0)
    rows = pl.read_parquet(f"{tmp_path}/out/teacher=speech/**/*.parquet")
    assert rows["embedding"].list.len().to_list() == [WIDTH] * 3
    assert verify_shards(tmp_path / "out").ok
    assert run_harvest(choice).asked == 0
