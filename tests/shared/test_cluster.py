"""What is said of a cluster, before any is joined."""

from pathlib import Path

import pytest

from shared.cluster import check_address, check_reachable, check_resources, parse_resources, show_resources
from shared.errors import ClusterError, UsageError


@pytest.mark.parametrize(
    ("cluster", "named"), [("ray", "127.0.0.1:1"), ("ray", "ray://127.0.0.1:1"), ("ray://127.0.0.1:1", "")]
)
def test_a_cluster_that_is_not_there_is_said_at_once(cluster: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", named)
    with pytest.raises(ClusterError, match=r"--on ray.*127.0.0.1:1: no Ray cluster can be reached there .*refused"):
        check_reachable(cluster)


def test_a_cluster_that_this_machine_was_part_of_and_that_has_ended_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    check_reachable("ray")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1\n")
    with pytest.raises(ClusterError, match=r"--on ray, 127.0.0.1:1: no Ray cluster .*`ray stop` forgets one"):
        check_reachable("ray")


def test_an_address_is_that_of_a_ray_cluster() -> None:
    for address in ("ray", "ray://head.example:10001"):
        check_address(address, "cells are trained")
    with pytest.raises(UsageError, match=r"--on slurm: cells are trained on ray, or on ray://HOST:10001"):
        check_address("slurm", "cells are trained")


def test_resources_are_read_as_they_are_shown() -> None:
    assert parse_resources("gpus=0.25, cpus=2") == {"gpus": 0.25, "cpus": 2.0}
    assert show_resources(parse_resources("gpus=0.25,cpus=2")) == "gpus=0.25,cpus=2"
    for text, said in (("gpu=1", "did you mean gpus"), ("gpus", "a number, gpus=1"), ("cpus=inf", "give a number")):
        with pytest.raises(ValueError, match=said):
            parse_resources(text)


@pytest.mark.parametrize(
    ("amounts", "said"),
    [
        ({"gpus": -1.0}, "--per-cell gpus=-1: give 0 or more"),
        ({"gpus": 1.5}, "beyond one GPU, whole ones"),
        ({"cpus": 0.0}, "--per-cell cpus=0: give whole cores, 1 or more"),
        ({"cpus": 1.5}, "give whole cores"),
    ],
)
def test_amounts_that_nothing_can_be_given_are_refused(amounts: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_resources("--per-cell", amounts)
    check_resources("--per-cell", {"gpus": 0.25, "cpus": 3.0})
