"""The report: one HTML file that asks for nothing else. Light or dark as the reader's system is."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from distill.compare.charts import Bar, Line, draw_forest, draw_legend, draw_lines, pad_span
from distill.compare.disagreements import Disagreement
from shared.console import show_cost

_OUTCOMES = {
    "helps": ("The teacher helps", "good"),
    "explained": ("A control may explain the gain", "doubt"),
    "uncontrolled": ("A gain without controls", "doubt"),
    "none": ("No effect shown", "plain"),
    "hurts": ("The teacher harms", "bad"),
}

STYLE = """
:root { color-scheme: light dark; --page:#fff; --ink:#1c2430; --soft:#5b6675; --line:#dfe4ea; --card:#f6f8fa;
  --teacher:#0b6bcb; --undistilled:#c2410c; --strongest:#7c3aed; --control:#8b96a5; --good:#137a3f; --bad:#b42318; }
@media (prefers-color-scheme: dark) { :root { --page:#11161d; --ink:#e6eaf0; --soft:#9aa6b5; --line:#2b3440;
  --card:#19212b; --teacher:#5aaefc; --undistilled:#fb923c; --strongest:#b794f6; --control:#7d8998; --good:#4ade80;
  --bad:#f97066; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--page); color:var(--ink); font:16px/1.55 system-ui,sans-serif; }
main { max-width:860px; margin:0 auto; padding:32px 20px 64px; }
h1 { font-size:1.6rem; line-height:1.25; margin:0 0 4px; }
h2 { font-size:1.2rem; margin:44px 0 8px; padding-top:16px; border-top:1px solid var(--line); }
h3 { font-size:1rem; margin:20px 0 4px; }
p { margin:8px 0; } .soft { color:var(--soft); } small { color:var(--soft); }
.verdict { background:var(--card); border-left:4px solid var(--control); border-radius:6px; padding:12px 16px;
  margin:12px 0; }
.verdict b { display:block; } .verdict.good { border-color:var(--good); } .verdict.good b { color:var(--good); }
.verdict.bad { border-color:var(--bad); } .verdict.bad b { color:var(--bad); }
.verdict.doubt { border-color:var(--strongest); } .verdict.doubt b { color:var(--strongest); }
.wide { overflow-x:auto; }
svg { width:100%; min-width:520px; height:auto; display:block; font:13px system-ui,sans-serif; }
svg text { fill:var(--ink); } svg .tick { fill:var(--soft); font-size:12px; }
svg .grid { stroke:var(--line); } svg .zero { stroke:var(--soft); stroke-dasharray:4 3; }
svg .whisker { stroke-width:2.5; } svg .line { fill:none; stroke-width:1.5; }
svg .line.teacher,svg .line.undistilled,svg .line.strongest { stroke-width:2.5; }
.teacher { --c:var(--teacher); } .undistilled { --c:var(--undistilled); } .strongest { --c:var(--strongest); }
.control { --c:var(--control); }
svg .whisker,svg .line { stroke:var(--c); } svg .dot { fill:var(--c); }
.legend { list-style:none; display:flex; flex-wrap:wrap; gap:4px 18px; margin:6px 0; padding:0; font-size:.9rem; }
.key { display:inline-block; width:12px; height:12px; border-radius:50%; background:var(--c); margin-right:6px; }
table { border-collapse:collapse; width:100%; font-size:.9rem; font-variant-numeric:tabular-nums; }
th,td { text-align:right; padding:5px 10px; border-bottom:1px solid var(--line); white-space:nowrap; }
th { color:var(--soft); font-weight:600; } th:first-child,td:first-child { text-align:left; }
.matrices { display:flex; flex-wrap:wrap; gap:16px 32px; } .matrices table { width:auto; }
.rows { display:grid; grid-template-columns:repeat(auto-fill,minmax(250px,1fr)); gap:14px; }
.row { background:var(--card); border-radius:6px; padding:12px; font-size:.9rem; overflow-wrap:anywhere; }
.row img { width:100%; border:1px solid var(--line); border-radius:4px; background:#fff; }
.row dl { display:grid; grid-template-columns:auto 1fr; gap:2px 10px; margin:8px 0 0; } .row dt { color:var(--soft); }
.row dd { margin:0; } .right { color:var(--good); } .wrong { color:var(--bad); }
details { margin:8px 0; } summary { cursor:pointer; } pre { overflow-x:auto; background:var(--card); padding:12px;
  border-radius:6px; font-size:.8rem; } code { overflow-wrap:anywhere; font-size:.85em; }
"""


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
        cards.append(
            f'<div class="verdict {style}"><b>{escape(_name_labels(verdict["labels"]))}: {title}</b>{escape(sentence)}'
            f" <small>Adjusted p {verdict['p']:.3f} for both, {verdict['p_undistilled']:.3f} against plain "
            "fine-tuning.</small></div>"
        )
    return (
        f"<h1>Did {escape(result['teacher'])} help, or was it regularisation?</h1>"
        f'<p class="soft">{escape(result["task"])} · student {escape(student)} · {len(result["seeds"])} seeds · '
        f"{rows['answered']:,} training rows · {escape(result['metric'])} on {rows['test']:,} test rows</p>"
        f"{''.join(cards)}"
    )


def _write_forests(result: Mapping[str, Any]) -> str:
    ends = [
        end
        for group in result["groups"]
        for table in ("against_undistilled", "against_strongest_control")
        for d in group[table].values()
        for end in (d["low"], d["high"], 0.0)
    ]
    if not ends:
        return ""
    span = pad_span(min(ends), max(ends))
    parts = []
    for group in result["groups"]:
        styles = _style_group(group)
        parts.append(f"<h3>{_name_labels(group['labels'])}</h3>")
        for table, other in (
            ("against_undistilled", "undistilled"),
            ("against_strongest_control", "strongest control"),
        ):
            if not group[table]:
                continue
            against = (
                other if table == "against_undistilled" else f"the strongest control, {group['strongest_control']}"
            )
            bars = [Bar(n, d["mean"], d["low"], d["high"], styles[n]) for n, d in group[table].items()]
            chart = draw_forest(bars, f"Differences to {against}", span)
            parts.append(f'<p class="soft">Difference to {escape(against)}</p><div class="wide">{chart}</div>')
    return (
        "<h2>What each variant gains</h2><p>Mean differences over seeds, with 95% intervals that count both seeds and "
        "test rows as samples. Right of the line is better.</p>" + "".join(parts)
    )


def _write_efficiency(result: Mapping[str, Any]) -> str:
    groups = [group for group in result["groups"] if group["labels"] is not None]
    if len(groups) < 2:
        return ""
    places = {float(index): str(group["labels"]) for index, group in enumerate(groups)}
    scores: dict[str, list[tuple[float, float]]] = {}
    for index, group in enumerate(groups):
        for variant in group["variants"]:
            scores.setdefault(variant["variant"], []).append((float(index), variant["score"]))
    styles = _style_group(groups[-1])
    lines = [Line(name, points, styles[name]) for name, points in scores.items()]
    chart = draw_lines(_on_top(lines), "Score by number of labels", "labels", result["metric"], places)
    return f'<h2>Label efficiency</h2>{_write_legend(styles)}<div class="wide">{chart}</div>'


def _write_curves(result: Mapping[str, Any]) -> str:
    parts = []
    for group in result["groups"]:
        styles = _style_group(group)
        lines = [
            Line(v["variant"], [(float(i + 1), y) for i, y in enumerate(v["curve"])], styles[v["variant"]])
            for v in group["variants"]
        ]
        epochs = len(lines[0].points)
        if epochs < 2:
            return ""
        names = {float(i + 1): str(i + 1) for i in range(epochs)}
        chart = draw_lines(_on_top(lines), "Learning curves", "epoch", f"validation {result['metric']}", names)
        parts.append(f'<h3>{_name_labels(group["labels"])}</h3><div class="wide">{chart}</div>')
    legend = _write_legend(_style_group(result["groups"][-1]))
    return f"<h2>Learning curves</h2><p>Means over seeds.</p>{legend}{''.join(parts)}"


def _write_scores(result: Mapping[str, Any]) -> str:
    parts = []
    for group in result["groups"]:
        lines = "".join(
            f"<tr><td>{escape(v['variant'])}</td><td>{v['score']:.3f}</td>"
            f"<td>{' '.join(f'{s:.3f}' for s in v['scores'])}</td><td>{v['validation']:.3f}</td>"
            f"<td>{escape(_describe_choice(v['choice']))}</td>"
            f"<td>{_format(v['aligner_validation'])}</td>"
            f"<td>{_format((v['calibration'] or {}).get('error'))}</td></tr>"
            for v in group["variants"]
        )
        parts.append(
            f'<h3>{_name_labels(group["labels"])}</h3><div class="wide"><table><tr><th>variant</th><th>test</th>'
            "<th>by seed</th><th>validation</th><th>chosen</th><th>aligner</th><th>ECE</th></tr>"
            f"{lines}</table></div>"
        )
    return (
        "<h2>Scores, and the aligner's own</h2><p>“aligner” is what the aligner alone, which reads the teacher's "
        "vectors, scores on the validation rows: a bound on what it can pass on. ECE is the expected calibration "
        "error.</p>" + "".join(parts)
    )


def _write_calibration(result: Mapping[str, Any]) -> str:
    group = result["groups"][-1]
    styles = _style_group(group)
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
        f"<h2>Calibration</h2><p>{_name_labels(group['labels'])}: on the dashed line, confidence is what it says.</p>"
        f'{legend}<div class="wide">{chart}</div>'
    )


def _write_confusions(result: Mapping[str, Any]) -> str:
    group = result["groups"][-1]
    styles = _style_group(group)
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
        f"<h2>Confusions</h2><p>{_name_labels(group['labels'])}, mean over seeds: a line is the label, a column what "
        f'the student said.</p><div class="matrices wide">{"".join(tables)}</div>'
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
        "<h2>Where teacher and student disagree</h2><p>Test rows; the teacher's side is what the aligner makes of its "
        f'vector.</p><div class="rows">{"".join(cards)}</div>'
    )


def _write_fairness(result: Mapping[str, Any]) -> str:
    first = max(v["first_phase_steps"] for group in result["groups"] for v in group["variants"])
    more = f" Self-training took {first:,} further steps for the student that labels." if first else ""
    cost = result["cost"]
    return (
        f"<h2>How it was done</h2><ul><li>Every variant took {result['student_steps']:,} optimisation steps of the "
        f"student.{more}</li>"
        f"<li>For every variant and number of labels, the {result['rows']['dev']:,} validation rows chose among "
        f"{result['candidates']} candidate settings, and the best epoch; nothing was chosen on the test rows.</li>"
        "<li>The test: a two-way random model over seeds and rows, as for readers and cases (Dorfman, Berbaum and Metz "
        "1992; Hillis 2007), with Holm's correction. A teacher “helps” if it beats plain fine-tuning and the control "
        "with the highest test score, each at 5% in that direction.</li>"
        f"<li>Cost: {show_cost(cost['teacher_usd'])} for the teacher's answers, "
        f"{cost['seconds_of_chosen_runs']:,.0f} seconds for the {cost['chosen_runs']:,} runs shown "
        f"(device {escape(result['device'])}).</li></ul>"
    )


def _write_configuration(result: Mapping[str, Any]) -> str:
    configs = {v["variant"]: v["config"] for v in result["groups"][-1]["variants"]}
    hashes = {name: result[name] for name in ("manifest_sha256", "student_fingerprint", "git_revisions", "packages")}
    parts = "".join(
        f"<details><summary>{escape(name)}</summary><pre>{escape(json.dumps(value, indent=1))}</pre></details>"
        for name, value in {"hashes and versions": hashes, **configs}.items()
    )
    return f"<h2>Configuration</h2>{parts}"


def _style_group(group: Mapping[str, Any]) -> dict[str, str]:
    return {
        v["variant"]: "strongest" if v["variant"] == group["strongest_control"] else v["role"]
        for v in group["variants"]
    }


def _write_legend(styles: Mapping[str, str]) -> str:
    entries = [(name, style) for name, style in styles.items() if style != "control"]
    entries += [("other controls", "control")] if "control" in styles.values() else []
    return draw_legend(
        [(f"{name} (strongest control)" if style == "strongest" else name, style) for name, style in entries]
    )


def _on_top(lines: Sequence[Line]) -> list[Line]:
    """Put the coloured lines last, so that they are drawn over the grey ones."""
    return sorted(lines, key=lambda line: line.style != "control")


def _name_labels(labels: int | None) -> str:
    return "All labels" if labels is None else f"{labels:,} labels"


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _describe_choice(choice: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in choice.items())
