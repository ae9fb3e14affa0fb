"""What the aligner and the student both give for a batch."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Outputs:
    """`main` o and `auxiliary` a are logits (n, c), or values (n, 1); `projected` p is (n, d), in the joint space."""

    main: Tensor
    auxiliary: Tensor
    projected: Tensor
