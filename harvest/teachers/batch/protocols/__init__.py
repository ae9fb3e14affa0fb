"""The batch routes of providers, each in a small file, by the dialect whose chat route goes with it."""

from collections.abc import Mapping

from harvest.teachers.batch.protocols.anthropic import ANTHROPIC
from harvest.teachers.batch.protocols.base import BatchProtocol
from harvest.teachers.batch.protocols.gemini import GEMINI
from harvest.teachers.batch.protocols.openai import OPENAI
from harvest.teachers.batch.protocols.together import TOGETHER

PROTOCOLS: Mapping[str, BatchProtocol] = {
    "openai": OPENAI,
    "anthropic": ANTHROPIC,
    "gemini": GEMINI,
    "together": TOGETHER,
}

__all__ = ["PROTOCOLS", "BatchProtocol"]
