"""The `vllm` teacher: any vision-language model that vLLM runs, on this machine.

teacher.py   the protocol: requests in, replies out
config.py    what the user chooses
process.py   the process that holds vLLM's engine, and nothing else
scores.py    the scores of given texts, out of what vLLM says of a prompt
words.py     the scores of whole label words, a request for each beginning
messages.py  what is said between the two
engine.py    this side of that process: it is started, watched and ended
"""

from harvest.teachers.vllm.config import VllmConfig
from harvest.teachers.vllm.teacher import VllmTeacher

__all__ = ["VllmConfig", "VllmTeacher"]
