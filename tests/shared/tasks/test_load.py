"""shared.tasks.load: splits, ids and streaming of examples."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from shared.errors import UsageError
from shared.example import Example
from shared.tasks import LoadedTask, load_task, task_from_file


def write_rows(path: Path, rows: range, labels: Sequence[object] = ("no", "yes")) -> Path:
    frame = pl.DataFrame(
        {
            "key": [f"k{i}" for i in rows],
            "text": [f"text {i}" for i in rows],
            "label": [labels[i % len(labels)] for i in rows],
        }
    )
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_ndjson(path)
    return path


def load(path: Path, id_column: str | None = None) -> LoadedTask:
    return load_task(task_from_file(str(path), "text", label_column="label", id_column=id_column))


def read_ids(loaded: LoadedTask, split: str) -> list[str]:
    return [example.sample_id for example in loaded.examples(split)]


class TestCuts:
    def test_one_file_is_cut_in_three(self, tmp_path: Path) -> None:
        loaded = load(write_rows(tmp_path / "rows.csv", range(10_000)))
        assert loaded.splits == {split: len(read_ids(loaded, split)) for split in ("train", "validation", "test")}
        assert sum(loaded.splits.values()) == 10_000
        assert 900 < loaded.splits["validation"] < 1_100
        assert 900 < loaded.splits["test"] < 1_100
        ids = [number for split in loaded.splits for number in read_ids(loaded, split)]
        assert sorted(ids) == sorted(f"rows-{i}" for i in range(10_000))
        assert any(note.startswith("cut by the hash of sample_id: train ") for note in loaded.notes)

    def test_the_cut_is_the_same_on_every_machine(self, tmp_path: Path) -> None:
        loaded = load(write_rows(tmp_path / "rows.csv", range(30)), "key")
        # From sha256sum: the first 16 digits of the hash of `split:k0` and so on end in 0, or 1, as a decimal number.
        assert read_ids(loaded, "validation") == ["k2", "k8", "k15", "k22", "k23"]
        assert read_ids(loaded, "test") == ["k5", "k16", "k24", "k27"]

    def test_rows_stay_where_they_are_when_the_file_grows(self, tmp_path: Path) -> None:
        small = load(write_rows(tmp_path / "rows.csv", range(500)))
        before = {split: read_ids(small, split) for split in small.splits}
        large = load(write_rows(tmp_path / "rows.csv", range(900)))
        for split, ids in before.items():
            assert read_ids(large, split)[: len(ids)] == ids

    def test_missing_validation_is_cut_from_train(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "train.csv", range(1_000))
        write_rows(tmp_path / "test.csv", range(10))
        loaded = load(tmp_path)
        assert loaded.splits["test"] == 10
        assert loaded.splits["train"] + loaded.splits["validation"] == 1_000
        assert 60 < loaded.splits["validation"] < 140
        assert not set(read_ids(loaded, "train")) & set(read_ids(loaded, "validation"))

    def test_train_alone_is_cut_in_three_and_train_with_validation_is_not(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "train.csv", range(1_000))
        assert set(load(tmp_path).splits) == {"train", "validation", "test"}
        write_rows(tmp_path / "validation.csv", range(10))
        assert load(tmp_path).splits == {"train": 1_000, "validation": 10}


class TestExamples:
    @pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.jsonl"])
    def test_every_format_gives_the_same_and_can_be_read_again(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        write_rows(tmp_path / "folder" / name.replace("rows", "train"), range(20_000))
        write_rows(tmp_path / "folder" / name.replace("rows", "validation"), range(2))
        loaded = load(tmp_path / "folder")
        expected = [Example(f"train-{i}", f"text {i}", label=i % 2) for i in range(20_000)]
        assert list(loaded.examples("train")) == expected
        assert list(loaded.examples("train")) == expected

    def test_two_passes_may_run_side_by_side(self, tmp_path: Path) -> None:
        loaded = load(write_rows(tmp_path / "rows.csv", range(20_000)))
        assert all(a == b for a, b in zip(loaded.examples("train"), loaded.examples("train"), strict=True))

    def test_no_such_split(self, tmp_path: Path) -> None:
        loaded = load(write_rows(tmp_path / "rows.csv", range(100)))
        with pytest.raises(UsageError, match="no split 'dev'; it has: train, validation, test"):
            loaded.examples("dev")

    @pytest.mark.parametrize(
        ("values", "labels"),
        [
            ([True, False], ("false", "true")),
            ([10, 9], ("9", "10")),
            ([1.0, 0.0, None], ("0", "1")),  # what pandas makes of whole numbers with gaps
            ([1.0, 0.0, float("nan")], ("0", "1")),
            (["b", "a", None], ("a", "b")),
        ],
    )
    def test_label_types(self, values: list[object], labels: tuple[str, ...], tmp_path: Path) -> None:
        write_rows(tmp_path / "train.parquet", range(6), values)
        write_rows(tmp_path / "validation.parquet", range(6), values)
        loaded = load(tmp_path)
        assert loaded.task.labels == labels
        assert [e.label for e in loaded.examples("train")][: len(values)] == [1, 0, None][: len(values)]

    @pytest.mark.real
    def test_memory_does_not_grow_with_the_rows(self, tmp_path: Path) -> None:
        """Peak memory of loading and reading six times the rows, each in a process of its own.

        The smaller file too has more than one block of a MiB.
        """
        peaks = []
        for rows in (40_000, 240_000):
            path = write_rows(tmp_path / f"rows{rows}.jsonl", range(rows))
            program = (
                "from shared.tasks import load_task, task_from_file\n"
                f"loaded = load_task(task_from_file({str(path)!r}, 'text', label_column='label'))\n"
                "assert sum(1 for _ in loaded.examples('train')) == loaded.splits['train']\n"
                # Not getrusage: a child's ru_maxrss starts at its parent's.
                "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
            )
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
            peaks.append(int(done.stdout))
        assert peaks[1] < 1.1 * peaks[0], peaks
