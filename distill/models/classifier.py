"""The student: a transformers sequence classifier, and beside it the heads that only training needs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill.config import Semantics
from distill.models.adapters import unwrap
from distill.models.orthogonal import OrthogonalLinear, init_linear
from distill.models.outputs import Outputs
from shared.errors import SourceError

JOINT_WIDTH = 768  # the paper's
DROPOUT = 0.1  # the code's, before A_s


class Student(nn.Module):
    """F_s, O_s, P_s and A_s of arXiv:2603.10877v1.

    `model` is F_s and O_s: any AutoModelForSequenceClassification with its own pooling and head (BERT: pooler, dropout,
    linear), or what peft makes of one. It is all that is saved for inference. P_s and A_s hang beside it, on h'_s:
    what enters the model's last linear layer, before dropout; in a causal model, at the last token that is not padding.

    paper  P_s orthogonal, d -> 768; A_s linear      code  P_s linear without bias, d -> width of h_t; A_s with dropout
    """

    def __init__(self, model: Any, semantics: Semantics, vector_width: int | None) -> None:
        super().__init__()
        self.model = model
        outputs = model.config.num_labels
        classifier = unwrap(model)
        head = _find_head(classifier)
        self._features = _Features(classifier, head)
        width = head.in_features
        if semantics == "code":
            joint = vector_width or JOINT_WIDTH
            self.projection: nn.Module = nn.Linear(width, joint, bias=False)
            self.auxiliary = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(joint, outputs))
        else:
            self.projection = OrthogonalLinear(width, JOINT_WIDTH)
            self.auxiliary = nn.Sequential(nn.Linear(JOINT_WIDTH, outputs))
        self.projection.apply(init_linear)
        self.auxiliary.apply(init_linear)

    def forward(self, inputs: Mapping[str, Tensor]) -> Outputs:
        """Give logits and projections, in float32, of a batch of token ids (n, t) as a tokenizer makes it."""
        main = self.model(**inputs).logits
        features = self._features.take()
        if features.dim() == 3:  # a causal model's head sees every token; its logits are those of the last one
            ids = inputs["input_ids"]
            last = ((ids != self.model.config.pad_token_id) * torch.arange(ids.shape[1], device=ids.device)).argmax(1)
            features = features[torch.arange(len(last), device=ids.device), last]
        # An orthogonal map in bfloat16 is none: the heads beside the model stay in float32 under autocast.
        with torch.autocast(features.device.type, enabled=False):
            projected = self.projection(features.float())
            return Outputs(main.float(), self.auxiliary(projected), projected)

    def extra_weights(self) -> dict[str, Tensor]:
        """Give the weights of P_s and A_s, which `model` does not hold."""
        return {name: weight for name, weight in self.state_dict().items() if not name.startswith("model.")}


class _Features:
    """Holds h'_s of a model's last pass: what enters its head, before the dropout that precedes it."""

    def __init__(self, model: Any, head: nn.Linear) -> None:
        self._dropped: tuple[Tensor, Tensor] | None = None
        self._features: Tensor | None = None
        for part in _outside_encoder(model):
            if isinstance(part, nn.Dropout):
                part.register_forward_hook(self._keep_dropped)
        head.register_forward_pre_hook(self._keep_features)

    def take(self) -> Tensor:
        """Give the features, once."""
        features, self._features = self._features, None
        assert features is not None, "the model has not run"
        return features

    def _keep_dropped(self, _dropout: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self._dropped = (args[0], output)

    def _keep_features(self, _head: nn.Module, args: tuple[Tensor, ...]) -> None:
        dropped, self._dropped = self._dropped, None
        self._features = dropped[0] if dropped is not None and dropped[1] is args[0] else args[0]


def _outside_encoder(model: Any) -> list[nn.Module]:
    return [m for name, m in model.named_modules() if name.split(".")[0] != model.base_model_prefix]


def _find_head(model: Any) -> nn.Linear:
    """Find what gives the logits: the last linear layer outside the encoder with an output for each label."""
    linear = [m for m in _outside_encoder(model) if isinstance(m, nn.Linear)]
    heads = [m for m in linear if m.out_features == model.config.num_labels]
    if not heads:
        raise SourceError(f"{type(model).__name__} has no linear head over its labels: take another student")
    return heads[-1]
