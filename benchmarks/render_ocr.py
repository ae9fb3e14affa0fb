"""How readable the drawn text is: the character error rate of PP-OCR over real English sentences.

    python benchmarks/render_ocr.py [--rows 500] [--size 512]

Draws review sentences of the rotten_tomatoes task, reads the pages' lines back with the recogniser of the `reader`
teacher, and prints one JSON line. `character_error_rate` is the edit distance over the number of characters, white space
folded; `recogniser_share` is the part of the time that reading took. The limit is an error rate of 0.02.
"""

import argparse
import json
import time
from itertools import islice

from harvest.prompts import lay_out
from harvest.rendering import Layout, draw, encode
from harvest.teachers.ocr import LineReader
from shared.tasks import find_task, load_task


def count_edits(written: str, read: str) -> int:
    """The Levenshtein distance: insertions, deletions and substitutions of single characters."""
    previous = list(range(len(read) + 1))
    for i, a in enumerate(written, 1):
        current = [i]
        for j, b in enumerate(read, 1):
            current.append(min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (a != b)))
        previous = current
    return previous[-1]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--size", type=int, default=512, help="width and height of a page in pixels")
    arguments = parser.parse_args()

    loaded = load_task(find_task("rotten_tomatoes"))
    texts = [lay_out(example) for example in islice(loaded.examples("train"), arguments.rows)]
    layout = Layout(arguments.size, arguments.size)
    reader = LineReader()
    edits = characters = lines = pages = 0
    drawing_seconds = reading_seconds = 0.0
    for text in texts:
        started = time.perf_counter()
        drawings = draw(text, layout)
        pages += len([encode(drawing) for drawing in drawings])
        drawn = time.perf_counter()
        boxes = [(drawing.pixels, line) for drawing in drawings for line in drawing.lines]
        said = reader.read([pixels[line.top : line.bottom, line.left : line.right] for pixels, line in boxes])
        reading_seconds += time.perf_counter() - drawn
        drawing_seconds += drawn - started
        read = "".join(words + line.ends_with for words, (_, line) in zip(said, boxes, strict=True))
        written = " ".join(text.split())
        edits += count_edits(written, " ".join(read.split()))
        characters += len(written)
        lines += len(boxes)
    print(
        json.dumps(
            {
                "benchmark": "render_ocr",
                "rows": len(texts),
                "source": loaded.source,
                "size": arguments.size,
                "characters": characters,
                "character_error_rate": edits / characters,
                "pages_per_second_drawn": pages / drawing_seconds,
                "lines_per_second_read": lines / reading_seconds,
                "recogniser_share": reading_seconds / (reading_seconds + drawing_seconds),
            }
        )
    )


if __name__ == "__main__":
    main()
