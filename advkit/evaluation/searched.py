"""The net that AutoAttack's searches look at: a faster copy; verdicts come from the net itself."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from advkit.errors import AdvkitError
from advkit.evaluation import folded, fused, windows
from advkit.evaluation.settings import SUITES, AttackSettings
from advkit.runtime.reporting import Reporter

ROUNDING = 1e-3
"""Share of the largest logit that a copy of a net may be off: a wrong copy is off by far more."""


FEW = 4
"""Images on which windows are checked."""


class Searched(nn.Module):
    """A net whose passes without a gradient go to its fused form.

    A single image goes to the net itself, where PyTorch has something quicker for it.
    """

    def __init__(self, net: nn.Module, form: fx.GraphModule) -> None:
        super().__init__()
        self.net, self.form = net, form
        self.windowed = True
        self.plans: dict[tuple[torch.Size, int], windows.Plan] = {}

    def forward(
        self, x: Tensor, held: windows.Held | None = None, top: int = 0, left: int = 0
    ) -> Tensor:
        """Return the net's logits (B, classes) of images (B, C, H, W).

        With `held`: of the images there, with windows x (B, C, h, w) in them at `top` and `left`.
        """
        if held is not None:
            return held.logits(x, top, left)
        quick = len(x) > 1 and not torch.is_grad_enabled()
        logits: Tensor = self.form(x) if quick else self.net(x)
        return logits

    def hold_for_windows(self, images: Tensor, side: int) -> windows.Held | None:
        """Hold images (B, C, H, W) for windows of a size; None where it would not save time."""
        if not self.windowed:
            return None
        plan = self._plan(images.shape[1:], side)
        return windows.Held(plan, images) if plan.worth(len(images)) else None

    @torch.no_grad()
    def _plan(self, shape: torch.Size, side: int) -> windows.Plan:
        if (shape, side) not in self.plans:
            self.plans[shape, side] = windows.Plan(self.form, shape, side)
        return self.plans[shape, side]

    @torch.no_grad()
    def answers_for_windows(self, x: Tensor) -> bool:
        """Whether it does, in images x (B, C, H, W), as for whole ones."""
        height, width = x.shape[2:]
        side = max(min(height, width) // 8, 1)
        held = windows.Held(self._plan(x.shape[1:], side), x)
        gap = largest = 0.0
        for top, left in ((0, width - side), (height // 2, width // 3), (height - side, 0)):
            images = x.clone()
            images[:, :, top : top + side, left : left + side] = 0.5
            expected = self.form(images)
            found = held.logits(images[:, :, top : top + side, left : left + side], top, left)
            gap = max(gap, float((found - expected).abs().amax()))
            largest = max(largest, float(expected.abs().amax()))
        return gap <= ROUNDING * largest


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
        if not _stands_in(copy, quick, x):
            reporter.note("fused operators do not answer as this net does: attacked without them")
            return copy
        quick.windowed = _answers_for_windows(quick, x[:FEW], reporter)
        return quick
    reporter.note("batch normalisation cannot be folded into this net: attacked as it is")
    return model


def _stands_in(net: nn.Module, quick: nn.Module, x: Tensor) -> bool:
    try:
        return folded.agree(net, quick, x, ROUNDING)
    except RuntimeError:  # shapes that the operators do not take
        return False


def _answers_for_windows(quick: Searched, x: Tensor, reporter: Reporter) -> bool:
    why = "they do not answer as the whole"
    try:
        if quick.answers_for_windows(x):
            return True
    except AdvkitError:  # a signal
        raise
    except Exception as error:  # whatever a graph has that was not thought of
        why = f"{type(error).__name__}: {error}"
    reporter.note(f"parts of this net cannot be asked alone, which only saves time ({why})")
    return False
