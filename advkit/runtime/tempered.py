"""A student at another temperature than 1, to show what defensive distillation does."""

from __future__ import annotations

from torch import Tensor, nn


class Tempered(nn.Module):
    """Logits divided by T during training only.

    Tested at temperature 1, its logits are T times as large: the gradient masking of defensive
    distillation, which LTD avoids by keeping the student's T at 1 (LTD, section 4.3).
    """

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        """Return z/T, (B, C)."""
        logits: Tensor = self.model(x)
        return logits / self.temperature
