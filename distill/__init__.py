"""Stage 2: shards -> batches -> aligner and student. Never opens a socket to a teacher."""
