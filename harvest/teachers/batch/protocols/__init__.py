"""The batch routes of providers, each in a small file, by the dialect whose chat route goes with it."""

from collections.abc import Mapping

from harvest.teachers.batch.protocols.base import BatchProtocol
from harvest.teachers.batch.protocols.openai import OPENAI

PROTOCOLS: Mapping[str, BatchProtocol] = {"openai": OPENAI}

__all__ = ["PROTOCOLS", "BatchProtocol"]
