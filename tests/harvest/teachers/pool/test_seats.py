"""What becomes of requests whose replica died, by the books alone: each is answered or fails, and it all ends."""

import random
from pathlib import Path

import pytest

from harvest.teachers.base import Request
from harvest.teachers.pool.config import PoolConfig
from harvest.teachers.pool.processes import choose_environment, list_devices
from harvest.teachers.pool.seats import BARREN_LIMIT, Requests, Seat, limit_share
from shared.errors import UsageError
from shared.example import Example
from shared.options import make_config

ROOM = 8


def make_request(number: int) -> Request:
    return Request(f"{number:064x}", Example(str(number), f"text {number}"))


class Simulation:
    """Replicas that die of the deadly requests that they are asked, and now and then of nothing."""

    def __init__(self, seats: int, deadly: set[int], crashes: float, seed: int) -> None:
        self.seats = [Seat(number) for number in range(seats)]
        self.waiting = Requests()
        self.source = [make_request(number) for number in range(200)]
        self.deadly = {make_request(number).key for number in deadly}
        self.crashes, self.random = crashes, random.Random(seed)
        self.answered: list[str] = []
        self.blamed: list[str] = []

    def run(self) -> None:
        for _ in range(20_000):
            if all(seat.is_empty for seat in self.seats) or self.is_done():
                return
            seat = self.random.choice([one for one in self.seats if not one.is_empty])
            self.ask(seat)
            if seat.asked:
                self.answer(seat)
        raise AssertionError("it never ends")

    def is_done(self) -> bool:
        waiting = self.waiting
        return not (self.source or waiting.returned or waiting.suspects or any(seat.asked for seat in self.seats))

    def ask(self, seat: Seat) -> None:
        seat.take_room(seat.stream, max(0, ROOM - seat.room), starving=True)
        left = len(self.source) + len(self.waiting.returned) + len(self.waiting.suspects)
        asked: list[Request] = []
        for _ in range(limit_share(seat, left, self.seats)):
            if self.waiting.returned:
                asked.append(self.waiting.returned.popleft())
            elif self.source:
                asked.append(self.source.pop(0))
        if not asked and not seat.asked and self.waiting.suspects and limit_share(seat, left, self.seats):
            asked.append(self.waiting.suspects.popleft())
        seat.ask(asked)

    def answer(self, seat: Seat) -> None:
        """Answer a few of what the seat was asked, or die."""
        for key in list(seat.asked)[: self.random.randrange(1, ROOM)]:
            if key in self.deadly or self.random.random() < self.crashes:
                self.blamed += [request.key for request in self.waiting.take_deaths(seat)]
                return
            self.waiting.answer(seat, key)
            self.answered.append(key)


@pytest.mark.parametrize("seed", range(20))
def test_each_request_is_answered_once_and_what_kills_fails(seed: int) -> None:
    deadly = set(random.Random(seed).sample(range(200), 3))
    simulation = Simulation(3, deadly, 0.0, seed)
    simulation.run()
    assert sorted(simulation.blamed) == sorted(simulation.deadly)
    assert sorted(simulation.answered) == sorted({make_request(i).key for i in range(200)} - simulation.deadly)


@pytest.mark.parametrize("seed", range(20))
def test_crashes_of_nothing_lose_no_request(seed: int) -> None:
    simulation = Simulation(3, set(), 0.02, seed)
    simulation.run()
    assert len({*simulation.answered, *simulation.blamed}) == len(simulation.answered) + len(simulation.blamed) == 200
    assert len(simulation.blamed) <= 2  # three crashes of the same request, the last of it alone


def test_replicas_that_never_answer_leave_their_seats() -> None:
    simulation = Simulation(4, set(range(200)), 0.0, 0)
    simulation.run()
    assert all(seat.is_empty for seat in simulation.seats)
    assert not simulation.answered
    assert not simulation.blamed  # nothing says that it was a row
    assert all(seat.barren == BARREN_LIMIT for seat in simulation.seats)


def test_the_last_requests_are_shared_out() -> None:
    seats = [Seat(0), Seat(1), Seat(2)]
    for seat in seats:
        seat.take_room(0, 512, starving=True)
    assert limit_share(seats[0], None, seats) == 512  # nobody knows how many there are
    assert limit_share(seats[0], 10_000, seats) == 512
    assert limit_share(seats[0], 90, seats) == 30
    seats[0].ask([make_request(i) for i in range(30)])
    assert limit_share(seats[0], 60, seats) == 0
    assert limit_share(seats[1], 60, seats) == 30
    seats[2].is_empty = True
    assert limit_share(seats[1], 60, seats) == 45


def test_a_replica_has_devices_of_its_own_or_a_part_of_one() -> None:
    devices = ["0", "1", "2", "3"]
    shown = [choose_environment(i, 4, 2, devices)["CUDA_VISIBLE_DEVICES"] for i in range(2)]
    assert shown == ["0,1", "2,3"]
    assert [choose_environment(i, 1, 0.5, devices)["CUDA_VISIBLE_DEVICES"] for i in range(4)] == ["0", "0", "1", "1"]
    assert choose_environment(0, 1, 0, devices)["CUDA_VISIBLE_DEVICES"] == ""
    assert choose_environment(3, 2, 0, []) == {"OMP_NUM_THREADS": "2"}


def test_devices_are_numbered_as_cuda_numbers_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia3", "nvidia10", "nvidiactl", "nvidia-uvm"):  # a container that was given two of many
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert list_devices(tmp_path) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-7, 2")
    assert list_devices(tmp_path) == ["GPU-7", "2"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"per_replica": "gpus=1"}, "--per-replica says where replicas run: give their number with --replicas"),
        ({"cluster": "ray"}, "--on says where"),
        ({"replicas": 2, "cluster": "slurm"}, "--on slurm: replicas run on ray"),
        ({"replicas": 2, "per_replica": "gpu=1"}, "did you mean gpus"),
        ({"replicas": 2, "per_replica": "gpus=1.5"}, "beyond one GPU, whole ones"),
        ({"replicas": 2, "per_replica": "cpus=0"}, "1 or more"),
        ({"replicas": 2, "per_replica": "gpus=nan"}, "give a number, gpus=1"),
        ({"replicas": 2, "per_replica": "gpus=two"}, "give a number, gpus=1"),
        ({"replicas": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        make_config(PoolConfig, options, "harvest")
