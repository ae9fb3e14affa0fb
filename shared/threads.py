"""How the threads of numeric libraries wait. Called before the first of them is imported."""

import os


def let_idle_threads_sleep() -> None:
    """Make OpenMP threads sleep at a barrier instead of spinning there, unless the user chose otherwise.

    Where anything else is running on the cores, a thread that spins takes the time of the one that it waits for: one
    training step of MiniLM on two busy cores took two to six times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
