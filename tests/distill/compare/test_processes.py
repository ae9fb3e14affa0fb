"""A worker process is in the place that was chosen for it."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from distill.compare.places import VISIBLE, Place
from distill.compare.processes import start_worker


@pytest.mark.real
def test_a_worker_sees_its_own_gpu_alone_and_has_its_threads() -> None:
    context = multiprocessing.get_context("spawn")
    places = context.SimpleQueue()
    for gpu in ("3", "GPU-5"):
        places.put(Place(gpu, 2))
    before = os.environ.get(VISIBLE)
    for gpu in ("3", "GPU-5"):
        with ProcessPoolExecutor(1, context, start_worker, (places,)) as pool:
            assert pool.submit(os.getenv, VISIBLE).result() == gpu
            assert pool.submit(torch.get_num_threads).result() == 2
    assert os.environ.get(VISIBLE) == before
