"""Where cells are trained, decided without the GPUs that it is about."""

import pytest
import torch

from distill.compare.places import Place, choose_places, list_gpus, name_gpus


def test_each_gpu_has_one_worker_and_the_workers_share_the_cores() -> None:
    assert choose_places(100, ["0", "1", "2", "3"], 16) == [Place(gpu, 4) for gpu in "0123"]
    assert choose_places(2, ["0", "1", "2", "3"], 16) == [Place("0", 8), Place("1", 8)]
    assert choose_places(100, ["0", "1", "2", "3"], 2) == [Place(gpu, 1) for gpu in "0123"]


def test_more_workers_than_gpus_take_them_in_turn_and_fewer_leave_some() -> None:
    five = choose_places(100, ["GPU-a", "GPU-b"], 16, workers=5)
    assert [place.gpu for place in five] == ["GPU-a", "GPU-b", "GPU-a", "GPU-b", "GPU-a"]
    assert choose_places(100, ["0", "1"], 16, workers=1) == [Place("0", 16)]


def test_without_a_gpu_each_core_has_a_worker_of_one_thread() -> None:
    assert choose_places(100, [], 3) == [Place(None, 1)] * 3
    assert choose_places(2, [], 3) == [Place(None, 1)] * 2
    assert choose_places(100, [], 3, workers=8) == [Place(None, 1)] * 8


def test_gpus_have_the_names_that_the_process_itself_was_given() -> None:
    assert name_gpus(3, None) == ["0", "1", "2"]
    assert name_gpus(2, "5, GPU-7") == ["5", "GPU-7"]
    assert name_gpus(0, "") == []
    assert name_gpus(1, "3,99") == ["3"]  # CUDA sees no further than the first that there is not


@pytest.mark.parametrize("devices", [{"cpu"}, {"auto", "cuda:1"}])
def test_cells_that_say_where_they_compute_are_not_spread(devices: set[str]) -> None:
    assert list_gpus(devices) == []


def test_as_many_gpus_as_torch_sees_are_spread_over() -> None:
    assert len(list_gpus({"auto", "cuda"})) == torch.cuda.device_count()
