"""What the landscapes are made of: a grid, filter-normalised directions, a net moved along one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from advkit.analyses.drawing.panels import line, size
from advkit.analyses.drawing.style import look
from advkit.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def grid(reach: float, points: int) -> tuple[float, ...]:
    """Return evenly spaced values from −reach to reach, 0 exactly in the middle.

    >>> grid(1.0, 5)
    (-1.0, -0.5, 0.0, 0.5, 1.0)

    Raises:
        UsageError: fewer than three points or an even number, or no reach.
    """
    if points < 3 or points % 2 == 0:
        raise UsageError(f"--points {points}: an odd number from 3 on, so that one point is 0")
    if not 0 < reach < float("inf"):
        raise UsageError(f"--reach {reach:g} is not > 0")
    half = points // 2
    return tuple(reach * place / half for place in range(-half, half + 1))


def direction(model: nn.Module, generator: Generator) -> dict[str, Tensor]:
    """Draw a Gaussian direction, filter by filter as long as the weights: name → tensor.

    d_ij ← d_ij / ‖d_ij‖ · ‖w_ij‖ for filter j of layer i, a row (along the first dimension) of a
    tensor with two dimensions or more; a linear layer's rows are filters too. Biases and the
    parameters of normalisation do not move and are left out. Nets of the same architecture get
    the same draws.

    Args:
        model: the net.
        generator: on the CPU, read in the order of `named_parameters`.

    Source: Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, section 4;
    their code zeroes biases and normalisation too.
    """
    scaled = {}
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            continue
        # Drawn on the CPU, so that the direction is the same whatever device the net is on.
        drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
        # A net with rescaled weights is the same function: by its own filters' lengths a step
        # means the same for both.
        drawn *= _lengths(parameter.detach()) / _lengths(drawn)
        scaled[name] = drawn
    return scaled


@contextmanager
def moved(model: nn.Module, along: Mapping[str, Tensor], alpha: float) -> Iterator[None]:
    """Put the named weights at w + α·d inside, and back bit for bit after, also on an error.

    Buffers (the statistics of batch normalisation) are not touched.
    """
    parameters = dict(model.named_parameters())
    # Copies, not a step back by −α·d: w + α·d − α·d is not w in floating point.
    before = {name: parameters[name].detach().clone() for name in along}
    try:
        with torch.no_grad():
            for name, values in along.items():
                parameters[name].add_(values, alpha=alpha)
        yield
    finally:
        with torch.no_grad():
            for name, values in before.items():
                parameters[name].copy_(values)


def band(axes: Axes, x: Sequence[float], runs: Tensor, label: str, place: int) -> None:
    """Draw the mean of runs (R, points) over R, with ± one sample standard deviation behind."""
    own, mean = look(place), runs.mean(0)
    line(axes, x, mean.tolist(), label, own, size=size(place))
    if len(runs) > 1:
        deviation = runs.std(0)
        low, high = (mean - deviation).tolist(), (mean + deviation).tolist()
        axes.fill_between(x, low, high, color=own.colour, alpha=0.18, linewidth=0)


def spread(runs: Tensor) -> str:
    """Say what `band` draws of runs (R, points)."""
    return f"mean ± sd of {len(runs)} directions" if len(runs) > 1 else "one direction"


def _lengths(tensor: Tensor) -> Tensor:
    """Return the l2 norm of each row, (rows, 1, ..., 1)."""
    norms: Tensor = tensor.flatten(1).norm(dim=1)
    return norms.view(-1, *[1] * (tensor.dim() - 1))
