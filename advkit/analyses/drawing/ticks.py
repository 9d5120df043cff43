"""Ticks of axes of shares. It needs matplotlib, a second to import: import it where one draws."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator, PercentFormatter

ROUNDING = 1e-9


class Shares(MaxNLocator):
    """Ticks of an axis in percent: none below 0 or above 100, where there is only room."""

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Return round values within [0, 1]."""
        ticks = super().tick_values(vmin, vmax)
        return [float(tick) for tick in ticks if -ROUNDING <= tick <= 1 + ROUNDING]


class Percents(PercentFormatter):
    """Shares in percent, without decimals that all ticks of an axis lack."""

    def format_ticks(self, values: list[float]) -> list[str]:
        """Return the texts of an axis' ticks, of equally many decimals."""
        texts = super().format_ticks(list(values))
        while texts and all("." in text and text[-1] in ".0" for text in texts):
            texts = [text[:-1] for text in texts]
        return texts
