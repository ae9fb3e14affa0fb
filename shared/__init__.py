"""What the two stages must agree on: tasks, sources, rows, keys, shards, errors, console."""
