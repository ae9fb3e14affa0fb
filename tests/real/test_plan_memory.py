"""A plan over a million rows, all of them kept, takes little more memory than one over a tenth of them."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, sys
from collections.abc import Iterator
import numpy as np, polars as pl
from harvest.asking.plan import Action, Scope, make_plan, request_key
from shared import buckets
from shared.fingerprints import FINGERPRINTED, fingerprint_rows
from shared.keys import RequestKeys
from shared.shards import Kept, KeptPart
from shared.tasks import find_task, load_task, make_examples
from tests.harvest.scripted_teacher import ScriptedTeacher

buckets.BLOCK_BYTES = 1 << 20
teacher = ScriptedTeacher()
keys = RequestKeys(teacher.recipe())


def keep(loaded, split) -> Iterator[KeptPart]:
    made = np.random.default_rng(0)
    for _, frame in loaded.frames([split]):
        for part in frame.iter_slices(4096):
            own = np.frombuffer(made.bytes(32 * part.height), "S32").copy()
            first = request_key(keys, teacher, next(make_examples(part)))[0]  # the one that is computed to make sure
            own[0] = bytes.fromhex(first)
            zeros = np.zeros(part.height, np.int32)
            yield KeptPart(Kept(own, fingerprint_rows(part), zeros, zeros.astype(np.uint8)), part.select(FINGERPRINTED))


for rows in (100_000, 1_000_000):
    path = f"{sys.argv[1]}/rows{rows}.parquet"
    numbers = pl.DataFrame({"number": range(rows)})
    texts = pl.format("a text of the number {} and some words more", "number")
    numbers.lazy().select(texts.alias("text"), (pl.col("number") % 2).alias("label")).sink_parquet(path)
    loaded = load_task(find_task(path, text_column="text", label_column="label"))
    plan = make_plan(loaded, teacher, Scope(tuple(loaded.splits), {}), {s: keep(loaded, s) for s in loaded.splits})
    assert plan.count(Action.KEEP) == rows
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.real
def test_a_million_kept_rows_take_few_bytes_each(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    small, large = map(int, done.stdout.split())
    assert (large - small) * 1024 < 50 * 900_000  # whose keys and fingerprints alone are 117 bytes a row
