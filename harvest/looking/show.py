"""Looking at rows: the example, the picture that the teacher saw, its reply, its label distribution."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

from harvest.asking.audio import find_audio
from harvest.asking.pictures import find_suffix
from harvest.chat.prompts import lay_out
from harvest.looking.pictures import list_pictures
from shared.console import results
from shared.errors import ShardError, UsageError
from shared.schema import Row, row_schema
from shared.shards import Manifest, choose_teacher, iterate_pieces, iterate_rows, load_manifest
from shared.shards.read import list_splits
from shared.suggestions import suggest

BAR_WIDTH = 30
PIPED_PANEL_WIDTH = 100


def show_rows(
    path: Path, teacher: str | None, split: str | None, count: int, sample_id: str | None, images: Path | None
) -> None:
    """Print rows of a teacher folder; write their pictures into `images` where it is given."""
    folder = choose_teacher(path, teacher)
    manifest = load_manifest(folder)
    splits = list_splits(folder, manifest)
    if not splits:
        raise ShardError(f"{folder} has no split yet: nothing was planned in it; fill it with: harvest run")
    if split is not None and split not in splits:
        raise UsageError(f"{folder} has no split {split!r}; {suggest(split, splits)}")
    shown = 0
    for row in _iterate(folder, manifest, split or splits[0]):
        if sample_id is not None and row.example.sample_id != sample_id:
            continue
        _print_row(row, manifest, folder)
        if images is not None:
            _write_pictures(row, manifest, folder, images)
        shown += 1
        if shown == count:
            return
    if not shown:
        raise ShardError(f"{folder} has no such row in its split {split or splits[0]}")


def _iterate(folder: Path, manifest: Manifest, split: str) -> Iterator[Row]:
    for piece in iterate_pieces(folder, manifest, row_schema().names, split):
        yield from iterate_rows(piece.table.filter(piece.current))


def _print_row(row: Row, manifest: Manifest, folder: Path) -> None:
    from rich.panel import Panel
    from rich.text import Text

    example, answer = row.example, row.answer
    body = Text(lay_out(example) + "\n")
    if example.label is not None:
        body.append(f"\nlabel: {manifest.labels[example.label]}", "green")
    if example.label_set is not None:
        body.append(f"\nlabels: {', '.join(manifest.labels[one] for one in example.label_set) or 'none'}", "green")
    if example.target is not None:
        body.append(f"\ntarget: {example.target:g}", "green")
    for text in example.references or filter(None, (example.target_text,)):
        body.append(f"\nright: {text}", "green")
    body.append(f"\nstatus: {answer.status}", "bold")
    if answer.error:
        body.append(f"  {answer.error}", "red")
    if answer.reply is not None:
        body.append(f"\nreply: {answer.reply}")
    if answer.label_logprobs is not None:
        for label, logprob in zip(manifest.labels, answer.label_logprobs, strict=True):
            body.append(f"\n{_draw_bar(label, math.exp(logprob))}")
        if manifest.kind != "multilabel":
            body.append(f"\n{_draw_bar('(no label)', answer.residual_mass or 0.0)}")
    if answer.embedding is not None:
        vector = answer.embedding
        body.append(f"\nembedding: {len(vector)} numbers, norm {float((vector.astype(float) ** 2).sum() ** 0.5):.3g}")
    if (audio := find_audio(folder, row.request_key)).is_file():
        body.append(f"\nspoken: {audio}")
    if answer.asked_at is not None:
        price = "of unknown price" if answer.cost_usd is None else f"${answer.cost_usd:.6f}"
        body.append(f"\nasked {answer.asked_at:%Y-%m-%d %H:%M:%S}, {answer.attempts} attempts, {price}")
    width = results.width if results.is_terminal else PIPED_PANEL_WIDTH
    results.print(Panel(body, title=Text(example.sample_id), title_align="left"), width=width)


def _draw_bar(name: str, probability: float) -> str:
    return f"{name:>16} {probability:6.1%} {'█' * round(BAR_WIDTH * probability)}"


def _write_pictures(row: Row, manifest: Manifest, folder: Path, images: Path) -> None:
    pictures = list_pictures(folder, manifest, row)
    if not pictures:
        made = "; none is kept of those that it saw or made (--keep-images does)" if row.answer.image_sha256 else ""
        raise UsageError(f"the teacher {manifest.teacher} saw no pictures: its recipe draws nothing{made}")
    images.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        path = images / f"{_name_file(row.example.sample_id)}-{number}{find_suffix(picture.content)}"
        path.write_bytes(picture.content)
        note = ": not the bytes that the teacher saw" if picture.differs else ""
        results.print(f"{path}{note}", markup=False, soft_wrap=True)


def _name_file(sample_id: str) -> str:
    """A file's name of a row's id, which may be any text."""
    return re.sub(r"[^\w.+-]", "_", sample_id)[:100]
