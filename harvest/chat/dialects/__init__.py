"""The dialects of chat completions, each in one small file, and how one is recognised."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from harvest.chat.dialects.anthropic import ANTHROPIC
from harvest.chat.dialects.base import Dialect, Scoring
from harvest.chat.dialects.gemini import GEMINI
from harvest.chat.dialects.llamacpp import LLAMACPP
from harvest.chat.dialects.openai import COMPATIBLE, OPENAI
from harvest.chat.dialects.openrouter import OPENROUTER
from harvest.chat.dialects.together import TOGETHER
from harvest.chat.dialects.vllm import VLLM

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect for dialect in (OPENAI, VLLM, LLAMACPP, TOGETHER, OPENROUTER, GEMINI, ANTHROPIC, COMPATIBLE)
}

__all__ = ["DIALECTS", "Dialect", "Scoring", "recognise_host", "recognise_models"]


def recognise_host(base_url: str) -> Dialect | None:
    """The dialect of a well-known host, None for any other."""
    host = urlsplit(base_url).hostname or ""
    for dialect in DIALECTS.values():
        if any(host == known or host.endswith(f".{known}") for known in dialect.hosts):
            return dialect
    return None


def recognise_models(models: Any) -> Dialect:
    """The dialect of a server by its answer to GET /models: vLLM and llama.cpp sign it as `owned_by`."""
    entries = models.get("data") if isinstance(models, dict) else None
    owners = {entry.get("owned_by") for entry in entries or () if isinstance(entry, dict)}
    if "vllm" in owners:
        return VLLM
    if "llamacpp" in owners:
        return LLAMACPP
    return COMPATIBLE
