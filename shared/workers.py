"""Worker processes that end with the process that started them."""

import os
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from threading import Thread


def end_with_parent() -> None:
    """End this worker process when its parent ends, killed or not; runs first in each worker of a pool.

    A killed parent closes no pool, and its workers would wait for ever.
    """
    parent = parent_process()
    if parent is not None:
        Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
