"""What the training of a comparison will take, before it is trained: from what its finished cells took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from distill.compare.plan import Cell, Comparison
from distill.compare.runner import find_finished
from distill.runs.folder import read_metrics
from distill.runs.names import CELLS


@dataclass(frozen=True, slots=True)
class TrainingForecast:
    """What is left to train of a comparison.

    `cells` is how many trainings there are, of which `finished` can be used and `left` are to come. `unusable` are
    finished, too, but differ from what is wanted: how, by name. `student_steps` are those of the cells that are left,
    at most, and where every row of the train split has an answer; a control's first phase comes on top. `seconds` is
    what these cells take one after the other, by those that are finished; None where no finished cell tells it.
    """

    cells: int
    finished: int
    left: tuple[Cell, ...]
    unusable: Mapping[str, str]
    student_steps: int
    seconds: float | None


def forecast_training(comparison: Comparison, folder: Path, train_rows: int) -> TrainingForecast:
    """Look at the cells that are finished in `folder`, and say what is left of a comparison. Trains nothing.

    `train_rows` are those that the train split has, or will have once they are harvested.
    """
    cells = comparison.list_cells()
    any_finished = any((folder / CELLS / cell.name).exists() for cell in cells)
    found = find_finished(comparison, cells, folder) if any_finished else {}
    unusable = {name: difference for name, difference in found.items() if difference is not None}
    finished = [cell for cell in cells if cell.name in found and cell.name not in unusable]
    left = [cell for cell in cells if cell.name not in found or cell.name in unusable]
    return TrainingForecast(
        cells=len(cells),
        finished=len(finished),
        left=tuple(left),
        unusable=unusable,
        student_steps=sum(count_steps(cell, train_rows) for cell in left),
        seconds=estimate_seconds(left, [(cell, _read_seconds(folder, cell)) for cell in finished]),
    )


def count_steps(cell: Cell, train_rows: int) -> int:
    """Count the student's steps in a cell, where so many rows are trained on in every epoch."""
    training = cell.config.training
    return training.epochs * -(-train_rows // training.batch_size)


def estimate_seconds(left: Sequence[Cell], finished: Sequence[tuple[Cell, float]]) -> float | None:
    """Estimate what the cells that are left take, from the seconds of finished ones; None where there is none of those.

    A cell takes the mean of those of its variant and number of labels, or where there is none yet, of all.
    """
    if not left:
        return 0.0
    if not finished:
        return None
    alike: dict[tuple[str, int | None], list[float]] = {}
    for cell, seconds in finished:
        alike.setdefault((cell.variant, cell.labels), []).append(seconds)
    overall = mean(seconds for _, seconds in finished)
    return sum(mean(alike.get((cell.variant, cell.labels), [overall])) for cell in left)


def _read_seconds(folder: Path, cell: Cell) -> float:
    return float(read_metrics(folder / CELLS / cell.name)["seconds"])
