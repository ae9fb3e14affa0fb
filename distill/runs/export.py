"""A run's student as a model folder of its own, and that folder on the Hugging Face hub."""

import shutil
import tempfile
from pathlib import Path

from distill.models.adapters import merge_adapter
from distill.models.pretrained import load_classifier, load_tokenizer, save_student
from distill.runs.card import find_comparable, make_card
from distill.runs.folder import read_metrics
from shared.console import say
from shared.disk import explain_disk_errors
from shared.errors import UsageError
from shared.hub import make_repository, upload_folder
from shared.sources import resolve_model


def export_run(run_folder: Path, target: Path, name: str | None = None) -> None:
    """Write a run's student to the folder `target`: safetensors, tokenizer and card, for transformers alone.

    An adapter is merged into its base model. `name` is what the card calls the model: the folder's name unless given.
    The folder appears when it is whole. Raises UsageError where it exists already, or the run is not finished.
    """
    metrics = read_metrics(run_folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists already and is not empty: name another folder, or remove it")
    source = resolve_model(str((run_folder / "student").resolve()))
    with explain_disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        save_student(work, merge_adapter(load_classifier(source)), load_tokenizer(source))
        card = make_card(
            run_folder.resolve().name,
            metrics,
            find_comparable(metrics, run_folder.resolve().parent),
            folder=name or target.name,
        )
        (work / "README.md").write_text(card)
        work.chmod(0o755)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def push_run(run_folder: Path, repo: str, private: bool) -> str:
    """Export a run's student to the model repository `repo` of the hub, which is made if it is not there; its address.

    Raises UsageError where the run is not finished, and what shared.hub raises: a missing token before anything is
    loaded.
    """
    read_metrics(run_folder)
    repository, address = make_repository(repo, private)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "model")
        export_run(run_folder, folder, repository)
        say(f"uploading {sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.1f} MB to {repository}")
        upload_folder(repository, folder, run_folder.resolve().name)
    return address
