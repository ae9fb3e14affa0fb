"""The dialects of chat completions, each in one small file, and how one is recognised."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from harvest.chat.dialects.anthropic import ANTHROPIC
from harvest.chat.dialects.azure import AZURE
from harvest.chat.dialects.base import BEARER, Dialect, Scoring
from harvest.chat.dialects.bedrock import BEDROCK
from harvest.chat.dialects.deepseek import DEEPSEEK
from harvest.chat.dialects.fireworks import FIREWORKS
from harvest.chat.dialects.gemini import GEMINI, VERTEX
from harvest.chat.dialects.groq import GROQ
from harvest.chat.dialects.llamacpp import LLAMACPP
from harvest.chat.dialects.lmstudio import LMSTUDIO
from harvest.chat.dialects.mistral import MISTRAL
from harvest.chat.dialects.ollama import OLLAMA, OLLAMA_CHAT
from harvest.chat.dialects.openai import COMPATIBLE, OPENAI
from harvest.chat.dialects.openrouter import OPENROUTER
from harvest.chat.dialects.responses import RESPONSES
from harvest.chat.dialects.sglang import SGLANG
from harvest.chat.dialects.together import TOGETHER
from harvest.chat.dialects.vllm import VLLM

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        *(OPENAI, RESPONSES, AZURE, ANTHROPIC, GEMINI, VERTEX, BEDROCK, MISTRAL, DEEPSEEK, GROQ, FIREWORKS, TOGETHER),
        *(OPENROUTER, VLLM, SGLANG, LLAMACPP, OLLAMA, OLLAMA_CHAT, LMSTUDIO, COMPATIBLE),
    )
}

__all__ = ["BEARER", "COMPATIBLE", "DIALECTS", "Dialect", "Scoring", "recognise_host", "recognise_models"]


def recognise_host(base_url: str) -> Dialect | None:
    """The dialect of a well-known host, None for any other."""
    host = urlsplit(base_url).hostname or ""
    for dialect in DIALECTS.values():
        if any(_is_host(host, known) for known in dialect.hosts):
            return dialect
    return None


def _is_host(host: str, known: str) -> bool:
    """Whether `host` is `known`, or below it; a * in that stands for letters, digits and hyphens."""
    pattern = re.escape(known).replace(r"\*", "[a-z0-9-]+")
    return re.fullmatch(rf"(?:.+\.)?{pattern}", host) is not None


def recognise_models(models: Any) -> Dialect:
    """The dialect of a server by its answer to GET /models, which several sign as `owned_by`."""
    entries = models.get("data") if isinstance(models, dict) else None
    owners = {entry.get("owned_by") for entry in entries or () if isinstance(entry, dict)}
    signed = (dialect for dialect in DIALECTS.values() if any(owner in owners for owner in dialect.owners))
    return next(signed, COMPATIBLE)
