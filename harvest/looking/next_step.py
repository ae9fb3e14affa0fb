"""What to type after a harvest."""

import shlex
from pathlib import Path

from shared.shards import choose_teacher, load_manifest
from shared.shards.manifest import MANIFEST_NAME
from shared.stores.mirror import spell_place

WRITER = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a small student that writes, as an example


def suggest_training(folder: Path) -> str:
    """The command that trains a student on the answers in a teacher's folder, to be pasted into a shell."""
    folder = choose_teacher(folder)  # of an address, what stands for it here
    alone = len(list(folder.parent.glob(f"teacher=*/{MANIFEST_NAME}"))) == 1
    words = ["distill", "run", "--shards", f"{spell_place(folder.parent)}/" if alone else spell_place(folder)]
    if load_manifest(folder).kind in ("choice", "generation"):
        words += ["--student", WRITER]
    return shlex.join(words)
