"""What the teachers that paint share, pictures (`diffusion`) and clips (`video`): pipelines of diffusers.

config.py    what a user says of any of them
families.py  what differs between pipelines that their files do not tell; pictures.py and clips.py list those known
files.py     what a pipeline's files tell before its weights are loaded
prompts.py   what is painted of an example
pipeline.py  a pipeline, loaded: prompts encoded, and called with each row's own noise
teacher.py   the protocol: requests in, replies out
"""
