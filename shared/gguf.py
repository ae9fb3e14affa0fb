"""Models of llama.cpp (GGUF files) as folders that transformers opens: converted once, into the cache.

transformers reads a GGUF file itself, but anew in each process, which takes tens of seconds, and keeps its weights in
blocks that are slow to multiply with and that nothing can be trained on.
"""

import shutil
from collections.abc import Callable
from hashlib import file_digest
from pathlib import Path
from typing import Any

from shared.disk import fsync_path, lock_file
from shared.errors import SourceError, require_extra


def convert_gguf(path: Path, cache: Path, notify: Callable[[str], None]) -> Path:
    """Convert the GGUF file `path`, unless that was done, into a folder of `cache` named by its hash; return it.

    The folder holds the weights as float32, which is what their blocks stand for to the last bit, the configuration,
    the tokenizer and its chat template. `notify` is called with a message before that. Raises SourceError where the
    file cannot be converted.
    """
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    target, work = cache / digest[:32], cache / f"{digest[:32]}.tmp"
    if target.is_dir():
        return target
    require_extra("gguf", "torch", "transformers", "gguf")
    cache.mkdir(parents=True, exist_ok=True)
    with lock_file(cache / f"{digest[:32]}.lock"):
        # Nobody else writes while the lock is held: what lies there was left by a process that was killed.
        shutil.rmtree(work, ignore_errors=True)
        if not target.is_dir():
            notify(f"converting {path.name} into {target}, once")
            try:
                _write_folder(path, work)
                work.rename(target)
            except Exception as error:  # of the file's reader, of many kinds
                reason = " ".join(str(error).split())
                raise SourceError(f"{path} cannot be converted to a model of transformers: {reason}") from error
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return target


def _write_folder(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        trust_remote_code=False,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    plain = type(model)(_strip_quantization(model.config))
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    for file in folder.iterdir():
        fsync_path(file)


def _strip_quantization(config: Any) -> Any:
    """Take out what says that the weights lie in blocks."""
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config
