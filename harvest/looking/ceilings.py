"""What a reader of the texts alone can get right at most, split by split, of the rows that a teacher folder keeps."""

from collections.abc import Mapping
from pathlib import Path

from shared.ceilings import TEXTS, bound_accuracy, hash_row_texts
from shared.shards import Manifest, iterate_pieces
from shared.shards.manifest import REMOVED
from shared.shards.read import list_splits


def find_text_ceilings(folder: Path, manifest: Manifest) -> Mapping[str, float]:
    """Give the best accuracy that the texts of each split allow, where it is below 1; of classes that had pictures.

    It is below 1 where rows of one text have different labels, which no student is shown the reason for. Of rows that
    the teacher was shown no pictures of it is not looked for: all texts are read for it.
    """
    import polars as pl

    if manifest.kind != "classification" or "pictures" not in manifest.recipe:
        return {}
    found = {}
    for split in list_splits(folder, manifest):
        if split == REMOVED:
            continue
        said = []
        for piece in iterate_pieces(folder, manifest, ("draw", "label", *TEXTS), split):
            frame = pl.DataFrame(pl.from_arrow(piece.table)).filter(pl.Series(piece.current), pl.col("draw") == 0)
            said.append(frame.select(hash_row_texts(frame), pl.col("label")))
        bound = bound_accuracy(pl.concat(said)) if said else None
        if bound is not None and bound < 1:
            found[split] = bound
    return found


def describe_text_ceilings(found: Mapping[str, float]) -> list[str]:
    """What find_text_ceilings gave, as lines for a person."""
    return [
        f"{split}: texts stand beside several labels: who reads the text alone gets {bound:.1%} right at most"
        for split, bound in found.items()
    ]
