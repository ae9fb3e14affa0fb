"""The encoder teacher with tiny real models of four families, against transformers' own output for the same picture."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from harvest.rendering import Layout, Page, render
from harvest.teachers.encoder import VisionEncoderConfig, VisionEncoderTeacher
from harvest.teachers.picture_encoder import read_input_size
from shared.errors import DataError, SourceError
from shared.example import Example, RowPicture
from shared.frozen_models import FrozenModel
from shared.schema import Status
from shared.tasks import TASKS
from tests.harvest.asking_teachers import ask
from tests.harvest.pictures.hostile_pictures import make_plain, save

Array = np.ndarray[Any, Any]
TASK = TASKS["rotten_tomatoes"]
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 28,
    "image_size": 224,
}
VISION = CLIPVisionConfig(**SMALL)
CLIP_PROCESSOR = CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
# As DINOv2's own: it would enlarge a picture to 256 pixels and cut 16 off every side.
DINO_PROCESSOR = CLIPImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224})
TEXTS = ["A visually stunning rumination on love, memory and history.", "Not good."]


def make_clip() -> CLIPModel:
    text = CLIPTextConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=64
    )
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=VISION.to_dict(), projection_dim=24))


FAMILIES: Mapping[str, tuple[Callable[[], PreTrainedModel], Any, int]] = {
    "clip": (make_clip, CLIP_PROCESSOR, 24),
    "clip-vision": (lambda: CLIPVisionModel(VISION), CLIP_PROCESSOR, 32),
    "siglip-vision": (
        lambda: SiglipVisionModel(SiglipVisionConfig(**SMALL)),
        SiglipImageProcessorPil(size={"height": 224, "width": 224}),
        32,
    ),
    "dinov2": (lambda: Dinov2Model(Dinov2Config(**SMALL)), DINO_PROCESSOR, 32),
    "vit": (lambda: ViTModel(ViTConfig(**SMALL)), ViTImageProcessorPil(size={"height": 224, "width": 224}), 32),
    "vit-no-pooler": (
        lambda: ViTModel(ViTConfig(**SMALL), add_pooling_layer=False),
        ViTImageProcessorPil(size={"height": 224, "width": 224}),
        32,
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, PreTrainedModel]]:
    """Each family's folder and model."""
    made = {}
    for name, (build, processor, _) in FAMILIES.items():
        torch.manual_seed(5)
        folder = tmp_path_factory.mktemp(name)
        model = build().eval()
        # As they are made, position embeddings and biases are near zero, and any picture gives about one vector.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        made[name] = folder, model
    return made


def compute_vector(name: str, model: Any, page: Page) -> Array:
    """The vector of one page, with its pixels normalised by hand."""
    processor = FAMILIES[name][1]
    mean, std = np.array(processor.image_mean), np.array(processor.image_std)
    pixels = (np.repeat(page.pixels[None].astype(np.float64) / 255, 3, axis=0).transpose(1, 2, 0) - mean) / std
    tensor = torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32)
    with torch.inference_mode():
        if isinstance(model, CLIPModel):
            vector = model.visual_projection(model.vision_model(pixel_values=tensor).pooler_output)
        else:
            output = model(pixel_values=tensor)
            vector = output.last_hidden_state.mean(1) if name == "vit-no-pooler" else output.pooler_output
    return np.asarray(vector[0])


def make_teacher(folder: Path, size: tuple[int, int] | None = None) -> VisionEncoderTeacher:
    return VisionEncoderTeacher(VisionEncoderConfig(str(folder), size), TASK, name="encoder")


def find_layout(teacher: VisionEncoderTeacher) -> Layout:
    described = teacher.recipe()["layout"]
    return Layout(**{key: value for key, value in described.items() if key not in ("version", "fonts")})


@pytest.mark.parametrize("name", FAMILIES)
def test_vectors_are_those_of_transformers(name: str, models: dict[str, tuple[Path, PreTrainedModel]]) -> None:
    folder, model = models[name]
    teacher = make_teacher(folder)
    answers = ask(teacher, TEXTS)
    for text, answer in zip(TEXTS, answers, strict=True):
        (page,) = render(text, find_layout(teacher))
        assert page.pixels.shape == (224, 224)
        assert answer.status is Status.OK
        assert answer.embedding is not None
        assert answer.embedding.shape == (FAMILIES[name][2],)
        np.testing.assert_allclose(answer.embedding, compute_vector(name, model, page), atol=2e-5)
    first, second = (answer.embedding for answer in answers)
    assert first is not None
    assert second is not None
    assert np.abs(first - second).max() > 1e-3, "another text is another vector"


def test_several_pages_are_averaged(models: dict[str, tuple[Path, PreTrainedModel]]) -> None:
    folder, model = models["clip-vision"]
    teacher = make_teacher(folder)
    text = "The story goes on and on. " * 100
    short, long, failed = ask(teacher, [TEXTS[1], text, "😀"])
    pages = render(text, find_layout(teacher))
    assert len(pages) > 3
    mean = np.mean([compute_vector("clip-vision", model, page) for page in pages], axis=0)
    assert long.embedding is not None
    np.testing.assert_allclose(long.embedding, mean, atol=2e-5)
    assert long.image_sha256 is not None
    assert len(long.image_sha256) == len(pages)
    assert short.status is Status.OK
    assert failed.status is Status.FAILED


def test_a_page_of_another_size_is_scaled_whole(models: dict[str, tuple[Path, PreTrainedModel]]) -> None:
    folder, _ = models["dinov2"]
    teacher = make_teacher(folder, (448, 448))
    assert (find_layout(teacher).width, teacher.recipe()["input_size"]) == (448, [224, 224])
    (answer,) = ask(teacher, TEXTS[:1])
    assert answer.embedding is not None
    assert np.isfinite(answer.embedding).all()
    assert teacher.recipe() != make_teacher(folder).recipe()


def test_a_checkpoint_without_a_pooler_is_not_given_a_random_one(
    models: dict[str, tuple[Path, PreTrainedModel]],
) -> None:
    """One would be made up at each load: two teachers would disagree."""
    folder, _ = models["vit-no-pooler"]
    (first,), (second,) = (ask(make_teacher(folder), TEXTS[:1]) for _ in range(2))
    assert first.embedding is not None
    assert second.embedding is not None
    assert np.array_equal(first.embedding, second.embedding)


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    config = BertConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=64)
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(SourceError, match="name no picture size"):
        make_teacher(tmp_path).recipe()
    CLIP_PROCESSOR.save_pretrained(tmp_path)
    with pytest.raises(SourceError, match="BertModel, which gives no one vector"):
        ask(make_teacher(tmp_path), TEXTS)


def test_a_damaged_checkpoint_is_refused(models: dict[str, tuple[Path, PreTrainedModel]], tmp_path: Path) -> None:
    _, model = models["clip-vision"]
    state = {key: value for key, value in model.state_dict().items() if "layers.1.mlp" not in key}
    model.save_pretrained(tmp_path, state_dict=state)
    CLIP_PROCESSOR.save_pretrained(tmp_path)
    with pytest.raises(SourceError, match=r"lacks weights of a CLIPVisionModel: .*mlp"):
        ask(make_teacher(tmp_path), TEXTS)


@pytest.mark.parametrize(
    ("processing", "config", "size"),
    [
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True}, {}, 224),
        (
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": False},
            {},
            256,
        ),
        ({"size": {"height": 384, "width": 384}}, {}, 384),
        ({"size": 336, "crop_size": 336, "do_center_crop": True}, {}, 336),
        ({}, {"image_size": 378}, 378),
        ({}, {"vision_config": {"image_size": 196}}, 196),
    ],
)
def test_the_input_size_is_read_from_the_model_files(
    processing: dict[str, Any], config: dict[str, Any], size: int, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_input_size(processing, FrozenModel(str(tmp_path))) == (size, size)


def test_planning_imports_no_torch(models: dict[str, tuple[Path, PreTrainedModel]]) -> None:
    code = (
        "import sys; from shared.tasks import TASKS; from harvest.teachers.encoder import *\n"
        "teacher = VisionEncoderTeacher(VisionEncoderConfig(sys.argv[1]), TASKS['rte'], name='encoder')\n"
        "teacher.recipe(); teacher.content(Example('a', 'Ångström'))\n"
        "print([m for m in ('torch', 'transformers', 'PIL') if m in sys.modules])"
    )
    folder, _ = models["clip"]
    out = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_what_cannot_be_drawn_is_refused_when_planned(models: dict[str, tuple[Path, PreTrainedModel]]) -> None:
    teacher = make_teacher(models["clip"][0])
    assert teacher.content(Example("a", "one", text_pair="two")) == {"draw": "one\n\ntwo"}
    with pytest.raises(DataError, match="GRINNING FACE"):
        teacher.content(Example("a", "😀"))


def test_the_rows_own_pictures_are_encoded_as_the_models_own_processor_prepares_them(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])).eval()
    processor = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    files = [save(make_plain(size), kind) for size, kind in (((90, 70), "PNG"), ((64, 200), "JPEG"))]
    rows = [
        Example("both", "two", pictures=tuple(RowPicture("", file) for file in files)),
        Example("one", "one", pictures=(RowPicture("", files[0]),)),
        Example("bad", "bad", pictures=(RowPicture("cut.png", files[0][:200]),)),
    ]
    task = replace(TASK, sources=(replace(TASK.sources[0], image="image"),))
    teacher = VisionEncoderTeacher(VisionEncoderConfig(str(tmp_path)), task, name="encoder")
    assert "layout" not in teacher.recipe()
    answers = ask(teacher, rows)
    opened: Any = [Image.open(BytesIO(file)) for file in files]
    pixels = processor(opened, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        own = model(pixel_values=pixels).pooler_output.flatten(1).numpy()
    for answer, expected in ((answers[0], own.mean(0)), (answers[1], own[0])):
        assert answer.embedding is not None
        np.testing.assert_allclose(answer.embedding, expected, atol=1e-5)
    assert answers[1].image_sha256 == [sha256(files[0]).hexdigest()]
    assert (answers[2].status, "cut.png" in str(answers[2].error)) == (Status.FAILED, True)
    with pytest.raises(DataError, match="no picture"):
        teacher.content(Example("none", "none"))
