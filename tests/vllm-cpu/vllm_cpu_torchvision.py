"""Lets torchvision be imported where its compiled operators cannot be loaded. Runs when the interpreter starts.

The torchvision that pip finds beside a CPU build of torch is a CUDA build: its library is not loaded, and it then fails
to register an implementation for operators that were never declared ("operator torchvision::nms does not exist").
Declaring them is enough: nothing that vLLM does calls them.
"""

import sys
from typing import Any

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _DeclareOperators:
    """Finds no module: it acts just before torchvision is imported, and only then."""

    library: Any = None  # the declarations last as long as this

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "torchvision" and self.library is None:
            import torch

            self.library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in _OPERATORS:
                self.library.define(operator)


sys.meta_path.insert(0, _DeclareOperators())
