"""What several processes share of a student, and what does not go with it: said before anything is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distill.compute.devices import Device
from distill.compute.processes import Processes
from distill.config import make_distill_config
from distill.methods.materials import find_model
from distill.methods.placing import prepare_device
from shared.errors import UsageError


@dataclass(frozen=True, slots=True)
class Beside(Processes):
    """A process beside others, which have these greatest numbers."""

    others: tuple[int, ...] = (0, 0)

    def find_greatest(self, *own: int) -> list[int]:
        return [*map(max, own, self.others)]


FOUR = Beside(1, 4)


def prepare(student: Path, processes: Processes, **options: Any) -> Device:
    config = make_distill_config(shards=Path(), student=str(student), device="cpu", **options)
    return prepare_device(config, find_model(config.student.model), processes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "float16"}, "--precision bfloat16"),
        ({"frozen_layers": 1}, "frozen_layers"),
        ({"control": "linear-probe"}, "linear-probe trains none"),
    ],
)
def test_what_does_not_go_with_shared_weights_is_refused(
    tiny_student: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        prepare(tiny_student, FOUR, parallel="fsdp", **options)
    assert not prepare(tiny_student, FOUR, **options).processes.shards


def test_weights_are_shared_by_several_processes_and_kept_whole_by_one(
    tiny_student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(tiny_student, FOUR, parallel="fsdp").processes == Beside(1, 4, shards=True)
    assert not prepare(tiny_student, FOUR).processes.shards, "a CPU has no card that it could outgrow"
    assert not prepare(tiny_student, Processes(), parallel="fsdp").processes.shards
    assert "keeps the whole student" in capsys.readouterr().err


def test_all_processes_share_weights_where_one_of_them_must_and_none_may_not(tiny_student: Path) -> None:
    assert prepare(tiny_student, Beside(1, 4, others=(1, 0))).processes.shards, "another's card is smaller"
    assert not prepare(tiny_student, Beside(1, 4, others=(1, 1))).processes.shards, "another computes in float16"
    assert not prepare(tiny_student, Beside(1, 4, others=(1, 0)), precision="float16").processes.shards
