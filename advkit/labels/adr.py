"""ADR: the one-hot label rectified by the softened output of an EMA teacher."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from advkit.errors import AdvkitError
from advkit.formulas import corruption
from advkit.formulas.schedules import anneal as anneal_to
from advkit.formulas.schedules import parse_span
from advkit.images.batches import Batch
from advkit.labels import Context

NEEDS = ("ema",)
LIMITS = {"tau": "[1e-6, 1e6]", "lambda": "[0, 1]"}


def rectify(logits: Tensor, y: Tensor, tau: float, lam: float) -> Tensor:
    """Return λ_i·p + (1 − λ_i)·onehot(y) with p = softmax(z/τ), (B, C), rows summing to 1.

    λ_i = clip(λ − (max_c p_c − p_y), 0, 1), both taken from the softened p, so the true class
    stays on top for every λ < 1: where the teacher errs by more than λ, the label is one-hot.

    Args:
        logits: z, the teacher's logits (B, C), any float dtype; computed in float32 or wider.
        y: true classes, (B,) int64.
        tau: temperature τ > 0.
        lam: interpolation λ in [0, 1].

    >>> logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    >>> rectify(logits, torch.tensor([0]), tau=2.0, lam=0.8)
    tensor([[0.5640, 0.2208, 0.1339, 0.0812]])

    Source: ADR, equations 3 to 5; equal to the authors' `src/adr.py`.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    p = F.softmax(logits.to(wide) / tau, dim=1)
    p_true = p.gather(1, y[:, None])
    # Trust falls by as much as the teacher prefers another class to the true one.
    lam_i = (lam - (p.amax(1, keepdim=True) - p_true)).clamp(0, 1)
    return lam_i * p + (1 - lam_i) * F.one_hot(y, p.shape[1]).to(p.dtype)


def targets(
    batch: Batch,
    context: Context,
    *,
    tau: str = "2.5:2.0",
    lambda_: str = "0.7:0.95",
    anneal: Literal["cosine", "linear", "step", "constant"] = "cosine",
    teacher_noise: str | None = None,
) -> Tensor:
    """Return rectified rows, (B, C), from the teacher's view of the augmented clean images.

    Args:
        tau: temperature τ of the EMA teacher, from START:END over the run.
        lambda_: trust λ in the teacher, from START:END over the run.
        anneal: how τ and λ move from START to END.
        teacher_noise: corrupts the teacher as a check, weights:SIGMA or logits:SIGMA.

    Source: ADR, section 4.2, annealed per iteration. Defaults are the paper's for CIFAR-10.
    """
    if context.teacher is None:
        raise AdvkitError("ADR labels need the EMA teacher")
    temperature = anneal_to(*parse_span(tau), context.progress, anneal)
    trust = anneal_to(*parse_span(lambda_), context.progress, anneal)
    # The teacher sees the same crops and flips as the student, before the attack.
    if teacher_noise is None:
        logits = context.teacher(batch.x)
    elif context.noise is None:
        raise AdvkitError("teacher noise needs a generator")
    else:
        logits = corruption.answer(
            context.teacher, batch.x, teacher_noise, context.noise(), batch.rows, batch.total
        )
    return rectify(logits, batch.y, temperature, trust)
