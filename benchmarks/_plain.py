"""Adversarial training as the papers' repositories write it: plain PyTorch, NCHW, float32.

Written from their description, without anything of advkit: the net that all contenders train, the
usual step (`loss.backward()` in the attack) and the ADR authors' (`autograd.grad` on the images,
an EMA moved tensor by tensor).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS, ALPHA, STEPS = 8 / 255, 2 / 255, 10
TAU, TRUST, DECAY = 2.5, 0.7, 0.995


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet18(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(
        self, classes: int, width: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._layer(width, width, 1)
        self.layer2 = self._layer(width, 2 * width, 2)
        self.layer3 = self._layer(2 * width, 4 * width, 2)
        self.layer4 = self._layer(4 * width, 8 * width, 2)
        self.linear = nn.Linear(8 * width, classes)

    def _layer(self, inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(Block(inputs, outputs, stride), Block(outputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1((x - self.mean) / self.std)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


class Step:
    """What both ways share: net, teacher, optimizer, ADR's labels, and the step around an attack.

    `bn` is eval or train: what the net's batch normalisation does during the attack.
    """

    def __init__(self, model: nn.Module, bn: str = "eval") -> None:
        self.model, self.bn = model.train(), bn
        self.teacher = copy.deepcopy(model).eval().requires_grad_(False)
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True
        )

    @torch.no_grad()
    def labels(self, x: Tensor, y: Tensor) -> Tensor:
        p = F.softmax(self.teacher(x) / TAU, dim=1)
        true = p.gather(1, y[:, None])
        trust = (TRUST - (p.max(1, keepdim=True).values - true)).clamp(0, 1)
        return trust * p + (1 - trust) * F.one_hot(y, p.shape[1])

    def __call__(self, x: Tensor, y: Tensor, start: Tensor) -> float:
        targets = self.labels(x, y)
        self.model.train(self.bn == "train")
        x_adv = self.attack(x, targets, start)
        self.model.train()
        loss = F.cross_entropy(self.model(x_adv), targets)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.average()
        return loss.item()

    @torch.no_grad()
    def average(self) -> None:
        theirs = self.model.state_dict()
        for name, mine in self.teacher.state_dict().items():
            if mine.is_floating_point():
                mine.copy_(DECAY * mine + (1 - DECAY) * theirs[name])

    def attack(self, x: Tensor, targets: Tensor, start: Tensor) -> Tensor:
        raise NotImplementedError


def moved(x_adv: Tensor, gradient: Tensor, x: Tensor) -> Tensor:
    x_adv = x_adv.detach() + ALPHA * gradient.sign()
    return torch.min(torch.max(x_adv, x - EPS), x + EPS).clamp(0, 1)


class Usual(Step):
    """The gradient reaches every parameter at every step of the attack, and is thrown away."""

    def attack(self, x: Tensor, targets: Tensor, start: Tensor) -> Tensor:
        x_adv = start.clone()
        for _ in range(STEPS):
            x_adv.requires_grad_(True)
            self.model.zero_grad()
            loss = F.cross_entropy(self.model(x_adv), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            assert x_adv.grad is not None
            x_adv = moved(x_adv, x_adv.grad, x)
        return x_adv


class Authors(Step):
    """The gradient is asked for the images alone, as in the code that ADR published."""

    def attack(self, x: Tensor, targets: Tensor, start: Tensor) -> Tensor:
        x_adv = start.clone()
        for _ in range(STEPS):
            x_adv.requires_grad_(True)
            loss = F.cross_entropy(self.model(x_adv), targets)
            (gradient,) = torch.autograd.grad(loss, [x_adv])
            x_adv = moved(x_adv, gradient, x)
        return x_adv
