"""Small pictures of text for a terminal."""

from __future__ import annotations

from advkit.artifacts.result import Curve, Histogram

BARS = " ▁▂▃▄▅▆▇█"


def spark(data: Histogram | Curve) -> list[str]:
    """Return a histogram or a curve as lines of text, one a series.

    Bars are counts relative to the series' highest; a curve's heights share one scale, whose ends
    are the least and the greatest value of all series.

    >>> spark(Histogram("h", (0.0, 1.0, 2.0), {"clean": (1, 4)}))
    ['clean  0 ▂█ 2  (n = 5)']
    >>> spark(Curve("c", (0.0, 0.1, 0.2), {"PGD": (1.0, 0.5, None)}))
    ['PGD  0 █▁  0.2  (1 to 0.5)']
    """
    if isinstance(data, Curve):
        return curves(data)
    widest = max(len(series) for series in data.counts)
    lines = []
    for series, counts in data.counts.items():
        bars = "".join(bar(count / max(*counts, 1), 0) for count in counts)
        low, high = f"{data.edges[0]:g}", f"{data.edges[-1]:.3g}"
        lines.append(f"{series:<{widest}}  {low} {bars} {high}  (n = {sum(counts)})")
    return lines


def curves(data: Curve) -> list[str]:
    """Return curves as lines of text on one scale, one a series."""
    widest = max(len(series) for series in data.series)
    known = [value for values in data.series.values() for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    lines = []
    for series, values in data.series.items():
        span = (high - low) or 1.0  # a level curve has no height to divide by
        bars = "".join(" " if y is None else bar((y - low) / span, 1) for y in values)
        own = [y for y in values if y is not None] or [0.0]
        ends = f"{data.x[0]:g} {bars} {data.x[-1]:g}"
        lines.append(f"{series:<{widest}}  {ends}  ({own[0]:.3g} to {own[-1]:.3g})")
    return lines


def bar(share: float, least: int) -> str:
    """Return a block for a share of the height; a curve's least one is still visible."""
    return BARS[least + round(share * (len(BARS) - 1 - least))]
