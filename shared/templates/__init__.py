"""Templates: what a student, or a teacher that is asked in writing, reads of a row, and what it is to write.

template = find_template("alpaca", task="arc_easy")
template.render(example, question)         the prompt, a text or messages
template.completion(example, answer)       what is to be written for an answer
template.list_continuations(example, question)
    a context and a continuation for each choice, for students that are scored by likelihood

A template is data: a YAML file of Jinja texts. Those that are known by name lie beside this module; a user's own is
named by its path.
"""

from shared.templates.find import TEMPLATES, find_template
from shared.templates.template import Continuation, Rendered, Template

__all__ = ["TEMPLATES", "Continuation", "Rendered", "Template", "find_template"]
