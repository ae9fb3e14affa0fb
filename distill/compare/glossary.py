"""What the words of a comparison's page mean: of its variants, roles and verdicts those that occur."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from distill.compare.figures import HEAD
from distill.controls import CONTROLS

_ROLES = {
    "undistilled": "a student without the teacher",
    "control": "had all but the teacher's knowledge: a gain that it has too is none of the teacher's",
    "baseline": "had the teacher's answers, and a simpler use of them",
    "teacher": "learns from the teacher's answers: what is judged",
    "ceiling": "no student: what the teacher's answers themselves are worth",
}
_VERDICTS = {
    "helps": "better than {undistilled}, than every control, and than every baseline",
    "matched": "better than {undistilled} and than every control, but not shown to be better than every baseline: the "
    "answers are of use, and a simpler use of them may be as good",
    "explained": "better than {undistilled}, but not shown to be better than every control",
    "uncontrolled": "better than {undistilled}, with no control that could tell why",
    "none": "not shown to differ from {undistilled}",
    "hurts": "worse than {undistilled}",
}
_MEASURES = {
    "NLL": "negative log-likelihood of the label in nats; less is better",
    "Brier": "squared error of the probabilities, 0 to 2; less is better",
    "ECE": "expected calibration error, how far confidence is from the share that is right; less is better",
}


def write_glossary(result: Mapping[str, Any]) -> str:
    """Write a definition list of the words that occur."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in _list_words(result))
    return f'<dl class="glossary">{items}</dl>'


def _list_words(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    undistilled = result["wording"]["undistilled"]
    variants = result["groups"][-1]["variants"]
    for variant in variants:
        yield variant["variant"], f"{variant['role']}: {describe_variant(variant, undistilled)}"
    heads = any(group["teacher_head"] is not None for group in result["groups"])
    if heads:
        yield (
            HEAD,
            "ceiling: a classifier fitted to the teacher's answers on the same labels, which reads those answers",
        )
    roles = {variant["role"] for variant in variants} | ({"ceiling"} if heads else set())
    yield from ((f"role {role}", text) for role, text in _ROLES.items() if role in roles)
    outcomes = {verdict["outcome"] for verdict in result["verdicts"]}
    for outcome, text in _VERDICTS.items():
        if outcome in outcomes:
            yield f"verdict {outcome}", text.format(undistilled=undistilled)
    if any(variant["calibration"] is not None for variant in variants):
        yield from _MEASURES.items()


def describe_variant(variant: Mapping[str, Any], undistilled: str) -> str:
    """Describe what a variant is: its control, or what it learns from the teacher."""
    config, role = variant["config"], variant["role"]
    control = config.get("control", "none")
    if role == "undistilled":
        return f"{undistilled}, on labelled rows alone; its batches see them again and again"
    if control != "none":
        return CONTROLS[control].summary
    if role == "control":
        return "trained without the teacher, by options that stand below Configuration"
    preset = f" by the preset {config['preset']}" if config.get("preset") else ""
    return f"learns from the teacher's answers{preset}; its options stand below Configuration"
