"""The tables of a comparison's page, of what `distill.compare.results.describe` gives."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distill.compare.figures import HEAD, list_coloured
from distill.compare.formats import format_interval, format_number, format_p, format_range, format_scores, say_p
from distill.compare.sentences import count_seeds, name_labels
from distill.compare.typeset import Entry, Table, drop_empty, make_entries

CALIBRATION = ("nll", "brier", "error")


def list_main(result: Mapping[str, Any]) -> Table:
    """List the verdicts with their numbers; the scores where nothing is tested."""
    if not result["verdicts"]:
        return list_scores_by_labels(result)
    undistilled = result["wording"]["undistilled"]
    heads = ("variant", "labels", "verdict", "gain", "p", "95% interval", "p, all rivals")
    caption = (
        f"The verdicts: the gain on {undistilled} in {result['metric']}, with its 95% interval and two-sided p; the "
        "one-sided p that all rivals are beaten; test scores, mean ± standard deviation over "
        f"{count_seeds(result['seeds'])}. Both p are after Holm's correction, the intervals are not."
    )
    rows = tuple(_list_verdict(result, verdict) for verdict in result["verdicts"])
    return Table(caption, (*heads, "variant's score", undistilled), rows, texts=3)


def _list_verdict(result: Mapping[str, Any], verdict: Mapping[str, Any]) -> tuple[Entry, ...]:
    variants, labels = find_variants(result, verdict["labels"]), verdict["labels"]
    base = next(v for v in variants.values() if v["role"] == "undistilled")
    texts = [
        *(verdict["variant"], "all" if labels is None else f"{labels:,}", verdict["outcome"]),
        *(f"{verdict['undistilled']['mean']:+.3f}", format_p(verdict["p_undistilled"])),
        *(format_range(verdict["undistilled"]), format_p(verdict["p"])),
        *(format_scores(variants[verdict["variant"]]["scores"]), format_scores(base["scores"])),
    ]
    return make_entries(texts, [2])


def find_variants(result: Mapping[str, Any], labels: int | None) -> dict[str, Mapping[str, Any]]:
    """Find the variants with a number of labels, by name."""
    group = next(group for group in result["groups"] if group["labels"] == labels)
    return {v["variant"]: v for v in group["variants"]}


def list_scores_by_labels(result: Mapping[str, Any]) -> Table:
    """List the test scores of each variant, a column a number of labels; the best of a column is bold."""
    groups = result["groups"]
    columns = [{v["variant"]: v["scores"] for v in group["variants"]} for group in groups]
    best = [_find_best(column, [sum(scores) / len(scores) for scores in column.values()], max) for column in columns]
    rows = [
        make_entries(
            [v["variant"], v["role"], *(format_scores(column[v["variant"]]) for column in columns)],
            [index + 2 for index, names in enumerate(best) if v["variant"] in names],
        )
        for v in groups[0]["variants"]
    ]
    if any(group["teacher_head"] is not None for group in groups):
        rows.append(make_entries([HEAD, "ceiling", *(format_number(group["teacher_head"]) for group in groups)]))
    spread = " ± standard deviation" if len(result["seeds"]) > 1 else ""
    caption = f"Test {result['metric']}: mean{spread} over {count_seeds(result['seeds'])}; the best student is bold."
    heads = ("variant", "role", *(name_labels(result["wording"], group["labels"]).capitalize() for group in groups))
    return Table(caption, heads, tuple(rows), texts=2)


def _find_best(names: Iterable[str], values: Sequence[float | None], choose: Any) -> set[str]:
    """Find the names whose value is the best as far as three digits show; none where there are no values."""
    shown = {name: round(value, 3) for name, value in zip(names, values, strict=True) if value is not None}
    return {name for name, value in shown.items() if value == choose(shown.values())}


def list_differences(result: Mapping[str, Any]) -> list[Table]:
    """List by how much each teacher variant is better than each of its rivals, a table each."""
    tables = []
    for teacher in result["groups"][0]["against_rivals"]:
        first = result["groups"][0]
        base = next(v["variant"] for v in first["variants"] if v["role"] == "undistilled")
        rows = []
        for name in (base, *first["against_rivals"][teacher]):
            found = [
                {base: each["against_undistilled"][teacher], **each["against_rivals"][teacher]}[name]
                for each in result["groups"]
            ]
            rows.append(make_entries([name, *(f"{format_interval(d, '+')}, {say_p(d['p'])}" for d in found)]))
        caption = (
            f"By how much {teacher} is better than each of its rivals, in {result['metric']}: mean over "
            f"{count_seeds(result['seeds'])}, 95% interval and one-sided p, not corrected for the number of tests."
        )
        heads = (
            "variant",
            *(name_labels(result["wording"], group["labels"]).capitalize() for group in result["groups"]),
        )
        tables.append(Table(caption, heads, tuple(rows)))
    return tables


def list_scores(result: Mapping[str, Any], group: Mapping[str, Any]) -> Table:
    """List all scores with one number of labels; the best test score and the best calibration are bold."""
    variants = group["variants"]
    names = [v["variant"] for v in variants]
    best = {2: _find_best(names, [v["score"] for v in variants], max)}
    for index, key in enumerate(CALIBRATION):
        best[7 + index] = _find_best(names, [(v["calibration"] or {}).get(key) for v in variants], min)
    rows = [
        make_entries(
            [
                *(v["variant"], v["role"], format_scores(v["scores"])),
                " ".join(f"{score:.3f}" for score in v["scores"]),
                format_scores(v["validation_scores"]),
                ", ".join(f"{name} {value}" for name, value in v["choice"].items()),
                format_number(v["aligner_validation"]),
                *(format_number((v["calibration"] or {}).get(key)) for key in CALIBRATION),
            ],
            [column for column, found in best.items() if v["variant"] in found],
        )
        for v in variants
    ]
    if group["teacher_head"] is not None:
        rows.append(make_entries([HEAD, "ceiling", format_number(group["teacher_head"]), *[""] * 7]))
    calibrated = ", NLL, Brier score and ECE" if any(v["calibration"] for v in variants) else ""
    heads = ("variant", "role", "test", "by seed", "validation", "chosen", "aligner", "NLL", "Brier", "ECE")
    caption = (
        f"{name_labels(result['wording'], group['labels']).capitalize()}: {result['metric']}, mean and standard "
        f"deviation over {count_seeds(result['seeds'])}. Bold: the best test score{calibrated} of a student."
    )
    return drop_empty(Table(caption, heads, tuple(rows), texts=2))


def list_measures(result: Mapping[str, Any], group: Mapping[str, Any]) -> Table | None:
    """List what else was measured of the test rows; None where nothing was."""
    if not group["measures"]:
        return None
    rows = tuple(
        make_entries([line["measure"], line["variant"], format_interval(line), format_interval(line["against"], "+")])
        for line in group["measures"]
    )
    caption = (
        f"{name_labels(result['wording'], group['labels']).capitalize()}: what else the test rows say, with 95% "
        "intervals. It decides nothing."
    )
    return Table(caption, ("measure", "variant", "mean", f"against {result['wording']['undistilled']}"), rows, texts=2)


def list_confusions(result: Mapping[str, Any]) -> list[Table]:
    """List what was said of each label with the most labels, a table for each variant that is no grey control."""
    shown, _ = list_coloured(result, "confusion")
    amount = name_labels(result["wording"], result["groups"][-1]["labels"])
    return [
        Table(
            f"{v['variant']}, {amount}: rows of a label (line) that were called another (column), mean over "
            f"{count_seeds(result['seeds'])}.",
            ("label", *result["labels"]),
            tuple(
                make_entries([name, *(f"{count:.0f}" for count in counts)])
                for name, counts in zip(result["labels"], v["confusion"], strict=True)
            ),
        )
        for v in shown
    ]
