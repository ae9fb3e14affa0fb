"""What several teachers' answers to the same rows are worth: the held-out accuracy of a head on each.

    harvest run --teacher listener --task rotten_tomatoes --limit train=400 --ask train
    harvest run --teacher reader --task rotten_tomatoes --limit train=400 --ask train
    python benchmarks/head_accuracy.py data/rotten_tomatoes/teacher=listener data/rotten_tomatoes/teacher=reader

Takes the training rows that every folder has an answer to, and fits to their labels the head that `distill run` would
choose: on each teacher's vectors, and on the sentence vectors (MPNet, or --encoder) of its replies, if it has some. The
accuracy is that of five-fold cross-validation, with the same folds for all; its 95 % interval is Wilson's.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from distill.models.head_selection import choose_head
from distill.models.teacher_head import span_rows
from harvest.looking.agreement import find_wilson_interval
from shared.schema import Status, row_schema
from shared.sentences import SentenceEncoder
from shared.shards import iterate_pieces, iterate_rows, load_manifest
from shared.sources import MPNET


def read_answers(folder: Path) -> dict[str, tuple[int, Any, str | None]]:
    """The label, vector and reply of each answered training row with a label, by its sample id."""
    found = {}
    for piece in iterate_pieces(folder, load_manifest(folder), row_schema().names, "train"):
        for row in iterate_rows(piece.table.filter(piece.current)):
            if row.answer.status is Status.OK and row.answer.embedding is not None and row.example.label is not None:
                found[row.example.sample_id] = (row.example.label, row.answer.embedding, row.answer.reply)
    return found


def measure(vectors: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The held-out accuracy of a head on `vectors` (n, d)."""
    std = np.maximum(vectors.std(0), 1e-6)
    chosen = choose_head({"vectors": span_rows(vectors, vectors.mean(0), std)}, None, labels, int(labels.max()) + 1, 0)
    right = int((chosen.held_out.argmax(1) == labels).sum())
    low, high = find_wilson_interval(right, len(labels))
    return {"accuracy": round(right / len(labels), 4), "from": round(low or 0, 4), "to": round(high or 0, 4)}


def main() -> None:
    """Print one line of JSON for each kind of vector of each teacher."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="teachers' folders, data/TASK/teacher=NAME")
    parser.add_argument("--encoder", default=MPNET, help="the sentence encoder of the replies")
    options = parser.parse_args()
    answers = {folder.name: read_answers(folder) for folder in options.folders}
    names = sorted(set.intersection(*map(set, answers.values())))
    for teacher, found in answers.items():
        rows = [found[name] for name in names]
        labels = np.array([label for label, _, _ in rows])
        kinds = {"vectors": np.array([vector for _, vector, _ in rows], np.float32)}
        replies = [reply for _, _, reply in rows if reply is not None]
        if len(replies) == len(rows):
            kinds["replies"] = SentenceEncoder(options.encoder).encode(replies)
        for kind, vectors in kinds.items():
            line = {"benchmark": "head_accuracy", "teacher": teacher, "on": kind, "rows": len(rows)}
            print(json.dumps({**line, **measure(vectors, labels)}), flush=True)


if __name__ == "__main__":
    main()
