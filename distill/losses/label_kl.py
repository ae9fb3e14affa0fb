"""The divergence from the teacher's own label distribution."""

import torch
from torch import Tensor
from torch.nn import functional


def label_kl(teacher: Tensor, student: Tensor, tau: float) -> Tensor:
    """Average over rows m_i tau^2 KL(softmax(q_i / tau) || softmax(o_s_i / tau)), m_i = sum_k exp(q_ik).

    `teacher` (n, c) are natural log-probabilities q, one a label, as the teacher gave them: their exponentials sum to
    m_i, at most 1, and what is missing lies on no label. `student` (n, c) are logits. The teacher's get no gradient.

    Softmax of q compares the labels with each other; the mass m_i, the teacher's probability that one of them is meant
    at all, is the row's weight. So no label is given what the teacher gave to none, and a row that it put on no label
    counts nothing. With tau = 1 this is sum_k exp(q_k) log(exp(q_k) / p_k), p the student's, less a constant: the
    divergence of the partial distribution as it is.

    Source: Hinton, Vinyals and Dean, arXiv:1503.02531, with their tau^2; the weight is this project's.
    """
    teacher = teacher.detach()
    ours, theirs = (student / tau).log_softmax(-1), (teacher / tau).log_softmax(-1)
    each = (theirs.exp() * (theirs - ours)).sum(-1)
    return (torch.logsumexp(teacher, -1).exp() * each).mean() * tau**2


def label_set_kl(teacher: Tensor, student: Tensor, tau: float) -> Tensor:
    """Average over rows tau^2 sum_k KL(sigmoid(z_ik / tau) || sigmoid(o_s_ik / tau)), of several labels a row.

    `teacher` z and `student` o_s (n, c) are logits, each that of its label being among the row's. The teacher's get no
    gradient. Source: as label_kl, of c distributions over two classes.
    """
    ours, theirs = student / tau, teacher.detach() / tau
    yes = theirs.sigmoid() * (functional.logsigmoid(theirs) - functional.logsigmoid(ours))
    no = (-theirs).sigmoid() * (functional.logsigmoid(-theirs) - functional.logsigmoid(-ours))
    return (yes + no).sum(-1).mean() * tau**2
