"""Which teacher to buy, in sentences: what the compared rows show, and what they do not."""

from collections.abc import Mapping, Sequence

from harvest.choosing.measures import CascadeEstimate, Measures, Pair

LEVEL = 0.05


def advise(
    measures: Mapping[str, Measures],
    pairs: Sequence[Pair],
    costs: Mapping[str, float | None],
    cascades: Sequence[CascadeEstimate],
) -> tuple[str | None, list[str]]:
    """Choose a teacher, None where nothing tells which, and say why. `costs` are those of the whole task.

    It is the cheapest of those that no other is shown to be better than.
    """
    judged = {name: one for name, one in measures.items() if one.share is not None}
    if len(judged) < len(measures):
        return None, [
            "No row's right answer is known here, so nothing says which teacher is right: name a label column, or "
            "label some rows. How often they agree is no measure of that."
        ]
    best = max(judged, key=lambda name: judged[name].right)
    if not judged[best].right:
        return None, ["None of the teachers is right about any row: look at their answers with harvest view."]
    equal = [name for name in judged if name == best or not _is_better(best, name, pairs)]
    if len(equal) == 1:
        return best, [_praise(best, judged, pairs, costs), *_mention(cascades, best, judged, costs)]
    unpriced = [name for name in equal if costs[name] is None]
    doubt = _doubt(equal, best, judged, pairs)
    if unpriced:
        return None, [doubt, f"The price of {_join(unpriced)} is not known, so none can be called the cheaper one."]
    order = sorted(equal, key=lambda name: (costs[name] or 0.0, -judged[name].right))
    chosen = order[0]
    dearer = [name for name in order if costs[name] != costs[chosen]]
    if not dearer:
        return chosen, [doubt, f"They cost the same: take {chosen}, of which no fewer answers were right here."]
    price = f"Take the cheaper one, {chosen}: {_dollars(costs[chosen])} for the whole task, and not " + _join(
        [f"{_dollars(costs[name])} ({name})" for name in dearer], "or"
    )
    return chosen, [doubt, f"{price}.", *_mention(cascades, chosen, judged, costs)]


def _is_better(best: str, other: str, pairs: Sequence[Pair]) -> bool:
    pair = _find_pair(best, other, pairs)
    return pair.p < LEVEL and (pair.only_first > pair.only_second) == (pair.first == best)


def _find_pair(one: str, other: str, pairs: Sequence[Pair]) -> Pair:
    return next(pair for pair in pairs if {pair.first, pair.second} == {one, other})


def _praise(best: str, judged: Mapping[str, Measures], pairs: Sequence[Pair], costs: Mapping[str, float | None]) -> str:
    others = [name for name in judged if name != best]
    second = max(others, key=lambda name: judged[name].right)
    worst = max(_find_pair(best, name, pairs).p for name in others)
    said = (
        f"Take {best}: it is right about {judged[best].share:.1%} of the {judged[best].known:,} rows, and {second} "
        f"about {judged[second].share:.1%}; that is no chance (p {_show_p(worst)}, McNemar)."
    )
    cost, other = costs[best], costs[second]
    if cost is None:
        return f"{said} What it costs nobody knows."
    if other is not None and other < cost:
        return f"{said} It costs {_dollars(cost)} for the whole task, {second} {_dollars(other)}."
    return f"{said} It costs {_dollars(cost)} for the whole task."


def _doubt(equal: Sequence[str], best: str, judged: Mapping[str, Measures], pairs: Sequence[Pair]) -> str:
    shares = ", ".join(f"{name} {judged[name].share:.1%}" for name in equal)
    others = [_find_pair(best, name, pairs) for name in equal if name != best]
    lowest = min(others, key=lambda pair: pair.p)
    said = (
        f"These {judged[best].known:,} rows do not tell {_join(equal)} apart ({shares} right; p {_show_p(lowest.p)}, "
        "McNemar)"
    )
    if lowest.rows_needed is None:
        return f"{said}."
    return f"{said}: if the difference seen is real, about {lowest.rows_needed:,} rows would show it (--limit)."


def _mention(
    cascades: Sequence[CascadeEstimate],
    chosen: str,
    judged: Mapping[str, Measures],
    costs: Mapping[str, float | None],
) -> list[str]:
    """Mention the best cascade that costs less than the choice and may be as right, or is surely right more often."""
    share, cost = judged[chosen].share or 0.0, costs[chosen]
    useful = [
        one
        for one in cascades
        if one.cost_usd is not None
        and cost is not None
        and ((one.cost_usd < cost and one.high >= share) or one.low > share)
        and one.cost_usd > 0
    ]
    if not useful:
        return []
    one = max(useful, key=lambda one: (one.share, -(one.cost_usd or 0.0)))
    return [
        f"A cascade, {one.cheap} first and {one.dear} for the {one.escalated:.0%} of rows that it is unsure of, would "
        f"be right about {one.share:.1%} ({one.low:.1%} to {one.high:.1%}) for {_dollars(one.cost_usd)}: --escalate."
    ]


def _join(names: Sequence[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _dollars(cost: float | None) -> str:
    assert cost is not None
    return f"${cost:,.2f}" if cost >= 0.1 or not cost else f"${cost:.2g}"


def _show_p(p: float) -> str:
    return f"= {p:.2g}" if p >= 0.001 else "< 0.001"
