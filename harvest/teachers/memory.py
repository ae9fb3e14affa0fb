"""Too little memory, told with what to lower."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from shared.errors import TeacherError


@contextmanager
def explain_memory(what: str, ways: Sequence[str]) -> Iterator[None]:
    """Turn an error of too little memory in the block into a TeacherError: `what` it was for, `ways` to need less."""
    import torch

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # torch.OutOfMemoryError is of a GPU; the CPU's allocator has no error of its own.
        kinds = (torch.OutOfMemoryError, MemoryError)
        if not isinstance(error, kinds) and "allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        advice = f" Give {' or '.join(ways)}." if ways else ""
        raise TeacherError(
            f"the memory did not suffice to {what}: {' '.join(str(error).split())[:200]}.{advice} What was answered is "
            "kept, and the run goes on from there"
        ) from error
