"""What a comparison came to, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from distill.compare.statistics import FEWEST_SEEDS
from distill.compare.verdict import Rival, Verdict
from distill.config import TEXT_KINDS


@dataclass(frozen=True, slots=True)
class Wording:
    """What a method's runs are called: the training of an `undistilled` student, and `everything` it is trained on."""

    undistilled: str
    everything: str


def choose_wording(kind: str) -> Wording:
    """Choose the words for tasks of a kind: a student that writes has no labels, and learns the task's own texts."""
    if kind in TEXT_KINDS:
        return Wording("the task's own texts alone", "all rows")
    return Wording("plain fine-tuning", "all labels")


def name_labels(wording: Mapping[str, str], labels: int | None) -> str:
    """Name a number of labels; `wording` is a Wording's fields."""
    return wording["everything"] if labels is None else f"{labels:,} labels"


def count_seeds(seeds: Sequence[int]) -> str:
    """Say how many seeds there are."""
    return f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"


def say_frozen(layers: int) -> str:
    """Say which part of a student stayed as it came."""
    return f"embeddings and first {'layer' if layers == 1 else f'{layers} layers'} frozen"


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
    "matched": "beat {undistilled} and every control, but are not shown to beat every simpler use of them",
    "explained": "beat {undistilled}, but are not shown to beat every control",
    "uncontrolled": "may help, but no control was trained that could tell why",
    "none": "are not shown to have an effect",
    "hurts": "do harm",
}


def say_verdicts(verdicts: Sequence[Verdict], teacher: str, metric: str, wording: Wording) -> list[str]:
    """Put the verdicts in words, one sentence a teacher variant and number of labels."""
    sentences = []
    for verdict in verdicts:
        gain = verdict.undistilled
        amount = name_labels(asdict(wording), verdict.labels)
        interval = f"95% interval {gain.low:+.3f} to {gain.high:+.3f}"
        against = [f"{gain.mean:+.3f} {metric} against {wording.undistilled} ({interval})"]
        for kind, rival in (("control", verdict.control), ("baseline", verdict.baseline)):
            if rival is not None:
                against.append(f"{_say_difference(rival)} against {rival.variant}, the {kind} that is hardest to beat")
        subject = f"With {amount}, {teacher}'s answers ({verdict.variant})"
        said = _SAID[verdict.outcome].format(undistilled=wording.undistilled)
        sentences.append(f"{subject} {said}: {'; '.join(against)}.")
    return sentences


def _say_difference(rival: Rival) -> str:
    found = rival.difference
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
