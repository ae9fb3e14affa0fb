"""`transformers`: any language or vision-language model of transformers, in this process, where vLLM is too much.

config.py    what the user chooses
model.py     the model: loaded, and asked about a batch of prompts
prompts.py   requests as what the model takes: messages and pages as tokens and pictures
labels.py    the scores of label words, from the prompt's cache
saying.py    replies token by token: chosen, scored, ended
scores.py    the scores of given texts
teacher.py   the protocol: requests in, replies out
"""

from harvest.teachers.transformers.config import TransformersConfig
from harvest.teachers.transformers.teacher import TransformersTeacher

__all__ = ["TransformersConfig", "TransformersTeacher"]
