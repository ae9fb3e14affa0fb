"""What a comparison came to, in words."""

from collections.abc import Sequence

from distill.compare.statistics import FEWEST_SEEDS
from distill.compare.verdict import Rival, Verdict


def say_untested(seeds: Sequence[int]) -> str:
    """Say why there is no verdict."""
    listed = ", ".join(map(str, seeds))
    few = f"One seed only ({listed})" if len(seeds) == 1 else f"{len(seeds)} seeds only ({listed})"
    return (
        f"{few}: these are scores, and nothing is tested. So few hardly show how much a score varies from seed to "
        f"seed: whether the teacher helped takes at least {FEWEST_SEEDS}, better 5."
    )


_SAID = {
    "helps": "help",
    "matched": "beat plain fine-tuning and every control, but are not shown to beat every simpler use of them",
    "explained": "beat plain fine-tuning, but are not shown to beat every control",
    "uncontrolled": "may help, but no control was trained that could tell why",
    "none": "are not shown to have an effect",
    "hurts": "do harm",
}


def say_verdicts(verdicts: Sequence[Verdict], teacher: str, metric: str) -> list[str]:
    """Put the verdicts in words, one sentence a teacher variant and number of labels."""
    sentences = []
    for verdict in verdicts:
        gain = verdict.undistilled
        with_labels = "With all labels" if verdict.labels is None else f"With {verdict.labels:,} labels"
        against = [
            f"{gain.mean:+.3f} {metric} against plain fine-tuning (95% interval {gain.low:+.3f} to {gain.high:+.3f})"
        ]
        for kind, rival in (("control", verdict.control), ("baseline", verdict.baseline)):
            if rival is not None:
                against.append(f"{_say_difference(rival)} against {rival.variant}, the {kind} that is hardest to beat")
        subject = f"{with_labels}, {teacher}'s answers ({verdict.variant})"
        sentences.append(f"{subject} {_SAID[verdict.outcome]}: {'; '.join(against)}.")
    return sentences


def _say_difference(rival: Rival) -> str:
    found = rival.difference
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
