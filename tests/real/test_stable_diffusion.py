"""The diffusion teacher with tiny real pipelines: batches, long prompts, a LoRA, black pictures, and a kill."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from harvest.asking.pictures import find_picture
from harvest.cli import app
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import run_harvest
from harvest.looking.status import read_status
from harvest.teachers.base import Reply, Request, Teacher
from harvest.teachers.diffusion import DiffusionConfig, DiffusionTeacher
from shared.errors import SourceError
from shared.example import Example
from shared.options import make_config
from shared.schema import Answer, Status
from shared.shards import verify_shards
from shared.tasks import TASKS

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore:__array__ implementation")]

TEXTS = ["A film of great charm and wit.", "Two hours that nobody gives back.", "The plot is thin; the songs are not."]
TOLERANCE = 1e-3
LONG = " ".join(TEXTS * 3)
MANY = [f"{text} take {number}" for number, text in enumerate(TEXTS * 3)]


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny pipelines by name."""
    from tests.real.tiny_diffusion import make_sdxl, make_stable_diffusion  # diffusers takes seconds to import

    home = tmp_path_factory.mktemp("pipelines")
    return {
        "sd": make_stable_diffusion(home / "sd", TEXTS),
        "sdxl": make_sdxl(home / "sdxl", TEXTS),
        "strict": make_stable_diffusion(home / "strict", TEXTS, safety=True),
    }


def make_teacher(folder: Path, **options: Any) -> DiffusionTeacher:
    config = make_config(DiffusionConfig, {"model": str(folder), **options}, "diffusion")
    return DiffusionTeacher(config, TASKS["rte"], "diffusion")


def answer(teacher: Teacher, texts: Sequence[str]) -> list[Answer]:
    """Answers to requests whose keys are of full length: the seeds come from there."""
    requests = [Request(sha256(text.encode()).hexdigest(), Example(text, text)) for text in texts]
    return ask_requests(teacher, requests)


def ask_requests(teacher: Teacher, requests: Sequence[Request]) -> list[Answer]:
    """The teacher's answers in the order of `requests`."""
    return [reply.answer for reply in ask_for_replies(teacher, requests)]


def ask_for_replies(teacher: Teacher, requests: Sequence[Request]) -> list[Reply]:
    """The teacher's replies in the order of `requests`."""

    async def stream() -> AsyncIterator[Request]:
        for request in requests:
            yield request

    async def collect() -> list[Reply]:
        return [reply async for reply in teacher.answer(stream())]

    replies = {reply.request.key: reply for reply in asyncio.run(collect())}
    return [replies[request.key] for request in requests]


def stack(answers: Sequence[Answer]) -> np.ndarray:
    return np.stack([one.embedding for one in answers if one.embedding is not None])


@pytest.mark.parametrize("name", ["sd", "sdxl"])
@pytest.mark.parametrize(("vector", "width"), [("armada", 1024), ("latent", 64)])
def test_a_row_does_not_depend_on_its_batch(pipelines: dict[str, Path], name: str, vector: str, width: int) -> None:
    single = answer(make_teacher(pipelines[name], vector=vector, batch=1), MANY)
    batched = answer(make_teacher(pipelines[name], vector=vector, batch=8), MANY[::-1])[::-1]
    assert stack(single).shape == (len(MANY), width)
    assert np.abs(stack(single) - stack(batched)).max() < TOLERANCE
    assert {one.status for one in single} == {Status.OK}
    assert np.abs(stack(single)[0] - stack(single)[3]).max() > 100 * TOLERANCE, "another text is another vector"


def test_the_latent_is_that_of_the_pipeline_itself(pipelines: dict[str, Path]) -> None:
    from diffusers import StableDiffusionPipeline

    (ours,) = answer(make_teacher(pipelines["sd"], vector="latent"), TEXTS[:1])
    pipe = StableDiffusionPipeline.from_pretrained(pipelines["sd"])
    pipe.set_progress_bar_config(disable=True)
    seed = int(sha256(TEXTS[0].encode()).hexdigest()[:16], 16) >> 1
    generator = torch.Generator("cpu").manual_seed(seed)
    theirs = pipe(TEXTS[0].lower(), num_inference_steps=20, generator=generator, output_type="latent").images
    assert ours.embedding is not None
    np.testing.assert_allclose(ours.embedding, theirs.numpy().reshape(-1), atol=TOLERANCE)


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_a_long_prompt_is_seen_to_its_end(pipelines: dict[str, Path], name: str) -> None:
    teacher = make_teacher(pipelines[name], vector="latent")
    texts = [LONG, f"{LONG} never", TEXTS[0]]
    batched = answer(teacher, texts)
    assert batched[0].prompt_tokens is not None
    assert batched[0].prompt_tokens > 100
    for text, one in zip(texts, batched, strict=True):
        (alone,) = answer(teacher, [text])
        assert np.abs(stack([alone]) - stack([one])).max() < TOLERANCE
    same_noise = [ask_requests(teacher, [Request("7" * 64, Example("1", text))])[0] for text in texts[:2]]
    assert np.abs(stack(same_noise)[0] - stack(same_noise)[1]).max() > 1e-4, "the last word changes nothing"


def test_long_prompts_can_be_refused_by_name(pipelines: dict[str, Path], tmp_path: Path) -> None:
    path = write_task(tmp_path, [*MANY, LONG])
    report = harvest(path, tmp_path / "out", pipelines["sd"], long_prompts="refuse", vector="latent")
    assert (report.asked, report.unaskable) == (len(MANY), 1)
    (row,) = read_rows(tmp_path / "out").filter(pl.col("text") == LONG).to_dicts()
    assert row["status"] == "failed"
    assert "tokens, and the text encoder" in row["error"]
    assert "--long-prompts chunk" in row["error"]


def test_pictures_are_kept_beside_the_shards(pipelines: dict[str, Path], tmp_path: Path) -> None:
    from PIL import Image

    path = write_task(tmp_path, MANY)
    harvest(path, tmp_path / "out", pipelines["sd"], keep_images=True)
    rows = read_rows(tmp_path / "out")
    folder = tmp_path / "out/teacher=diffusion"
    for (digest,) in rows["image_sha256"]:
        content = find_picture(folder, digest).read_bytes()
        assert sha256(content).hexdigest() == digest
        with Image.open(find_picture(folder, digest)) as picture:
            assert (picture.size, picture.mode) == ((32, 32), "RGB")
    assert verify_shards(tmp_path / "out").ok
    shown = CliRunner().invoke(
        app, ["show", str(folder), "--split", "train", "--rows", "1", "--images", str(tmp_path / "shown")]
    )
    assert shown.exit_code == 0, shown.output
    (copy,) = (tmp_path / "shown").iterdir()
    assert [sha256(copy.read_bytes()).hexdigest()] in rows["image_sha256"].to_list()
    recipe = json.loads((folder / "manifest.json").read_text())["recipe"]
    assert (recipe["steps"], recipe["guidance"], recipe["size"]) == (20, 7.5, [32, 32])
    assert recipe["vector"] == {"kind": "armada", "edge": 128, "strength": 0.75, "steps": 20}
    again = harvest(path, tmp_path / "out", pipelines["sd"], keep_images=False)
    assert again.asked == 0, "keeping pictures is no part of the recipe"


def test_what_the_safety_checker_blackens_is_refused(pipelines: dict[str, Path]) -> None:
    answers = answer(make_teacher(pipelines["strict"]), TEXTS)
    assert [one.status for one in answers] == [Status.REFUSED] * 3
    assert answers[0].finish_reason == "safety_checker"
    assert answers[0].image_sha256 == answers[1].image_sha256


def make_vision_encoder(folder: Path) -> Path:
    """A random CLIP of one layer x 24 in `folder`."""
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=24, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    CLIPVisionModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_an_encoder_over_the_picture(pipelines: dict[str, Path], tmp_path: Path) -> None:
    encoder = make_vision_encoder(tmp_path)
    teacher = make_teacher(pipelines["sd"], vector="encoder", encoder=str(encoder))
    assert teacher.recipe()["vector"]["input_size"] == [32, 32]
    vectors = stack(answer(teacher, TEXTS))
    assert vectors.shape == (3, 24)
    single = stack(answer(make_teacher(pipelines["sd"], vector="encoder", encoder=str(encoder), batch=1), TEXTS))
    assert np.abs(vectors - single).max() < 1e-2  # a picture has 256 levels: one of them may tip


def test_a_lora_on_top(pipelines: dict[str, Path], tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    for name in ("sd", "sdxl"):
        torch.manual_seed(5)
        unet = UNet2DConditionModel.from_pretrained(pipelines[name], subfolder="unet")
        unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"]))
        StableDiffusionPipeline.save_lora_weights(tmp_path / name, get_peft_model_state_dict(unet))
    plain = make_teacher(pipelines["sd"], vector="latent")
    tuned = make_teacher(pipelines["sd"], vector="latent", lora=str(tmp_path / "sd"))
    assert tuned.recipe()["lora"] is not None
    assert np.abs(stack(answer(plain, TEXTS)) - stack(answer(tuned, TEXTS))).max() > 100 * TOLERANCE
    with pytest.raises(SourceError, match=r"the LoRA .* does not go with"):
        answer(make_teacher(pipelines["sd"], lora=str(tmp_path / "sdxl")), TEXTS)


def kill_and_resume(command: Sequence[str], out: Path, rows: int) -> None:
    """Run a harvest of so many rows, kill it amid them, and run it again to its end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while count_kept(out) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    process.wait()
    kept = count_kept(out)
    assert 3 <= kept < rows, "it was to be killed amid its rows"
    resumed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (resumed["kept"], resumed["asked"]) == (kept, rows - kept)


def test_a_killed_harvest_ends_as_one_that_was_not(pipelines: dict[str, Path], tmp_path: Path) -> None:
    path = write_task(tmp_path, [f"{text} scene {number}" for number, text in enumerate(TEXTS * 8)])
    command = [
        *(sys.executable, "-m", "harvest.cli", "run", "--teacher", "diffusion", "--model", str(pipelines["sd"])),
        *("--task", str(path), "--text-column", "text", "--label-column", "label", "--out", str(tmp_path / "killed")),
        *("--batch", "2", "--steps", "8", "--keep-images", "--json"),
    ]
    kill_and_resume(command, tmp_path / "killed", 24)

    harvest(path, tmp_path / "whole", pipelines["sd"], batch=2, steps=8)
    killed, whole = (read_rows(tmp_path / name).sort("text") for name in ("killed", "whole"))
    assert killed["request_key"].to_list() == whole["request_key"].to_list()
    assert set(killed["status"]) == {"ok"}
    again, once = (np.array(rows["embedding"].to_list(), np.float32) for rows in (killed, whole))
    assert again.shape == (24, 1024)
    np.testing.assert_allclose(again, once, rtol=2e-3, atol=TOLERANCE)  # kept as float16: steps of 1e-3
    for (digest,) in killed["image_sha256"]:
        assert find_picture(tmp_path / "killed/teacher=diffusion", digest).is_file()
    assert verify_shards(tmp_path / "killed").ok


def write_task(folder: Path, texts: Sequence[str]) -> Path:
    path = folder / "texts.jsonl"
    rows = [{"text": text, "label": "ab"[number % 2]} for number, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def harvest(path: Path, out: Path, model: Path, teacher: str = "diffusion", **options: Any) -> Any:
    return run_harvest(
        HarvestConfig(
            TaskChoice(str(path), text_column="text", label_column="label"),
            TeacherChoice(teacher, name=teacher, options={"model": str(model), **options}),
            out=out,
        )
    )


def read_rows(out: Path) -> pl.DataFrame:
    return pl.read_parquet(f"{out}/teacher=*/**/*.parquet")


def count_kept(out: Path) -> int:
    return int(read_status(out)["kept"]) if any(out.glob("teacher=*/manifest.json")) else 0
