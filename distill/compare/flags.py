"""The flags of a command that runs a comparison, beside the options of the comparison itself."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Images: TypeAlias = Annotated[
    Path | None, typer.Option(help="Pictures of the test rows, as harvest show --images writes them.")
]
Out: TypeAlias = Annotated[Path, typer.Option(help="Where runs are kept.")]
Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Train cells of other settings again, in place of an error.")
]
