"""The `speech` teacher, and `listener`, a case of it: texts are spoken and heard, and what is heard is the vector.

teacher.py    the protocol: requests in, replies out
config.py     what the user chooses
speakers.py   text -> sound: SpeechT5 or Piper
listeners.py  sound -> vector, and words: Wav2Vec2 or Whisper
sounds.py     sampling rates, windows and files of sound; no model

Which speaker and which listener it is, the model says that the user names.
"""

from harvest.teachers.speech.config import SpeechConfig, SpeechVector
from harvest.teachers.speech.teacher import SpeechTeacher

__all__ = ["SpeechConfig", "SpeechTeacher", "SpeechVector"]
