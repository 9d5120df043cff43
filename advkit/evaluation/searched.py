"""The net that AutoAttack's searches look at: a faster copy; verdicts come from the net itself."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from advkit.evaluation import folded, fused, windows
from advkit.evaluation.settings import SUITES, AttackSettings
from advkit.runtime.reporting import Reporter

ROUNDING = 1e-3
"""Share of the largest logit that a copy of a net may be off: a wrong copy is off by far more."""


class Searched(nn.Module):
    """A net whose passes without a gradient go to its fused form.

    A single image goes to the net itself, where PyTorch has something quicker for it.
    """

    def __init__(self, net: nn.Module, form: fx.GraphModule) -> None:
        super().__init__()
        self.net, self.form = net, form
        self.plans: dict[tuple[torch.Size, int], windows.Plan] = {}

    def forward(
        self, x: Tensor, near: windows.Near | None = None, top: int = 0, left: int = 0
    ) -> Tensor:
        """Return the net's logits (B, classes) of images (B, C, H, W).

        With `near`: of the images there, with windows x (B, C, h, w) in them at `top` and `left`.
        """
        if near is not None:
            return near.logits(x, top, left)
        quick = len(x) > 1 and not torch.is_grad_enabled()
        logits: Tensor = self.form(x) if quick else self.net(x)
        return logits

    @torch.no_grad()
    def near(self, images: Tensor, side: int) -> windows.Near | None:
        """Hold images (B, C, H, W) for windows of a size; None where it would not save time."""
        key = images.shape[1:], side
        if key not in self.plans:
            self.plans[key] = windows.Plan(self.form, *key)
        plan = self.plans[key]
        return windows.Near(plan, images) if plan.worth(len(images)) else None


def searched(
    model: nn.Module, settings: AttackSettings, x: Tensor, reporter: Reporter
) -> nn.Module:
    """Return the net that a suite's attacks look at: a faster copy, the same to rounding.

    Verdicts come from `model` itself. A copy that answers otherwise on images x is not used, nor
    is any for `--version rand`, which is for nets that answer at random.
    """
    if settings.attack not in SUITES or settings.version == "rand":
        return model
    # A copy with BN folded saves a pass over all activations in each of thousands of queries.
    copy = folded.folded(model)
    if copy is None:
        return model
    if folded.agree(model, copy, x, ROUNDING):
        form = fused.fused(copy)
        if form is None:
            return copy
        quick = Searched(copy, form)
        if _stands_in(copy, quick, x):
            return quick
        reporter.note("fused operators do not answer as this net does: attacked without them")
        return copy
    reporter.note("batch normalisation cannot be folded into this net: attacked as it is")
    return model


def _stands_in(net: nn.Module, quick: nn.Module, x: Tensor) -> bool:
    try:
        return folded.agree(net, quick, x, ROUNDING)
    except RuntimeError:  # shapes that the operators do not take
        return False
