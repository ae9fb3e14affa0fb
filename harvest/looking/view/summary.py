"""The totals of a harvest for its page: what is kept, how much of it is right, who was taken for whom, what it cost."""

from typing import Any

import polars as pl

from harvest.looking.agreement import RIGHT, UNJUDGED, Agreement, Count
from harvest.looking.view.rows import Snapshot
from shared.schema import Status
from shared.shards.manifest import REMOVED
from shared.stores.mirror import spell_place

_SHOWN_LABELS = 12
_SPEND_POINTS = 240
_UNREAD = (Status.FAILED, Status.TRUNCATED, Status.UNPARSABLE)


def summarise(snapshot: Snapshot) -> dict[str, Any]:
    """The totals of all rows of a snapshot, as JSON. Costs are in US dollars, times in seconds since 1970."""
    manifest, rows = snapshot.manifest, snapshot.rows
    counts = _count(rows, "status")
    costs = snapshot.frame["cost_usd"]
    superseded = manifest.superseded.cost_usd
    agreement = _count_agreement(snapshot)
    return {
        "task": manifest.task,
        "teacher": manifest.teacher,
        "folder": spell_place(snapshot.folder),
        "source": manifest.source,
        "labels": manifest.labels if manifest.kind == "classification" else (),
        "planned": sum(manifest.planned.values()),
        "rows": rows.height,
        "unsealed": rows.height - int(rows["sealed"].sum()),
        "splits": _count(rows, "split"),
        "statuses": {str(one): counts[one] for one in Status if one in counts},
        "cost_usd": float(costs.sum()) + (superseded or 0.0),
        "unpriced": costs.null_count() + (superseded is None),
        "agreement": None if agreement is None else agreement.describe(),
        "confusion": _count_confusions(snapshot),
        "spend": _add_up_spend(snapshot.frame),
    }


def _count(rows: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(rows.group_by(column, maintain_order=True).len().iter_rows())


def _count_agreement(snapshot: Snapshot) -> Agreement | None:
    """How the answers agree with the right ones: as harvest.looking.agreement.judge_folder counts them."""
    if snapshot.rule is None:
        return None
    known, first = pl.col("verdict") != UNJUDGED, pl.col("draw") == 0
    right = pl.col("verdict") == RIGHT
    counts = (
        snapshot.rows.filter(pl.col("split") != REMOVED)
        .group_by("split", maintain_order=True)
        .agg(
            judged=(known & first).sum(),
            right=(right & first).sum(),
            drawn=known.sum(),
            drawn_right=right.sum(),
            prompts=pl.col("sample_id").filter(known).n_unique(),
            prompts_right=pl.col("sample_id").filter(right).n_unique(),
            refused=(pl.col("status") == Status.REFUSED).sum(),
            unread=pl.col("status").is_in([*map(str, _UNREAD)]).sum(),
        )
    )
    splits = {counted.pop("split"): Count(**counted) for counted in counts.iter_rows(named=True) if counted["drawn"]}
    return Agreement(snapshot.rule, splits) if splits else None


def _count_confusions(snapshot: Snapshot) -> dict[str, Any] | None:
    """Rows by right label and the teacher's label, of first draws that were judged; None where no label is known.

    Of many labels those that are most often confused are shown; `left_out` counts the rows of the others.
    """
    judged = snapshot.rows.filter(
        (pl.col("verdict") != UNJUDGED) & (pl.col("draw") == 0) & (pl.col("split") != REMOVED)
    )
    counted = judged.drop_nulls(["label", "said"]).group_by("label", "said").len()
    if not counted.height:
        return None
    pairs = {(label, said): rows for label, said, rows in counted.iter_rows()}
    labels = list(range(len(snapshot.manifest.labels)))
    if len(labels) > _SHOWN_LABELS:
        wrong = {one: sum(n for pair, n in pairs.items() if one in pair and pair[0] != pair[1]) for one in labels}
        labels = sorted(sorted(labels, key=lambda one: -wrong[one])[:_SHOWN_LABELS])
    table = [[pairs.get((label, said), 0) for said in labels] for label in labels]
    left_out = sum(pairs.values()) - sum(map(sum, table))
    return {"labels": [snapshot.manifest.labels[one] for one in labels], "rows": table, "left_out": left_out}


def _add_up_spend(frame: pl.DataFrame) -> list[tuple[float, float]]:
    """Points (seconds since 1970, dollars that were spent until then), evenly thinned; none where nothing costs."""
    spent = frame.select(
        at=pl.col("asked_at").dt.epoch("ms") / 1000,
        cost=pl.col("cost_usd"),
    )
    spent = spent.drop_nulls().sort("at").with_columns(pl.col("cost").cum_sum())
    if not spent.height or not spent["cost"][-1]:
        return []
    step = max(1.0, (spent["at"][-1] - spent["at"][0]) / _SPEND_POINTS)
    thin = spent.group_by((pl.col("at") / step).floor().alias("bin"), maintain_order=True).last()
    return [(spent["at"][0], 0.0), *thin.select("at", "cost").iter_rows()]
