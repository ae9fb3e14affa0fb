"""The charts of a comparison's page, of what `distill.compare.results.describe` gives."""

from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Any

from distill.compare.charts import Bar, Line, draw_forest, draw_legend, draw_lines, pad_span
from distill.compare.sentences import count_seeds, name_labels
from distill.scoring.metrics import SET_METRICS

HEAD = "the teacher's head"
PATTERNS = ("", " second", " third")  # of the lines of variants that share a colour


def write_forests(result: Mapping[str, Any]) -> str:
    """Draw what each variant gains, and how a teacher variant stands against its rivals; nothing where untested."""
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
        styles = style_group(group, result["verdicts"])
        amount = name_labels(result["wording"], group["labels"]).capitalize()
        undistilled = result["wording"]["undistilled"]
        forests = [
            _draw_forest(f"{amount}: each variant against {undistilled}", group["against_undistilled"], styles, span)
        ]
        forests += [
            _draw_forest(f"{amount}: {teacher} against each control and baseline", table, styles, span)
            for teacher, table in group["against_rivals"].items()
            if table
        ]
        parts.append(f'<div class="beside">{"".join(forests)}</div>')
    return "".join(parts)


def _draw_forest(
    caption: str, table: Mapping[str, Mapping[str, Any]], styles: Mapping[str, str], span: tuple[float, float]
) -> str:
    bars = [Bar(name, d["mean"], d["low"], d["high"], styles[name]) for name, d in table.items()]
    return draw_forest(bars, caption, span)


def write_efficiency(result: Mapping[str, Any]) -> str:
    """Draw the scores by number of labels, with a band of a standard deviation; nothing where there is one number."""
    groups = [group for group in result["groups"] if group["labels"] is not None]
    if len(groups) < 2:
        return ""
    places = {float(index): f"{group['labels']:,}" for index, group in enumerate(groups)}
    by_variant: dict[str, list[tuple[float, Mapping[str, Any]]]] = {}
    for place, group in zip(places, groups, strict=True):
        for variant in group["variants"]:
            by_variant.setdefault(variant["variant"], []).append((place, variant))
    styles = style_group(groups[-1], result["verdicts"])
    lines = [_make_line(name, points, styles[name]) for name, points in by_variant.items()]
    heads = [(float(i), group["teacher_head"]) for i, group in enumerate(groups) if group["teacher_head"] is not None]
    if heads:
        lines.append(Line(HEAD, heads, "ceiling"))
        styles = {**styles, HEAD: "ceiling"}
    band = " A band is a standard deviation over seeds to either side." if any(line.band for line in lines) else ""
    caption = f"Test {result['metric']} by number of labels, means over {count_seeds(result['seeds'])}.{band}"
    return _write_legend(styles) + draw_lines(_put_on_top(lines), caption, "labels", result["metric"], places)


def _make_line(name: str, points: Sequence[tuple[float, Mapping[str, Any]]], style: str) -> Line:
    """Make a variant's line; the grey ones, which are many, have no band."""
    band = [
        (variant["score"] - stdev(variant["scores"]), variant["score"] + stdev(variant["scores"]))
        for _, variant in points
        if style != "control" and len(variant["scores"]) > 1
    ]
    return Line(name, [(place, variant["score"]) for place, variant in points], style, band)


def write_curves(result: Mapping[str, Any]) -> str:
    """Draw the validation scores by epoch; nothing where there is one epoch."""
    charts = []
    for group in result["groups"]:
        styles = style_group(group, result["verdicts"])
        lines = [
            Line(v["variant"], [(float(i + 1), y) for i, y in enumerate(v["curve"])], styles[v["variant"]])
            for v in group["variants"]
        ]
        epochs = len(lines[0].points)
        if epochs < 2:
            return ""
        names = {float(i + 1): str(i + 1) for i in range(epochs)}
        amount = name_labels(result["wording"], group["labels"]).capitalize()
        caption = f"{amount}: validation {result['metric']} by epoch, means over {count_seeds(result['seeds'])}."
        charts.append(draw_lines(_put_on_top(lines), caption, "epoch", f"validation {result['metric']}", names))
    legend = _write_legend(style_group(result["groups"][-1], result["verdicts"]))
    return f'{legend}<div class="beside">{"".join(charts)}</div>'


def write_calibration(result: Mapping[str, Any]) -> str:
    """Draw how often a confidence is right; nothing where nothing is a classifier."""
    group = result["groups"][-1]
    shown, styles = list_coloured(result, "calibration")
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
    is_set = result["metric"] in SET_METRICS
    amount = name_labels(result["wording"], group["labels"]).capitalize()
    likeliest = "what is likelier of each label, to be the row's or not," if is_set else "the likeliest label"
    caption = (
        f"{amount}: how often {likeliest} is right, by its probability, over the test rows of all seeds. On the dashed "
        "diagonal confidence is the share that is right."
    )
    chart = draw_lines(lines, caption, "confidence", "share that is right", ticks, diagonal=True)
    return draw_legend([(v["variant"], styles[v["variant"]]) for v in shown]) + chart


def list_coloured(result: Mapping[str, Any], key: str) -> tuple[list[Mapping[str, Any]], dict[str, str]]:
    """List the variants with the most labels that have `key` and are no grey control; give the classes of all."""
    group = result["groups"][-1]
    styles = style_group(group, result["verdicts"])
    return [v for v in group["variants"] if v[key] is not None and styles[v["variant"]] != "control"], styles


def style_group(group: Mapping[str, Any], verdicts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Give each variant the class that colours it: its role, or that it is hardest to beat for a teacher variant.

    Those that share a colour, grey apart, differ by the pattern of their line.
    """
    hardest = {
        verdict["control"]["variant"]
        for verdict in verdicts
        if verdict["labels"] == group["labels"] and verdict["control"] is not None
    }
    styles: dict[str, str] = {}
    for v in group["variants"]:
        style = "hardest" if v["role"] == "control" and v["variant"] in hardest else v["role"]
        before = sum(each.split()[0] == style for each in styles.values())
        styles[v["variant"]] = style if style == "control" else style + PATTERNS[before % len(PATTERNS)]
    return styles


def _write_legend(styles: Mapping[str, str]) -> str:
    entries = [(name, style) for name, style in styles.items() if style != "control"]
    entries += [("other controls", "control")] if "control" in styles.values() else []
    return draw_legend(
        [
            (f"{name} (control, hardest to beat)" if style.startswith("hardest") else name, style)
            for name, style in entries
        ]
    )


def _put_on_top(lines: Sequence[Line]) -> list[Line]:
    """Put the coloured lines last, so that they are drawn over the grey ones."""
    return sorted(lines, key=lambda line: line.style != "control")
