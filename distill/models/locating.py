"""How transformers is told where a model lies, and whether code that comes with it may run."""

from typing import Any

from shared.sources import ResolvedModel


def locate(source: ResolvedModel) -> dict[str, Any]:
    """Give what from_pretrained needs to take a model from where it was found, and from nowhere else."""
    found = {"local_files_only": True} if source.kind == "folder" else {"revision": source.revision}
    return {**found, "trust_remote_code": source.trusts_code}  # not given, transformers would ask at the terminal
