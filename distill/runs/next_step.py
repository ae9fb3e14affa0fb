"""What to do after a run."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.runs.card import name_pipeline


def suggest_use(folder: Path, metrics: Mapping[str, Any]) -> list[str]:
    """The lines that score a run's student again, and that load it; none for a baseline, which leaves no student."""
    student = folder / "student"
    if not student.is_dir():
        return []
    split = [] if metrics["test"] is None else ["--split", "test"]
    lines = [f"score it again: {shlex.join(['distill', 'eval', str(folder), *split])}"]
    if (student / "adapter_config.json").exists():
        return [*lines, f"merge its adapter: {shlex.join(['distill', 'export', str(folder), f'{folder}-merged'])}"]
    model = f'pipeline("{name_pipeline(metrics)}", {json.dumps(str(student))})'
    return [*lines, f"use it: from transformers import pipeline; {model}"]
