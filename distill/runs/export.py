"""A run's student as a model folder of its own, here or on the Hugging Face hub, and rows for other programs."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from distill.models.adapters import merge_adapter
from distill.models.pretrained import load_classifier, load_tokenizer, open_tokenizer, save_student
from distill.models.saving import is_generator
from distill.runs.card import find_comparable, make_card
from distill.runs.folder import find_run_student, read_metrics
from distill.runs.formats.axolotl import write_axolotl
from distill.runs.formats.distillkit import write_distillkit
from distill.runs.formats.lm_eval import write_lm_eval
from distill.runs.formats.rows import choose_template, open_rows
from distill.runs.formats.trl import write_trl
from distill.runs.names import METRICS
from shared.console import say
from shared.disk import explain_disk_errors
from shared.errors import UsageError
from shared.hub import check_repository_name, commit_files, find_changed, open_repository
from shared.remote_shards import refuse_stored
from shared.secrets import refuse_secrets
from shared.sources import resolve_model


def export_run(run_folder: Path, target: Path, name: str | None = None, trusts_code: bool = False) -> None:
    """Write a run's student to the folder `target`: safetensors, tokenizer and card, for transformers alone.

    An adapter is merged into its base model. `name` is what the card calls the model: the folder's name unless given.
    `trusts_code` lets code that comes with the student run. The folder appears when it is whole. Raises UsageError
    where it exists already, or the run is not finished.
    """
    metrics = read_metrics(run_folder)
    with _new_folder(target) as work:
        _write_student(run_folder, work, trusts_code)
        _write_card(run_folder, metrics, work, name or target.name)


def _write_student(run_folder: Path, work: Path, trusts_code: bool) -> None:
    student = (run_folder / "student").resolve()
    if is_generator(student):
        shutil.copytree(student, work, dirs_exist_ok=True)  # full as it is: see save_generator
    else:
        source = find_run_student(run_folder, trusts_code)
        save_student(work, merge_adapter(load_classifier(source)), load_tokenizer(source))


def _write_card(run_folder: Path, metrics: Mapping[str, Any], work: Path, name: str) -> None:
    others = find_comparable(metrics, run_folder.resolve().parent)
    card = make_card(run_folder.resolve().name, metrics, others, folder=name)
    (work / "README.md").write_text(card)


def export_rows(
    path: Path, target: Path, program: str, template: str | None = None, tokenizer: str | None = None
) -> str:
    """Write the rows of `path`, a teacher folder or a run's, to the folder `target` for another program; say what.

    `program` is one of PROGRAMS. Prompts are those of `template`, a run's own unless given; `tokenizer` names a model
    whose tokenizer and chat template are taken, a run's student unless given. The folder appears when it is whole.
    Raises UsageError where it exists already, and what the formats raise.
    """
    is_run = (path / METRICS).is_file()
    metrics = read_metrics(path) if is_run else {}
    named = tokenizer or (str((path / "student").resolve()) if is_run else None)
    loaded = None if named is None else open_tokenizer(resolve_model(named))
    own = metrics.get("config", {}).get("template") or metrics.get("template")
    chosen = template or own or choose_template(loaded)
    rows = open_rows(Path(metrics["shards"]) if is_run else path, chosen, loaded)
    with _new_folder(target) as work:
        if program == "lm-eval":
            return write_lm_eval(rows, work, target)
        return _WRITERS[program](rows, work)


_WRITERS = {"trl": write_trl, "distillkit": write_distillkit, "axolotl": write_axolotl}
PROGRAMS = ("lm-eval", *_WRITERS)


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Give a folder beside `target` that becomes it when the block ends well, and vanishes otherwise.

    Raises UsageError where `target` exists and is not empty, or is an address of an object store.
    """
    refuse_stored(target, "distill export")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists already and is not empty: name another folder, or remove it")
    with explain_disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield work
        work.chmod(0o755)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def push_run(run_folder: Path, repo: str, *, public: bool = False, trusts_code: bool = False) -> str:
    """Export a run's student to the model repository `repo` of the hub, which is made if it is not there; its address.

    Raises UsageError where the run is not finished or an option of it, which its card shows, holds a key, and what
    shared.hub raises: a missing token before anything is loaded. What cannot be exported makes no repository.
    """
    metrics = read_metrics(run_folder)
    refuse_secrets(metrics["config"])
    check_repository_name(repo)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_student(run_folder, folder, trusts_code)
        repository = open_repository(repo, "model", public=public)
        _write_card(run_folder, metrics, folder, repository.id)
        files: dict[str, Path | bytes] = {path.name: path for path in sorted(folder.iterdir())}
        changed = find_changed(repository, files)
        size = sum(path.stat().st_size for path in folder.iterdir() if path.name in changed)
        say(
            f"{repository.address}, {'private' if repository.private else 'public'}: {len(changed)} of {len(files)} "
            f"files to send, {decimal(size)}"
        )
        commit_files(repository, files, (), run_folder.resolve().name)
    return repository.address
