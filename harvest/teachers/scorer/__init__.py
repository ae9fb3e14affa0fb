"""`scorer`: a causal language model that scores texts it is given, token by token, and writes nothing itself."""

from harvest.teachers.scorer.config import ScorerConfig
from harvest.teachers.scorer.teacher import ScorerTeacher

__all__ = ["ScorerConfig", "ScorerTeacher"]
