"""Shared set-up: one thread a library, so that two tests side by side do not slow each other to a quarter; and signals
as they are in a terminal, for what tests start inherits what this process ignores.
"""

import os
import signal

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
for name in ("COLUMNS", "LINES"):  # readline sets them for what pytest-xdist starts: a window that nobody has
    os.environ.pop(name, None)

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, and then nothing that is tested here would hear it
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # of what a script starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
