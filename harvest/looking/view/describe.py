"""One row as JSON for the page: its cells, the whole of its texts but for what is very long, and its pictures."""

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from string import ascii_uppercase
from typing import Any

from harvest.chat.prompts import lay_out
from harvest.looking.agreement import RIGHT, WRONG
from harvest.looking.pictures import Picture, list_pictures
from harvest.looking.view.rows import Snapshot
from shared.errors import Error
from shared.schema import Row
from shared.shards import Manifest

_LONGEST_TEXT = 4000  # characters
_SHOWN_LABELS = 8
_SHOWN_PICTURES = 3
_LARGEST_PICTURE = (512, 512)  # of those in colour; drawn pages keep every pixel
_VERDICTS = {RIGHT: "right", WRONG: "wrong"}


def describe_rows(snapshot: Snapshot, lines: Any) -> list[dict[str, Any]]:
    """Describe the rows of some lines of a snapshot's frame (a polars DataFrame), in their order."""
    cells = lines.iter_rows(named=True)
    return [_describe_row(row, own, snapshot.manifest) for own, row in zip(cells, snapshot.read(lines), strict=True)]


def describe_pictures(snapshot: Snapshot, row: Row) -> dict[str, Any]:
    """The pictures of a row as `data:` addresses, each with a note on it, and a note where some are left out."""
    try:
        pictures = list_pictures(snapshot.folder, snapshot.manifest, row)
    except Error as error:  # what cannot be drawn was not asked either
        return {"shown": [], "note": str(error)}
    shown = [
        {
            "src": _inline(picture),
            "note": "not the bytes that the teacher saw: drawn by another version" if picture.differs else "",
        }
        for picture in pictures[:_SHOWN_PICTURES]
    ]
    more = len(pictures) - len(shown)
    return {"shown": shown, "note": f"{more} more not shown" if more else ""}


def _describe_row(row: Row, cells: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    example, answer = row.example, row.answer
    is_classified = manifest.kind == "classification"
    asked = answer.asked_at
    return {
        "split": cells["split"],
        "id": example.sample_id,
        "draw": row.draw,
        "status": str(answer.status),
        "verdict": _VERDICTS.get(cells["verdict"], "unjudged"),
        "gold": _name_right(row, manifest),
        "said": manifest.labels[cells["said"]] if is_classified and cells["said"] is not None else None,
        "mass": None if answer.residual_mass is None else round(answer.residual_mass, 6),
        "cost": answer.cost_usd,
        "asked": None if asked is None else asked.timestamp(),
        "text": _cut(lay_out(example)),
        "reply": _cut(answer.reply),
        "references": [_cut(text) for text in (example.references or ())[1:]],
        "error": _cut(answer.error),
        "probabilities": _rank(answer.label_logprobs or (), manifest.labels),
        "bill": _describe_bill(row),
    }


def _name_right(row: Row, manifest: Manifest) -> str | None:
    """The right answer of a row as a text: its label, choice, number or first right text; None where none is known."""
    example = row.example
    if example.label is not None:
        if example.choices is not None:
            return f"{ascii_uppercase[example.label]}. {example.choices[example.label]}"
        return manifest.labels[example.label]
    if example.label_set is not None:
        return ", ".join(manifest.labels[label] for label in example.label_set) or "none"
    if example.target is not None:
        return f"{example.target:g}"
    return _cut(next(iter(example.references or ()), example.target_text))


def _rank(logprobs: Sequence[float], labels: Sequence[str]) -> list[tuple[str, float]]:
    """The most probable labels with their probabilities."""
    ranked = sorted(zip(labels, map(math.exp, logprobs), strict=False), key=lambda pair: -pair[1])
    return [(label, round(probability, 4)) for label, probability in ranked[:_SHOWN_LABELS]]


def _describe_bill(row: Row) -> str:
    answer = row.answer
    parts = [] if answer.asked_at is None else [f"{answer.asked_at:%Y-%m-%d %H:%M:%S} UTC"]
    parts += [f"{answer.attempts} attempt{'s' * (answer.attempts != 1)}"]
    parts += [] if answer.latency_ms is None else [f"{answer.latency_ms / 1000:.2f} s"]
    if answer.prompt_tokens is not None or answer.completion_tokens is not None:
        parts.append(f"{answer.prompt_tokens or 0:,} + {answer.completion_tokens or 0:,} tokens")
    return ", ".join(parts)


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= _LONGEST_TEXT:
        return text
    return f"{text[:_LONGEST_TEXT]} … ({len(text) - _LONGEST_TEXT:,} characters more)"


def _inline(picture: Picture) -> str:
    """A picture as a small WebP file in a `data:` address. Black on white it keeps every pixel."""
    from PIL import Image

    small = BytesIO()
    with Image.open(BytesIO(picture.content)) as image:
        if image.mode == "L":
            image.save(small, "WEBP", lossless=True)
        else:
            image.thumbnail(_LARGEST_PICTURE)
            image.convert("RGB").save(small, "WEBP", quality=75)
    return f"data:image/webp;base64,{b64encode(small.getvalue()).decode()}"
