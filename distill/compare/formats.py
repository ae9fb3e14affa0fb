"""Numbers of a comparison as text, alike at the terminal and on the page."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

_LEVELS = (0.025, 0.05)  # one-sided and two-sided


def format_interval(found: Mapping[str, float] | None, sign: str = "") -> str:
    """Write a mean and its interval; nothing for None. With the sign + a mean has one always."""
    if found is None:
        return ""
    return f"{found['mean']:{sign}.3f} ({format_range(found, sign)})"


def format_range(found: Mapping[str, float], sign: str = "+") -> str:
    """Write the ends of an interval."""
    return f"{found['low']:{sign}.3f} to {found['high']:{sign}.3f}"


def format_scores(scores: Sequence[float]) -> str:
    """Write the mean, and the standard deviation over seeds where there are several."""
    return f"{mean(scores):.3f}" + (f" ± {stdev(scores):.3f}" if len(scores) > 1 else "")


def format_p(p: float) -> str:
    """Write a p-value as papers do: three digits without the zero before them, <.001 below those, >.999 above.

    Where they are those of a level that claims are made at, there are as many more as tell the side.
    """
    if p < 0.001:
        return "<.001"
    if p > 0.999:
        return ">.999"
    digits = 3
    while p not in _LEVELS and float(f"{p:.{digits}f}") in _LEVELS:
        digits += 1
    return f"{p:.{digits}f}".removeprefix("0")


def say_p(p: float) -> str:
    """Write "p = .012", or "p < .001"."""
    text = format_p(p)
    return f"p {text[0]} {text[1:]}" if text[0] in "<>" else f"p = {text}"


def format_number(value: float | None) -> str:
    """Write a number with three digits; nothing for None."""
    return "" if value is None else f"{value:.3f}"
