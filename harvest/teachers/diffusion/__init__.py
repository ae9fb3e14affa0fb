"""The `diffusion` teacher: a text-to-image model of diffusers paints each text; its vector is made of what it painted.

teacher.py   the protocol: requests in, replies out
config.py    what the user chooses
prompts.py   what is painted of an example
families.py  the kinds of pipelines, and what differs between them
files.py     what a pipeline's files tell before its weights are loaded
painter.py   the pipeline, loaded: pictures and latents of prompts
"""

from harvest.teachers.diffusion.config import DiffusionConfig, DiffusionVector, LongPrompts
from harvest.teachers.diffusion.teacher import DiffusionTeacher

__all__ = ["DiffusionConfig", "DiffusionTeacher", "DiffusionVector", "LongPrompts"]
