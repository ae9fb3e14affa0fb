"""The report: one HTML file that asks for nothing else. Light or dark as the reader's system is."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from distill.compare.disagreements import Disagreement
from distill.compare.figures import write_calibration, write_curves, write_efficiency, write_forests
from distill.compare.formats import say_p
from distill.compare.glossary import write_glossary
from distill.compare.quotes import quote_verdict
from distill.compare.result_tables import (
    list_confusions,
    list_differences,
    list_main,
    list_measures,
    list_scores,
    list_scores_by_labels,
)
from distill.compare.sentences import name_labels, say_frozen
from distill.compare.statistics import FEWEST_SEEDS
from distill.compare.style import STYLE
from distill.compare.typeset import write_table
from shared.console import show_cost

_OUTCOMES = {
    "helps": ("The teacher helps", "good"),
    "matched": ("The answers help; this use of them is not shown to help more than a simpler one", "doubt"),
    "explained": ("A control may explain the gain", "doubt"),
    "uncontrolled": ("A gain without controls", "doubt"),
    "none": ("No effect shown", "plain"),
    "hurts": ("The teacher harms", "bad"),
}


def write_report(result: Mapping[str, Any], rows: Sequence[Disagreement]) -> str:
    """Write the page, of what `distill.compare.results.describe` gives and the rows to show."""
    sections = {
        "The verdicts": _write_verdicts(result),
        "What each variant gains": _write_gains(result),
        "Label efficiency": _write_efficiency(result),
        "Learning curves": write_curves(result),
        "Scores": _write_scores(result),
        "Calibration": write_calibration(result),
        "Confusions": _write_confusions(result),
        "Where teacher and student disagree": _write_rows(rows),
        "How it was done": _write_fairness(result),
        "Glossary": write_glossary(result),
        "Configuration": _write_configuration(result),
    }
    shown = {name: content for name, content in sections.items() if content}
    body = "".join(
        f'<section><h2 id="{_anchor(name)}">{name}</h2>{content}</section>' for name, content in shown.items()
    )
    links = "".join(f'<li><a href="#{_anchor(name)}">{name}</a></li>' for name in shown)
    title = f"{result['task']}: did {result['teacher']} help?"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{STYLE}</style></head>'
        f"<body><main>{_write_head(result)}{write_table(list_main(result))}"
        f'<nav aria-label="Contents"><ol>{links}</ol></nav>{body}</main></body></html>\n'
    )


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _write_head(result: Mapping[str, Any]) -> str:
    rows = result["rows"]
    frozen = result["frozen_layers"]
    student = f"{result['student']}, its {say_frozen(frozen)}" if frozen else result["student"]
    return (
        f"<h1>Did {escape(result['teacher'])} help, or was it regularisation?</h1>"
        f'<p class="soft">{escape(result["task"])} · student {escape(student)} · {len(result["seeds"])} seeds · '
        f"{rows['answered']:,} training rows · {escape(result['metric'])} on {rows['test']:,} test rows"
        f"{escape(_say_origin(result['test_from']))}</p>"
    )


def _write_verdicts(result: Mapping[str, Any]) -> str:
    if not result["verdicts"]:
        return f'<div class="verdict plain"><b>Nothing is tested</b>{escape(result["verdict"])}</div>'
    cards = []
    for verdict, sentence in zip(result["verdicts"], result["sentences"][: len(result["verdicts"])], strict=True):
        title, style = _OUTCOMES[verdict["outcome"]]
        labels, undistilled = name_labels(result["wording"], verdict["labels"]), result["wording"]["undistilled"]
        tests = (
            f"Adjusted: {say_p(verdict['p'])} that all of them are beaten (one-sided, .025 claims it), "
            f"{say_p(verdict['p_undistilled'])} against {undistilled} (two-sided)."
        )
        cards.append(
            f'<div class="verdict {style}"><b>{escape(labels.capitalize())}: {title}</b>{escape(sentence)} '
            f"<small>{escape(tests)}</small><details><summary>A sentence to quote</summary>"
            f"<blockquote>{escape(quote_verdict(result, verdict))}</blockquote></details></div>"
        )
    return "".join(cards)


def _write_gains(result: Mapping[str, Any]) -> str:
    forests = write_forests(result)
    if not forests:
        return ""
    return (
        "<p>Mean differences over seeds, with 95% intervals that count both seeds and test rows as samples, each on "
        f"its own: not corrected for their number. Right of the line is better.</p>{forests}"
        f"{''.join(map(write_table, list_differences(result)))}"
    )


def _write_efficiency(result: Mapping[str, Any]) -> str:
    figure = write_efficiency(result)
    if not figure:
        return ""
    # Without a verdict the same table stands above all.
    return figure + (write_table(list_scores_by_labels(result)) if result["verdicts"] else "")


def _write_scores(result: Mapping[str, Any]) -> str:
    parts = []
    for group in result["groups"]:
        measures = list_measures(result, group)
        parts.append(write_table(list_scores(result, group)) + (write_table(measures) if measures else ""))
    return (
        "<p>The teacher's head is fitted to the teacher's answers on the same labels, and reads those answers when it "
        "is scored, on the test rows where the teacher was asked about them, and else on the training rows whose label "
        "the runs hid: what it can pass on ends about there. “aligner” is what the aligner alone, which reads the "
        "teacher's vectors, scores on the validation rows. NLL, Brier score and ECE are of the test rows and means "
        "over seeds; less is better. Nothing here is tested: intervals are above.</p>" + "".join(parts)
    )


def _write_confusions(result: Mapping[str, Any]) -> str:
    tables = "".join(map(write_table, list_confusions(result)))
    return f'<div class="beside">{tables}</div>' if tables else ""


def _write_rows(rows: Sequence[Disagreement]) -> str:
    if not rows:
        return ""
    return (
        "<p>Test rows; the teacher's side is what the aligner, or the head, makes of its answer.</p>"
        f'<div class="rows">{"".join(map(_write_row, rows))}</div>'
    )


def _write_row(row: Disagreement) -> str:
    seen = "".join(
        f'<img alt="the text as the teacher saw it" src="data:image/png;base64,{picture}">' for picture in row.pictures
    )
    return (
        f'<div class="row">{seen}<p>{escape(row.text)}</p><dl><dt>label</dt><dd>{escape(row.label)}</dd>'
        f"<dt>teacher</dt><dd>{_mark(row.teacher_label, row.label)}</dd>"
        f"<dt>student</dt><dd>{_mark(row.student_label, row.label)}, {row.student:.0%} of seeds</dd></dl></div>"
    )


def _mark(label: str, truth: str) -> str:
    return f'<span class="{"right" if label == truth else "wrong"}">{escape(label)}</span>'


def _write_fairness(result: Mapping[str, Any]) -> str:
    first = max(v["first_phase_steps"] for group in result["groups"] for v in group["variants"])
    more = f" Self-training took {first:,} further steps for the student that labels." if first else ""
    cost, rows = result["cost"], result["rows"]
    chosen = f"among {result['candidates']} candidate settings, and the best epoch" if result["candidates"] > 1 else ""
    untrained = [v["variant"] for v in result["groups"][0]["variants"] if not v["trained"]]
    but = f" but {escape(', '.join(untrained))}, which trains no layer of it," if untrained else ""
    points = [
        f"Every variant{but} took {result['student_steps']:,} optimisation steps of the student.{more}",
        f"For every variant and number of labels, the {rows['dev']:,} validation rows chose "
        f"{chosen or 'the best epoch'}.",
        f"The {rows['test']:,} test rows{_say_origin(result['test_from'])} chose nothing.",
        "The test: a two-way random model over seeds and rows, as for readers and cases (Dorfman, Berbaum and Metz "
        "1992; Hillis 2007), with fewer degrees of freedom where seeds are few. A teacher “helps” if it beats plain "
        "fine-tuning, every control and every baseline, each at one-sided 2.5% after Holm's correction for all teacher "
        "variants and numbers of labels. The control that is hardest to beat is the one of the largest p, not the one "
        f"of the best score. Below {FEWEST_SEEDS} seeds nothing is tested.",
        f"Cost: {show_cost(cost['teacher_usd'])} for the teacher's answers, {cost['seconds_of_chosen_runs']:,.0f} "
        f"seconds for the {cost['chosen_runs']:,} runs shown (device {escape(result['device'])}).",
    ]
    return f"<ul>{''.join(f'<li>{point}</li>' for point in points)}</ul>"


def _say_origin(test_from: str | None) -> str:
    return "" if test_from in (None, "test") else f" (held out from {test_from}, where the test split has no labels)"


def _write_configuration(result: Mapping[str, Any]) -> str:
    configs = {v["variant"]: v["config"] for v in result["groups"][-1]["variants"]}
    hashes = {name: result[name] for name in ("manifest_sha256", "student_fingerprint", "git_revisions", "packages")}
    return "".join(
        f"<details><summary>{escape(name)}</summary><pre>{escape(json.dumps(value, indent=1))}</pre></details>"
        for name, value in {"hashes and versions": hashes, **configs}.items()
    )
