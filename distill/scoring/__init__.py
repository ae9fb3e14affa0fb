"""From a model to one score a row, and to the task's metric."""
