"""The `endpoint` teacher: any server that speaks OpenAI's chat completions."""

from harvest.chat.dialects import DIALECTS, Scoring
from harvest.teachers.endpoint.budget import Budget
from harvest.teachers.endpoint.config import EndpointConfig
from harvest.teachers.endpoint.teacher import EndpointTeacher

__all__ = ["DIALECTS", "Budget", "EndpointConfig", "EndpointTeacher", "Scoring"]
