"""The report: one HTML file that asks for nothing else. Light or dark as the reader's system is."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from distill.compare.charts import Bar, Line, draw_forest, draw_legend, draw_lines, pad_span
from distill.compare.disagreements import Disagreement
from distill.compare.statistics import FEWEST_SEEDS
from distill.compare.style import STYLE
from shared.console import show_cost

_OUTCOMES = {
    "helps": ("The teacher helps", "good"),
    "matched": ("The answers help; this use of them is not shown to help more than a simpler one", "doubt"),
    "explained": ("A control may explain the gain", "doubt"),
    "uncontrolled": ("A gain without controls", "doubt"),
    "none": ("No effect shown", "plain"),
    "hurts": ("The teacher harms", "bad"),
}

HEAD = "the teacher's head"


def write_report(result: Mapping[str, Any], rows: Sequence[Disagreement]) -> str:
    """Write the page, of what `distill.compare.results.describe` gives and the rows to show."""
    sections = [
        _write_head(result),
        _write_forests(result),
        _write_efficiency(result),
        _write_curves(result),
        _write_scores(result),
        _write_calibration(result),
        _write_confusions(result),
        _write_rows(rows),
        _write_fairness(result),
        _write_configuration(result),
    ]
    title = f"{result['task']}: did {result['teacher']} help?"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{STYLE}</style></head>'
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _write_head(result: Mapping[str, Any]) -> str:
    rows = result["rows"]
    frozen = result["frozen_layers"]
    student = f"{result['student']}, its embeddings and first {frozen} layers frozen" if frozen else result["student"]
    cards = []
    if not result["verdicts"]:
        cards.append(f'<div class="verdict plain"><b>Nothing is tested</b>{escape(result["verdict"])}</div>')
    for verdict, sentence in zip(result["verdicts"], result["sentences"][: len(result["verdicts"])], strict=True):
        title, style = _OUTCOMES[verdict["outcome"]]
        labels, undistilled = _name_labels(result, verdict["labels"]), escape(result["wording"]["undistilled"])
        cards.append(
            f'<div class="verdict {style}"><b>{escape(labels)}: {title}</b>{escape(sentence)}'
            f" <small>Adjusted p: {verdict['p']:.3f} that all of them are beaten (one-sided, .025 claims it), "
            f"{verdict['p_undistilled']:.3f} against {undistilled} (two-sided).</small></div>"
        )
    return (
        f"<h1>Did {escape(result['teacher'])} help, or was it regularisation?</h1>"
        f'<p class="soft">{escape(result["task"])} · student {escape(student)} · {len(result["seeds"])} seeds · '
        f"{rows['answered']:,} training rows · {escape(result['metric'])} on {rows['test']:,} test rows"
        f"{escape(_say_origin(result['test_from']))}</p>"
        f"{''.join(cards)}"
    )


def _write_forests(result: Mapping[str, Any]) -> str:
    shown = [
        table
        for group in result["groups"]
        for table in (group["against_undistilled"], *group["against_rivals"].values())
    ]
    ends = [end for table in shown for d in table.values() for end in (d["low"], d["high"], 0.0)]
    if not ends:
        return ""
    span = pad_span(min(ends), max(ends))
    parts = []
    for group in result["groups"]:
        styles = _style_group(group, result["verdicts"])
        parts.append(f"<h3>{_name_labels(result, group['labels'])}</h3>")
        title = f"Each variant against {result['wording']['undistilled']}"
        parts.append(_write_forest(title, group["against_undistilled"], styles, span))
        for teacher, table in group["against_rivals"].items():
            if table:
                title = f"{teacher} against each control and baseline"
                parts.append(_write_forest(title, table, styles, span))
    return (
        "<h2>What each variant gains</h2><p>Mean differences over seeds, with 95% intervals that count both seeds and "
        "test rows as samples, each on its own: not corrected for their number. Right of the line is better.</p>"
        + "".join(parts)
    )


def _write_forest(
    title: str, table: Mapping[str, Mapping[str, Any]], styles: Mapping[str, str], span: tuple[float, float]
) -> str:
    bars = [Bar(name, d["mean"], d["low"], d["high"], styles[name]) for name, d in table.items()]
    return f'<p class="soft">{escape(title)}</p><div class="wide">{draw_forest(bars, title, span)}</div>'


def _write_efficiency(result: Mapping[str, Any]) -> str:
    groups = [group for group in result["groups"] if group["labels"] is not None]
    if len(groups) < 2:
        return ""
    places = {float(index): str(group["labels"]) for index, group in enumerate(groups)}
    scores: dict[str, list[tuple[float, float]]] = {}
    for index, group in enumerate(groups):
        for variant in group["variants"]:
            scores.setdefault(variant["variant"], []).append((float(index), variant["score"]))
    styles = _style_group(groups[-1], result["verdicts"])
    lines = [Line(name, points, styles[name]) for name, points in scores.items()]
    heads = [(float(i), group["teacher_head"]) for i, group in enumerate(groups) if group["teacher_head"] is not None]
    if heads:
        lines.append(Line(HEAD, heads, "ceiling"))
        styles = {**styles, HEAD: "ceiling"}
    chart = draw_lines(_on_top(lines), "Score by number of labels", "labels", result["metric"], places)
    return f'<h2>Label efficiency</h2>{_write_legend(styles)}<div class="wide">{chart}</div>'


def _write_curves(result: Mapping[str, Any]) -> str:
    parts = []
    for group in result["groups"]:
        styles = _style_group(group, result["verdicts"])
        lines = [
            Line(v["variant"], [(float(i + 1), y) for i, y in enumerate(v["curve"])], styles[v["variant"]])
            for v in group["variants"]
        ]
        epochs = len(lines[0].points)
        if epochs < 2:
            return ""
        names = {float(i + 1): str(i + 1) for i in range(epochs)}
        chart = draw_lines(_on_top(lines), "Learning curves", "epoch", f"validation {result['metric']}", names)
        parts.append(f'<h3>{_name_labels(result, group["labels"])}</h3><div class="wide">{chart}</div>')
    legend = _write_legend(_style_group(result["groups"][-1], result["verdicts"]))
    return f"<h2>Learning curves</h2><p>Means over seeds.</p>{legend}{''.join(parts)}"


def _write_scores(result: Mapping[str, Any]) -> str:
    headings = ("variant", "role", "test", "by seed", "validation", "chosen", "aligner", "NLL", "Brier", "ECE")
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    parts = []
    for group in result["groups"]:
        lines = "".join(map(_write_score, group["variants"]))
        if group["teacher_head"] is not None:
            lines += f"<tr><td>{HEAD}</td><td>ceiling</td><td>{group['teacher_head']:.3f}</td>{'<td></td>' * 7}</tr>"
        title = _name_labels(result, group["labels"])
        parts.append(f'<h3>{title}</h3><div class="wide"><table><tr>{head}</tr>{lines}</table></div>')
    return (
        "<h2>Scores</h2><p>Controls have all but the teacher's knowledge; baselines have that knowledge and a simpler "
        f"use of it. “{HEAD}” is fitted to the teacher's answers on the same labels, and reads those answers when "
        "it is scored, on the test rows where the teacher was asked about them, and else on the training rows whose "
        "label the runs hid: what it can pass on ends about there. “aligner” is what the aligner alone, which reads "
        "the teacher's vectors, scores on the validation rows. NLL (nats), Brier score (0 to 2) and ECE, the expected "
        "calibration error, are of the test rows and means over seeds; less is better. Nothing here is tested: "
        "intervals are above.</p>" + "".join(parts)
    )


def _write_score(variant: Mapping[str, Any]) -> str:
    calibration = variant["calibration"] or {}
    cells = [
        escape(variant["variant"]),
        variant["role"],
        f"{variant['score']:.3f}",
        " ".join(f"{score:.3f}" for score in variant["scores"]),
        f"{variant['validation']:.3f}",
        escape(_describe_choice(variant["choice"])),
        _format(variant["aligner_validation"]),
        *(_format(calibration.get(name)) for name in ("nll", "brier", "error")),
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _write_calibration(result: Mapping[str, Any]) -> str:
    group = result["groups"][-1]
    styles = _style_group(group, result["verdicts"])
    shown = [v for v in group["variants"] if v["calibration"] is not None and styles[v["variant"]] != "control"]
    if not shown:
        return ""
    lines = [
        Line(
            v["variant"],
            list(zip(v["calibration"]["confidence"], v["calibration"]["right"], strict=True)),
            styles[v["variant"]],
        )
        for v in shown
    ]
    ticks = {tick / 5: f"{tick / 5:g}" for tick in range(6)}
    chart = draw_lines(lines, "Reliability", "confidence", "share that is right", ticks, diagonal=True)
    legend = draw_legend([(v["variant"], styles[v["variant"]]) for v in shown])
    return (
        f"<h2>Calibration</h2><p>{_name_labels(result, group['labels'])}: "
        "on the dashed line, confidence is what it says.</p>"
        f'{legend}<div class="wide">{chart}</div>'
    )


def _write_confusions(result: Mapping[str, Any]) -> str:
    group = result["groups"][-1]
    styles = _style_group(group, result["verdicts"])
    shown = [v for v in group["variants"] if v["confusion"] is not None and styles[v["variant"]] != "control"]
    if not shown:
        return ""
    names = result["labels"]
    tables = []
    for v in shown:
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        lines = "".join(
            f"<tr><td>{escape(name)}</td>{''.join(f'<td>{count:.0f}</td>' for count in counts)}</tr>"
            for name, counts in zip(names, v["confusion"], strict=True)
        )
        tables.append(f"<div><h3>{escape(v['variant'])}</h3><table><tr><th></th>{head}</tr>{lines}</table></div>")
    return (
        f"<h2>Confusions</h2><p>{_name_labels(result, group['labels'])}, mean over seeds: a line is the label, a "
        f'column what the student said.</p><div class="matrices wide">{"".join(tables)}</div>'
    )


def _write_rows(rows: Sequence[Disagreement]) -> str:
    if not rows:
        return ""
    cards = []
    for row in rows:
        seen = "".join(
            f'<img alt="the text as the teacher saw it" src="data:image/png;base64,{p}">' for p in row.pictures
        )

        def mark(label: str, truth: str = row.label) -> str:
            return f'<span class="{"right" if label == truth else "wrong"}">{escape(label)}</span>'

        cards.append(
            f'<div class="row">{seen}<p>{escape(row.text)}</p><dl><dt>label</dt><dd>{escape(row.label)}</dd>'
            f"<dt>teacher</dt><dd>{mark(row.teacher_label)}</dd>"
            f"<dt>student</dt><dd>{mark(row.student_label)}, {row.student:.0%} of seeds</dd></dl></div>"
        )
    return (
        "<h2>Where teacher and student disagree</h2><p>Test rows; the teacher's side is what the aligner, or the head, "
        f'makes of its answer.</p><div class="rows">{"".join(cards)}</div>'
    )


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
    return f"<h2>How it was done</h2><ul>{''.join(f'<li>{point}</li>' for point in points)}</ul>"


def _say_origin(test_from: str | None) -> str:
    return "" if test_from in (None, "test") else f" (held out from {test_from}, where the test split has no labels)"


def _write_configuration(result: Mapping[str, Any]) -> str:
    configs = {v["variant"]: v["config"] for v in result["groups"][-1]["variants"]}
    hashes = {name: result[name] for name in ("manifest_sha256", "student_fingerprint", "git_revisions", "packages")}
    parts = "".join(
        f"<details><summary>{escape(name)}</summary><pre>{escape(json.dumps(value, indent=1))}</pre></details>"
        for name, value in {"hashes and versions": hashes, **configs}.items()
    )
    return f"<h2>Configuration</h2>{parts}"


def _style_group(group: Mapping[str, Any], verdicts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Give each variant the class that colours it: its role, or that it is hardest to beat for a teacher variant."""
    hardest = {
        verdict[kind]["variant"]
        for verdict in verdicts
        for kind in ("control", "baseline")
        if verdict["labels"] == group["labels"] and verdict[kind] is not None
    }
    return {
        v["variant"]: "hardest" if v["role"] == "control" and v["variant"] in hardest else v["role"]
        for v in group["variants"]
    }


def _write_legend(styles: Mapping[str, str]) -> str:
    entries = [(name, style) for name, style in styles.items() if style != "control"]
    entries += [("other controls", "control")] if "control" in styles.values() else []
    return draw_legend(
        [(f"{name} (control, hardest to beat)" if style == "hardest" else name, style) for name, style in entries]
    )


def _on_top(lines: Sequence[Line]) -> list[Line]:
    """Put the coloured lines last, so that they are drawn over the grey ones."""
    return sorted(lines, key=lambda line: line.style != "control")


def _name_labels(result: Mapping[str, Any], labels: int | None) -> str:
    everything: str = result["wording"]["everything"]
    return everything.capitalize() if labels is None else f"{labels:,} labels"


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _describe_choice(choice: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in choice.items())
