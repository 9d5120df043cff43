"""Models with a planted fault of their gradients, and honest ones, trained on the digits."""

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


class Saturating(Quantised):
    """A last layer that is flat where the net is sure."""

    def forward(self, x):
        return 30 * torch.tanh(5 * self.model(x))


FAULTS = {
    "logits x 10^4": (lambda net: Tempered(net, 1e-4), "logit-scale"),
    "quantised input": (Quantised, "gradients-present"),
    "random forward": (Noisy, "deterministic-forward"),
    "saturating layer": (Saturating, "gradients-present"),
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
