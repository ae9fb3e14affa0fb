"""Teachers by name: what each gives and needs, and how it is made from what the user chose."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from math import ceil
from typing import TYPE_CHECKING, Any

from harvest.teachers.requirements import Needs, find_missing, find_missing_locally
from harvest.teachers.vision_models import VISION_MODELS, VisionModel, find_vision_model
from shared.errors import TeacherError, UsageError
from shared.options import make_config
from shared.sources import MPNET, check_hub

if TYPE_CHECKING:
    from harvest.config import TeacherChoice
    from harvest.teachers.base import Teacher
    from shared.tasks import Task

PATIENT_SECONDS, IMPATIENT_SECONDS = 3.0, 0.7  # for the hub to answer


@dataclass(frozen=True, slots=True)
class TeacherEntry:
    """One registered teacher; its module is imported when it is chosen.

    `gives` are the columns that its rows fill, and "image" where it makes pictures. `defaults` are options its name
    stands for. `server` is what it is when the user gives --endpoint: the same model behind a server, None where that
    means nothing.
    """

    name: str
    module: str
    factory: str
    config: str
    gives: tuple[str, ...]
    needs: Needs
    summary: str
    defaults: Mapping[str, Any]
    server: "TeacherEntry | None" = None


_ENDPOINT = TeacherEntry(
    "endpoint",
    "harvest.teachers.endpoint",
    "EndpointTeacher",
    "EndpointConfig",
    ("reply", "label_logprobs"),
    Needs(memory="a server", given="--endpoint URL --model NAME"),
    "asks a chat endpoint, in text or (--draw) in pictures",
    {},
)
_VLLM = TeacherEntry(
    "vllm",
    "harvest.teachers.vllm",
    "VllmTeacher",
    "VllmConfig",
    ("embedding", "reply", "label_logprobs"),
    Needs("vllm", ("vllm",), "model", memory="the model and some GB", gpu=True, given="--model NAME"),
    "asks any vision-language model that vLLM runs, in this process, about the drawn text",
    {},
)


def _name_model(model: VisionModel) -> TeacherEntry:
    """The entry of a vision-language model: in this process, or behind a server that runs it."""
    asked = {"model": model.model, "draw": "fields", "size": model.size}
    return replace(
        _VLLM,
        name=model.name,
        needs=replace(_VLLM.needs, memory=f"{ceil(model.weights_gb)} GB and some", given=""),
        summary=f"{model.model}: {model.limits}",
        defaults=asked,
        server=replace(
            _ENDPOINT, name=model.name, needs=Needs(memory="a server", given="--endpoint URL"), defaults=asked
        ),
    )


ENTRIES = (
    TeacherEntry(
        "reader",
        "harvest.teachers.reader",
        "ReaderTeacher",
        "ReaderConfig",
        ("embedding", "reply"),
        Needs("vision", ("torch", "transformers", "rapidocr", "onnxruntime"), "encoder", memory="2 GB"),
        "draws the text, reads the picture with PP-OCR, encodes what it read",
        {"encoder": MPNET},
    ),
    TeacherEntry(
        "encoder",
        "harvest.teachers.encoder",
        "VisionEncoderTeacher",
        "VisionEncoderConfig",
        ("embedding",),
        Needs("vision", ("torch", "transformers"), "model", memory="the model", given="--model NAME"),
        "draws the text and encodes the picture with a vision encoder: openai/clip-vit-base-patch32, say",
        {},
    ),
    TeacherEntry(
        "diffusion",
        "harvest.teachers.diffusion",
        "DiffusionTeacher",
        "DiffusionConfig",
        ("embedding", "image"),
        Needs(
            "diffusion", ("torch", "transformers", "diffusers"), "model", "model_index.json", "3 GB in 16 bits and some"
        ),
        "paints the text with Stable Diffusion or SDXL, a LoRA on top if wanted; ARMADA's own teacher",
        {"model": "CompVis/stable-diffusion-v1-4"},
    ),
    TeacherEntry(
        "speech",
        "harvest.teachers.speech",
        "SpeechTeacher",
        "SpeechConfig",
        ("embedding",),
        Needs("speech", ("torch", "transformers", "sentencepiece"), "model", memory="1 GB and some"),
        "speaks the text with SpeechT5 and hears it with Wav2Vec2: ARMADA's audio teacher",
        {"model": "microsoft/speecht5_tts"},
    ),
    _ENDPOINT,
    _VLLM,
    *map(_name_model, VISION_MODELS),
)


def find_teacher(name: str) -> TeacherEntry:
    """The entry of a name. Raises UsageError that lists the names."""
    for entry in ENTRIES:
        if entry.name == name:
            return entry
    names = [entry.name for entry in ENTRIES]
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"there is no teacher {name!r}; {hint}the teachers are: {', '.join(names)}")


def prepare_teacher(choice: "TeacherChoice") -> "Callable[[Task], Teacher]":
    """What makes the chosen teacher for a task, before a task is looked at.

    Raises UsageError, naming the option; and TeacherError, saying what is missing and which teachers would do, where
    this machine cannot run it. Downloads nothing.
    """
    entry = find_teacher(choice.teacher)
    if entry.server is not None and "endpoint" in choice.options:
        entry = entry.server
    options = {**entry.defaults, **choice.options}
    # Where something else is missing anyway, nobody should have to wait for a silent hub too.
    seconds = IMPATIENT_SECONDS if find_missing_locally(entry.needs) else PATIENT_SECONDS
    find_hub_problem = cache(partial(check_hub, seconds))
    if missing := find_missing(entry.needs, options, find_hub_problem):
        raise TeacherError(_describe_missing(entry, missing, find_hub_problem))
    if entry.factory == _VLLM.factory and (known := find_vision_model(options.get("model", ""))) is not None:
        options = {"size": known.size, **options}
    module = import_module(entry.module)
    config = make_config(getattr(module, entry.config), options, f"the teacher {entry.name}", _spell_flag)

    def build(task: "Task") -> "Teacher":
        teacher: Teacher = getattr(module, entry.factory)(config, task, name=choice.name or entry.name)
        return teacher

    return build


def _describe_missing(entry: TeacherEntry, missing: Sequence[str], find_hub_problem: Callable[[], str | None]) -> str:
    lines = [f"the teacher {entry.name} cannot run here; nothing was asked or downloaded. Missing:"]
    lines += [f"  - {what}" for what in missing]
    lines.append("What would run here (a task of the hub, too, needs the hub or a copy of it):")
    if entry.server is not None:
        lines.append(f"  --teacher {entry.name} --endpoint URL: the same model, where you run `vllm serve`")
    for other in ENTRIES:
        if other.name == entry.name or find_missing_locally(other.needs):
            continue
        given = other.needs.given
        weights = other.needs.weights
        if weights and (find_missing(other.needs, other.defaults, find_hub_problem) or weights not in other.defaults):
            given = f"--{weights} {'FOLDER' if find_hub_problem() else 'NAME'}"
        lines.append(f"  {f'--teacher {other.name} {given}'.rstrip()}: {other.summary}")
    return "\n".join(lines)


def _spell_flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"
