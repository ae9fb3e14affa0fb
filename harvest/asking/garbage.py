"""Keeps Python's collector of garbage off a run's rows: it would look at each several times, and find nothing in them.

What was there before a run (modules, the plan, what reads the source) is left alone while it lasts, and new objects are
looked at by the fifty thousand: a reply is some hundred objects without circles, which go by themselves. So do those of
a model that computes here: a run of `transformers` leaves some hundred objects in circles, however many rows it has,
and no tensor among them (tests/harvest/asking/test_garbage.py); that of `vllm` computes in a process of its own.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEW_OBJECTS = 50_000  # for which the collector waits; Python's own 700 are a few replies


@contextmanager
def spare_collector() -> Iterator[None]:
    """Have less garbage looked for while the block runs; change nothing where the collector is set already."""
    before = gc.get_threshold()
    if gc.get_freeze_count() or not 0 < before[0] < NEW_OBJECTS:
        yield
        return
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
