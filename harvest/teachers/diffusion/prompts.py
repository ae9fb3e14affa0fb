"""What is painted of an example."""

from shared.example import Example


def build_prompt(example: Example) -> str:
    """What is painted: the text fields, one after the other, in lower case (as ARMADA's code does)."""
    fields = [example.text] if example.text_pair is None else [example.text, example.text_pair]
    return " ".join(" ".join(fields).lower().split())
