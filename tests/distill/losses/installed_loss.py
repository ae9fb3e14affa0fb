"""A package of somebody's own that brings losses by entry points, written as an installer would leave it."""

from pathlib import Path

MODULE = '''
"""A loss with an option, and a registry entry for it."""

from dataclasses import dataclass
from typing import Annotated

from distill.losses.registry import LossEntry
from shared.options import Option, check_options


@dataclass(frozen=True)
class Margin:
    """The mean over rows of max(0, || p_ts_i - p_s_i ||_2 - slack)."""

    slack: Annotated[float, Option("Distance that costs nothing.", at_least=0)] = 0.25

    def __post_init__(self):
        check_options(self)

    def __call__(self, teacher, student):
        return ((teacher.detach() - student).norm(dim=-1) - self.slack).clamp(min=0).mean()


@dataclass(frozen=True)
class Bare:
    """A loss whose option has no default."""

    slack: float


MARGIN = LossEntry("margin", "rows no further than a slack", Margin)
BARE = LossEntry("bare", "an option without a default", Bare)
DOUBLED = LossEntry("cka", "a name that is taken", "my_losses:nothing")
'''

ENTRY_POINTS = """[harvest_distill.losses]
bare = my_losses:BARE
broken = my_losses_that_are_gone:LOSS
cka = my_losses:DOUBLED
margin = my_losses:MARGIN
wrong = my_losses:Margin
"""


def install(folder: Path) -> Path:
    """Write the package and its metadata into `folder`, which is to stand in PYTHONPATH."""
    (folder / "my_losses.py").write_text(MODULE)
    metadata = folder / "my_losses-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-losses\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder
