"""The video teacher with tiny random pipelines of every family: against diffusers, in batches, long, and killed."""

import io
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from distill.config import make_distill_config
from distill.run import run_distillation
from harvest.asking.forecast import describe_forecast
from harvest.asking.pictures import find_picture
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import plan_harvest
from harvest.looking.reparse import reparse
from harvest.teachers.base import Request
from harvest.teachers.picture_encoder import PictureEncoder
from harvest.teachers.video import VideoConfig, VideoTeacher
from harvest.teachers.video.files import ClipFiles
from harvest.teachers.video.painter import ClipPainter
from shared.errors import DataError, SourceError, UsageError
from shared.example import Example
from shared.frozen_models import FrozenModel
from shared.options import make_config
from shared.schema import Status
from shared.shards import verify_shards
from shared.tasks import TASKS
from tests.distill.conftest import tiny_student as tiny_student
from tests.real.test_stable_diffusion import (
    TOLERANCE,
    answer,
    ask_for_replies,
    ask_requests,
    harvest,
    kill_and_resume,
    make_vision_encoder,
    read_rows,
    stack,
    write_task,
)

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore:In CPU autocast"),  # Mochi's own
]

TEXTS = ["a film of great charm and wit.", "two hours that nobody gives back.", "the plot is thin."]
# By family: the size, frames, the latent's shape, the tokens that are encoded at a time (0: of one window only), and
# guidance and steps of the pipeline's own.
FAMILIES: dict[str, tuple[tuple[int, int], int, list[int], int, float, int]] = {
    "modelscope": ((48, 32), 5, [4, 5, 4, 6], 30, 9.0, 50),
    "animatediff": ((48, 32), 5, [4, 5, 4, 6], 30, 7.5, 50),
    "cogvideox": ((48, 32), 9, [4, 3, 4, 6], 0, 6.0, 50),
    "cogvideox-1.5": ((48, 32), 9, [4, 3, 4, 6], 225, 6.0, 50),
    "ltx": ((64, 32), 9, [8, 2, 1, 2], 127, 3.0, 50),
    "wan": ((48, 32), 9, [16, 3, 4, 6], 511, 5.0, 50),
    "mochi": ((48, 32), 7, [12, 2, 4, 6], 255, 4.5, 64),
}
STEPS = 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipelines")


def find_model(name: str, home: Path) -> dict[str, Any]:
    """The options that name the pipeline of a family, which is made where it is first needed."""
    from tests.real.tiny_clips import make_animatediff, make_clip_maker  # diffusers takes seconds to import

    folder = home / name
    if name == "animatediff":
        options = {"model": folder / "model", "motion_adapter": folder / "adapter"}
        return {key: str(path) for key, path in (options if folder.exists() else make_animatediff(folder)).items()}
    return {"model": str(folder if folder.exists() else make_clip_maker(name, folder))}


def make_teacher(**options: Any) -> VideoTeacher:
    return VideoTeacher(make_config(VideoConfig, options, "video"), TASKS["rte"], "video")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_makes_clips_as_diffusers_does_in_any_batch(name: str, home: Path) -> None:
    size, frames, shape, window, guidance, steps = FAMILIES[name]
    options: dict[str, Any] = {**find_model(name, home), "vector": "latent", "size": size, "frames": frames}
    recipe = make_teacher(**options).recipe()
    assert (recipe["vector"], recipe["frames"]) == ({"kind": "latent", "shape": shape}, frames)
    assert (recipe["guidance"], recipe["steps"]) == (guidance, steps)
    teacher = make_teacher(**options, steps=STEPS, batch=8)
    long = "wit " * (window or 226)
    texts = [*TEXTS, *(f"{text} again" for text in TEXTS), "one", long if window else "two"]
    batched = answer(teacher, texts)
    assert {one.status for one in batched} == {Status.OK}
    assert stack(batched).shape == (len(texts), np.prod(shape))
    single = answer(make_teacher(**options, steps=STEPS), texts)
    assert np.abs(stack(single) - stack(batched)).max() < TOLERANCE
    latent, first = make_by_diffusers(name, options, TEXTS[0])
    np.testing.assert_allclose(stack(batched)[0].reshape(shape), latent, atol=TOLERANCE)
    framed = answer(make_teacher(**{**options, "vector": "first-frame"}, steps=STEPS, batch=3), TEXTS)
    assert stack(framed).shape == (3, 512 * 512)
    np.testing.assert_allclose(stack(framed)[0].reshape(512, 512), first, atol=TOLERANCE)
    if not window:
        with pytest.raises(DataError, match=r"takes 225; its denoiser has places for no more"):
            teacher.content(Example("1", long))
        return
    ends = [ask_requests(teacher, [Request("7" * 64, Example("1", text))])[0] for text in (long, f"{long} never")]
    assert np.abs(stack(ends)[0] - stack(ends)[1]).max() > 1e-6, "the last word changes nothing"


def make_by_diffusers(name: str, options: dict[str, Any], text: str) -> tuple[np.ndarray[Any, Any], Any]:
    """The latent of a call of the pipeline itself, channels first, and its first frame, grey, at 512x512."""
    from diffusers import AnimateDiffPipeline, DDIMScheduler, DiffusionPipeline, MotionAdapter

    pipe: Any
    if name == "animatediff":
        adapter = MotionAdapter.from_pretrained(options["motion_adapter"])
        pipe = AnimateDiffPipeline.from_pretrained(options["model"], motion_adapter=adapter)
        pipe.scheduler = DDIMScheduler.from_pretrained(
            options["model"],
            subfolder="scheduler",
            clip_sample=False,
            timestep_spacing="linspace",
            beta_schedule="linear",
            steps_offset=1,
        )
    else:
        pipe = DiffusionPipeline.from_pretrained(options["model"])
    pipe.set_progress_bar_config(disable=True)
    (width, height), frames = options["size"], options["frames"]
    asked = {"width": width, "height": height, "num_frames": frames, "num_inference_steps": STEPS}
    seed = int(sha256(text.encode()).hexdigest()[:16], 16) >> 1
    latents, made = (
        pipe(text, **asked, generator=torch.Generator("cpu").manual_seed(seed), output_type=kind).frames
        for kind in ("latent", "pt")
    )
    if name == "ltx":
        latents = pipe._unpack_latents(latents, 2, 1, 2)
    if name.startswith("cogvideox"):
        latents = latents[:, -3:].transpose(1, 2)  # 1.5 has one more, in front
    assert made.shape[:2] == (1, frames)
    red, green, blue = made[0, 0].float()
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    edged = torch.nn.functional.interpolate(grey[None, None], (512, 512), mode="bicubic", antialias=True)
    return np.asarray(latents[0].float()), np.asarray(edged[0, 0].clamp(0, 1) * 2 - 1)


@pytest.mark.parametrize(
    ("name", "options", "frames", "size"),
    [
        ("modelscope", {}, 64, (32, 32)),
        ("animatediff", {"size": (64, 32)}, 12, (64, 32)),  # its motion modules have places for no more
        ("cogvideox", {}, 9, (48, 32)),  # as it was taught
        ("ltx", {}, 65, (704, 512)),
        ("wan", {"frames": 21}, 21, (832, 480)),
        ("mochi", {}, 61, (848, 480)),
    ],
)
def test_frames_and_size_are_the_papers_or_what_comes_nearest(
    name: str, options: dict[str, Any], frames: int, size: tuple[int, int], home: Path
) -> None:
    recipe = make_teacher(**find_model(name, home), **options).recipe()
    assert (recipe["frames"], recipe["size"]) == (frames, list(size))
    assert recipe["vector"] == {"kind": "first-frame", "shape": [512, 512], "values": "grey, from -1 to 1"}


@pytest.mark.parametrize("name", ["animatediff", "wan"])
def test_a_plan_says_what_the_weights_take_before_they_are_loaded(name: str, home: Path) -> None:
    options = find_model(name, home)
    config, model = make_config(VideoConfig, options, "video"), FrozenModel(options["model"], "model_index.json")
    adapter = FrozenModel(options["motion_adapter"]) if "motion_adapter" in options else None
    files = ClipFiles(config, model, adapter)
    counted = sum(files.measure_parts().values())
    pipe = ClipPainter(config, model, adapter, files).pipe
    loaded = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert counted == sum(4 * weights.numel() for part in loaded for weights in part.parameters())
    planned = plan_harvest(
        HarvestConfig(
            TaskChoice(str(write_task(home, TEXTS)), text_column="text", label_column="label"),
            TeacherChoice("video", options=options),
            out=home / "out",
        )
    )
    assert planned.forecast is not None
    said = describe_forecast(planned.forecast)[-1]
    assert said.startswith(f"  memory         {counted / 1e6:,.1f} MB of weights in float32 (text_encoder ")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ltx", {"frames": 64}, "--frames 64: .* than a multiple of 8: give 57 or 65"),
        ("wan", {"size": (40, 40)}, "--size 40x40: width and height of a clip by .* must be multiples of 16"),
        ("animatediff", {"frames": 13}, "--frames 13: .* has places for 12 frames"),
        ("wan", {"motion_adapter": "animatediff/adapter"}, "goes with Stable Diffusion, and .* is a WanPipeline"),
        ("animatediff", {"motion_adapter": None}, "--teacher diffusion, or --motion-adapter NAME"),
    ],
)
def test_what_a_pipeline_cannot_make_is_refused_before_it_is_loaded(
    name: str, options: dict[str, Any], message: str, home: Path
) -> None:
    with pytest.raises((SourceError, UsageError), match=message):
        make_teacher(**{**find_model(name, home), **options}).recipe()


def test_vectors_of_one_clip_and_the_clip_itself(home: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {**find_model("modelscope", home), "frames": 5, "steps": STEPS, "batch": 3}
    whole = answer(make_teacher(**options, vector="latent"), TEXTS)
    mean = make_teacher(**options, vector="latent-mean")
    assert mean.recipe()["vector"] == {"kind": "latent-mean", "shape": [4, 4, 4]}
    latents = stack(whole).reshape(3, 4, 5, 4, 4)
    np.testing.assert_allclose(stack(answer(mean, TEXTS)), latents.mean(2).reshape(3, -1), atol=1e-6)
    assert whole[0].image_sha256 == ()
    encoder = make_vision_encoder(tmp_path)
    teacher = make_teacher(**options, vector="encoder", encoder=str(encoder), keep_images=True)
    replies = ask_for_replies(teacher, [Request("7" * 64, Example("1", TEXTS[0]))])
    (file,) = replies[0].pictures.values()
    with Image.open(io.BytesIO(file)) as clip:
        assert (clip.format, clip.size) == ("WEBP", (32, 32))
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(clip)]
    assert len(frames) == 5
    vector = replies[0].answer.embedding
    assert vector is not None
    # A WebP is close to what was painted, and not the same.
    np.testing.assert_allclose(vector, PictureEncoder(str(encoder)).encode(frames).mean(0), atol=0.2)
    assert vector.shape == (24,)


def test_a_killed_harvest_ends_as_one_that_was_not_and_a_student_learns_from_it(
    home: Path, tmp_path: Path, tiny_student: Path
) -> None:
    path = write_task(tmp_path, [f"{text} scene {number}" for number, text in enumerate(TEXTS * 8)])
    model, out = Path(find_model("wan", home)["model"]), tmp_path / "killed"
    command = [
        *(sys.executable, "-m", "harvest.cli", "run", "--teacher", "video", "--model", str(model), "--name", "video"),
        *(
            "--task",
            str(path),
            "--text-column",
            "text",
            "--label-column",
            "label",
            "--out",
            str(out),
            "--size",
            "32x32",
        ),
        *("--frames", "5", "--steps", "8", "--batch", "2", "--keep-images", "--json"),
    ]
    kill_and_resume(command, out, 24)
    harvest(path, tmp_path / "whole", model, "video", frames=5, steps=8, size=(32, 32), batch=8)
    killed, whole = (read_rows(folder).sort("text") for folder in (out, tmp_path / "whole"))
    assert killed["request_key"].to_list() == whole["request_key"].to_list()
    again, once = (np.array(rows["embedding"].to_list(), np.float32) for rows in (killed, whole))
    assert again.shape == (24, 512 * 512)
    np.testing.assert_allclose(again, once, atol=2 * TOLERANCE)  # kept as float16
    for (digest,) in killed["image_sha256"]:
        assert find_picture(out / "teacher=video", digest).suffix == ".webp"
    assert verify_shards(out).ok
    reparsed = reparse(out)
    assert (reparsed.rows, reparsed.reread, reparsed.changed) == (24, 0, 0), "a vector has no raw reply"
    config = make_distill_config(shards=out, student=str(tiny_student), epochs=1, loss="cosine", semantics="paper")
    _, metrics = run_distillation(config, tmp_path / "runs")
    assert (metrics["teacher"], metrics["loss"]) == ("video", "cosine")
    assert np.isfinite(metrics["dev_best"])
