"""Every error that the project raises on purpose. Each message says what happened, to what, and what to do next.

Error                     exit code 1
├── UsageError            exit code 2: wrong options, a recipe with an unknown key
├── MissingExtraError     a feature's packages are not installed; names the extra
├── SourceError           a model or a data file that was named cannot be found or read
├── DataError             a row or a column of a task cannot be used; names file and row
├── DiskError             a file or a folder cannot be written
├── StoreError            an object store cannot be used, or refuses
├── ClusterError          a Ray cluster cannot be reached, or its machines lack what is needed
├── LockedError           another process writes to a shard folder, or trains in a run's folder
├── StoppedError          exit code 75: a signal stopped a training, whose checkpoint is kept
├── ShardError            a shard folder cannot be used
│   ├── CorruptShardError     its bytes are not those of the manifest
│   ├── SchemaVersionError    it was written by a newer version
│   └── RecipeMismatchError   it holds the answers to another recipe
└── TeacherError          the teacher cannot do, or stopped doing, what was asked
    └── TooManyFailuresError  the share of failed rows passed its limit; the run stopped
"""

from importlib.util import find_spec


class Error(Exception):
    """Base of the tree: an error that the person at the keyboard can act on."""

    exit_code = 1


class UsageError(Error):
    """Wrong options, or a recipe that does not validate."""

    exit_code = 2


class MissingExtraError(Error):
    """A feature needs packages that are not installed."""


class SourceError(Error):
    """A model or data source cannot be found or read."""


class DataError(Error):
    """A row, column or label of a task cannot be used."""


class DiskError(Error):
    """A file or a folder cannot be written: the disk is full, or its permissions forbid it."""


class StoreError(Error):
    """An object store cannot be reached, or refuses what is asked of it."""


class ClusterError(Error):
    """A Ray cluster cannot be reached, or its machines do not have what the work needs."""


class LockedError(Error):
    """Another process is writing to the same share of a shard folder, or to the same run's folder."""


class StoppedError(Error):
    """A signal stopped a training, which has kept its checkpoint.

    Its exit code is EX_TEMPFAIL of sysexits.h: the same command will go on. A batch script can put itself back into the
    queue on it.
    """

    exit_code = 75


class ShardError(Error):
    """A shard folder cannot be used."""


class CorruptShardError(ShardError):
    """A shard folder's bytes are not those of its manifest, or its journal is torn."""


class SchemaVersionError(ShardError):
    """A shard folder was written by a newer version of this package."""


class RecipeMismatchError(ShardError):
    """A shard folder holds the answers to another recipe."""


class TeacherError(Error):
    """The teacher cannot do what was asked, or stopped doing it."""


class TooManyFailuresError(TeacherError):
    """The share of failed rows passed its limit."""


def require_extra(extra: str, *modules: str) -> None:
    """Raise MissingExtraError, naming the extra, unless all `modules` are installed. Imports none of them."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingExtraError(
            f"this needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed; "
            f"run: pip install 'harvest-distill[{extra}]'"
        )
