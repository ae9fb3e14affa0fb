"""The TS aligner: turns a teacher's cached vector into targets for the student."""

from torch import Tensor, nn

from distill.config import Semantics
from distill.models.orthogonal import OrthogonalLinear, init_linear
from distill.models.outputs import Outputs
from shared.errors import UsageError

JOINT_WIDTH = 768  # d of the paper's joint space, and h of both aligners; the paper does not say its own h
DROPOUT = 0.1
MAX_SQUARE_WIDTH = 16_384  # 4 GB of weights, gradient and moments


def check_width(width: int, semantics: Semantics) -> None:
    """Raise UsageError for vectors too wide for the square projection of `code`: it has width x width numbers.

    With its gradient and AdamW's two moments that is 16 bytes each.
    """
    if semantics == "code" and width > MAX_SQUARE_WIDTH:
        raise UsageError(
            f"semantics code projects the teacher's vectors by a square matrix, {width:,} x {width:,} here, and "
            f"training it takes {16 * width**2 / 1e9:,.0f} GB; it is for vectors of at most {MAX_SQUARE_WIDTH:,} "
            "numbers. Give --semantics paper, whose projection is 768 x 768 whatever their width"
        )


class Aligner(nn.Module):
    """F, O, P and A of arXiv:2603.10877v1 over standardised vectors h_t.

    paper  h' = F(h_t), o = O(h'), p = P(h'), a = A(p): F is one linear layer with ReLU, P is orthogonal, width -> 768
    code   the same O and A; F has two layers with dropout, and p = P(h_t), orthogonal, width -> width

    `mean` and `std`, shape (width,), are those of the training rows; they are kept as buffers, so that the aligner
    takes vectors as a teacher gave them. `outputs` is the number of classes, or 1 for regression.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, outputs: int, semantics: Semantics) -> None:
        super().__init__()
        width = mean.numel()
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())
        self.projects_raw = semantics == "code"
        joint = width if self.projects_raw else JOINT_WIDTH
        if semantics == "code":
            self.body = nn.Sequential(
                nn.Linear(width, JOINT_WIDTH),
                nn.ReLU(),
                nn.Dropout(DROPOUT),
                nn.Linear(JOINT_WIDTH, JOINT_WIDTH),
                nn.ReLU(),
                nn.Dropout(DROPOUT),
            )
            self.head = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(JOINT_WIDTH, outputs))
            self.auxiliary = nn.Sequential(nn.Dropout(DROPOUT), nn.Dropout(DROPOUT), nn.Linear(joint, outputs))
        else:
            self.body = nn.Sequential(nn.Linear(width, JOINT_WIDTH), nn.ReLU())
            self.head = nn.Sequential(nn.Linear(JOINT_WIDTH, outputs))
            self.auxiliary = nn.Sequential(nn.Linear(joint, outputs))
        self.projection = OrthogonalLinear(joint if self.projects_raw else JOINT_WIDTH, joint)
        self.apply(init_linear)

    def forward(self, vectors: Tensor) -> Outputs:
        """Give targets for a batch of the teacher's vectors, (n, width)."""
        standardised = (vectors - self.mean) / self.std
        hidden = self.body(standardised)
        projected = self.projection(standardised if self.projects_raw else hidden)
        return Outputs(self.head(hidden), self.auxiliary(projected), projected)
