"""What a family of pipelines is, and how it is found by the class that a model names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from shared.errors import SourceError


@dataclass(frozen=True, slots=True)
class Family:
    """One family: what differs from others, and the files do not tell.

    `encoded` are the arguments of the pipeline that its `encode_prompt` gives, in order; "" is none. `denoiser` and
    `autoencoder` are the names of those parts. `half` is the number type of 16 bits that its weights were made for.
    `exact` are the parts whose weights stay in 32 bits. `guidance` and `window` (tokens) are used where they are not
    chosen; None: the pipeline's own.
    """

    encoded: tuple[str, ...]
    denoiser: str = "transformer"
    autoencoder: str = "vae"
    half: str = "bfloat16"
    exact: tuple[str, ...] = ()
    guidance: float | None = None
    window: int | None = None


AnyFamily = TypeVar("AnyFamily", bound=Family)

PAIR = ("prompt_embeds", "negative_prompt_embeds")
POOLED = (*PAIR, "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
MASKED = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")


def find_family(
    model: str,
    name: str | None,
    families: Mapping[str, AnyFamily],
    unusable: Mapping[str, str],
    elsewhere: Mapping[str, str],
) -> AnyFamily:
    """The family of the pipeline class `name`, of `families`.

    Raises SourceError, which names `model`, for any that is not known; `unusable` says of some why, and `elsewhere` of
    others what they do, and with which teacher.
    """
    if name is None:
        raise SourceError(f"{model} is no pipeline of diffusers: its model_index.json names no class")
    if name in families:
        return families[name]
    if name in elsewhere:
        raise SourceError(f"{model} is a {name}, which {elsewhere[name]}")
    why = f": {unusable[name]}" if name in unusable else ""
    raise SourceError(f"{model} is a {name}{why}; the pipelines that can be used here are {', '.join(families)}")
