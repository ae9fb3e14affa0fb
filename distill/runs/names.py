"""Names of files in the folder of a run, and in that of a comparison; who only looks at them imports no torch."""

METRICS = "metrics.json"
EPOCHS = "log.jsonl"  # a line an epoch
LOG = "run.log"  # what the run said, in all processes that trained it one after the other
STARTED = "started.json"  # what is known of a run before it has METRICS
CHECKPOINT = "checkpoint.pt"
SHARDS = "checkpoint.shards"  # the folder of its weights that several processes shared
COMPARISON = "comparison.json"  # what a comparison came to
CELLS = "cells"  # the folder of a comparison's runs
