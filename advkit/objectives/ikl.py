"""IKL: TRADES whose KL is taken apart: a weighted mean square of logit gaps and a cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advkit.formulas.losses import cross_entropy, log_softmax
from advkit.objectives import REMEMBERED, Given

START = "normal"
LIMITS = {
    "square_weight": "[0, 1e6]",
    "entropy_weight": "[0, 1e6]",
    "class_temperature": "[1e-6, 1e6]",
    "gkl_power": "[0, 100]",
}


def memory(y: Tensor, classes: int) -> dict[str, Tensor]:
    """Return what is known of classes: means (C, C) of the last epoch, and this one's sums.

    Row j is what the student says of the examples of class j; at first 1/C everywhere.
    """
    return {
        "means": torch.full((classes, classes), 1 / classes),
        "sums": torch.zeros(classes, classes),
        "counts": torch.zeros(classes),
        "epoch": torch.ones((), dtype=torch.int64),
    }


def update(memory: dict[str, Tensor], index: Tensor, y: Tensor, told: Tensor, epoch: int) -> None:
    """Add what one step said of its classes, extra images too; `told` are softmax rows (B, C)."""
    # No look at the device: at an epoch's first step the means are new and the sums begin at 0.
    going_on = memory["epoch"] == epoch
    memory["means"].copy_(_means(memory, epoch))
    memory["sums"].mul_(going_on)
    memory["counts"].mul_(going_on)
    memory["epoch"].fill_(epoch)
    dtype = memory["sums"].dtype
    onehot = F.one_hot(y, len(memory["counts"])).to(dtype)
    memory["sums"] += onehot.T @ told.to(dtype)
    memory["counts"] += onehot.sum(0)


def inner(logits: Tensor, given: Given, *, divergence: Literal["ikl", "gkl"] = "ikl") -> Tensor:
    """Return what the attack ascends per example, (B,): both terms with weights of 1, see `outer`.

    The class means are taken as they are there, whatever `gkl_power` is.
    """
    clean = given.clean()
    return _square(clean, logits, given, divergence, 1.0) + _entropy(clean, logits)


def outer(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    given: Given,
    *,
    divergence: Literal["ikl", "gkl"] = "ikl",
    square_weight: float = 20.0,
    entropy_weight: float = 4.0,
    class_temperature: float = 4.0,
    gkl_power: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return CE(z, target) + β·¼·Σ_jk w_jk (Δ_jk − Δ′_jk)² + α·H(p, p′), means over the batch.

    Δ_jk = z_j − z_k, and w_jk = s_j·s_k with s what the student said on average of the example's
    class in the epoch before, 1/C in the first one. Gradients of the square flow into clean and
    adversarial logits; p in the cross-entropy H has none. gkl: s is raised to γ, and the sum of
    squares is divided by Σ_jk w_jk of the batch (of all processes) instead of by B. The sums over
    pairs of classes cost as much as those over classes: Σ_jk s_j s_k (d_j − d_k)² is
    2·Σs·Σs·(d − m)² with d = z − z′ and m = Σs·d / Σs.

    Args:
        divergence: ikl, or gkl with normalised weights.
        square_weight: β.
        entropy_weight: α.
        class_temperature: T under which the class means are taken.
        gkl_power: γ of gkl's class means.

    Source: Cui et al., "Decoupled Kullback-Leibler Divergence Loss", NeurIPS 2024 (ikl), and
    "Generalized Kullback-Leibler Divergence Loss" (gkl); reductions as in the authors' code.
    """
    adversarial, clean = model(x_adv), model(x)
    square = _square(clean, adversarial, given, divergence, gkl_power).mean()
    loss = cross_entropy(clean, given.targets).mean() + square_weight * square
    loss = loss + entropy_weight * _entropy(clean, adversarial).mean()
    return loss, {
        "clean": clean.detach(),
        "adversarial": adversarial.detach(),
        REMEMBERED: log_softmax(clean.detach() / class_temperature).exp(),
    }


def _means(memory: Mapping[str, Tensor], epoch: int) -> Tensor:
    """Return the class means (C, C) that hold in an epoch, whose first step meets older sums.

    A class that no example of the epoch before had keeps its row.
    """
    new = memory["sums"] / memory["counts"].clamp(min=1)[:, None]
    new = torch.where(memory["counts"][:, None] > 0, new, memory["means"])
    return torch.where(memory["epoch"] == epoch, memory["means"], new)


def _square(clean: Tensor, adversarial: Tensor, given: Given, form: str, power: float) -> Tensor:
    """Return the weighted square per example, (B,), whose mean over the batch is the term."""
    wide = torch.promote_types(clean.dtype, torch.float32)
    s = given.once("class means", lambda: _means(given.memory, given.epoch)[given.y])
    s = s.to(wide)
    if form == "gkl":
        s = s.pow(power)
    d = clean.to(wide) - adversarial.to(wide)
    total = s.sum(1)
    # About the weighted mean: the difference of two sums would lose the digits of small gaps.
    d = d - ((s * d).sum(1) / total)[:, None]
    pairs = 2 * total * (s * d.square()).sum(1)
    if form == "ikl":
        return 0.25 * pairs
    # The weights of a row sum to (Σs)²; divided by their mean, the mean over rows is gkl's ratio.
    weights = given.once(f"weights {power}", lambda: given.gathered(total.square()).mean())
    return 0.25 * pairs / weights


def _entropy(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Return −Σ_j p_j log p′_j per example, (B,), p without gradient."""
    return cross_entropy(adversarial, log_softmax(clean.detach()).exp())
