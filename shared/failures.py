"""Makes of any exception that reaches the end of a command an error that the person at the keyboard can act on.

What the project raises on purpose is such an error already (shared.errors). The rest is the system's (a disk, a pipe,
memory), a library's about what it was given (a file that is none of its kind), or a defect of this project: its
traceback goes into a file, or up to Python where TRACEBACK is set.
"""

import errno
import os
import tempfile
import traceback
from pathlib import Path

from shared.descriptors import SHORTAGE, WAY_OUT
from shared.errors import DiskError, Error, UsageError
from shared.secrets import hide_secrets

TRACEBACK = "HARVEST_DISTILL_TRACEBACK"  # an environment variable: not empty, defects show their traceback
MAX_REASON_LENGTH = 500
_KEPT = "What was kept before is safe"
# Libraries by the first part of their modules' names, and what their exceptions are about.
_LIBRARIES = {
    "pyarrow": "a Parquet or Arrow file cannot be read or written",
    "polars": "a table cannot be read",
    "safetensors": "a file of weights cannot be read or written",
    "safetensors_rust": "a file of weights cannot be read or written",
    "transformers": "a model's files cannot be used",
    "tokenizers": "a tokenizer's files cannot be used",
    "peft": "an adapter's files cannot be used",
    "huggingface_hub": "the Hugging Face hub did not give or take what was asked",
    "httpx": "a connection failed",
    "httpx2": "a connection failed",
    "aiohttp": "a connection failed",
    "requests": "a connection failed",
    "yaml": "a YAML file cannot be read",
    "zipfile": "an archive cannot be read",
    "tarfile": "an archive cannot be read",
    "zlib": "an archive cannot be read",
    "_lzma": "an archive cannot be read",
    "jinja2": "a template cannot be used",
    "pickle": "a file of a model or of a checkpoint cannot be read",
    "_pickle": "a file of a model or of a checkpoint cannot be read",
}
_WAYS_OUT = {
    errno.ENOSPC: "free disk space",
    errno.EDQUOT: "free disk space",
    errno.EROFS: "give a folder that can be written",
    errno.EACCES: "mend its permissions, or give another path",
    errno.EPERM: "mend its permissions, or give another path",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path: a part of it is a file",
    errno.EEXIST: "give another path: there is a file of that name",
    errno.EISDIR: "give a file: this is a folder",
    errno.ENAMETOOLONG: "give a shorter name",
    **dict.fromkeys(SHORTAGE, WAY_OUT),
    errno.ELOOP: "check the path: links go round in it",
}


def explain(error: BaseException) -> Error:
    """Say what `error` means and what to do next, as an error of the project; one of those is given back."""
    if isinstance(error, Error):
        return error
    if isinstance(error, BrokenPipeError):
        return Error(f"whatever read the output of this command ended before the command did. {_KEPT}")
    if isinstance(error, OSError) and error.errno is not None and not _find_library(error):
        return _explain_system(error)
    reason = _shorten(f"{type(error).__name__}: {error}")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Error(f"memory ran out ({reason}). {_KEPT}; give it less at a time (--batch-size), or more memory")
    if isinstance(error, RecursionError):
        return UsageError(f"a file or an option is nested too deeply to be read ({reason}). {_KEPT}")
    if isinstance(error, UnicodeError):
        return Error(f"a text is not in the encoding that it should have ({reason}). {_KEPT}; save the file as UTF-8")
    about = _find_library(error)
    if about is not None:
        return Error(f"{about} ({reason}). {_KEPT}; check the file or the name that was given, and its copy")
    return Error(
        f"this is a defect of harvest-distill ({reason}). {_KEPT}. Please report it where you have the package from, "
        f"with {_write_traceback(error)}"
    )


def _explain_system(error: OSError) -> Error:
    named = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    what = f"{named or 'a file'}: {error.strerror or error}"
    advice = find_way_out(error)
    kind = DiskError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO) else Error
    return kind(_shorten(f"{what}. {_KEPT}; {advice}, then run the same command again"))


def find_way_out(error: OSError) -> str:
    """Say what to do about an error of the system."""
    return _WAYS_OUT.get(error.errno or 0, "mend what it says")


def _find_library(error: BaseException) -> str | None:
    """What a library's exception is about; None where no library of the list raised it."""
    for one in (error, error.__cause__):
        for kind in () if one is None else type(one).__mro__:
            about = _LIBRARIES.get(kind.__module__.partition(".")[0])
            if about is not None:
                return about
    return None


def _write_traceback(error: BaseException) -> str:
    text = hide_secrets("".join(traceback.format_exception(error)))
    try:
        descriptor, path = tempfile.mkstemp(prefix="harvest-distill-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return f"the traceback that {TRACEBACK}=1 shows"
    return f"the file {Path(path)}"


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_REASON_LENGTH else text[: MAX_REASON_LENGTH - 1] + "…"
