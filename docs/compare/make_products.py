"""Make products/{train,validation,test}.csv: snippets of product reviews, called positive or negative by 20 raters.

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    tar xzf vadersentiment-3.3.2.tar.gz
    tar xzf vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz
    python docs/compare/make_products.py hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt

Snippets whose mean rating lies within half a point of 0, and repeated ones, are left out. Source: Hutto and Gilbert,
ICWSM 2014.
"""

import csv
import random
import sys
from pathlib import Path

SPLITS = {"train": (0, 1500), "validation": (1500, 1800), "test": (1800, None)}


def read_snippets(path: Path) -> list[tuple[str, str, str]]:
    """Read id, text and label of each snippet that has a clear one, the first of equal texts only."""
    snippets: dict[str, tuple[str, str, str]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        number, rating, text = (part.strip() for part in line.split("\t", 2))
        if abs(float(rating)) >= 0.5 and text:
            snippets.setdefault(text, (number, text, "positive" if float(rating) > 0 else "negative"))
    return list(snippets.values())


def main() -> None:
    """Write the three files into products/ of the working directory."""
    rows = read_snippets(Path(sys.argv[1]))
    random.Random(0).shuffle(rows)
    folder = Path("products")
    folder.mkdir(exist_ok=True)
    for split, (start, end) in SPLITS.items():
        with (folder / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "text", "label"), *rows[start:end]])


if __name__ == "__main__":
    main()
