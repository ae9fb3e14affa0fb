"""Teachers by name: what each gives and needs, and how it is made from what the user chose."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from shared.errors import UsageError
from shared.options import make_config

if TYPE_CHECKING:
    from harvest.config import TeacherChoice
    from harvest.teachers.base import Teacher
    from shared.tasks import Task


@dataclass(frozen=True, slots=True)
class TeacherEntry:
    """One registered teacher; its module is imported when it is chosen. `defaults` are options its name stands for."""

    name: str
    module: str
    factory: str
    config: str
    gives: tuple[str, ...]
    needs: str
    summary: str
    defaults: Mapping[str, Any]


ENTRIES = (
    TeacherEntry(
        "reader",
        "harvest.teachers.reader",
        "ReaderTeacher",
        "ReaderConfig",
        ("embedding", "reply"),
        "CPU or GPU; extra: vision",
        "draws the text, reads the picture with PP-OCR, encodes what it read",
        {},
    ),
    TeacherEntry(
        "encoder",
        "harvest.teachers.vision",
        "VisionEncoderTeacher",
        "VisionEncoderConfig",
        ("embedding",),
        "CPU or GPU; extra: vision; a model: --model openai/clip-vit-base-patch32, say",
        "draws the text and encodes the picture with a transformers vision encoder",
        {},
    ),
    TeacherEntry(
        "endpoint",
        "harvest.teachers.endpoint",
        "EndpointTeacher",
        "EndpointConfig",
        ("reply", "label_logprobs"),
        "an OpenAI-compatible endpoint: --endpoint URL --model NAME",
        "asks a chat endpoint, in text or (--draw) in pictures",
        {},
    ),
    TeacherEntry(
        "llava",
        "harvest.teachers.endpoint",
        "EndpointTeacher",
        "EndpointConfig",
        ("reply", "label_logprobs"),
        "a server of the model: vllm serve llava-hf/llava-1.5-7b-hf (GPU, about 15 GB)",
        "LLaVA-1.5-7B, asked about the drawn text through the server that runs it",
        {"endpoint": "http://localhost:8000/v1", "model": "llava-hf/llava-1.5-7b-hf", "draw": "fields"},
    ),
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
    """What makes the chosen teacher for a task. Raises UsageError, naming the option, before a task is looked at."""
    entry = find_teacher(choice.teacher)
    module = import_module(entry.module)
    config_class = getattr(module, entry.config)
    config = make_config(config_class, {**entry.defaults, **choice.options}, f"the teacher {entry.name}", _spell_flag)

    def build(task: "Task") -> "Teacher":
        teacher: Teacher = getattr(module, entry.factory)(config, task, name=choice.name or entry.name)
        return teacher

    return build


def _spell_flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"
