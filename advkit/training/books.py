"""The sums of an epoch, what its row says of training, and the alarm of masking."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from advkit.training.learner import StepOutput

KINDS = {"clean": "train_clean_accuracy", "adversarial": "train_robust_accuracy"}
"""The logits that an objective may show, and what their accuracy is called in a row."""
SUMS = ("n", "loss", "entropy", *KINDS, *(f"{kind}_n" for kind in KINDS))
"""What is summed over the examples of an epoch: for each kind of logits, how many were right and
how many there were."""
ROBUST, ONE_STEP = "val_robust_accuracy", "val_one_step_accuracy"
PERFECT, FLAT_TARGETS = 0.97, 0.9
"""Training robust accuracy, and target entropy as a share of ln C, above which to be alarmed."""

FALLEN, CERTAIN = 0.5, 3.0
"""What is left of the best robust accuracy, and standard errors of a difference of two counts:
beyond both it has collapsed, beyond the second accuracy under one step has risen."""


def no_sums() -> Tensor:
    """Return the sums of an epoch that has not begun, (7,) float64."""
    return torch.zeros(len(SUMS), dtype=torch.float64)


def add(sums: Tensor, output: StepOutput, y: Tensor) -> Tensor:
    """Return the sums with one batch added, on its device and without waiting for it.

    Args:
        sums: (7,), see `SUMS`; changed in place where it lies on that device already.
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
    row = [loss.new_full((), size), loss.detach() * size, entropy, *hits, *counts]
    # Apple's GPUs have no float64.
    wide = torch.float32 if y.device.type == "mps" else torch.float64
    sums = sums.to(y.device, wide)
    sums += torch.stack([value.to(wide) for value in row])
    return sums


def averages(sums: Tensor) -> dict[str, float]:
    """Return what an epoch's row says of training: n, mean loss and entropy, accuracies."""
    totals = dict(zip(SUMS, sums.tolist(), strict=True))
    n = max(totals["n"], 1)  # an epoch that has not begun averages to 0
    row = {"n": int(totals["n"]), "loss": totals["loss"] / n}
    row["target_entropy"] = totals["entropy"] / n
    for kind, name in KINDS.items():
        if totals[f"{kind}_n"] > 0:
            row[name] = totals[kind] / totals[f"{kind}_n"]
    return row


def masking(row: Mapping[str, float], classes: int) -> str | None:
    """Return a warning where an epoch bears LTD's masking signature.

    It is near-perfect robustness on near-uniform targets.

    Source: LTD, section 5.4: robust training accuracy near 100 % while AutoAttack reaches 0.
    """
    most, entropy = math.log(classes), row["target_entropy"]
    robust = row.get("train_robust_accuracy", 0.0)
    if not (robust > PERFECT and entropy > FLAT_TARGETS * most):
        return None
    return (
        f"training robust accuracy {robust:.3f} on nearly uniform targets (entropy {entropy:.2f} "
        f"of {most:.2f}): gradients may be masked; do not trust PGD"
    )


def collapsed(rows: Sequence[Mapping[str, float]], n: int) -> str | None:
    """Return a warning where the last epoch bears the signature of catastrophic overfitting.

    Against the epoch of the highest robust accuracy before it, that under PGD has fallen to less
    than half and that under one step has risen, both by more than three standard errors of a
    difference of two counts: what chance does on few examples is no alarm.

    Args:
        rows: the log's, of a run whose attack is one step, the last epoch at the end.
        n: validation examples.

    Source: Wong et al., "Fast is better than free", ICLR 2020, who describe it; the rule is ours.
    """
    known = [row for row in rows if {ROBUST, ONE_STEP} <= row.keys()]
    if len(known) < 2 or known[-1] is not rows[-1]:
        return None
    best, now = max(known[:-1], key=lambda row: row[ROBUST]), known[-1]
    fell = now[ROBUST] < FALLEN * best[ROBUST] and _apart(now[ROBUST], best[ROBUST], n)
    rose = now[ONE_STEP] > best[ONE_STEP] and _apart(now[ONE_STEP], best[ONE_STEP], n)
    if not (fell and rose):
        return None
    return (
        f"catastrophic overfitting: validation accuracy under PGD fell from {best[ROBUST]:.3f} to "
        f"{now[ROBUST]:.3f} while under one step it rose from {best[ONE_STEP]:.3f} to "
        f"{now[ONE_STEP]:.3f}: do not trust one-step accuracy; try --train-attack n-fgsm, "
        "--grad-align, or more --attack-steps"
    )


def _apart(a: float, b: float, n: int) -> bool:
    """Whether two shares of n lie further apart than chance, as of independent samples."""
    pooled = (a + b) / 2
    return abs(a - b) > CERTAIN * math.sqrt(2 * pooled * (1 - pooled) / n)
