"""The `video` teacher: a text-to-video model of diffusers makes a clip of each text; its vector is made of that.

teacher.py  what the protocol of harvest.teachers.painting leaves to it
config.py   what the user chooses
files.py    what a pipeline's files tell before its weights are loaded: frames and sizes
painter.py  the pipeline, loaded: frames and latents of prompts
"""

from harvest.teachers.video.config import VideoConfig, VideoVector
from harvest.teachers.video.teacher import VideoTeacher

__all__ = ["VideoConfig", "VideoTeacher", "VideoVector"]
