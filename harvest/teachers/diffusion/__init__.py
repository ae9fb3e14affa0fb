"""The `diffusion` teacher: a text-to-image model of diffusers paints each text; its vector is made of what it painted.

teacher.py  what the protocol of harvest.teachers.painting leaves to it
config.py   what the user chooses
files.py    what a pipeline's files tell before its weights are loaded
painter.py  the pipeline, loaded: pictures and latents of prompts
"""

from harvest.teachers.diffusion.config import DiffusionConfig, DiffusionVector
from harvest.teachers.diffusion.teacher import DiffusionTeacher

__all__ = ["DiffusionConfig", "DiffusionTeacher", "DiffusionVector"]
