"""LTD: a naturally trained teacher's logits, softened at a low temperature."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from advkit.errors import AdvkitError, UsageError
from advkit.images.batches import Batch
from advkit.labels import Context

NEEDS = ("soft",)
LIMITS = {"temperature": "[1e-6, 1e6]"}


def soften(logits: Tensor, temperature: float) -> Tensor:
    """Return softmax(z/T), (B, C) in float32 or wider.

    Args:
        logits: z, (B, C); a constant added to a row changes nothing.
        temperature: T > 0; 1 leaves the teacher as it is, higher values flatten.

    >>> soften(torch.tensor([[0.0, -2.0]]), 2.0)
    tensor([[0.7311, 0.2689]])

    Raises:
        UsageError: T is not positive.

    Source: LTD, eq. 5 (Hinton et al. 2015); no τ² factor and no one-hot part.
    """
    if not temperature > 0:
        raise UsageError(f"--temperature {temperature} must be above 0")
    wide = torch.promote_types(logits.dtype, torch.float32)
    return F.softmax(logits.to(wide) / temperature, dim=1)


def targets(batch: Batch, context: Context, *, temperature: float = 5.0) -> Tensor:
    """Return the teacher's softened rows, (B, C), for the views in the batch.

    Args:
        temperature: T of the teacher; LTD's for CIFAR-10 is 5. Choose it by the targets' peak
            mass (`advkit analyze labels`) or by `advkit search temperature`.

    Source: LTD, eq. 9. The student's own temperature stays 1.
    """
    if context.soft is None:
        raise AdvkitError("soft labels need a labels file or a teacher")
    return soften(context.soft(batch), temperature)
