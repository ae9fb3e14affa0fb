"""Tasks: what a teacher is asked and a student learns, and where the rows come from.

find_task("mnli"), find_task("reviews.csv", text_column="text", label_column="label")
    finds a task by what a command line names: a known task, or a file of the user's own;
load_task(task)
    finds its rows and checks every one of them;
loaded.task, loaded.source, loaded.splits, loaded.examples("train")
    are what came of it.
"""

from shared.tasks.catalogue import TASKS
from shared.tasks.files import task_from_file
from shared.tasks.find import find_task
from shared.tasks.load import LoadedTask, load_task, make_examples
from shared.tasks.task import Source, Task

__all__ = ["TASKS", "LoadedTask", "Source", "Task", "find_task", "load_task", "make_examples", "task_from_file"]
