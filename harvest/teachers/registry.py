"""Teachers by name: what each gives and needs, and how it is made from what the user chose."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from math import ceil
from typing import TYPE_CHECKING, Any

from harvest.teachers.requirements import Requirements, find_missing, find_missing_locally
from harvest.teachers.vision_models import VISION_MODELS, VisionModel, find_vision_model
from shared.errors import TeacherError, UsageError
from shared.options import make_config
from shared.sources import MPNET, check_hub

if TYPE_CHECKING:
    from harvest.config import TeacherChoice
    from harvest.teachers.base import Reread, Teacher
    from shared.tasks import Task

PATIENT_SECONDS, IMPATIENT_SECONDS = 3.0, 0.7  # for the hub to answer


@dataclass(frozen=True, slots=True)
class TeacherEntry:
    """One registered teacher; its module is imported when it is chosen.

    `gives` are the columns that its rows fill, and "image" where it makes pictures. `make_reread` names the function of
    the module that makes of a recipe what reads its rows' `raw` again (base.Reread, or None where that recipe has no
    raw); "" where no row of the teacher has one, for its answer is a vector. `defaults` are options its name
    stands for. `server` is what it is when the user gives --endpoint: the same model behind a server, None where that
    means nothing.
    """

    name: str
    module: str
    factory: str
    config: str
    gives: tuple[str, ...]
    requirements: Requirements
    summary: str
    defaults: Mapping[str, Any]
    server: "TeacherEntry | None" = None
    make_reread: str = ""


_ENDPOINT = TeacherEntry(
    "endpoint",
    "harvest.teachers.endpoint",
    "EndpointTeacher",
    "EndpointConfig",
    ("reply", "label_logprobs"),
    Requirements(memory="a server", given="--endpoint URL --model NAME"),
    "asks a chat endpoint, in text or (--draw) in pictures",
    {},
    make_reread="make_reread",
)
_VLLM = TeacherEntry(
    "vllm",
    "harvest.teachers.vllm",
    "VllmTeacher",
    "VllmConfig",
    ("embedding", "reply", "label_logprobs"),
    Requirements("vllm", ("vllm",), "model", memory="the model and some GB", gpu=True, given="--model NAME"),
    "asks any vision-language model that vLLM runs, in this process, about the drawn text",
    {},
    make_reread="make_reread",
)


def _name_model(model: VisionModel) -> TeacherEntry:
    """The entry of a vision-language model: in this process, or behind a server that runs it."""
    asked = {"model": model.model, "draw": "fields", "size": model.size}
    return replace(
        _VLLM,
        name=model.name,
        requirements=replace(_VLLM.requirements, memory=f"{ceil(model.weights_gb)} GB and some", given=""),
        summary=f"{model.model}: {model.limits}",
        defaults=asked,
        server=replace(
            _ENDPOINT,
            name=model.name,
            requirements=Requirements(memory="a server", given="--endpoint URL"),
            defaults=asked,
        ),
    )


ENTRIES = (
    TeacherEntry(
        "reader",
        "harvest.teachers.reader",
        "ReaderTeacher",
        "ReaderConfig",
        ("embedding", "reply"),
        Requirements("vision", ("torch", "transformers", "rapidocr", "onnxruntime"), "encoder", memory="2 GB"),
        "draws the text, reads the picture with PP-OCR, encodes what it read",
        {"encoder": MPNET},
        make_reread="make_reread",
    ),
    TeacherEntry(
        "encoder",
        "harvest.teachers.encoder",
        "VisionEncoderTeacher",
        "VisionEncoderConfig",
        ("embedding",),
        Requirements("vision", ("torch", "transformers"), "model", memory="the model", given="--model NAME"),
        "draws the text and encodes the picture with a vision encoder: openai/clip-vit-base-patch32, say",
        {},
    ),
    TeacherEntry(
        "diffusion",
        "harvest.teachers.diffusion",
        "DiffusionTeacher",
        "DiffusionConfig",
        ("embedding", "image"),
        Requirements(
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
        Requirements("speech", ("torch", "transformers", "sentencepiece"), "model", memory="1 GB and some"),
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


def find_reread(recipe: Mapping[str, Any]) -> "Reread | None":
    """What reads the `raw` of a recipe's rows again, without asking; None where its rows have none.

    Rows that join a vector to another folder's answers (--onto) have the raw of the answers. Raises UsageError where
    nobody here knows the teacher.
    """
    while "onto" in recipe:
        recipe = recipe["onto"]["recipe"]
    name = recipe.get("teacher", "")
    for entry in ENTRIES:
        if entry.name == name:
            if not entry.make_reread:
                return None
            reread: Reread | None = getattr(import_module(entry.module), entry.make_reread)(recipe)
            return reread
    raise UsageError(
        f"nobody here knows the teacher {name!r} that made these answers, so there is nothing to read again; install "
        "the package that has it"
    )


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
    seconds = IMPATIENT_SECONDS if find_missing_locally(entry.requirements) else PATIENT_SECONDS
    find_hub_problem = cache(partial(check_hub, seconds))
    if missing := find_missing(entry.requirements, options, find_hub_problem):
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
        if other.name == entry.name or find_missing_locally(other.requirements):
            continue
        given = other.requirements.given
        weights = other.requirements.weights
        if weights and (
            find_missing(other.requirements, other.defaults, find_hub_problem) or weights not in other.defaults
        ):
            given = f"--{weights} {'FOLDER' if find_hub_problem() else 'NAME'}"
        lines.append(f"  {f'--teacher {other.name} {given}'.rstrip()}: {other.summary}")
    return "\n".join(lines)


def _spell_flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"
