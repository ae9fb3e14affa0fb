"""`transformers`: any language or vision-language model of transformers, in this process, where vLLM is too much.

teacher.py       the protocol: requests in, replies out
config.py        what the user chooses
prompts.py       requests as what the model takes: messages and pages as tokens and pictures
model.py         the model: loaded, and asked about a batch of prompts
quantization.py  its weights in fewer bits
asking.py        a batch of prompts to answers
labels.py        the scores of label words, from the prompt's cache
saying.py        replies token by token: chosen, scored, ended
scores.py        the scores of given texts
"""

from harvest.teachers.transformers.config import TransformersConfig
from harvest.teachers.transformers.teacher import TransformersTeacher

__all__ = ["TransformersConfig", "TransformersTeacher"]
