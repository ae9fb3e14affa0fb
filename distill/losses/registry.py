"""The losses that can be L_m, by name: those of this package, and those that other installed packages bring.

A package brings a loss by an entry point in the group `harvest_distill.losses` that names a LossEntry:

    [project.entry-points."harvest_distill.losses"]
    margin = "my_losses:MARGIN"

This module imports no torch, so that `distill run --help` can show every loss and its options at once. So the module
that an entry point names, and that of a loss with options, must import torch inside functions only.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, make_dataclass, replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from distill.losses.contrastive import Contrastive
from shared.errors import UsageError
from shared.options import check_options, list_options
from shared.suggestions import suggest

if TYPE_CHECKING:
    from torch import Tensor

GROUP = "harvest_distill.losses"
NONE = "none"  # stands for no L_m

Semantics = Literal["paper", "code"]
Divergence = Literal["forward-kl", "jsd", "skewed-kl"]  # of distributions over tokens: see distill.losses.tokens
Match: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"


@dataclass(frozen=True, slots=True)
class LossEntry:
    """A line of the registry: a loss of P_ts (n, d) and P_s (n, d), called with both, in this order, once a batch.

    `loss` is "module:function", imported when the loss is used, or a frozen dataclass whose instances are called: its
    fields are the options of the loss, and become --<loss>-<option>. `code` is the form that the authors' code has,
    where that is not the paper's. A loss gives a scalar, and the teacher's side no gradient.
    """

    name: str
    summary: str
    loss: str | type
    code: str | None = None


def _name_armada(name: str, summary: str) -> LossEntry:
    return LossEntry(name, summary, f"distill.losses.armada:paper_{name}", f"distill.losses.armada:code_{name}")


ENTRIES = (
    _name_armada("cosine", "the angle of the means"),
    _name_armada("euclid", "the distance of the means"),
    _name_armada("elementwise", "the distance of each row"),
    LossEntry("cka", "centred kernel alignment", "distill.losses.geometry:cka"),
    LossEntry("procrustes", "what the best rotation leaves", "distill.losses.geometry:procrustes"),
    LossEntry("contrastive", "each row finds its own teacher among the batch's", Contrastive),
)


@dataclass(frozen=True, slots=True)
class Losses:
    """Every loss by name, and why an entry point of an installed package gave none, by the entry point's name."""

    entries: Mapping[str, LossEntry]
    broken: Mapping[str, str] = field(default_factory=dict)


def find_losses() -> Losses:
    """Gather the losses of this package and of the entry points; one that cannot be loaded stops no other."""
    entries = {entry.name: entry for entry in ENTRIES}
    broken = {}
    for point in entry_points(group=GROUP):
        try:
            entry = _load(point)
            if entry.name in entries or entry.name == NONE:
                raise ValueError(f"there is a loss {entry.name} already")
        except Exception as error:  # whatever another package's module raises
            package = "an installed package" if point.dist is None else f"the package {point.dist.name}"
            broken[point.name] = f"the loss {point.name} of {package} cannot be loaded: {error}"
        else:
            entries[entry.name] = entry
    return Losses(entries, broken)


def _load(point: EntryPoint) -> LossEntry:
    entry = point.load()
    if not isinstance(entry, LossEntry):
        raise TypeError(f"{point.value} is a {type(entry).__name__}, and not a distill.losses.registry.LossEntry")
    for one in list_options(entry.loss) if isinstance(entry.loss, type) else ():
        if one.default is MISSING:
            raise TypeError(f"its option {one.name} has no default")
    return entry


LOSSES = find_losses()


def find_loss(name: str) -> LossEntry:
    """Find the entry of a name. Raises UsageError that lists the names, or says why that loss cannot be loaded."""
    if name in LOSSES.entries:
        return LOSSES.entries[name]
    if name in LOSSES.broken:
        raise UsageError(LOSSES.broken[name])
    raise UsageError(f"loss is {name!r}; {suggest(name, [*LOSSES.entries, NONE], there='it can be')}")


# --- the options of losses ---


def _make_options_class() -> type:
    """Make a frozen config class of the options of every loss, each called <loss>_<option>."""
    listed = [
        (f"{entry.name}_{one.name}".replace("-", "_"), one)
        for entry in LOSSES.entries.values()
        if isinstance(entry.loss, type)
        for one in list_options(entry.loss)
    ]
    made = make_dataclass(
        "LossOptions",
        [
            (name, Annotated[one.kind, replace(one.option, name=None, flag=None, compared="variant")], one.default)
            for name, one in listed
        ],
        frozen=True,
        kw_only=True,
        namespace={"__post_init__": check_options, "__doc__": _make_options_class.__doc__},
    )
    made.__module__ = __name__  # so that a worker process finds it
    return made


if TYPE_CHECKING:
    LossOptions: TypeAlias = Any
else:
    LossOptions = _make_options_class()


def make_match(name: str, semantics: Semantics, options: LossOptions) -> Match:
    """Make the loss of a name in its form for `semantics`, with its own options. Raises UsageError."""
    entry = find_loss(name)
    if isinstance(entry.loss, type):
        prefix = f"{name}_".replace("-", "_")
        own = {one.path[0]: getattr(options, prefix + one.name) for one in list_options(entry.loss)}
        made: Match = entry.loss(**own)
        return made
    module, _, function = (entry.code if semantics == "code" and entry.code else entry.loss).partition(":")
    try:
        match: Match = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the loss {name} cannot be loaded from {entry.loss}: {error}") from error
    return match
