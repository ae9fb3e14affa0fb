"""Text-to-image pipelines of every family that is known, tiny and random: against diffusers, in batches, and long."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harvest.teachers.base import Request
from shared.errors import UsageError
from shared.example import Example
from shared.schema import Status
from tests.real.test_stable_diffusion import TOLERANCE, answer, ask_requests, make_teacher, stack

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore:__array__ implementation")]

TEXTS = ["a film of great charm and wit.", "two hours that nobody gives back.", "the plot is thin."]
# By family: the size, the latent's shape, the tokens that are encoded at a time, and the pipeline's own guidance.
FAMILIES: dict[str, tuple[tuple[int, int], list[int], int, float]] = {
    "sd3": ((48, 32), [4, 4, 6], 255, 7.0),
    "flux": ((48, 32), [4, 4, 6], 511, 3.5),
    "pixart": ((48, 32), [4, 4, 6], 299, 4.5),
    "sana": ((64, 32), [4, 16, 32], 299, 4.5),
    "kandinsky": ((64, 64), [4, 8, 8], 127, 3.0),
}
STEPS = 3


@pytest.fixture(scope="module", params=FAMILIES)
def painter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A family and the folder of its pipeline."""
    from tests.real.tiny_painters import make_painter  # diffusers takes seconds to import

    return request.param, make_painter(request.param, tmp_path_factory.mktemp("pipelines") / request.param)


def test_a_family_paints_as_diffusers_does_in_any_batch(painter: tuple[str, Path]) -> None:
    name, folder = painter
    size, shape, window, guidance = FAMILIES[name]
    options: dict[str, Any] = {"vector": "latent", "size": size, "steps": STEPS}
    teacher = make_teacher(folder, batch=8, **options)
    recipe = teacher.recipe()
    assert (recipe["vector"], recipe["guidance"]) == ({"kind": "latent", "shape": shape}, guidance)
    long = "wit " * window
    texts = [*TEXTS, long]
    batched = answer(teacher, texts)
    assert {one.status for one in batched} == {Status.OK}
    assert stack(batched).shape == (len(texts), np.prod(shape))
    single = answer(make_teacher(folder, batch=1, **options), texts)
    assert np.abs(stack(single) - stack(batched)).max() < TOLERANCE
    ours = stack(batched)[0].reshape(shape)
    np.testing.assert_allclose(ours, paint_by_diffusers(folder, size, TEXTS[0]), atol=TOLERANCE)
    ends = [ask_requests(teacher, [Request("7" * 64, Example("1", text))])[0] for text in (long, f"{long} never")]
    assert np.abs(stack(ends)[0] - stack(ends)[1]).max() > 1e-5, "the last word changes nothing"


def paint_by_diffusers(folder: Path, size: tuple[int, int], text: str) -> np.ndarray[Any, Any]:
    """The latent of a call of the pipeline itself, as its autoencoder takes it."""
    from diffusers import DiffusionPipeline

    pipe: Any = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    seed = int(sha256(text.encode()).hexdigest()[:16], 16) >> 1
    asked = {"use_resolution_binning": False} if hasattr(pipe, "_text_preprocessing") else {}
    (latent,) = pipe(
        text,
        width=size[0],
        height=size[1],
        num_inference_steps=STEPS,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="latent",
        **asked,
    ).images
    if latent.ndim == 2:  # packed
        latent = pipe._unpack_latents(latent[None], size[1], size[0], pipe.vae_scale_factor)[0]
    return np.asarray(latent.float())


def test_a_picture_is_painted_over_where_diffusers_can(painter: tuple[str, Path]) -> None:
    name, folder = painter
    size, _, _, _ = FAMILIES[name]
    options: dict[str, Any] = {"vector": "armada", "size": size, "steps": STEPS}
    if name not in ("sd3", "flux"):
        with pytest.raises(UsageError, match="give --vector latent"):
            make_teacher(folder, **options).recipe()
        return
    teacher = make_teacher(folder, batch=8, **options)
    assert teacher.recipe()["vector"]["shape"] == [4, 16, 16]
    vectors = stack(answer(teacher, TEXTS))
    assert vectors.shape == (3, 1024)
    single = stack(answer(make_teacher(folder, batch=1, **options), TEXTS))
    assert np.abs(vectors - single).max() < TOLERANCE
    assert np.abs(vectors[0] - vectors[1]).max() > 10 * TOLERANCE


def test_a_size_that_the_pipeline_cannot_paint_is_refused_before_it_is_loaded(painter: tuple[str, Path]) -> None:
    name, folder = painter
    if name == "sana":  # two pixels a number here: this size will do
        recipe = make_teacher(folder, vector="latent", size=(40, 40)).recipe()
        assert (recipe["size"], recipe["vector"]["shape"]) == ([40, 40], [4, 20, 20])
        return
    with pytest.raises(UsageError, match=r"must be multiples of (?:16|64)"):
        make_teacher(folder, vector="latent", size=(40, 40)).recipe()
