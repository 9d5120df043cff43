"""The sums of an epoch, and what its row says of training."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.training.learner import StepOutput

KINDS = {"clean": "train_clean_accuracy", "adversarial": "train_robust_accuracy"}
"""The logits that an objective may show, and what their accuracy is called in a row."""
BEFORE = ("n", "loss", "entropy", *KINDS, *(f"{kind}_n" for kind in KINDS))
SUMS = (*BEFORE, "true_class", "true_class_n", "still", "still_n")
"""What is summed over the examples of an epoch: for each kind of logits, how many were right and
how many there were; the targets' mass on the true class; how many had no gradient in the attack.
`BEFORE` are those of states of earlier versions."""


def no_sums() -> Tensor:
    """Return the sums of an epoch that has not begun, (11,) float64."""
    return torch.zeros(len(SUMS), dtype=torch.float64)


def add(sums: Tensor, output: StepOutput, y: Tensor) -> Tensor:
    """Return the sums with one batch added, on its device and without waiting for it.

    Args:
        sums: (11,), see `SUMS`; changed in place where it lies on that device already.
        output: of the step.
        y: true classes, (B,).
    """
    size, loss, logits = len(y), output.loss, output.logits
    # A zero stands for logits that this objective does not show: the sums keep their shape.
    hits = [
        (logits[kind].argmax(1) == y).sum() if kind in logits else loss.new_zeros(())
        for kind in KINDS
    ]
    entropy = -torch.special.xlogy(output.targets, output.targets).sum()
    counts = [loss.new_full((), size if kind in logits else 0) for kind in KINDS]
    mass = output.targets.gather(1, y[:, None]).sum()
    still = loss.new_zeros(()) if output.still is None else output.still.sum()
    attacked = 0 if output.still is None else size
    row = [loss.new_full((), size), loss.detach() * size, entropy, *hits, *counts]
    row += [mass, loss.new_full((), size), still, loss.new_full((), attacked)]
    # Apple's GPUs have no float64.
    wide = torch.float32 if y.device.type == "mps" else torch.float64
    sums = sums.to(y.device, wide)
    sums += torch.stack([value.to(wide) for value in row])
    return sums


def averages(sums: Tensor) -> dict[str, float]:
    """Return what an epoch's row says of training: n, means, accuracies.

    `target_mass` is the targets' mean mass on the true class, `zero_gradient` the share of examples
    whose attack had no gradient at any step.
    """
    totals = dict(zip(SUMS, sums.tolist(), strict=True))
    n = max(totals["n"], 1)  # an epoch that has not begun averages to 0
    row = {"n": int(totals["n"]), "loss": totals["loss"] / n}
    row["target_entropy"] = totals["entropy"] / n
    for kind, name in KINDS.items():
        if totals[f"{kind}_n"] > 0:
            row[name] = totals[kind] / totals[f"{kind}_n"]
    for kind, name in (("true_class", "target_mass"), ("still", "zero_gradient")):
        if totals[f"{kind}_n"] > 0:
            row[name] = totals[kind] / totals[f"{kind}_n"]
    return row
