"""SCORE: squared error of probabilities, clean to the target and adversarial to clean."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.formulas.losses import probabilities, squared_error
from advkit.objectives import Given

START = "uniform"
LIMITS = {"beta": "[0, 1e6]"}


def inner(logits: Tensor, given: Given) -> Tensor:
    """Return Σ_c (p′_c − p_c)² per example, (B,): adversarial against clean probabilities."""
    return squared_error(logits, probabilities(given.clean()))


def outer(
    model: nn.Module, x: Tensor, x_adv: Tensor, given: Given, *, beta: float = 3.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return mean Σ_c (p_c − target_c)² + β·mean Σ_c (p′_c − p_c)².

    Gradients flow through both sides of the second term.

    Args:
        beta: weight of the robust term.

    Source: Pang et al., "Robustness and Accuracy Could Be Reconcilable by (Proper) Definition",
    ICML 2022, arXiv 2202.10103; squared errors as in the authors' code. β is that of their
    published checkpoints; the command in their README has 4.
    """
    clean, adversarial = model(x), model(x_adv)
    natural = squared_error(clean, given.targets).mean()
    robust = squared_error(adversarial, probabilities(clean)).mean()
    stats = {"clean": clean.detach(), "adversarial": adversarial.detach()}
    return natural + beta * robust, stats
