"""The tasks known by name: those of ARMADA (arXiv:2603.10877), and some that users expect beside them."""

from shared.tasks.instructions import INSTRUCTIONS
from shared.tasks.reasoning import REASONING
from shared.tasks.task import Task
from shared.tasks.understanding import UNDERSTANDING

TASKS: dict[str, Task] = {task.name: task for task in (*UNDERSTANDING, *REASONING, *INSTRUCTIONS)}
