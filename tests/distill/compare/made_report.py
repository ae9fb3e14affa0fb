"""A report of made predictions, with everything in it that a report can have; and what any report must be."""

from base64 import b64encode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distill.compare.classifier import SeedPredictions
from distill.compare.disagreements import Disagreement
from distill.compare.plan import Comparison
from distill.compare.report import write_report
from distill.compare.results import Chosen, describe, judge_variants
from distill.controls import CONTROLS
from distill.scoring.pseudovalues import make_pseudovalues
from shared.shards.manifest import Manifest

PARTS = (
    *("The verdicts", "What each variant gains", "Label efficiency", "Learning curves", "Scores", "Calibration"),
    *("Confusions", "Glossary"),
)
SCORES = {"undistilled": 0.60, "armada": 0.85, "self-training": 0.68, "shuffled-teacher": 0.55, "pseudo-labels": 0.65}
ROLES: Any = {"undistilled": "undistilled", "armada": "teacher", "pseudo-labels": "baseline"}
SEEDS, ROWS = 5, 300


def make_chosen(rng: np.random.Generator) -> list[Chosen]:
    """Two numbers of labels, four variants, five seeds."""
    target = rng.integers(2, size=ROWS)
    sign = np.where(target == 1, 1.0, -1.0)
    chosen = []
    for labels, more in ((50, 0.0), (1000, 0.1)):
        for name, score in SCORES.items():
            margin = (score + more - 0.5) * 4 + rng.normal(0, 1, ROWS) + rng.normal(0, 0.3, (SEEDS, ROWS))
            logits = np.stack([np.zeros((SEEDS, ROWS)), margin * sign], axis=-1).astype(np.float32)
            right = (logits.argmax(axis=-1) == target).mean(axis=1)
            control = name if name in CONTROLS else "none"
            metrics = [describe_run(float(share), seed, control) for seed, share in enumerate(right)]
            values = np.stack([make_pseudovalues("accuracy", one, target) for one in logits])
            curves = tuple((0.5, run["test"]) for run in metrics)
            role, options = ROLES.get(name, "control"), {"student_lr": 0.001}
            aligner = logits if role == "teacher" else None
            said, rows = SeedPredictions(logits, target, aligner), np.arange(ROWS)
            chosen.append(Chosen(name, labels, role, 0, options, (0.5,), tuple(metrics), rows, values, said, curves))
    return chosen


def describe_run(score: float, seed: int, control: str = "none") -> dict[str, Any]:
    """As much of a metrics.json as a comparison reads."""
    return {
        "metric": "accuracy",
        "test": score,
        "dev_best": score,
        "student_steps": 63,
        "first_phase": None,
        "teacher_head": {"test": 0.9},
        "test_from": "validation",
        "aligner_dev": 0.8,
        "seconds": 3.0,
        "student": "a <student>",
        "config": {"seed": seed, "frozen_layers": 5, "control": control},
        "rows": {"answered": 2000, "dev": 500},
        "manifest_sha256": {"data/x": "0" * 64},
        "student_fingerprint": "f" * 64,
        "git_revision": None,
        "packages": {},
        "device": "cpu",
    }


def make_report() -> tuple[dict[str, Any], str]:
    """The figures and the page."""
    return make_pages(make_chosen(np.random.default_rng(0)))


def make_pages(chosen: list[Chosen], task: str = "films") -> tuple[dict[str, Any], str]:
    """The figures and the page of these runs."""
    manifest = Manifest(task, "reader", "classification", ("bad & dull", "good"), "accuracy", {}, "made")
    comparison = Comparison(
        name="made", shards=(Path("data/films"),), seeds=tuple(range(len(chosen[0].metrics))), labels=(50, 1000)
    )
    result = describe(comparison, chosen, judge_variants(chosen), manifest, 1.25)
    file = BytesIO()
    Image.new("L", (40, 30), 255).save(file, "PNG")
    picture = b64encode(file.getvalue()).decode()
    rows = [
        Disagreement("1", "a <b>fine</b> film", "good", "bad & dull", 0.8, "good", (picture,)),
        Disagreement("2", "a film & nothing else " * 12, "bad & dull", "bad & dull", 1.0, "good", ()),
    ]
    return result, write_report(result, rows)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(html: str) -> list[str]:
    """Assert that a page is well formed and asks for nothing outside itself; give its tags."""
    page = _Page()
    page.feed(html)
    assert page.open == []
    assert page.links
    inside = {f"#{name}" for name in page.names}
    assert all(link.startswith("data:") or link in inside for link in page.links)
    assert "script" not in page.tags
    assert not any(part in html for part in ("url(", "@import", "http:", "https:"))
    return page.tags
