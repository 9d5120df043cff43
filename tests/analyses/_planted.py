"""Models with a planted fault of their gradients, and honest ones, trained on the digits."""

import copy
import dataclasses

import torch
from torch import nn

from advkit import data
from advkit.__main__ import main
from advkit.analyses.probing.probe import probe
from advkit.runtime.tempered import Tempered

TRAIN = ["--data", "digits", "-q"]
AT = [*TRAIN, "--method", "at", "--epochs", "8", "--attack-steps", "5"]
TEACHER = [*TRAIN, "--width", "16", "--epochs", "6"]
STUDENT = [
    *TRAIN, "--method", "natural+soft", "--temperature", "1", "--student-temperature", "20",
    "--lr", "2", "--width", "16", "--epochs", "20",
]  # fmt: skip
LIGHT = {"steps": 10, "more_steps": 30, "queries": 200, "points": 40}
"""A battery that takes seconds."""


class Quantised(nn.Module):
    """Pixels rounded to 17 levels: a staircase, whose gradient is zero."""

    steps = 16

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(torch.round(self.steps * x) / self.steps)


class Staircase(Quantised):
    """The same, with the gradient of the identity in its place: one that is wrong everywhere."""

    def forward(self, x):
        return self.model(x + (torch.round(self.steps * x) / self.steps - x).detach())


class Detached(Quantised):
    """The same by way of integers, through which autograd finds no way at all."""

    def forward(self, x):
        return self.model((self.steps * x).round().to(torch.int32) / self.steps)


class Noisy(Quantised):
    """Pixels with noise, drawn anew each time."""

    def forward(self, x):
        return self.model(x + 0.05 * torch.randn_like(x))


class Dropping(Quantised):
    """A tenth of the pixels left out, others each time."""

    def forward(self, x):
        return self.model(nn.functional.dropout(x, 0.1, training=True))


class Saturating(Quantised):
    """A last layer that is flat where the net is sure."""

    def forward(self, x):
        return 30 * torch.tanh(5 * self.model(x))


class Backward(Quantised):
    """The net as it is, with another gradient of its input."""

    def gradient(self, slope):
        raise NotImplementedError

    def forward(self, x):
        if x.requires_grad:
            x = x.clone()
            x.register_hook(self.gradient)
        return self.model(x)


class Reversed(Backward):
    """The gradient leads the other way."""

    def gradient(self, slope):
        return -slope


class Random(Backward):
    """The gradient is noise, the same for each image place."""

    def gradient(self, slope):
        generator = torch.Generator().manual_seed(0)
        return slope.norm() * torch.randn(slope.shape, generator=generator)


class Partial(Backward):
    """Every fifth image of a batch has no gradient."""

    def gradient(self, slope):
        kept = torch.arange(len(slope)) % 5 > 0
        return slope * kept.view(-1, *[1] * (slope.dim() - 1))


class Shattered(Quantised):
    """Pixels bent by a fast wave: the gradient is true and says nothing a step further."""

    def forward(self, x):
        return self.model(x + 0.05 * torch.sin(400 * x))


class Winners(nn.Module):
    """k-winners-take-all behind each ReLU: the fifth of the activations that are largest stay.

    It shatters gradients; a net that gradient attacks break all the same hides nothing.
    """

    def forward(self, x):
        flat = x.flatten(1)
        least = flat.topk(max(1, flat.shape[1] // 5), dim=1).values[:, -1:]
        return (flat * (flat >= least)).view_as(x)


def winning(model):
    """Return a copy of a net with k-winners in place of every ReLU."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, Winners())
    return model


FAULTS = {
    "logits x 10^4": (lambda net: Tempered(net, 1e-4), "logit-scale"),
    "logits x 10^3": (lambda net: Tempered(net, 1e-3), "logit-scale"),
    "quantised input": (Quantised, "gradients-present"),
    "input by way of integers": (Detached, "gradients-present"),
    "straight-through rounding": (Staircase, "gradient-honest"),
    "noise at the input": (Noisy, "deterministic-forward"),
    "dropout at test time": (Dropping, "deterministic-forward"),
    "saturating layer": (Saturating, "gradients-present"),
    "gradient reversed": (Reversed, "gradient-honest"),
    "gradient of noise": (Random, "gradient-honest"),
    "no gradient for a fifth": (Partial, "gradients-present"),
    "pixels bent by a wave": (Shattered, "large-eps-reaches-zero"),
}
"""Fault → (what plants it in an honest net, the check that must find it)."""


def trained(folder, *options):
    """Train a net and return its checkpoint."""
    assert main([*map(str, options), "-o", str(folder)]) == 0
    return folder / "best.safetensors"


def honest(folder, seed, *options):
    return trained(folder, "train", *AT, "--seed", seed, *options)


def distilled(folder, seed):
    """Train defensive distillation's student: at temperature 20, to be tested at 1."""
    teacher = trained(folder / "teacher", "pretrain-teacher", *TEACHER, "--seed", seed)
    return trained(folder / "student", "train", *STUDENT, "--teacher", teacher, "--seed", seed)


def asked(checkpoint, limit=200, plant=None, **others):
    """Return a probe of a checkpoint's model, or of what `plant` makes of it."""
    options = {"eps": "0.15", "norm": "linf", "device": torch.device("cpu"), **others}
    found = probe(str(checkpoint), data.load("digits", "test"), limit=limit, **options)
    return dataclasses.replace(found, model=plant(found.model)) if plant else found
