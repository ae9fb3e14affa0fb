"""How well a teacher that reads or hears gets the words: the word error rate of its replies, and its pace.

    harvest run --teacher listener --task rotten_tomatoes --limit train=200 --ask train
    python benchmarks/word_errors.py data/rotten_tomatoes/teacher=listener

A word error is a word put in, left out or taken for another, the fewest that turn the reply into the text, in lower
case and without punctuation (a hyphen parts two words). The rate is that of all texts together. The pace is what the
rows' own `latency_ms` say, which leave out the loading of the models.
"""

import argparse
import json
import re
from pathlib import Path

from rapidfuzz.distance import Levenshtein

from harvest.chat.prompts import lay_out
from shared.schema import Status, row_schema
from shared.shards import iterate_pieces, iterate_rows, load_manifest

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def list_words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a teacher's folder, data/TASK/teacher=NAME")
    folder = parser.parse_args().folder
    rows = errors = words = whole = 0
    seconds = 0.0
    for piece in iterate_pieces(folder, load_manifest(folder), row_schema().names):
        for row in iterate_rows(piece.table.filter(piece.current)):
            if row.answer.status is not Status.OK or row.answer.reply is None:
                continue
            text, reply = list_words(lay_out(row.example)), list_words(row.answer.reply)
            wrong = Levenshtein.distance(text, reply)
            rows, errors, words, whole = rows + 1, errors + wrong, words + len(text), whole + (wrong == 0)
            seconds += (row.answer.latency_ms or 0.0) / 1000
    print(
        json.dumps(
            {
                "benchmark": "word_errors",
                "rows": rows,
                "words": words,
                "word error rate": round(errors / max(1, words), 4),
                "rows without an error": round(whole / max(1, rows), 3),
                "rows a second": round(rows / seconds, 2) if seconds else None,
            }
        )
    )


if __name__ == "__main__":
    main()
