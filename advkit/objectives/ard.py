"""ARD: KL at a temperature from the teacher's rows to adversarial images, hard label on clean."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.formulas.losses import cross_entropy, kl_from, log_softmax
from advkit.objectives import Given

START = "uniform"
LIMITS = {"adversarial_weight": "[0, 1]", "kl_weight": "[0, 1e6]", "temperature": "[1e-6, 1e6]"}


def inner(logits: Tensor, given: Given) -> Tensor:
    """Return CE(z′, y) with the true class per example, (B,)."""
    return cross_entropy(logits, given.y)


def outer(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    given: Given,
    *,
    adversarial_weight: float = 1.0,
    kl_weight: float = 1.0,
    temperature: float = 30.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return α·T²·KL(target ‖ softmax(z′/T)) + (1 − α)·CE(z, y), means over the batch.

    The target is the teacher's row on the clean image at the same T. BN sees the adversarial
    images first, and the clean ones also where α = 1, as in the original code.

    Args:
        adversarial_weight: share of the adversarial term, the clean term has the rest.
        kl_weight: factor of KL divergences summed over classes; codes that average over classes
            too have 1/C.
        temperature: T of teacher and student; with --labels soft one option sets both.

    Source: Goldblum et al., "Adversarially Robust Distillation", AAAI 2020, arXiv 1905.09747,
    eq. 5: a sum over classes. The code averages over classes too: `kl_weight` 1/C.
    """
    adversarial, clean = model(x_adv), model(x)
    # Widened first: half precision divided by T would lose what tells classes apart.
    softened = log_softmax(adversarial) / temperature
    robust = kl_weight * temperature**2 * kl_from(given.targets, softened).mean()
    natural = cross_entropy(clean, given.y).mean()
    loss = adversarial_weight * robust + (1 - adversarial_weight) * natural
    return loss, {"clean": clean.detach(), "adversarial": adversarial.detach()}
