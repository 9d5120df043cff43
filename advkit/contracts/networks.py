"""What an architecture promises."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from advkit.contracts.scene import (
    CLASSES,
    Breach,
    classes,
    demand,
    generators,
    images,
    small,
)
from advkit.errors import UsageError
from advkit.evaluation import folded
from advkit.formulas.losses import cross_entropy
from advkit.registry import Part
from advkit.runtime import modes


def gives_logits_and_a_gradient(part: Part) -> None:
    """Logits (B, C) in float32, a gradient to the images, and no image sees another in eval."""
    channels = part.constants.get("CHANNELS", (3,))
    _require_logits_and_gradient(small(part.name, channels[-1]), channels[-1])


def takes_grey_images_or_says_that_it_does_not(part: Part) -> None:
    """`CHANNELS` says it where it does not."""
    if 1 in part.constants.get("CHANNELS", (1, 3)):
        _require_logits_and_gradient(small(part.name, 1), 1)
        return
    try:
        small(part.name, 1)
    except UsageError:
        return
    raise Breach("CHANNELS leaves grey images out, and they are taken")


def _require_logits_and_gradient(net: nn.Module, channels: int) -> None:
    x = images(channels, 32)[:2].requires_grad_()
    logits = net(x)
    demand(isinstance(logits, Tensor), f"it answers with {type(logits).__name__}, no tensor")
    shape, wanted = tuple(logits.shape), (2, CLASSES)
    demand(shape == wanted, f"its logits have shape {shape}, not {wanted}")
    demand(logits.dtype == torch.float32, f"its logits are {logits.dtype}, not float32")
    (gradient,) = torch.autograd.grad(logits[0].sum(), x)
    demand(gradient[0].abs().max() > 0, "it has no gradient to its images")
    demand((gradient[1] == 0).all(), "in eval mode an image's logits depend on another image")


def carries_its_normalisation(part: Part) -> None:
    """The statistics that `build` gets are its buffers `mean` and `std`."""
    channels = part.constants.get("CHANNELS", (3,))[-1]
    tensors = small(part.name, channels).state_dict()
    for name, value in (("mean", 0.4), ("std", 0.3)):
        demand(
            name in tensors
            and torch.allclose(tensors[name].flatten(), torch.full((channels,), value)),
            f"it keeps no buffer {name} with the statistics that build gets",
        )


def builds_the_same_again(part: Part) -> None:
    """The same seed gives the same weights, and global generators are left alone."""
    channels = part.constants.get("CHANNELS", (3,))[-1]
    first, before = small(part.name, channels, statistics=False), generators()
    second = dict(small(part.name, channels, statistics=False).named_parameters())
    demand(generators() == before, "building it draws from a global random generator")
    demand(second, "it has no parameters")
    demand(
        all(torch.equal(second.pop(name), value) for name, value in first.named_parameters()),
        "built twice from one seed it has other weights",
    )


def folds_into_the_same(part: Part) -> None:
    """A copy with normalisation folded, which AutoAttack looks at, answers the same.

    In float64: in float32 an activation within rounding of a ReLU's kink may fall on its other
    side in the copy. Of somebody else's net there may be no copy: AutoAttack is slower then.
    """
    channels = part.constants.get("CHANNELS", (3,))[-1]
    net, x = copy.deepcopy(small(part.name, channels)).double(), images(channels, 16)[:3].double()
    same = folded.folded(net)
    if same is None:
        demand(part.foreign, "torch.fx cannot trace it: AutoAttack would be slow")
        return
    answers = []
    for one in (net, same):
        asked = x.clone().requires_grad_()
        logits = one(asked)
        (gradient,) = torch.autograd.grad(cross_entropy(logits, classes()[:3]).sum(), asked)
        answers.append((logits.detach(), gradient))
    for mine, its in zip(*answers, strict=True):
        demand(
            float((mine - its).abs().max()) <= 1e-10 * float(mine.abs().max()),
            "a copy with its normalisation folded answers otherwise",
        )
    norms = len(modes.batch_norms(net))
    demand(not norms or len(modes.batch_norms(same)) < norms, "no normalisation could be folded")
