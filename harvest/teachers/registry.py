"""Teachers by name: what each gives and needs, and how it is made from what the user chose.

A package brings a teacher by an entry point in the group `harvest_distill.teachers` that names a TeacherEntry:

    [project.entry-points."harvest_distill.teachers"]
    shout = "my_teachers:SHOUT"
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any

from harvest.chat.prompts import Draw
from harvest.teachers.requirements import Requirements, find_absent, find_missing, find_missing_locally
from harvest.teachers.vision_models import VISION_MODELS, VisionModel, find_vision_model
from shared.console import say
from shared.errors import TeacherError, UsageError
from shared.options import Option, list_options, make_config, spell_flags
from shared.sources import MPNET, PIPER_JOE, WHISPER_TINY, check_hub
from shared.suggestions import find_near, suggest

if TYPE_CHECKING:
    from harvest.teachers.base import Teacher
    from shared.tasks import Task

GROUP = "harvest_distill.teachers"
_registered: dict[str, "TeacherEntry"] = {}  # by this process, for itself

PATIENT_SECONDS, IMPATIENT_SECONDS = 3.0, 0.7  # for the hub to answer


def list_teachers() -> list[str]:
    """List the names of all teachers."""
    return [*find_teachers().entries]


@dataclass(frozen=True, slots=True)
class TeacherChoice:
    """Which teacher, the name that its shards are kept under (None: see name_teacher), and options of its own.

    The options are those of the teacher's config class; `prepare_teacher` checks them.
    """

    teacher: Annotated[str, Option("reader, endpoint, llava, ...: see `harvest teachers`.", complete=list_teachers)]
    name: Annotated[
        str | None,
        Option("Keep the answers under teacher=<name>. Unless given, the teacher's; the model's, where it takes any."),
    ] = None
    options: Annotated[Mapping[str, Any], Option("Options of the teacher's own, by name.", name="teacher_options")] = (
        field(default_factory=dict)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherEntry:
    """A line of the registry.

    `teacher` is "module:class", called with a config, a task and `name`, and `config` the frozen dataclass, in the same
    module, whose fields are the teacher's options; both are imported when it is chosen. Either may be the class itself,
    of a program that has it at hand. `gives` are the columns that its rows fill, "image" where it makes pictures and
    "clip" where it makes clips. `defaults` are options its name stands for. `server` is what it is when the user gives
    --endpoint: the same model behind a server, None where that means nothing. `local` is what it is where its packages
    are not installed: the same model by other packages, None where there are none.
    """

    name: str
    summary: str
    teacher: "str | Callable[..., Teacher]"
    config: str | type
    gives: tuple[str, ...]
    requirements: Requirements = field(default_factory=Requirements)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    server: "TeacherEntry | None" = None
    local: "TeacherEntry | None" = None

    def __post_init__(self) -> None:
        if isinstance(self.teacher, str) != isinstance(self.config, str):
            raise ValueError(f"the teacher {self.name}: name both its class and its config's, or give both classes")

    def load(self) -> "tuple[Callable[..., Teacher], type]":
        """Import the teacher's class and its config's. Raises TeacherError where its module cannot be imported."""
        if not isinstance(self.teacher, str) and not isinstance(self.config, str):
            return self.teacher, self.config
        module, _, name = str(self.teacher).partition(":")
        try:
            loaded = import_module(module)
            return getattr(loaded, name), getattr(loaded, str(self.config))
        except (ImportError, AttributeError) as error:
            raise TeacherError(f"the teacher {self.name} cannot be loaded from {self.teacher}: {error}") from error


_ENDPOINT = TeacherEntry(
    name="endpoint",
    summary="asks a chat endpoint, in text or (--draw) in pictures",
    teacher="harvest.teachers.endpoint:EndpointTeacher",
    config="EndpointConfig",
    gives=("reply", "label_logprobs"),
    requirements=Requirements(memory="a server", given="--endpoint URL --model NAME"),
)
_BATCH_TEACHER = "harvest.teachers.batch.teacher:BatchTeacher"
_VLLM = TeacherEntry(
    name="vllm",
    summary="asks any vision-language model that vLLM runs, in this process, about the drawn text",
    teacher="harvest.teachers.vllm:VllmTeacher",
    config="VllmConfig",
    gives=("embedding", "reply", "label_logprobs"),
    requirements=Requirements(
        "vllm", ("vllm",), "model", memory="the model and some GB", gpu=True, given="--model NAME"
    ),
)
_TRANSFORMERS = TeacherEntry(
    name="transformers",
    summary="asks any language or vision-language model of transformers, in this process; slower than vLLM",
    teacher="harvest.teachers.transformers:TransformersTeacher",
    config="TransformersConfig",
    gives=("embedding", "reply", "label_logprobs", "topk_logprobs"),
    requirements=Requirements("distill", ("torch", "transformers"), "model", memory="the model", given="--model NAME"),
)


def _name_model(model: VisionModel) -> TeacherEntry:
    """The entry of a vision-language model: in this process, or behind a server that runs it."""
    asked = {"model": model.model, "draw": "fields", "size": model.size}
    named: dict[str, Any] = {"name": model.name, "defaults": asked}
    gb = ceil(model.weights_gb)
    server = replace(_ENDPOINT, **named, requirements=Requirements(memory="a server", given="--endpoint URL"))
    needs = replace(_TRANSFORMERS.requirements, memory=f"{gb} GB in 16 bits, twice that in 32", given="")
    summary = f"{model.model}: {model.limits}"
    return replace(
        _VLLM,
        **named,
        requirements=replace(_VLLM.requirements, memory=f"{gb} GB and some", given=""),
        summary=summary,
        server=server,
        local=replace(_TRANSFORMERS, **named, requirements=needs, summary=f"{summary}; by transformers", server=server),
    )


ENTRIES = (
    TeacherEntry(
        name="reader",
        summary="draws the text, reads the picture with PP-OCR, encodes what it read",
        teacher="harvest.teachers.reader:ReaderTeacher",
        config="ReaderConfig",
        gives=("embedding", "reply"),
        requirements=Requirements(
            "vision", ("torch", "transformers", "rapidocr", "onnxruntime"), "encoder", memory="2 GB"
        ),
        defaults={"encoder": MPNET},
    ),
    TeacherEntry(
        name="encoder",
        summary="draws the text and encodes the picture with a vision encoder: openai/clip-vit-base-patch32, say",
        teacher="harvest.teachers.encoder:VisionEncoderTeacher",
        config="VisionEncoderConfig",
        gives=("embedding",),
        requirements=Requirements(
            "vision", ("torch", "transformers"), "model", memory="the model", given="--model NAME"
        ),
    ),
    TeacherEntry(
        name="diffusion",
        summary="paints the text with Stable Diffusion, SDXL, SD3, Flux, PixArt, Sana or Kandinsky 3: ARMADA's teacher",
        teacher="harvest.teachers.diffusion:DiffusionTeacher",
        config="DiffusionConfig",
        gives=("embedding", "image"),
        requirements=Requirements(
            "diffusion", ("torch", "transformers", "diffusers"), "model", "model_index.json", "3 GB in 16 bits and some"
        ),
        defaults={"model": "CompVis/stable-diffusion-v1-4"},
    ),
    TeacherEntry(
        name="video",
        summary="makes a clip of the text with ModelScope, AnimateDiff, CogVideoX, LTX-Video, Wan or Mochi",
        teacher="harvest.teachers.video:VideoTeacher",
        config="VideoConfig",
        gives=("embedding", "clip"),
        requirements=Requirements(
            "diffusion",
            ("torch", "transformers", "diffusers"),
            "model",
            "model_index.json",
            "the model, and GB to compute",
            given="--model NAME",
        ),
    ),
    TeacherEntry(
        name="speech",
        summary="speaks the text with SpeechT5 and hears it with Wav2Vec2: ARMADA's audio teacher",
        teacher="harvest.teachers.speech:SpeechTeacher",
        config="SpeechConfig",
        gives=("embedding",),
        requirements=Requirements(
            "speech", ("torch", "transformers", "sentencepiece"), "model", memory="1 GB and some"
        ),
        defaults={"model": "microsoft/speecht5_tts"},
    ),
    TeacherEntry(
        name="listener",
        summary="speaks the text with Piper, hears it with Whisper, encodes what it heard: speech of packaged parts",
        teacher="harvest.teachers.speech:SpeechTeacher",
        config="SpeechConfig",
        gives=("embedding", "reply"),
        requirements=Requirements(
            "listener", ("torch", "transformers", "piper", "ctranslate2", "scipy"), "encoder", memory="2 GB"
        ),
        defaults={"model": PIPER_JOE, "encoder": WHISPER_TINY},
    ),
    _TRANSFORMERS,
    replace(
        _TRANSFORMERS,
        name="scorer",
        summary="a causal language model that scores given texts, token by token (--score-given), and writes nothing",
        gives=("reply", "topk_logprobs"),
        defaults={"score_given": "reference"},
    ),
    _ENDPOINT,
    _VLLM,
    *map(_name_model, VISION_MODELS),
)


@dataclass(frozen=True, slots=True)
class Teachers:
    """Every teacher by name, and why an entry point of an installed package gave none, by the entry point's name."""

    entries: Mapping[str, TeacherEntry]
    broken: Mapping[str, str]


@cache
def find_teachers() -> Teachers:
    """Gather the teachers of this package, of the entry points and of register_teacher.

    One that cannot be loaded stops no other.
    """
    entries = {entry.name: entry for entry in ENTRIES}
    broken = {}
    for point in entry_points(group=GROUP):
        try:
            entry = _load_entry(point)
            if entry.name in entries:
                raise ValueError(f"there is a teacher {entry.name} already")
        except Exception as error:  # whatever another package's module raises
            package = "an installed package" if point.dist is None else f"the package {point.dist.name}"
            broken[point.name] = f"the teacher {point.name} of {package} cannot be loaded: {error}"
        else:
            entries[entry.name] = entry
    return Teachers({**entries, **_registered}, broken)


def register_teacher(entry: TeacherEntry) -> None:
    """Make a teacher of this process's own known by its name, as an entry point makes that of a package.

    The same name again replaces it: a notebook's cell may be run twice. Raises UsageError where the name is that of a
    teacher which was not registered here.
    """
    if entry.name in find_teachers().entries and entry.name not in _registered:
        raise UsageError(f"there is a teacher {entry.name} already; give yours another name")
    _registered[entry.name] = entry
    find_teachers.cache_clear()


def is_registered_here(name: str) -> bool:
    """Whether the teacher of that name is this process's own, which no other one finds."""
    return name in _registered


def _load_entry(point: EntryPoint) -> TeacherEntry:
    entry = point.load()
    if not isinstance(entry, TeacherEntry):
        raise TypeError(f"{point.value} is a {type(entry).__name__}, and not a harvest.teachers.registry.TeacherEntry")
    return entry


def find_teacher(name: str) -> TeacherEntry:
    """The entry of a name. Raises UsageError that lists the names, or says why that teacher cannot be loaded."""
    teachers = find_teachers()
    if name in teachers.broken:
        raise UsageError(teachers.broken[name])
    if name in teachers.entries:
        return teachers.entries[name]
    raise UsageError(
        f"there is no teacher {name!r}; {suggest(name, teachers.entries, there='the teachers are:')}. A model behind "
        "an API is asked with --teacher endpoint --endpoint URL --model NAME"
    )


def choose_entry(name: str, options: Mapping[str, Any]) -> TeacherEntry:
    """The entry of a name, given its own options: with an endpoint that of the server, with batch its jobs' teacher.

    Where its packages are not installed, and those of its `local` are, it is that one.
    """
    entry = find_teacher(name)
    if entry.server is not None and "endpoint" in options:
        entry = entry.server
    elif entry.local is not None and find_absent(entry.requirements) and not find_absent(entry.local.requirements):
        entry = entry.local
    if entry.teacher == _ENDPOINT.teacher and options.get("batch"):
        return replace(entry, teacher=_BATCH_TEACHER)
    return entry


def check_teacher_options(
    name: str, options: Mapping[str, Any], common: Collection[str], spell: Callable[[str], str] = str
) -> None:
    """Raise UsageError, naming the option, unless `options` make the config of the teacher `name`.

    `common` are the options of every harvest, which could also be meant.
    """
    entry = choose_entry(name, options)
    _, config_class = entry.load()
    known = [one.name for one in list_options(config_class)]
    for option in options:
        if option not in known:
            raise UsageError(describe_unknown(entry, option, common, spell))
    make_config(config_class, {**entry.defaults, **options}, f"the teacher {entry.name}", spell)


def describe_unknown(
    entry: TeacherEntry, option: str, common: Collection[str], spell: Callable[[str], str] = str
) -> str:
    """Say that a teacher has no such option, which one may be meant, and which teachers have one of that name."""
    _, config_class = entry.load()
    near = find_near(option, [*common, *(one.name for one in list_options(config_class))])
    said = f"the teacher {entry.name} has no option {spell(option)}"
    said += f" (did you mean {spell(near[0])}?)" if near else ""
    others = [
        other.name
        for other in (choose_entry(each, {}) for each in find_teachers().entries)
        if other.config != entry.config and option in _list_names(other)
    ]
    if others:
        said += f"; {', '.join(others)} {'has' if len(others) == 1 else 'have'} one"
    return f"{said}. `harvest run --teacher {entry.name} --help` shows its own"


def _list_names(entry: TeacherEntry) -> list[str]:
    try:
        return [one.name for one in list_options(entry.load()[1])]
    except TeacherError:
        return []


def prepare_teacher(choice: TeacherChoice) -> "Callable[..., Teacher]":
    """What makes the chosen teacher for a task, before a task is looked at; `name` overrides name_teacher's.

    Raises UsageError, naming the option; and TeacherError, saying what is missing and which teachers would do, where
    this machine cannot run it. Downloads nothing.
    """
    entry = choose_entry(choice.teacher, choice.options)
    factory, config_class = entry.load()
    options = {**entry.defaults, **choice.options}
    spell = spell_flags(config_class)
    in_process = (_VLLM.teacher, _TRANSFORMERS.teacher)
    if entry.teacher in in_process and (known := find_vision_model(options.get("model", ""))) is not None:
        options = {"size": known.size, **options}
    config: object = make_config(config_class, options, f"the teacher {entry.name}", spell)
    # Where something else is missing anyway, nobody should have to wait for a silent hub too.
    seconds = IMPATIENT_SECONDS if find_missing_locally(entry.requirements) else PATIENT_SECONDS
    find_hub_problem = cache(partial(check_hub, seconds))
    if missing := find_missing(entry.requirements, options, find_hub_problem):
        raise TeacherError(_describe_missing(entry, missing, find_hub_problem))
    if entry is (named := find_teacher(choice.teacher)).local:
        say(
            f"{', '.join(find_absent(named.requirements))} is not installed: {options['model']} runs by transformers, "
            f"slower, in {entry.requirements.memory}"
        )
    return partial(_make_teacher, factory, config, "draw" in choice.options, name=name_teacher(choice))


def name_teacher(choice: TeacherChoice) -> str:
    """The name that a choice's answers are kept under: the one given, or the teacher's.

    Answers of a teacher that takes any model have the model's, the last part of its id or path: so a second model has a
    folder of its own.
    """
    entry, model = choose_entry(choice.teacher, choice.options), choice.options.get("model")
    if choice.name is not None or "model" in entry.defaults or not isinstance(model, str):
        return choice.name or entry.name
    last = model.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._+-]", "-", last).lstrip("._+-") or entry.name


def _make_teacher(
    factory: "Callable[..., Teacher]", config: Any, draw_is_given: bool, task: "Task", *, name: str
) -> "Teacher":
    """The teacher for a task. Texts that stand beside pictures are written, and not drawn, unless the user says so."""
    if task.has_pictures and not draw_is_given and hasattr(config, "draw"):
        config = replace(config, draw=Draw.NONE)
    return factory(config, task, name=name)


def _describe_missing(entry: TeacherEntry, missing: Sequence[str], find_hub_problem: Callable[[], str | None]) -> str:
    lines = [f"the teacher {entry.name} cannot run here; nothing was asked or downloaded. Missing:"]
    lines += [f"  - {what}" for what in missing]
    lines.append("What would run here (a task of the hub, too, needs the hub or a copy of it):")
    if entry.server is not None:
        lines.append(f"  --teacher {entry.name} --endpoint URL: the same model, where you run `vllm serve`")
    for other in find_teachers().entries.values():
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
