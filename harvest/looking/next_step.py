"""What to type after a harvest."""

import shlex
from pathlib import Path

from shared.shards import load_manifest
from shared.shards.manifest import MANIFEST_NAME

WRITER = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a small student that writes, as an example


def suggest_training(folder: Path) -> str:
    """The command that trains a student on the answers in a teacher's folder, to be pasted into a shell."""
    alone = len(list(folder.parent.glob(f"teacher=*/{MANIFEST_NAME}"))) == 1
    words = ["distill", "run", "--shards", f"{folder.parent}/" if alone else str(folder)]
    if load_manifest(folder).kind in ("choice", "generation"):
        words += ["--student", WRITER]
    return shlex.join(words)
