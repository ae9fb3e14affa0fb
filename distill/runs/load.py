"""A finished run's student, for a program that uses it."""

from pathlib import Path
from typing import Any

from distill.models.generator import load_generator
from distill.models.pretrained import load_classifier, load_tokenizer, open_tokenizer
from distill.models.saving import is_generator
from distill.runs.folder import find_run_student, read_metrics


def load_student(run_folder: Path | str, trusts_code: bool = False) -> tuple[Any, Any]:
    """Load the model and the tokenizer of runs/<name>/student, on the CPU, in float32, to be used and not trained.

    The model is what transformers makes of the folder: a classifier or a regression, on its base model where the run
    trained an adapter, or a causal language model. `trusts_code` lets code that comes with it run. Raises UsageError
    where the folder is no finished run, and SourceError where the files cannot be loaded.
    """
    folder = Path(run_folder)
    read_metrics(folder)
    source = find_run_student(folder, trusts_code)
    if is_generator(folder / "student"):
        return load_generator(source).eval(), open_tokenizer(source)
    return load_classifier(source).eval(), load_tokenizer(source)
