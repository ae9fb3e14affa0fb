"""What the rows that are left will take: tokens, dollars, bytes and minutes, before they are asked.

Without a kept row it is an estimate from the texts alone. Where rows are kept, each quantity is the estimate times the
ratio of what those rows took to what was estimated for them; the spread is a 95 % range, from how much that ratio
differs from row to row (ratio estimator; Cochran, Sampling Techniques, chapter 6), for rows like those that are kept.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np

from harvest.asking.plan import Action, Plan
from harvest.teachers.base import Deferred, Estimate, Teacher, find_memory, find_requests_a_row, sees_pictures
from shared.errors import DataError
from shared.example import Example
from shared.schema import Status
from shared.shards import Manifest, iterate_pieces, list_row_groups, read_row_group

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

SHARDS_READ = 8  # spread over all; of each, the first rows
ROWS_READ = 250
LEAST_ROWS_FOR_BYTES = 1000  # a shard of few rows is mostly overhead
LEAST_PAIRS = 2  # a spread needs them
_EXAMPLE = ("sample_id", "text", "text_pair", "choices")
_BILL = ("prompt_tokens", "completion_tokens", "cost_usd", "latency_ms")
_COLUMNS = (*_EXAMPLE, *_BILL, "status", "attempts")
_ANSWERED = frozenset({Status.OK, Status.TRUNCATED, Status.REFUSED, Status.UNPARSABLE})


@dataclass(frozen=True, slots=True)
class Amount:
    """A quantity: the likely value and, where it was measured, the ends of its range."""

    likely: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the rows that are left to ask will take.

    `image_tokens` are those of the pictures alone, not part of `input_tokens`. `cost_usd` is None where no price is
    known, and `price` says which it is. `minutes` is None where nothing is known of the pace; for an endpoint it is the
    least under the ceilings that were set. `deferred` is for a teacher whose answers come hours later, for a share of
    the price. `measured_rows` is how many kept rows the figures are from: 0 is an estimate from the texts alone. The
    minutes are those of `replicas` side by side, and `memory` is what each takes, None where that is not known.
    `requests` are the rows that are asked, each of which takes about `requests_a_row` requests.
    `bytes_measured` is whether bytes a row are those of the folder's own shards.
    """

    requests: int
    input_tokens: Amount
    image_tokens: Amount
    output_tokens: Amount
    cost_usd: Amount | None
    price: str | None
    bytes: Amount
    bytes_measured: bool
    minutes: float | None
    measured_rows: int
    deferred: Deferred | None = None
    replicas: int = 1
    requests_a_row: float = 1.0
    memory: str | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """What kept rows took, beside what was estimated for them: one entry a row.

    NaN where a reply told nothing. `bytes_a_row` is None where there are too few rows.
    """

    prompt_tokens: Floats
    completion_tokens: Floats
    cost_usd: Floats
    latency_ms: Floats
    guessed_prompt_tokens: Floats
    guessed_cost_usd: Floats
    bytes_a_row: float | None = None

    def __len__(self) -> int:
        return len(self.cost_usd)


def measure(folder: Path, manifest: Manifest, teacher: Teacher) -> Measurement:
    """What a sample of the rows that `folder` keeps took. Reads a few row groups, whatever the size of the folder."""
    rows = []
    for row in _iterate_rows(folder, manifest):
        if row["status"] in _ANSWERED and row["attempts"]:
            choices = row["choices"]
            example = Example(
                row["sample_id"], row["text"], row["text_pair"], None if choices is None else tuple(choices)
            )
            try:
                guess = teacher.estimate(example)
            except DataError:
                continue
            share = _find_usual_share(teacher, row["latency_ms"])
            bill = {**row, "cost_usd": None if row["cost_usd"] is None or share is None else row["cost_usd"] * share}
            rows.append((*(bill[name] for name in _BILL), guess.input_tokens + guess.image_tokens, guess.cost_usd))
    prompt, completion, cost, latency, guessed_prompt, guessed_cost = (
        np.array(rows, np.float64).reshape(-1, len(_BILL) + 2).T
    )
    sealed = sum(shard.rows for shard in manifest.shards)
    size = sum(shard.bytes for shard in manifest.shards)
    bytes_a_row = size / sealed if sealed >= LEAST_ROWS_FOR_BYTES else None
    return Measurement(prompt, completion, cost, latency, guessed_prompt, guessed_cost, bytes_a_row)


def _find_usual_share(teacher: Teacher, latency_ms: float | None) -> float | None:
    """What the cost of a kept row is to be multiplied by for this teacher's route; None where nobody knows.

    A row that came at once, and has a latency, cost the usual price; one of a job has none, and cost its share.
    """
    deferred = None if teacher.remote is None else teacher.remote.deferred
    if deferred is None:
        return 1.0 if teacher.remote is None or latency_ms is not None else None
    return 1.0 if latency_ms is None else deferred.share


def _iterate_rows(folder: Path, manifest: Manifest) -> Iterator[Mapping[str, Any]]:
    shards = manifest.shards
    if not shards:
        for piece in iterate_pieces(folder, manifest, _COLUMNS):
            yield from piece.table.select(_COLUMNS).slice(0, ROWS_READ).to_pylist()
    for at in sorted(set(np.linspace(0, len(shards) - 1, min(len(shards), SHARDS_READ)).round().astype(int).tolist())):
        groups = list_row_groups(folder, manifest, shards[at].split)
        group = next(group for group in groups if group.path == folder / shards[at].path)
        yield from read_row_group(group, _COLUMNS).slice(0, ROWS_READ).to_pylist()


def make_forecast(plan: Plan, teacher: Teacher, measured: Measurement | None, replicas: int = 1) -> Forecast:
    """What the rows that `plan` asks will take. `plan` was made with its estimate.

    `replicas` of the teacher answer side by side, each at the pace that was measured.
    """
    assert plan.estimate is not None
    guess: Estimate = plan.estimate
    requests = plan.count(Action.ASK)
    guessed_prompt = guess.input_tokens + guess.image_tokens
    prompt, output = Amount(guessed_prompt), Amount(guess.output_tokens)
    cost = None if guess.cost_usd is None else Amount(guess.cost_usd)
    if measured is not None and requests and sees_pictures(teacher):
        measured = _measure_by_row(
            measured, guessed_prompt / requests, None if cost is None else cost.likely / requests
        )
    size, seconds_a_row, rows = Amount(guess.bytes), None, 0
    if measured is not None and len(measured):
        rows = len(measured)
        one = np.ones(rows)
        prompt = _extrapolate(prompt, guessed_prompt, measured.guessed_prompt_tokens, measured.prompt_tokens, requests)
        output = _extrapolate(output, requests, one, measured.completion_tokens, requests)
        if cost is not None:
            cost = _extrapolate(cost, cost.likely, measured.guessed_cost_usd, measured.cost_usd, requests)
        elif (measured.cost_usd > 0).any():  # the endpoint says itself what it bills
            cost = _extrapolate(Amount(0.0), requests, one, measured.cost_usd, requests)
        if np.isfinite(measured.latency_ms).any():
            seconds_a_row = float(np.nanmean(measured.latency_ms)) / 1000
        if measured.bytes_a_row is not None:
            size = Amount(measured.bytes_a_row * (requests + plan.count(Action.COPY)))
    image_share = guess.image_tokens / guessed_prompt if guessed_prompt else 0.0
    remote, a_row = teacher.remote, find_requests_a_row(teacher)
    if not requests:
        seconds: float | None = 0.0
    elif remote is not None:
        latency_ms = None if seconds_a_row is None else seconds_a_row * 1000 / a_row
        seconds = remote.bound_seconds(requests * a_row, prompt.likely + output.likely, latency_ms)
    else:
        seconds = None if seconds_a_row is None else seconds_a_row * requests / replicas
    return Forecast(
        requests=requests,
        input_tokens=_scale(prompt, 1 - image_share),
        image_tokens=_scale(prompt, image_share),
        output_tokens=output,
        cost_usd=cost,
        price=None if remote is None else remote.describe_price(),
        bytes=size,
        bytes_measured=measured is not None and measured.bytes_a_row is not None,
        minutes=None if seconds is None else seconds / 60,
        measured_rows=rows,
        deferred=None if remote is None else remote.deferred,
        replicas=replicas,
        requests_a_row=a_row,
        memory=find_memory(teacher) if requests else None,
    )


def _measure_by_row(measured: Measurement, prompt_tokens: float, cost_usd: float | None) -> Measurement:
    """The same beside what is guessed of the average row: kept rows do not tell the sizes of their pictures."""
    cost = math.nan if cost_usd is None else cost_usd
    ones = np.ones(len(measured))
    return replace(measured, guessed_prompt_tokens=prompt_tokens * ones, guessed_cost_usd=cost * ones)


def describe_forecast(forecast: Forecast) -> list[str]:
    """The forecast as lines for a person."""
    if not forecast.requests:
        return ["nothing is left to ask: a run would ask 0 rows and cost nothing"]
    measured = forecast.measured_rows
    spread = ", in brackets the 95 % range for rows like those" if measured >= LEAST_PAIRS else ""
    basis = (
        f"measured on {measured:,} rows that are kept{spread}"
        if measured
        else f"estimated from the texts alone{'' if forecast.deferred else '; --probe 5 asks five rows and measures'}"
    )
    cost = forecast.cost_usd
    dollars = "unknown: no price is known (--price-in, --price-out)" if cost is None else _show(cost, "${:,.4f}")
    if cost is not None and not cost.likely and forecast.price is None:
        dollars = "none: this teacher costs nothing"
    if cost is not None and forecast.price is not None:
        dollars += f" at {forecast.price}"
    if cost is not None and forecast.deferred is not None:
        dollars += f"; without --batch {_show(_scale(cost, 1 / forecast.deferred.share), '${:,.4f}')}"
    on_disk = "measured" if forecast.bytes_measured else "estimated"
    if forecast.deferred is not None:
        minutes = f"up to {forecast.deferred.hours:g} hours a job, often less; a run may be left and taken up again"
    elif forecast.minutes is None:
        minutes = "unknown before rows were asked: --probe 5 measures"
    else:
        minutes = (
            f"about {forecast.minutes:,.1f}, if the pace holds" if measured else f"at least {forecast.minutes:,.1f}"
        )
        if forecast.replicas > 1:
            minutes += f"; {forecast.replicas} replicas side by side, each at that of the rows that are kept"
    return [
        f"what {forecast.requests:,} rows will take, {basis}:",
        *_describe_requests(forecast),
        f"  input tokens   {_show(forecast.input_tokens)}",
        f"  image tokens   {_show(forecast.image_tokens)}",
        f"  output tokens  {_show(forecast.output_tokens)}",
        f"  dollars        {dollars}",
        f"  on disk        {forecast.bytes.likely / 1e6:,.1f} MB ({on_disk})",
        f"  {'wait   ' if forecast.deferred is not None else 'minutes'}        {minutes}",
        *([] if forecast.memory is None else [f"  memory         {forecast.memory}"]),
    ]


def _describe_requests(forecast: Forecast) -> list[str]:
    a_row = forecast.requests_a_row
    return [] if a_row == 1 else [f"  requests       about {forecast.requests * a_row:,.0f}, {a_row:,.0f} a row"]


def _show(amount: Amount, form: str = "{:,.0f}") -> str:
    text = form.format(amount.likely)
    if amount.low is None or amount.high is None or not amount.likely:
        return text
    return f"{text} ({form.format(amount.low)} to {form.format(amount.high)})"


def _extrapolate(guess: Amount, total: float, guessed: Floats, measured: Floats, rows: int) -> Amount:
    """`total` times the ratio of `measured` to `guessed`; `guess` where nothing was measured.

    `rows` is how many rows the total is of: their own differences are part of the range.
    """
    told = np.isfinite(measured) & np.isfinite(guessed)
    x, y = guessed[told], measured[told]
    if not len(x) or not x.sum() or not rows:
        return guess
    ratio = y.sum() / x.sum()
    likely = float(total * ratio)
    n = len(x)
    if n < LEAST_PAIRS:
        return Amount(likely)
    deviation = float(np.sqrt(((y - ratio * x) ** 2).sum() / (n - 1)))
    # Of the mean over `rows` rows about the mean over the n that were measured, then for all of them.
    half = student_t(n - 1) * deviation * float(np.sqrt(1 / n + 1 / rows)) * (total / float(x.mean()))
    return Amount(likely, max(0.0, likely - half), likely + half)


def _scale(amount: Amount, share: float) -> Amount:
    ends = [None if end is None else end * share for end in (amount.low, amount.high)]
    return Amount(amount.likely * share, *ends)


def student_t(degrees: int) -> float:
    """The 97.5 % quantile of Student's t.

    Exact for one and two degrees of freedom; beyond them the expansion of Abramowitz and Stegun, 26.7.5, off by less
    than 1 %.
    """
    if degrees == 1:
        return 12.7062
    if degrees == 2:
        return 4.3027
    z = NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / degrees**power for power, term in enumerate(terms, 1))
