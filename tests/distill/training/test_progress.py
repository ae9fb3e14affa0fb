"""How far a phase is, kept and brought back on a machine that is not the first one."""

import torch
from torch import nn

from distill.training.progress import Progress, capture, restore


def test_a_scale_of_the_loss_begins_anew_where_there_was_none() -> None:
    """A run that began in bfloat16 goes on in float16, and the other way round."""
    for before, after in ((False, True), (True, False)):
        scalers = [torch.amp.GradScaler("cpu", enabled=enabled) for enabled in (before, after)]
        line = nn.Linear(1, 1)
        state = {"phase": "x", **capture(Progress(step=3), {"line": line, "scaler": scalers[0]})}
        again = nn.Linear(1, 1)
        assert restore(state, {"line": again, "scaler": scalers[1]}).step == 3
        assert torch.equal(line.weight, again.weight)
        assert scalers[1].get_scale() == (2.0**16 if after else 1.0)
