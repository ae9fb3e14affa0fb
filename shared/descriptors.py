"""How many files and connections this process may have open at once (RLIMIT_NOFILE)."""

import errno
import resource
from pathlib import Path

KEPT_FREE = 64  # for files, locks, name look-ups, worker processes: what is not a connection
MOST = 2**20  # a hard limit may be endless, and no process needs so many
SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE})
WAY_OUT = "let this process open more files (ulimit -n 4096)"


def raise_limit() -> int:
    """Raise the limit of this process to what the system allows it (its hard limit), and give it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MOST if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # a sandbox may forbid it
        return soft
    return wanted


def count_free() -> int:
    """Count the connections that may be made beside what is open now and KEPT_FREE; 1 at least."""
    return max(raise_limit() - _count_open() - KEPT_FREE, 1)


def _count_open() -> int:
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return 32  # no Linux
