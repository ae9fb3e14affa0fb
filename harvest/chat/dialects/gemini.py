"""Gemini's compatible route. Source: ai.google.dev, "OpenAI compatibility".

Few models give log-probabilities there, and those that do not answer 400. Error bodies are wrapped in a list.
"""

from harvest.chat.dialects.base import Dialect

GEMINI = Dialect("gemini", hosts=("generativelanguage.googleapis.com",), key_variable="GEMINI_API_KEY")
