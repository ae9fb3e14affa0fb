"""What the memory allocator is told, so that a step on a CPU does not wait for it."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT, _LARGE = 1 << 30, 1 << 28


def keep_freed_memory() -> None:
    """Let malloc keep what a step frees for the next one, up to a gigabyte, in blocks of less than a quarter of one.

    glibc gives large blocks back at once, and a step then spends a tenth of its time on page faults. Larger ones do go
    back: what is put into the gap that one leaves would keep the next one out of it. Elsewhere, no-op.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)
