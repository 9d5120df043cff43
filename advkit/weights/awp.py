"""Adversarial weight perturbation: the worst weights nearby, for one step.

It knows no objective: the caller brings gradients and computes its loss inside the context.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

FORMS = ("original", "adr")
TINY = 1e-20


def chosen(model: nn.Module, form: str) -> dict[str, nn.Parameter]:
    """Return the parameters that a form perturbs, by name.

    original: those named "weight" with more than one dimension (convolutions, linear layers);
    adr: all.
    """
    named = dict(model.named_parameters())
    if form == "adr":
        return named
    return {name: p for name, p in named.items() if "weight" in name and p.dim() > 1}


@contextmanager
def perturbed(model: nn.Module, gradients: Mapping[str, Tensor], radius: float) -> Iterator[None]:
    """Move each named tensor by ρ·‖w‖·g/(‖g‖ + 1e-20), uphill in the loss; then move it back.

    What an optimizer did to the weights inside stays, less the perturbation: nothing done means
    the same weights bit for bit, and an error inside restores them as they were.

    Args:
        model: the net.
        gradients: parameter name → gradient of the loss, of the same shape; no other moves.
        radius: ρ, relative to each tensor's l2 norm.

    Source: Wu et al., "Adversarial Weight Perturbation Helps Robust Generalization", NeurIPS
    2020, equations 8 to 10.
    """
    parameters = dict(model.named_parameters())
    before = {name: parameters[name].detach().clone() for name in gradients}
    perturbed_weights: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, gradient in gradients.items():
            size = radius * before[name].norm() / (gradient.norm() + TINY)
            parameters[name].add_(gradient * size)
            perturbed_weights[name] = parameters[name].detach().clone()
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for name, values in before.items():
                parameters[name].copy_(values)
        raise
    with torch.no_grad():
        for name, values in before.items():
            parameters[name].copy_(values + (parameters[name] - perturbed_weights[name]))
