"""Effects against the size of the training set, as SVG: the same figures give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from study.judge import Judged
from study.twoway import Estimated

SHOWN = {
    "adr-best": "ADR − AT, best",
    "adr-final": "ADR − AT, final",
    "trades-adr-best": "TRADES+ADR − TRADES, best",
    "trades-adr-final": "TRADES+ADR − TRADES, final",
    "overfits": "AT, best − final",
    "wa": "AT+WA − AT, best",
    "awp": "AT+AWP − AT, best",
    "ltd-5": "LTD, T = 5 − TRADES, best",
}
SIZES = ("S", "M")
WIDTH, HEIGHT, LEFT, ROW = 220, 150, 40, 4
"""Of a panel, its margin, and panels in a row."""


def drawing(judged: Sequence[Judged]) -> str:
    """Return the picture: a panel for each effect, its mean and interval at each size."""
    found = {(each.test.id, each.test.size): each.found for each in judged}
    shown = {claim: [found[claim, size] for size in SIZES] for claim in SHOWN}
    ends = [end for own in shown.values() for each in own if each for end in each.interval]
    top = max([2.0, *(abs(end) for end in ends)])
    rows = -(-len(SHOWN) // ROW)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * ROW} {HEIGHT * rows}" '
        'font-family="sans-serif" font-size="10">',
        f'<rect width="{WIDTH * ROW}" height="{HEIGHT * rows}" fill="white"/>',
    ]
    for place, (claim, own) in enumerate(shown.items()):
        x, y = WIDTH * (place % ROW), HEIGHT * (place // ROW)
        lines += [f'<g transform="translate({x},{y})">', *_panel(SHOWN[claim], own, top), "</g>"]
    return "\n".join([*lines, "</svg>", ""])


def _panel(title: str, own: Sequence[Estimated | None], top: float) -> Iterator[str]:
    """Yield one panel, whose height is from −top to top points."""

    def at(value: float) -> float:
        return round(20 + (HEIGHT - 45) * (top - value) / (2 * top), 1)

    yield f'<text x="{WIDTH / 2:g}" y="12" text-anchor="middle">{title}</text>'
    for value in (top, 0.0, -top):
        colour = "#999" if value == 0 else "#ddd"
        label = f"{value:+.1f}".replace("-", "−") if value else "0"
        yield (
            f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{at(value)}" y2="{at(value)}" '
            f'stroke="{colour}"/>'
        )
        yield f'<text x="{LEFT - 4}" y="{at(value) + 3:g}" text-anchor="end">{label}</text>'
    places = (LEFT + 45, WIDTH - 55)
    points = [(x, each) for x, each in zip(places, own, strict=True) if each]
    if len(points) == 2:
        path = " ".join(f"{x},{at(each.mean)}" for x, each in points)
        yield f'<polyline points="{path}" fill="none" stroke="#1f77b4"/>'
    for x, each in points:
        low, high = each.interval
        yield f'<line x1="{x}" x2="{x}" y1="{at(high)}" y2="{at(low)}" stroke="#1f77b4"/>'
        yield f'<circle cx="{x}" cy="{at(each.mean)}" r="3" fill="#1f77b4"/>'
    if not points:
        middle = f'x="{(WIDTH + LEFT) / 2:g}" y="{at(top / 2)}" text-anchor="middle"'
        yield f'<text {middle} fill="#999">not run yet</text>'
    for x, label in zip(places, ("500", "4,000"), strict=True):
        yield f'<text x="{x}" y="{HEIGHT - 10}" text-anchor="middle">{label} images</text>'
