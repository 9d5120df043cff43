"""Square in l∞ with the package's proposals and answers, in full batches and without idle queries.

A query tries one window of one sign a channel, the same for every image, and keeps it where the
margin falls: what an image does depends on no other. So each walks down the list by itself.
Where few images are left, several queries of each are asked at once from where it stands; the
first that is kept counts, and those behind it are asked again. A proposal that leaves an
image as it is cannot lower its margin and is not asked. A net that can compute alone what a
window changes (`Windowed`) is asked for that, as long as many images walk together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import EllipsisType
from typing import Protocol, runtime_checkable

import torch
from pyautoattack.square import SquareAttack
from torch import Tensor

FULL = 64
"""Images that fill a forward pass: from here on larger batches take no less time an image."""
PASS = 5
"""What a forward pass costs beside its images, in images: 3 to 6 for ResNet-18 of width 16."""
ROUNDING = 1e-6
"""Windows already at the ball's edge may move by the last bit of a pixel: nothing comes of it.
Others move by ε or more, which may be less than this."""
BLOCK = 100
"""Queries that all images finish before the next are drawn."""
FEW = 12
"""Fewer images are asked ahead: that costs less there than windows do, on ResNet-18 of width 16."""


class Held(Protocol):
    """What a net keeps of images (B, C, H, W) to answer for windows in them."""

    def keep(self, rows: Tensor) -> None:
        """Leave the last window in the images that `rows` (B,) bool says."""

    def restrict(self, rows: Tensor) -> None:
        """Forget all images but those that `rows` (B,) bool says."""


@runtime_checkable
class Windowed(Protocol):
    """A net that answers for the same window in all images without a whole pass."""

    def hold_for_windows(self, images: Tensor, side: int) -> Held | None:
        """Keep images for windows of a size; None where it would not save time."""

    def __call__(self, window: Tensor, held: Held, top: int, left: int, /) -> Tensor:
        """Return the logits (B, classes) of the images with a window (B, C, h, w) in them."""


def walk(attack: SquareAttack) -> None:
    """Have an attack of the package run as above; in l2 and l1 it stays as it is."""
    if attack.norm == "Linf":
        attack.attack_single_run = lambda x, y: _run(attack, x, y)


@dataclass(frozen=True)
class _Proposals:
    """Q windows: `top`, `left` and `size` (Q,) in pixels, `step` (Q, C).

    `windows` says the same in plain numbers, which a GPU need not be asked for.
    """

    top: Tensor
    left: Tensor
    size: Tensor
    step: Tensor
    windows: list[tuple[int, int, int]]

    @classmethod
    def drawn(cls, attack: SquareAttack, queries: range, shape: torch.Size) -> _Proposals:
        """Draw from the global generator as the package does: a window's place, then its signs."""
        channels, height, width = shape
        areas = [attack.p_selection(query) * shape.numel() / channels for query in queries]
        sides = [min(max(round(math.sqrt(area)), 1), height, width) for area in areas]
        size = torch.tensor(sides)
        draws = torch.rand(len(queries), 2 + channels)
        top = ((height - size) * draws[:, 0]).long()
        left = ((width - size) * draws[:, 1]).long()
        return cls(
            top=top.to(attack.device),
            left=left.to(attack.device),
            size=size.to(attack.device),
            step=(2.0 * attack.eps * torch.sign(2 * draws[:, 2:] - 1)).to(attack.device),
            windows=list(zip(top.tolist(), left.tolist(), sides, strict=True)),
        )

    def tried(
        self, queries: Tensor, best: Tensor, low: Tensor, high: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the images (P, C, H, W) that queries (P,) make of the best ones, and how far.

        How far is the largest change of a pixel (P,).
        """
        down = _between(self.top[queries], self.size[queries], best.shape[2])
        along = _between(self.left[queries], self.size[queries], best.shape[3])
        moved = (best + self.step[queries, :, None, None]).maximum(low).minimum(high)
        images = torch.where(down[:, None, :, None] & along[:, None, None, :], moved, best)
        return images, _largest(images - best)

    def tried_by_all(
        self, query: int, best: Tensor, low: Tensor, high: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Do it for one query of all images: nothing outside of its window is looked at."""
        inside = self.inside(query)
        window, moved = self.window(query, best[inside], low[inside], high[inside])
        images = best.clone()
        images[inside] = window
        return images, moved

    def inside(self, query: int) -> tuple[EllipsisType, slice, slice]:
        """Return the place of a query's window in images (..., H, W)."""
        top, left, size = self.windows[query]
        return ..., slice(top, top + size), slice(left, left + size)

    def window(self, query: int, best: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a query puts in the place of windows (P, C, h, w), and how far that is."""
        window = (best + self.step[query, :, None, None]).maximum(low).minimum(high)
        return window, _largest(window - best)


def _margins(logits: Tensor, y: Tensor) -> Tensor:
    """Return (P,): the logit of the class less the highest other, of logits (P, classes)."""
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return own[:, 0] - others


@lru_cache(maxsize=256)
def _ahead(live: int, rate: float) -> int:
    """Return how many queries of each image to ask at once, for the most that count per cost.

    Of k queries those up to the first that is kept count: (1 − (1 − rate)^k) / rate on average.

    >>> _ahead(100, 0.0), _ahead(2, 1.0), _ahead(2, 0.0), _ahead(3, 0.15)
    (1, 1, 32, 4)
    """

    def gain(ahead: int) -> float:
        return sum((1 - rate) ** behind for behind in range(ahead)) / (PASS + live * ahead)

    return max(range(1, max(FULL // live, 1) + 1), key=gain)


def _largest(change: Tensor) -> Tensor:
    """Return (P,): the largest magnitude of each image's change."""
    return change.abs().flatten(1).amax(1)


def _between(begin: Tensor, count: Tensor, length: int) -> Tensor:
    """Return (P, length) bool: the positions from `begin` (P,) on, `count` (P,) of them."""
    behind = torch.arange(length, device=begin.device) - begin[:, None]
    return (behind >= 0) & (behind < count[:, None])


@torch.no_grad()
def _run(attack: SquareAttack, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return (queries up to the end of each image, (B,); the images (B, C, H, W))."""
    count, channels, _, width = x.shape
    stripes = torch.sign(2 * torch.rand(count, channels, 1, width) - 1).to(attack.device)
    search = _Search(attack, x, y, torch.clamp(x + attack.eps * stripes, 0.0, 1.0))
    for begin in range(0, attack.n_queries, BLOCK):
        if not bool((search.margin > 0).any()):
            break
        queries = range(begin, min(begin + BLOCK, attack.n_queries))
        search.through(_Proposals.drawn(attack, queries, x.shape[1:]))
    return search.asked, search.best


class _Search:
    """Where each image stands: the best so far, its margin, and the queries behind it."""

    def __init__(self, attack: SquareAttack, x: Tensor, y: Tensor, start: Tensor) -> None:
        self.net: Callable[[Tensor], Tensor] = attack.predict
        self.windowed = attack.predict if isinstance(attack.predict, Windowed) else None
        self.y, self.best = y, start
        self.low, self.high = (x - attack.eps).clamp(min=0), (x + attack.eps).clamp(max=1)
        self.margin = _margins(self.net(start), y)
        self.asked = torch.ones(len(x), device=x.device)
        self.still = min(ROUNDING, attack.eps / 2)
        self.rate = 1.0  # of queries that are kept, in the block before
        self.held: tuple[int, Tensor, Held] | None = None  # for windows of a size, these images
        self.refused = 0  # the size of windows for which the net holds no images

    def through(self, proposals: _Proposals) -> None:
        """Take every image that is still right through all these proposals."""
        total = len(proposals.size)
        at = torch.zeros(len(self.y), dtype=torch.int64, device=self.y.device)
        kept = behind = 0
        together: int | None = 0  # the query that every image is at, as long as there is one
        while len(live := ((self.margin > 0) & (at < total)).nonzero().flatten()):
            falls = None if together is None else self._asked_inside(proposals, together, live)
            if together is not None and falls is not None:
                at[live] += 1
                self.asked[live] += 1
                kept, behind, together = kept + int(falls.sum()), behind + len(live), together + 1
                continue
            ahead = _ahead(len(live), self.rate)
            queries = at[live, None] + torch.arange(ahead, device=at.device)
            together = together if ahead == 1 else None
            better, images, margins = self._asked(proposals, live, queries, total, together)
            together = None if together is None else together + 1
            falls = better.any(1)
            first = better.int().argmax(1)
            steps = torch.where(falls, first + 1, (total - at[live]).clamp(max=ahead))
            at[live] += steps
            self.asked[live] += steps
            rows, chosen = live[falls], (falls.nonzero().flatten(), first[falls])
            self.best[rows], self.margin[rows] = images[chosen], margins[chosen]
            kept, behind = kept + len(rows), behind + int(steps.sum())
        self.rate = kept / max(behind, 1)

    def _hold(self, live: Tensor, side: int) -> Held | None:
        """Return what the net holds of the images `live` (P,), if it does."""
        if self.windowed is None or len(live) < FEW or side == self.refused:
            return None
        if self.held is not None and self.held[0] == side:
            _, rows, held = self.held
            if len(live) < len(rows):
                held.restrict(torch.isin(rows, live))
            self.held = side, live, held
            return held
        self.held = None  # not two at a time
        made = self.windowed.hold_for_windows(self.best[live], side)
        if made is None:
            self.refused = side  # for fewer images too
        else:
            self.held = side, live, made
        return made

    def _asked_inside(self, proposals: _Proposals, query: int, live: Tensor) -> Tensor | None:
        """Ask one query of the images `live` (P,) in its window, and keep it where it is better.

        Returns:
            where it lowers the margin (P,); None if the net holds no images for it.
        """
        top, left, side = proposals.windows[query]
        held = self._hold(live, side)
        if self.windowed is None or held is None:
            return None
        inside = proposals.inside(query)
        ball = self.best[inside][live], self.low[inside][live], self.high[inside][live]
        window, moved = proposals.window(query, *ball)
        margins = _margins(self.windowed(window, held, top, left), self.y[live])
        falls: Tensor = (margins < self.margin[live]) & (moved > self.still)
        held.keep(falls)
        self.best[inside][live[falls]] = window[falls]
        self.margin[live[falls]] = margins[falls]
        return falls

    def _asked(
        self,
        proposals: _Proposals,
        live: Tensor,
        queries: Tensor,
        total: int,
        together: int | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ask queries (P, K) of the images `live` (P,); `together` is the one of all, if it is one.

        Returns:
            whether each lowers its image's margin (P, K), the images (P, K, C, H, W) and
            their margins (P, K), infinite where nothing was asked.
        """
        rows = live.repeat_interleave(queries.shape[1])
        flat = queries.flatten()
        before = self.best[rows], self.low[rows], self.high[rows]
        images, moved = (
            proposals.tried(flat.clamp(max=total - 1), *before)
            if together is None
            else proposals.tried_by_all(together, *before)
        )
        open_ = (flat < total) & (moved > self.still)
        margins = torch.full_like(self.margin[rows], torch.inf)
        if bool(open_.all()):
            margins = _margins(self.net(images), self.y[rows])
        elif bool(open_.any()):
            margins[open_] = _margins(self.net(images[open_]), self.y[rows[open_]])
        better = margins < self.margin[rows]
        shape = queries.shape
        return better.view(shape), images.view(*shape, *images.shape[1:]), margins.view(shape)
